"""``rjepa experiment scenes``: still scenes under a real scanpath, where what was seen before is worth something."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.action import Look
from model.learners import LEARNERS, config_of
from model.scene_run import SceneStream, curve, differences, run_scenes
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.scenes import LENGTH, Scenes, scenes_under

NAME = "scenes"
KEY = ("learner", "seed", "fixations", "scenes", "config", "features")
SCENES = 220
"""How many where ``--fixations`` does not say."""
JUDGED_FROM = 200
"""Fewer scenes are shown, not judged."""
CONTROLS = {
    "still-wrong-places": ("still", "wrong places"),
    "still-shuffled": ("still", "shuffled"),
    "plain-shuffled": ("plain", "shuffled"),
}
"""Learners on a stream that is not as it was: which, and what is wrong with it."""
TOLD = (
    "still", "default", "still-memoryless", "still-one-step", "still-frozen", "still-wrong-places", "still-shuffled",
    "still-tight", "no-place", "action", "action-memoryless",
    "plain", "plain-one-step", "plain-memoryless", "plain-frozen", "plain-shuffled",
)  # fmt: skip
UNTRAINED = "plain-frozen"
"""Whose error by position the others' are held against."""
PAIRS = (
    ("still", "default"),
    ("still", "still-memoryless"),
    ("still", "still-one-step"),
    ("still", "still-frozen"),
    ("still", "still-wrong-places"),
    ("still-wrong-places", "no-place"),
    ("plain", "plain-memoryless"),
    ("plain", "plain-one-step"),
    ("plain", "plain-frozen"),
)
"""Whose differences are told, scene by scene, where both are run."""
BY = (Column("learner", "learner"), Column("scenes", "scenes"))
COLUMNS = (
    SEEDS,
    Column("skill_ar1", "skill_ar1", each=True),
    Column("from", "skill_ar1_low"),
    Column("to", "skill_ar1_high"),
    Column("vs scene", "skill"),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("41-99 / 1-5", "curve"),
    Column("from", "curve_low"),
    Column("to", "curve_high"),
    Column("(of the start)", "curve_start"),
    Column("returns", "returns"),
    Column("from", "returns_low"),
    Column("to", "returns_high"),
    Column("rank/frozen", "rank_ratio", 2),
    Column("probe p", "probe"),
    Column("probe z", "probe_features"),
    Column("retrieval p", "retrieval"),
    Column("copy-last", "retrieval_trivial"),
    Column("largest state", "largest_state", 1),
    Column("ms a fixation", "ms_per_fixation", 2),
)


