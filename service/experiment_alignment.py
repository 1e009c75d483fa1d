"""``rjepa experiment alignment``: the paper's Theorem 1, P^T P beside U U^T and the covariance of y over training."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.alignment import run as aligned
from model.alignment import settings
from model.worlds import make_world
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest

NAME = "alignment"
KEY = ("setting", "back", "fixations", "seed", "config", "calibration")
FIXATIONS = 15_000
BY = (Column("k", "back"), Column("fixations", "fixations"), Column("what learns", "text"))
COLUMNS = (
    SEEDS,
    Column("with the covariance of y", "last_balance", each=True),
    Column("with U U^T", "last_balance_u", each=True),
    Column("apart / start", "last_apart", 4),
    Column("the law says", "last_law", 4),
    Column("rank", "last_rank", 1),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``alignment`` alone is told."""
    parser.add_argument("--back", type=int, default=1, metavar="K", help="the k of the world (1)")
    parser.add_argument("--settings", nargs="+", metavar="NAME", help=f"which of {'; '.join(settings())}")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, :class:`ExperimentRefused`."""
    known = settings()
    unknown = sorted(set(arguments.settings or ()) - set(known))
    if unknown:
        raise ExperimentRefused(f"no setting {unknown[0]!r}; there are {'; '.join(known)}")
    for name in arguments.settings or known:
        for seed in arguments.seeds:
            yield _row(name, seed, arguments, features, kept)


def _row(name: str, seed: int, arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Row:
    setting, count = settings()[name], arguments.fixations or FIXATIONS
    key: Row = {
        "setting": name,
        "back": arguments.back,
        "fixations": count,
        "seed": seed,
        "config": digest([setting.config.model_dump(mode="json"), setting.weight_decay]),
        "calibration": features.calibration(setting.config.retina).digest[:12],
    }
    found = kept.find(key)
    if found is None:
        world = make_world(features.reader(setting.config.retina), arguments.back, count, seed=seed)
        with tqdm(
            total=count, desc=f"{name} seed {seed}", unit="fixation", disable=arguments.quiet, leave=False
        ) as bar:
            told = aligned(setting, world, seed=seed, progress=bar.update)
        found = {**key, "text": setting.text, **told}
        kept.add(found)
    return found
