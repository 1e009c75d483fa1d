"""A Neon recording as the Companion app wrote it: a folder of raw files, as pupil-labs-neon-recording reads it.

``gaze psN.raw`` (or gaze_200hz.raw, computed afterwards, which goes first): float32 x, y in px of the scene camera
(1600 x 1200), origin top left; the times in a file of the same name ending in .time: uint64 ns UTC. ``worn psN.raw``:
a byte a sample, 0 where the glasses were off. ``fixations psN.raw``: events of 56 bytes. ``Neon Scene Camera v1
psN.mp4`` and its .time. calibration.bin: the camera's matrix. All little-endian; a NAME.dtype tells another layout.
"""

from __future__ import annotations

import json
import re
from ast import literal_eval
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.recorded import SCENE_CAMERA, Asked, Format, OwnVideo, Recorded
from clients.told import placed
from clients.units import FrameSize, from_camera

SCENE_PX = (1600, 1200)
CAMERA = "Neon Scene Camera v1"
COMPUTED = "gaze_200hz"
POINT = np.dtype([("x", "<f4"), ("y", "<f4")])
EVENT = np.dtype(
    [
        ("event_type", "<i4"),
        ("start_timestamp_ns", "<i8"),
        ("end_timestamp_ns", "<i8"),
        ("start_gaze_x", "<f4"),
        ("start_gaze_y", "<f4"),
        ("end_gaze_x", "<f4"),
        ("end_gaze_y", "<f4"),
        ("mean_gaze_x", "<f4"),
        ("mean_gaze_y", "<f4"),
        ("amplitude_pixels", "<f4"),
        ("amplitude_angle_deg", "<f4"),
        ("mean_velocity", "<f4"),
        ("max_velocity", "<f4"),
    ]
)
FIXATION_EVENT = 1
OFFSET_APPLIED_FROM = (2, 9, 31)
"""From this version of the app on, fixations have the wearer's gaze offset in them."""
_MATRIX_AT = 7
"""In calibration.bin, after a version byte and six of a serial number: 3 x 3 float64."""


def read(path: Path, asked: Asked) -> Recorded:
    """The recording in the folder ``path``."""
    source = COMPUTED if (path / f"{COMPUTED}.raw").is_file() else "gaze"
    time_ns, point = _pairs(path, source, POINT)
    worn = _worn(path, source, len(time_ns))
    x, y = (point[axis].astype(np.float64) / size for axis, size in zip("xy", SCENE_PX, strict=True))
    track = GazeTrack(path, time_ns, np.ones(len(time_ns), np.bool_), x, y, worn)
    fixations = placed(track, _fixations(path)) if _parts(path, "fixations", ".raw") else None
    notes = (f"gaze from {source}", "worn all the time" if worn.all() else f"not worn in {np.sum(worn == 0)} samples")
    return Recorded(track, fixations, _frame(path), notes=notes)


def video(path: Path) -> OwnVideo | None:
    """The scene camera's video, all its parts, with the times of their frames."""
    parts = _parts(path, CAMERA, ".mp4")
    if not parts:
        return None
    (first, times_ns), *rest = [(part, tuple(_times(part).tolist())) for part in parts]
    return OwnVideo(first, times_ns, tuple(rest))


def _fits(path: Path) -> bool:
    return (path / "info.json").is_file() and any(path.glob("gaze*.raw"))


def _parts(path: Path, name: str, suffix: str) -> list[Path]:
    """``NAME psN`` in order of N."""
    found = {int(m[1]): file for file in path.iterdir() if (m := re.fullmatch(rf"{name} ps(\d+)\{suffix}", file.name))}
    return [found[number] for number in sorted(found)]


def _times(path: Path) -> NDArray[np.int64]:
    return _raw(path.with_suffix(".time"), np.dtype("<i8")).astype(np.int64)


def _raw(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}; a Neon recording has it") from None
    return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)


def _layout(path: Path, name: str, usual: np.dtype[Any]) -> np.dtype[Any]:
    """The layout of ``name``'s values: as a newer app wrote it beside them, else the usual one."""
    file = path / f"{name}.dtype"
    if not file.is_file():
        return usual
    try:
        found: np.dtype[Any] = np.dtype(literal_eval(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, SyntaxError, TypeError) as error:
        raise SourceError(f"{file} tells no layout of values: {error}") from None
    missing = [field for field in (usual.names or ()) if field not in (found.names or ())]
    if missing:
        raise SourceError(f"{file} has no {' and '.join(missing)}; it has: {', '.join(found.names or ())}")
    return found


def _pairs(path: Path, name: str, usual: np.dtype[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Times and values, all parts. Where an app was killed one file may be longer: the shorter counts."""
    files = [path / f"{COMPUTED}.raw"] if name == COMPUTED else _parts(path, name, ".raw")
    if not files:
        raise SourceError(f"{path} has no '{name} ps1.raw': nothing was recorded")
    kind = _layout(path, name, usual)
    pairs = [(_times(file), _raw(file, kind)) for file in files]
    shortest = [min(len(time_ns), len(values)) for time_ns, values in pairs]
    return (
        np.concatenate([time_ns[:n] for (time_ns, _), n in zip(pairs, shortest, strict=True)]),
        np.concatenate([values[:n] for (_, values), n in zip(pairs, shortest, strict=True)]),
    )


def _worn(path: Path, source: str, count: int) -> NDArray[np.float64]:
    """1 where worn, else 0, of every sample; 1 where nothing is told of this gaze."""
    files = [path / "worn_200hz.raw"] if source == COMPUTED else _parts(path, "worn", ".raw")
    if not files or not all(file.is_file() for file in files):
        return np.ones(count)
    told = np.concatenate([_raw(file, np.dtype("u1")) for file in files])
    worn = np.ones(count)
    worn[: len(told)] = told[:count] != 0
    return worn


def _fixations(path: Path) -> list[Fixation]:
    _, events = _pairs(path, "fixations", EVENT)
    shift_x, shift_y = _offset(path)
    return [
        Fixation(
            int(event["start_timestamp_ns"]),
            int(event["end_timestamp_ns"]),
            (float(event["mean_gaze_x"]) + shift_x) / SCENE_PX[0],
            (float(event["mean_gaze_y"]) - shift_y) / SCENE_PX[1],
        )
        for event in events[events["event_type"] == FIXATION_EVENT]
    ]


def _offset(path: Path) -> tuple[float, float]:
    """What an older app had not yet put into its fixations (px)."""
    try:
        info = json.loads((path / "info.json").read_text(encoding="utf-8"))
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", str(info.get("app_version", "")))
        if numbers is None or tuple(map(int, numbers.groups())) >= OFFSET_APPLIED_FROM:
            return 0.0, 0.0
        across, up = info.get("gaze_offset", (0.0, 0.0))
        return float(across), float(up)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SourceError(f"{path / 'info.json'} can't be read: {error}") from None


def _frame(path: Path) -> FrameSize | None:
    file = path / "calibration.bin"
    if not file.is_file():
        return None
    data = file.read_bytes()
    if len(data) < _MATRIX_AT + 72:
        raise SourceError(f"{file} is too short for a calibration; {SCENE_CAMERA}")
    matrix = np.frombuffer(data, "<f8", 9, _MATRIX_AT).reshape(3, 3)
    return from_camera(*SCENE_PX, float(matrix[0, 0]), float(matrix[1, 1]))


FORMAT = Format(
    "neon",
    "Neon recording",
    "a folder with info.json and gaze psN.raw",
    _fits,
    read,
    video,
    geometry=SCENE_CAMERA + " (about 15.5 for a Neon)",
)