class _Wanted(NamedTuple):
    """One run."""

    name: str
    learner: str
    control: str | None
    seed: int


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``scenes`` alone is told."""
    parser.add_argument("--scanpath", type=Path, metavar="PATH", help="studyforrest tables of events: a file or folder")
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=[], metavar="FILE", help="scenes are cut from these"
    )
    parser.add_argument("--video", type=Path, nargs="+", default=[], metavar="FILE", help="and from frames of these")
    names = ", ".join((*CONTROLS, *LEARNERS))
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {names}")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished. Raises ModelError, SourceError, :class:`ExperimentRefused`."""
    names = arguments.learners or TOLD
    unknown = sorted(set(names) - set(LEARNERS) - set(CONTROLS))
    if unknown:
        raise ExperimentRefused(f"no learner {unknown[0]!r}; there are {', '.join((*CONTROLS, *LEARNERS))}")
    files = [*arguments.pictures, *arguments.video]
    if arguments.scanpath is None or not files:
        raise ExperimentRefused("scenes needs --scanpath PATH and --pictures FILE ... or --video FILE ...")
    count = SCENES if arguments.fixations is None else max(2, arguments.fixations // LENGTH)
    scenes = scenes_under(arguments.scanpath, files, seed=arguments.retina_seed, count=count, quiet=arguments.quiet)
    runs = _Runs(scenes, features, kept, folder=arguments.cache, quiet=arguments.quiet)
    for name in names:
        for seed in arguments.seeds:
            yield runs.row(_wanted(name, seed))
    for first, second in PAIRS:
        for seed in arguments.seeds if first in names and second in names else ():
            yield runs.difference(_wanted(first, seed), _wanted(second, seed))


def _wanted(name: str, seed: int) -> _Wanted:
    learner, control = CONTROLS.get(name, (name, None))
    return _Wanted(name, learner, control, seed)


class _Runs:
    """The runs on one stream of scenes. ``folder`` keeps each one's sums by scene, from which differences are made."""

    def __init__(self, scenes: Scenes, features: KeptFeatures, kept: KeptRows, *, folder: Path, quiet: bool) -> None:
        self._scenes = scenes
        self._features = features
        self._kept = kept
        self._folder = folder
        self._quiet = quiet
        self._looks = [Look((float(x), float(y)), frame_deg=scenes.seen.frame_deg) for x, y in scenes.seen.gaze]
        self._streams: dict[str, tuple[SceneStream, str]] = {}

    def row(self, one: _Wanted) -> Row:
        """Found, or made and kept."""
        found = self._kept.find(self._key(one))
        return self._made(one)[0] if found is None else found

    def difference(self, one: _Wanted, other: _Wanted) -> Row:
        """Of two learners with one seed: found, or made from both runs' sums."""
        keys = self._key(one), self._key(other)
        config = digest([key["config"] for key in keys])
        key: Row = {**keys[0], "learner": f"{one.name} less {other.name}", "config": config}
        found = self._kept.find(key)
        if found is None:
            found = {**key, **differences(self._sums(one), self._sums(other))}
            self._kept.add(found)
        return found

    def _key(self, one: _Wanted) -> Row:
        config = config_of(one.learner)
        return {
            "learner": one.name,
            "seed": one.seed,
            "fixations": len(self._scenes.scene),
            "scenes": self._scenes.count,
            "config": digest(config.model_dump(mode="json")),
            "features": self._stream(one)[1],
        }

    def _stream(self, one: _Wanted) -> tuple[SceneStream, str]:
        """The scenes as this learner's retina sees them, and what they are known by."""
        retina = config_of(one.learner).retina
        name = digest(retina.model_dump(mode="json"))
        if name not in self._streams:
            z = self._features.features(retina, self._scenes.seen.patches)
            known = [self._features.calibration(retina).digest, len(z), float(z.sum(dtype=np.float64))]
            self._streams[name] = SceneStream(z, self._looks, self._scenes.scene), digest(known)
        return self._streams[name]

    def _sums(self, one: _Wanted) -> Tensor:
        path = self._path(one)
        if self._kept.find(self._key(one)) is not None and path.exists():
            return torch.from_numpy(np.load(path, allow_pickle=False))
        return self._made(one)[1]

    def _path(self, one: _Wanted) -> Path:
        return self._folder / f"scenes-{digest(self._key(one))}.npy"

    def _made(self, one: _Wanted) -> tuple[Row, Tensor]:
        """Run, kept, with its sums."""
        stream = self._stream(one)[0]
        written_at = stream.displaced(one.seed) if one.control == "wrong places" else None
        if one.control == "shuffled":
            stream = stream.shuffled(one.seed)
        config, said = config_of(one.learner), f"{one.name} seed {one.seed}"
        with tqdm(total=len(stream.scene), desc=said, unit="fixation", disable=self._quiet, leave=False) as bar:
            done = run_scenes(config, stream, seed=one.seed, written_at=written_at, progress=bar.update)
        row = {**self._key(one), "files": self._scenes.files, "judged": self._scenes.count >= JUDGED_FROM, **done.told}
        if one.control != "shuffled":
            untrained = done.sums if one.name == UNTRAINED else self._sums(_wanted(UNTRAINED, one.seed))
            row |= curve(done.sums, untrained)
        self._folder.mkdir(parents=True, exist_ok=True)
        np.save(self._path(one), done.sums.numpy(), allow_pickle=False)
        self._kept.add(row)
        return row, done.sums
