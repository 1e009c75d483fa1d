"""``rjepa experiment world``: what learners find of what is planted, and a picture of what that is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from model import worlds
from model.experiments import PlantedRun
from model.learners import LEARNERS, WITHOUT_GAZE, config_of
from model.worlds import make_world
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.experiment_sources import known_learners

NAME = "world"
KEY = ("learner", "back", "fixations", "shuffled", "seed", "config", "calibration")
_DEFAULT_AND_CONTROLS = ("default", "one-step", "frozen")
_ALL = WITHOUT_GAZE
_LONG = (*_DEFAULT_AND_CONTROLS, "tight", "long", "long-one-step", "long-frozen")
PLAN: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (1, 12_000, (*_DEFAULT_AND_CONTROLS, "memoryless")),
    (2, 12_000, _ALL),
    (5, 12_000, _ALL),
    (5, 40_000, _LONG),
    (10, 40_000, _LONG),
)
"""k, fixations and learners where nothing else is asked for."""
BY = (Column("k", "back"), Column("fixations", "fixations"), Column("stream", "stream"), Column("learner", "learner"))
COLUMNS = (
    SEEDS,
    Column("share of the optimum", "share", each=True),
    Column("of the frozen target", "share_frozen"),
    Column("skill", "skill"),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("rank", "effective_rank", 1),
    Column("largest state", "largest_state", 1),
    Column("ms a fixation", "ms_per_fixation", 2),
)


class Wanted(NamedTuple):
    """One run."""

    back: int
    fixations: int
    learner: str
    shuffled: bool
    seed: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``world`` alone is told."""
    parser.add_argument("--back", type=int, nargs="+", metavar="K", help="which k (without it: 1 2 5 10)")
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {', '.join(LEARNERS)}")
    parser.add_argument("--shuffled", action="store_true", help="the same fixations in random order: nothing to find")
    parser.add_argument(
        "--show", type=Path, metavar="FILE.png", help="a picture of the world of the first seed, no run"
    )


def wanted(arguments: argparse.Namespace) -> list[Wanted]:
    """The runs that are asked for, in the order of the table. Raises :class:`ExperimentRefused`."""
    backs = arguments.back or sorted({back for back, _, _ in PLAN})
    plan = [entry for entry in PLAN if entry[0] in backs and arguments.fixations in (None, entry[1])]
    planned = {back for back, _, _ in plan}
    length = arguments.fixations or 12_000
    plan += [(back, length, _DEFAULT_AND_CONTROLS) for back in backs if back not in planned]
    return [
        Wanted(back, fixations, learner, arguments.shuffled, seed)
        for back, fixations, learners in plan
        for learner in known_learners(arguments.learners, learners)
        for seed in arguments.seeds
    ]


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, :class:`ExperimentRefused`."""
    for one in wanted(arguments):
        config = config_of(one.learner, gaze=False)
        calibration = features.calibration(config.retina)
        key: Row = {
            "learner": one.learner,
            "back": one.back,
            "fixations": one.fixations,
            "shuffled": one.shuffled,
            "seed": one.seed,
            "config": digest(config.model_dump(mode="json")),
            "calibration": calibration.digest[:12],
        }
        found = kept.find(key)
        if found is None:
            world = make_world(features.reader(config.retina), one.back, one.fixations, seed=one.seed)
            world = world.shuffled(one.seed) if one.shuffled else world
            bar = tqdm(total=one.fixations, desc=_said(one), unit="fixation", disable=arguments.quiet, leave=False)
            with bar:
                told = PlantedRun(config, world, seed=one.seed).run(bar.update)
            found = {**key, "stream": "shuffled" if one.shuffled else "planted", **told}
            kept.add(found)
        yield found


def _said(one: Wanted) -> str:
    return f"k={one.back} {one.learner} seed {one.seed}{' shuffled' if one.shuffled else ''}"


def show(path: Path, *, seed: int, back: int) -> None:
    """Write a picture of the world to ``path``. Raises :class:`ExperimentRefused` where that fails."""
    picture = worlds.picture(seed, worlds.walk(back, 48, seed=seed))
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise ExperimentRefused(f"no picture could be made for {path}")
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise ExperimentRefused(f"{path} can't be written ({error}): name another file") from None
