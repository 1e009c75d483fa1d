"""Patches to calibrate on, from a lab's own videos or pictures instead of synthetic ones.

The one file of the service that may read the sources of clients/.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from clients.patches import NoPatch, cut
from clients.units import MAX_DEG, FrameSize
from service.errors import CalibrationSourceError

PATCHES = 2000
FRAMES_PER_FILE = 200
SEEK_FRAMES = 500
"""Nearer frames than this are reached by decoding on, farther ones by seeking."""
FRAME_WIDTH_DEG = 30.0
"""How wide a frame is taken to be: a bare video does not say."""
PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".mjpeg", ".wmv"}

log = logging.getLogger("rjepa.calibrate")


def calibration_patches(path: Path, *, seed: int, count: int = PATCHES) -> NDArray[np.uint8]:
    """``count`` patches, uint8 (count, 50, 50, 3) RGB, from random places of the videos and pictures under ``path``.

    A frame is taken to be 30 degrees wide. The same files and seed give the
    same patches. Raises :class:`CalibrationSourceError` where nothing can be read.
    """
    files = _files(path)
    generator = np.random.default_rng(seed)
    wanted = -(-count // len(files))
    patches: list[NDArray[np.uint8]] = []
    unreadable: list[str] = []
    for file in files:
        frames = list(_frames(file, generator, min(wanted, FRAMES_PER_FILE)))
        if not frames:
            unreadable.append(file.name)
        for number in range(wanted if frames else 0):
            patch = _patch(frames[number % len(frames)], generator)
            if patch is not None:
                patches.append(patch)
    if unreadable:
        log.warning("%d of %d files could not be read: %s", len(unreadable), len(files), ", ".join(unreadable[:5]))
    if not patches:
        raise CalibrationSourceError(
            f"--calibrate {path}: nothing can be seen in any of its {len(files)} files; name videos or pictures"
        )
    while len(patches) < count:
        patches.append(patches[int(generator.integers(len(patches)))])
    log.info(
        "calibrating on %d patches of %d files under %s, taking a frame to be %g degrees wide",
        count, len(files) - len(unreadable), path, FRAME_WIDTH_DEG,
    )  # fmt: skip
    chosen = generator.permutation(len(patches))[:count]
    return np.stack([patches[number] for number in chosen])


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise CalibrationSourceError(f"--calibrate {path}: no such file or folder; say synthetic or name another one")
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES | VIDEOS and file.is_file())
    if not found:
        known = " ".join(sorted(PICTURES | VIDEOS))
        raise CalibrationSourceError(f"--calibrate {path}: no video or picture in this folder (looked for {known})")
    return found


def _frames(file: Path, generator: np.random.Generator, count: int) -> Iterator[NDArray[np.uint8]]:
    """Up to ``count`` frames, BGR uint8; of a video those at random times."""
    if file.suffix.lower() in PICTURES:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is not None:
            yield np.asarray(picture, dtype=np.uint8)
        return
    video = cv2.VideoCapture(str(file))
    try:
        length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        chosen = generator.choice(length, min(count, length), replace=False).tolist() if length > 0 else []
        now = 0
        for at in sorted(chosen):
            if at - now > SEEK_FRAMES:
                video.set(cv2.CAP_PROP_POS_FRAMES, at)
                now = at
            while now < at and video.grab():
                now += 1
            read, frame = video.read()
            now += 1
            if read:
                yield np.asarray(frame, dtype=np.uint8)
    finally:
        video.release()


def _patch(frame: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8] | None:
    """A patch at a random place, cut as the clients cut theirs; None where it shows nothing."""
    height, width = frame.shape[:2]
    size = FrameSize(FRAME_WIDTH_DEG, min(MAX_DEG, FRAME_WIDTH_DEG * height / width))
    x, y = generator.uniform(0.0, 1.0, 2).tolist()
    try:
        return cut(frame, x, y, size).rgb
    except NoPatch:
        return None
