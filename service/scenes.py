"""Still scenes under a real scanpath: crops of pictures and of videos' frames, each looked at for 100 fixations.

A crop has the shape of the frame the gaze was recorded in and is taken to fill it, so the gaze is the same fraction of
the crop as it was of the frame. Every file gives as many crops as any other, at moments spread evenly over its length,
0.4 to 1 times as wide as fits, at random places; of 20 of these the one that least overlaps those already taken of the
same file is taken, whatever their moments, and one that is blank (in more than two of ten parts, each of a patch's
size, brightness hardly differs: an empty sky) only where all are. Crops of one file still show one place or one film:
scenes are not as many independent pictures. Their order is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.errors import CalibrationSourceError
from service.offline import Seen, cut_or_none, frames_at, stretches

_Pixel = TypeVar("_Pixel", np.uint8, np.float64)

LENGTH = 100
"""Fixations of a scene."""
SCALES = (0.4, 1.0)
"""Widths of crops, of the widest that fits: the least and the most."""
_TRIED = 20
_BLANK_PARTS = 2
"""A crop with more blank parts (of ten) is blank."""
_BLANK_BELOW = 10.0
"""Standard deviation of brightness in a blank part."""


class Crop(NamedTuple):
    """A part of a frame, as fractions of the frame's width and height."""

    left: float
    top: float
    width: float
    height: float

    def overlap(self, other: Crop) -> float:
        """The area of both over the area of either."""
        across = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        down = min(self.top + self.height, other.top + other.height) - max(self.top, other.top)
        both = max(across, 0.0) * max(down, 0.0)
        return both / (self.width * self.height + other.width * other.height - both)

    def of(self, frame: NDArray[_Pixel]) -> NDArray[_Pixel]:
        """The part itself, to whole pixels."""
        height, width = frame.shape[:2]
        left, top = round(self.left * width), round(self.top * height)
        right, bottom = round((self.left + self.width) * width), round((self.top + self.height) * height)
        return frame[top : max(bottom, top + 1), left : max(right, left + 1)]


@dataclass(frozen=True)
class Scenes:
    """N fixations in order, scene after scene."""

    seen: Seen
    scene: NDArray[np.int64]
    """(N,): which scene, from 0."""
    files: int
    """Files the scenes were cut from."""

    @property
    def count(self) -> int:
        """How many scenes."""
        return int(self.scene[-1]) + 1


def scenes_under(
    scanpath: Path, files: Sequence[Path], *, seed: int, count: int, quiet: bool = False, length: int = LENGTH
) -> Scenes:
    """``count`` scenes of ``length`` fixations, cut from pictures and videos; the same files and seed, the same scenes.

    Fixations that show nothing (black) are left out, and scenes of nothing else. Raises SourceError or
    :class:`CalibrationSourceError` where a file can't be read or there are too few fixations.
    """
    looked, frame_size = stretches(scanpath, length, count)
    random = np.random.default_rng(seed)
    file_of = random.permutation(np.arange(count) % len(files))
    shape = frame_size.width_deg / frame_size.height_deg
    patches: list[list[NDArray[np.uint8]]] = [[] for _ in range(count)]
    gaze: list[list[tuple[float, float]]] = [[] for _ in range(count)]
    with tqdm(total=count, desc="cutting scenes", unit="scene", disable=quiet, leave=False) as bar:
        for number, file in enumerate(files):
            own = random.permutation(np.flatnonzero(file_of == number))
            crops: list[Crop] = []
            moments = (np.arange(len(own)) + random.uniform(0.0, 1.0, len(own))) / max(len(own), 1)
            for scene, frame in zip(own.tolist(), frames_at(file, moments.tolist()), strict=True):
                crops.append(_crop(frame, shape, crops, random))
                picture = crops[-1].of(frame)
                for x, y in looked[scene].tolist():
                    patch = cut_or_none(picture, x, y, frame_size)
                    if patch is not None:
                        patches[scene].append(patch)
                        gaze[scene].append((x, y))
                bar.update()
    if not any(patches):
        raise CalibrationSourceError(f"{scanpath} over {', '.join(map(str, files))}: no fixation shows anything")
    lengths = [len(own) for own in patches if own]
    scene_of = np.repeat(np.arange(len(lengths)), lengths)
    seen = Seen(
        np.stack([patch for own in patches for patch in own]),
        np.asarray([place for own in gaze for place in own], np.float64),
        (frame_size.width_deg, frame_size.height_deg),
    )
    return Scenes(seen, scene_of, len(files))


def _crop(frame: NDArray[np.uint8], shape: float, taken: Sequence[Crop], random: np.random.Generator) -> Crop:
    """A crop of this ``shape`` (width over height) that overlaps the ``taken`` ones little."""
    height, width = frame.shape[:2]
    widest = min(1.0, shape * height / width)
    tried: list[Crop] = []
    for _ in range(_TRIED):
        across = widest * float(random.uniform(*SCALES))
        down = across * width / (shape * height)
        tried.append(Crop(float(random.uniform(0, 1 - across)), float(random.uniform(0, 1 - down)), across, down))
    grey = frame.mean(axis=2)
    overlaps = [max((crop.overlap(other) for other in taken), default=0.0) for crop in tried]
    blanks = [blank_parts(crop.of(grey)) for crop in tried]
    return tried[min(range(_TRIED), key=lambda one: (max(blanks[one] - _BLANK_PARTS, 0), overlaps[one]))]


def blank_parts(grey: NDArray[np.float64]) -> int:
    """How many of ten parts (5 across, 2 down) of ``grey`` (0 to 255) hardly differ within."""
    parts = [part for half in np.array_split(grey, 2, axis=0) for part in np.array_split(half, 5, axis=1)]
    return sum(float(part.std()) < _BLANK_BELOW for part in parts)
