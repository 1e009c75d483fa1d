"""What an experiment looks at: a real scanpath over video, the demo's observer, or a planted world.

A source gives features and gaze for a retina and a seed; nothing is read before it is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from model.config import RetinaConfig
from model.learners import LEARNERS
from model.worlds import make_world
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import digest
from service.offline import Seen, demo_video, observed, scanpath_over

FIXATIONS = 12_000
"""Of the demo's stream and of a planted world, where nothing else is asked for."""
Features = NDArray[np.float32]


class Source(Protocol):
    """One stream."""

    name: str
    gaze: bool
    """Whether it is known where the eye goes."""

    def features(self, kept: KeptFeatures, retina: RetinaConfig, seed: int) -> Features:
        """z of every fixation, (T, m)."""
        ...

    def looks(self, count: int) -> list[Look | None]:
        """Where the eye was, of the first ``count``."""
        ...


class Recorded:
    """Fixations with patches; the same for every seed. ``see`` reads them when they are first asked for."""

    def __init__(self, name: str, see: Callable[[], Seen]) -> None:
        self.name = name
        self.gaze = True
        self._see = see

    @cached_property
    def seen(self) -> Seen:
        """The fixations. Raises SourceError."""
        return self._see()

    def features(self, kept: KeptFeatures, retina: RetinaConfig, seed: int) -> Features:
        """See :class:`Source`."""
        return kept.features(retina, self.seen.patches)

    def looks(self, count: int) -> list[Look | None]:
        """See :class:`Source`."""
        return [Look((float(x), float(y)), frame_deg=self.seen.frame_deg) for x, y in self.seen.gaze[:count]]


class Planted:
    """A planted world of each seed; no gaze is told."""

    def __init__(self, back: int, fixations: int) -> None:
        self.name = f"planted k={back}"
        self.gaze = False
        self._back = back
        self._fixations = fixations

    def features(self, kept: KeptFeatures, retina: RetinaConfig, seed: int) -> Features:
        """See :class:`Source`."""
        return make_world(kept.reader(retina), self._back, self._fixations, seed=seed).features

    def looks(self, count: int) -> list[Look | None]:
        """None."""
        return [None] * count


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which streams."""
    add_recorded(parser)
    parser.add_argument("--planted", type=int, nargs="+", metavar="K", help="one more for each k: a planted world")


def add_recorded(parser: argparse.ArgumentParser) -> None:
    """Which streams with patches."""

    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--scanpath", type=Path, metavar="PATH", help="studyforrest tables of events: a file or folder")
    option("--video", type=Path, nargs="+", metavar="FILE", help="each one's stream, by its name")
    option("--shots", type=Path, nargs="+", metavar="FILE", help="one more: shots of these, cut to each other")
    option("--demo", action="store_true", help="one more: the demo's simulated observer over its sample video")


def watched(arguments: argparse.Namespace) -> list[tuple[str, Sequence[Path]]]:
    """Each stream's name and what its scanpath is laid over. Raises :class:`ExperimentRefused`."""
    if (arguments.video or arguments.shots) and arguments.scanpath is None:
        raise ExperimentRefused("--video and --shots need --scanpath PATH: whose eye looks at them?")
    found: list[tuple[str, Sequence[Path]]] = [(file.stem, [file]) for file in arguments.video or ()]
    return [*found, ("shots", arguments.shots)] if arguments.shots else found


def sources(arguments: argparse.Namespace) -> list[Source]:
    """The streams that are asked for, planted ones first. Raises :class:`ExperimentRefused`."""
    count, seed = arguments.fixations, arguments.retina_seed
    found: list[Source] = [Planted(back, count or FIXATIONS) for back in arguments.planted or ()]
    for name, videos in watched(arguments):
        found.append(over(name, arguments.scanpath, videos, seed=seed, count=count))
    if arguments.demo:
        found.append(demo(count or FIXATIONS, seed=seed))
    return found or no_stream(arguments.name, "--demo", "--planted K")


def no_stream(experiment: str, *others: str) -> NoReturn:
    """Raises :class:`ExperimentRefused`: nothing to look at was named."""
    ways = ["--scanpath PATH and --video FILE or --shots FILE FILE ...", *others]
    raise ExperimentRefused(f"{experiment} needs a stream: {', or '.join(ways)}")


def over(
    name: str, scanpath: Path, videos: Sequence[Path], *, seed: int, count: int | None, first: int = 0
) -> Recorded:
    """A scanpath over videos, as :func:`~service.offline.scanpath_over` has it."""
    return Recorded(name, lambda: scanpath_over(scanpath, videos, seed=seed, first=first, count=count))


def demo(count: int, *, seed: int) -> Recorded:
    """The demo's observer over its sample video."""
    return Recorded("demo", lambda: observed(demo_video(), count, seed=seed))


def known_learners(names: Sequence[str] | None, otherwise: Sequence[str]) -> Sequence[str]:
    """``names``, or what is taken otherwise. Raises :class:`ExperimentRefused` for a name there is not."""
    unknown = sorted(set(names or ()) - set(LEARNERS))
    if unknown:
        raise ExperimentRefused(f"no learner {unknown[0]!r}; there are {', '.join(LEARNERS)}")
    return names or otherwise


def told_features(kept: KeptFeatures, retina: RetinaConfig, z: Features) -> str:
    """A short name of ``z``: of the calibration it was seen with, and of what was seen."""
    return digest([kept.calibration(retina).digest, len(z), float(z.sum(dtype=np.float64))])
