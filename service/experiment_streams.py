"""``rjepa experiment streams``: a real scanpath over other video, by every measure that can't be flattered."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.action import Look
from model.learners import LEARNERS, config_of
from model.stream_run import run_stream
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, digest
from service.offline import Seen, scanpath_over

NAME = "streams"
KEY = ("stream", "learner", "gaze", "fixations", "shuffled", "seed", "config", "features")
JUDGED_FROM = 2000
"""Streams with fewer fixations are shown, not judged."""
LEARNERS_TOLD = ("default", "mlp", "memoryless", "frozen", "one-step", "dense", "modular-4", "long", "paper")
BY = (
    Column("stream", "stream"),
    Column("fixations", "fixations"),
    Column("learner", "learner"),
    Column("gaze", "gaze"),
    Column("shuffled", "shuffled"),
)
COLUMNS = (
    Column("skill", "skill", each=True),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("learned skill", "learned_skill"),
    Column("from", "learned_skill_low"),
    Column("rank/frozen", "rank_ratio", 2),
    Column("probe p", "probe"),
    Column("probe z", "probe_features"),
    Column("ceiling", "probe_ceiling"),
    Column("retrieval p", "retrieval"),
    Column("copy-last", "retrieval_trivial"),
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
    parser.add_argument("--scanpath", type=Path, metavar="PATH", help="studyforrest tables of events: a file or folder")
    parser.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="each one's stream, by its name")
    parser.add_argument(
        "--shots", type=Path, nargs="+", metavar="FILE", help="one more: shots of these, cut to each other"
    )
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {', '.join(LEARNERS)}")
    parser.add_argument("--no-gaze", action="store_true", help="nothing is told of where the eye goes")
    parser.add_argument("--shuffled", action="store_true", help="the same fixations in random order: nothing to find")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, SourceError, :class:`ExperimentRefused`."""
    streams = _streams(arguments)
    for name, videos in streams.items():
        seen = scanpath_over(arguments.scanpath, videos, seed=arguments.retina_seed, count=arguments.fixations)
        for learner in arguments.learners or LEARNERS_TOLD:
            for seed in arguments.seeds:
                one = Wanted(name, learner, not arguments.no_gaze, arguments.shuffled, seed)
                yield _row(one, seen, features, kept, quiet=arguments.quiet)


def _streams(arguments: argparse.Namespace) -> dict[str, Sequence[Path]]:
    unknown = sorted(set(arguments.learners or ()) - set(LEARNERS))
    if unknown:
        raise ExperimentRefused(f"no learner {unknown[0]!r}; there are {', '.join(LEARNERS)}")
    if arguments.scanpath is None or not (arguments.video or arguments.shots):
        raise ExperimentRefused("streams needs --scanpath PATH and --video FILE or --shots FILE FILE ...")
    found: dict[str, Sequence[Path]] = {file.stem: [file] for file in arguments.video or ()}
    if arguments.shots:
        found["shots"] = arguments.shots
    return found


def _row(one: Wanted, seen: Seen, features: KeptFeatures, kept: KeptRows, *, quiet: bool) -> Row:
    config = config_of(one.learner, gaze=one.gaze)
    z = features.features(config.retina, seen.patches)
    key: Row = {
        **one._asdict(),
        "fixations": len(z),
        "config": digest(config.model_dump(mode="json")),
        "features": digest([features.calibration(config.retina).digest, len(z), float(z.sum(dtype=np.float64))]),
    }
    found = kept.find(key)
    if found is None:
        order = np.arange(len(z))
        if one.shuffled:
            order = np.random.default_rng(one.seed).permutation(len(z))
        looks = _looks(seen, order) if one.gaze else [None] * len(z)
        said = f"{one.stream} {one.learner} seed {one.seed}{' shuffled' if one.shuffled else ''}"
        with tqdm(total=len(z), desc=said, unit="fixation", disable=quiet, leave=False) as bar:
            told = run_stream(config, z[order], looks, seed=one.seed, progress=bar.update)
        found = {**key, "judged": len(z) >= JUDGED_FROM, **told}
        kept.add(found)
    return found


def _looks(seen: Seen, order: NDArray[np.intp]) -> list[Look | None]:
    return [Look((float(x), float(y)), frame_deg=seen.frame_deg) for x, y in seen.gaze[order]]
