"""``rjepa experiment streams``: scanpaths, the demo and planted worlds, by every measure that can't be flattered."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from model.learners import LEARNERS, config_of
from model.stream_run import run_stream
from service import experiment_sources
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.experiment_sources import Source, known_learners, sources, told_features

NAME = "streams"
KEY = ("stream", "learner", "gaze", "fixations", "shuffled", "seed", "config", "features")
JUDGED_FROM = 2000
"""Streams with fewer fixations are shown, not judged."""
LEARNERS_TOLD = ("default", "mlp", "memoryless", "frozen", "one-step", "dense", "modular-4", "long", "paper")
SHUFFLED_HELP = "what is seen in random order, gaze as it was: nothing to find"
"""Were gaze shuffled with it, a camera that stands still would leave something: what is where."""
BY = (
    Column("stream", "stream"),
    Column("fixations", "fixations"),
    Column("learner", "learner"),
    Column("gaze", "gaze"),
    Column("shuffled", "shuffled"),
)
COLUMNS = (
    SEEDS,
    Column("skill", "skill", each=True),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("against AR(1)", "skill_ar1"),
    Column("own skill", "own_skill"),
    Column("learned skill", "learned_skill"),
    Column("from", "learned_skill_low"),
    Column("to", "learned_skill_high"),
    Column("rank", "effective_rank", 1),
    Column("rank/frozen", "rank_ratio", 2),
    Column("probe p", "probe"),
    Column("probe z", "probe_features"),
    Column("ceiling", "probe_ceiling"),
    Column("retrieval p", "retrieval"),
    Column("copy-last", "retrieval_trivial"),
    Column("balance", "balance", 2),
    Column("largest state", "largest_state_ever", 1),
    Column("live cosine", "live_cosine", 4),
    Column("ms a fixation", "ms_per_fixation", 2),
)


class Wanted(NamedTuple):
    """One run."""

    stream: str
    learner: str
    gaze: bool
    shuffled: bool
    seed: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``streams`` alone is told."""
    experiment_sources.add_options(parser)
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {', '.join(LEARNERS)}")
    parser.add_argument("--no-gaze", action="store_true", help="nothing is told of where the eye goes")
    parser.add_argument("--shuffled", action="store_true", help=SHUFFLED_HELP)
    parser.add_argument(
        "--lean", action="store_true", help="skill, rank and state alone; a later run without it fills in the rest"
    )


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, SourceError, :class:`ExperimentRefused`."""
    plan = [(name, arguments.shuffled) for name in known_learners(arguments.learners, LEARNERS_TOLD)]
    if arguments.learners is None and not arguments.shuffled:
        plan.append(("default", True))
    for source in sources(arguments):
        for learner, shuffled in plan:
            for seed in arguments.seeds:
                one = Wanted(source.name, learner, source.gaze and not arguments.no_gaze, shuffled, seed)
                yield _row(one, source, features, kept, lean=arguments.lean, quiet=arguments.quiet)


def _row(one: Wanted, source: Source, features: KeptFeatures, kept: KeptRows, *, lean: bool, quiet: bool) -> Row:
    config = config_of(one.learner, gaze=one.gaze)
    z = source.features(features, config.retina, one.seed)
    key: Row = {
        **one._asdict(),
        "fixations": len(z),
        "config": digest(config.model_dump(mode="json")),
        "features": told_features(features, config.retina, z),
    }
    found = kept.find(key)
    if found is None or (found.get("lean", False) and not lean):
        order = np.arange(len(z))
        if one.shuffled:
            order = np.random.default_rng(one.seed).permutation(len(z))
        looks = source.looks(len(z)) if one.gaze else [None] * len(z)
        said = f"{one.stream} {one.learner} seed {one.seed}{' shuffled' if one.shuffled else ''}"
        with tqdm(total=len(z), desc=said, unit="fixation", disable=quiet, leave=False) as bar:
            told = run_stream(config, z[order], looks, seed=one.seed, lean=lean, progress=bar.update)
        found = {**key, "judged": len(z) >= JUDGED_FROM, **told}
        kept.add(found)
    return found
