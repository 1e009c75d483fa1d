"""``rjepa experiment collapse``: settings that collapse or learn nothing, and what a lab would be told of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.collapse import run as watched
from model.collapse import settings
from service import experiment_sources
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.experiment_sources import Source, sources, told_features

NAME = "collapse"
KEY = ("stream", "setting", "fixations", "seed", "config", "features")
FIXATIONS = 4000
BY = (
    Column("stream", "stream"),
    Column("fixations", "fixations"),
    Column("what learns", "text"),
    Column("must be told", "wrong"),
)
COLUMNS = (
    SEEDS,
    Column("loss, first quarter", "loss_first"),
    Column("last", "loss_last"),
    Column("rank", "effective_rank", 1),
    Column("frozen", "effective_rank_frozen", 1),
    Column("skill", "skill"),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("own skill", "own_skill"),
    Column("largest state", "largest_state", 1),
    Column("the word", "word"),
    Column("first alarm", "first"),
    Column("told at", "told_at", 0, each=True),
    Column("by 2,000", "told"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``collapse`` alone is told."""
    experiment_sources.add_options(parser)
    names = list(settings(gaze=False))
    parser.add_argument("--settings", nargs="+", metavar="NAME", help=f"which of {'; '.join(names)}")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, SourceError, :class:`ExperimentRefused`."""
    known = list(settings(gaze=False))
    unknown = sorted(set(arguments.settings or ()) - set(known))
    if unknown:
        raise ExperimentRefused(f"no setting {unknown[0]!r}; there are {'; '.join(known)}")
    arguments.fixations = arguments.fixations or FIXATIONS
    for source in sources(arguments):
        for name in arguments.settings or known:
            for seed in arguments.seeds:
                yield _row(name, source, seed, features, kept, quiet=arguments.quiet)


def _row(name: str, source: Source, seed: int, features: KeptFeatures, kept: KeptRows, *, quiet: bool) -> Row:
    setting = settings(gaze=source.gaze)[name]
    z = source.features(features, setting.config.retina, seed)
    key: Row = {
        "stream": source.name,
        "setting": name,
        "fixations": len(z),
        "seed": seed,
        "config": digest([setting.config.model_dump(mode="json"), setting.weight_decay]),
        "features": told_features(features, setting.config.retina, z),
    }
    found = kept.find(key)
    if found is None:
        said = f"{source.name}: {name}, seed {seed}"
        with tqdm(total=len(z), desc=said, unit="fixation", disable=quiet, leave=False) as bar:
            told = watched(setting, z, source.looks(len(z)), seed=seed, progress=bar.update)
        found = {**key, "text": setting.text, "wrong": setting.wrong, **told}
        kept.add(found)
    return found
