"""``rjepa experiment learning``: the paper's Figure 4 on a planted world, forward propagation beside BPTT."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.figure_four import METHODS, SEQUENCE, beside, config_of
from model.figure_four import run as figure
from model.worlds import make_world
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest

NAME = "learning"
KEY = ("method", "back", "fixations", "seed", "config", "calibration")
FIXATIONS = 40_000
BY = (Column("k", "back"), Column("fixations", "fixations"), Column("gradient", "method"))
COLUMNS = (
    SEEDS,
    *(Column(f"{position}", f"error_{position}", 2) for position in range(1, SEQUENCE)),
    Column("from k on / before", "from_k"),
    Column("error / BPTT's", "over_bptt", each=True),
    Column("most off at a position", "most_off", 4),
    Column("s", "took_s", 0),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``learning`` alone is told."""
    parser.add_argument("--back", type=int, default=5, metavar="K", help="the k of the world (5)")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished."""
    fixations = arguments.fixations or FIXATIONS
    truth: dict[int, Row] = {}
    for method in METHODS:
        for seed in arguments.seeds:
            key: Row = {
                "method": method,
                "back": arguments.back,
                "fixations": fixations,
                "seed": seed,
                "config": digest(config_of(method).model_dump(mode="json")),
                "calibration": features.calibration(config_of(method).retina).digest[:12],
            }
            found = kept.find(key)
            if found is None or "error" not in found:
                found = {**key, **_run(key, features, quiet=arguments.quiet)}
            truth.setdefault(seed, found)
            if "over_bptt" not in found:
                found = {**found, **beside(found, truth[seed])}
                kept.add(found)
            yield found


def _run(key: Row, features: KeptFeatures, *, quiet: bool) -> Row:
    config, seed = config_of(key["method"]), key["seed"]
    world = make_world(
        features.reader(config.retina), key["back"], key["fixations"], seed=seed, sequence_length=SEQUENCE
    )
    said = f"{key['method']} seed {seed}"
    with tqdm(total=len(world), desc=said, unit="fixation", disable=quiet, leave=False) as bar:
        return figure(config, key["method"], world, seed=seed, progress=bar.update)
