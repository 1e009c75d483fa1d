"""Pupil Player's export of a Pupil Core recording: a folder with gaze_positions.csv, and perhaps more.

gaze_positions.csv: gaze_timestamp (s, Capture's clock), confidence, norm_pos_x and norm_pos_y (0..1, origin BOTTOM
left). fixations.csv: start_timestamp (s), duration (ms), norm_pos_x and norm_pos_y. world.mp4 with the time of each
frame in world_timestamps.csv (s). The camera's matrix is not exported; it lies in the recording the export was made
from, two folders up, as world.intrinsics (msgpack: by resolution, camera_matrix), and is read where it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.recorded import SCENE_CAMERA, Asked, Format, OwnVideo, Recorded
from clients.tables import all_times, floats, read_columns, read_rows, times
from clients.told import placed
from clients.units import FrameSize, from_camera
from clients.video import SECOND_NS

GAZE, FIXATIONS, VIDEO, VIDEO_TIMES = "gaze_positions.csv", "fixations.csv", "world.mp4", "world_timestamps.csv"
INTRINSICS = "world.intrinsics"


def read(path: Path, asked: Asked) -> Recorded:
    """The export in the folder ``path``."""
    track = _gaze(path / GAZE)
    told = _fixations(path / FIXATIONS) if (path / FIXATIONS).is_file() else None
    fixations = None if told is None else placed(track, told, asked.settings.min_confidence)
    needed = asked.own_video and asked.frame is None
    frame, why = _frame(path, asked.shown_px) if needed else (None, "")
    return Recorded(track, fixations, frame, notes=(f"gaze from {GAZE}, origin bottom left", *([why] if why else [])))


def video(path: Path) -> OwnVideo | None:
    """world.mp4, with the times of its frames."""
    if not (path / VIDEO).is_file():
        return None
    table = path / VIDEO_TIMES
    if not table.is_file():
        raise SourceError(
            f"{path} has {VIDEO} but no {VIDEO_TIMES}: the times of its frames; export it again in Player"
        )
    _, rows = read_rows(table)
    return OwnVideo(path / VIDEO, all_times(table, [row[0] for row in rows], SECOND_NS))


def _fits(path: Path) -> bool:
    return (path / GAZE).is_file()


def _gaze(path: Path) -> GazeTrack:
    cells = read_columns(path, ("gaze_timestamp", "confidence", "norm_pos_x", "norm_pos_y"))
    time_ns, timed = times(cells["gaze_timestamp"], SECOND_NS)
    x, y = floats(cells["norm_pos_x"]), 1.0 - floats(cells["norm_pos_y"])
    return GazeTrack(path, time_ns, timed, x, y, floats(cells["confidence"]))


def _fixations(path: Path) -> list[Fixation]:
    cells = read_columns(path, ("start_timestamp", "duration", "norm_pos_x", "norm_pos_y"))
    onset_ns, timed = times(cells["start_timestamp"], SECOND_NS)
    duration_ns = floats(cells["duration"]) * 1e6
    x, y = floats(cells["norm_pos_x"]), 1.0 - floats(cells["norm_pos_y"])
    return [
        Fixation(int(onset_ns[at]), int(onset_ns[at]) + round(float(duration_ns[at])), float(x[at]), float(y[at]))
        for at in np.flatnonzero(timed & np.isfinite(duration_ns))
    ]


def _frame(path: Path, shown_px: tuple[int, int]) -> tuple[FrameSize | None, str]:
    """The degrees of the world camera's picture, and how they are known."""
    for folder in (path, *list(path.absolute().parents)[:2]):
        if (folder / INTRINSICS).is_file():
            matrix = _matrix(folder / INTRINSICS, shown_px)
            return from_camera(*shown_px, float(matrix[0][0]), float(matrix[1][1])), f"degrees by {folder / INTRINSICS}"
    return None, ""


def _matrix(path: Path, shown_px: tuple[int, int]) -> Any:
    import msgpack

    try:
        told = msgpack.unpackb(path.read_bytes(), raw=False, strict_map_key=False)
        return told[str(shown_px)]["camera_matrix"]
    except (OSError, ValueError, KeyError, TypeError, msgpack.exceptions.ExtraData) as error:
        raise SourceError(
            f"{path} has no camera matrix for {shown_px[0]} x {shown_px[1]} px ({error!r}); {SCENE_CAMERA}"
        ) from None


FORMAT = Format(
    "pupil-player",
    "Pupil Player export",
    f"a folder with {GAZE}",
    _fits,
    read,
    video,
    geometry=SCENE_CAMERA + "; 13.9 for a Pupil Core at 1280x720 with its wide lens, 6.9 at 640x480",
)
