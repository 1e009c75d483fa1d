"""A Neon recording as Pupil Cloud or Neon Player exports it: a folder of tables, and a scene video.

gaze.csv: timestamp [ns], gaze x [px], gaze y [px] (scene camera, origin top left), worn. fixations.csv: start and end
timestamp [ns], fixation x [px], fixation y [px]. world_timestamps.csv: the time of each frame of the one .mp4 in the
folder. scene_camera.json: the camera's matrix.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.neon_native import SCENE_PX
from clients.recorded import SCENE_CAMERA, Asked, Format, OwnVideo, Recorded, only_video
from clients.tables import all_times, floats, header_of, read_columns, times
from clients.told import placed
from clients.units import FrameSize, from_camera

TIME = "timestamp [ns]"


def read(path: Path, asked: Asked) -> Recorded:
    """The export in the folder ``path``."""
    size_px = asked.gaze_px or (asked.shown_px if asked.own_video else SCENE_PX)
    track = _gaze(path / "gaze.csv", size_px)
    table = path / "fixations.csv"
    fixations = placed(track, _fixations(table, size_px)) if table.is_file() else None
    notes = (f"gaze in px of the scene camera's {size_px[0]:g} x {size_px[1]:g}",)
    return Recorded(track, fixations, _frame(path / "scene_camera.json", size_px), notes=notes)


def video(path: Path) -> OwnVideo | None:
    """The one video in the folder, with the times of its frames."""
    found = only_video(path)
    if found is None:
        return None
    table = path / "world_timestamps.csv"
    if not table.is_file():
        raise SourceError(f"{path} has a video but no world_timestamps.csv: the times of its frames; export it again")
    return OwnVideo(found, all_times(table, read_columns(table, (TIME,))[TIME], 1))


def _fits(path: Path) -> bool:
    return path.is_dir() and "gaze x [px]" in header_of(path / "gaze.csv")


def _gaze(path: Path, size_px: tuple[float, float]) -> GazeTrack:
    cells = read_columns(path, (TIME, "gaze x [px]", "gaze y [px]"), ("worn",))
    time_ns, timed = times(cells[TIME], 1)
    x, y = floats(cells["gaze x [px]"]) / size_px[0], floats(cells["gaze y [px]"]) / size_px[1]
    worn = [0.0 if cell.strip().lower() in ("0", "0.0", "false") else 1.0 for cell in cells.get("worn", [""] * len(x))]
    return GazeTrack(path, time_ns, timed, x, y, np.array(worn))


def _fixations(path: Path, size_px: tuple[float, float]) -> list[Fixation]:
    names = ("start timestamp [ns]", "end timestamp [ns]", "fixation x [px]", "fixation y [px]")
    cells = read_columns(path, names)
    onset_ns, end_ns = (all_times(path, cells[name], 1) for name in names[:2])
    x, y = floats(cells[names[2]]) / size_px[0], floats(cells[names[3]]) / size_px[1]
    return [Fixation(*told) for told in zip(onset_ns, end_ns, x.tolist(), y.tolist(), strict=True)]


def _frame(path: Path, size_px: tuple[float, float]) -> FrameSize | None:
    if not path.is_file():
        return None
    try:
        matrix = json.loads(path.read_text(encoding="utf-8"))["camera_matrix"]
        across, down = float(matrix[0][0]), float(matrix[1][1])
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SourceError(f"{path} has no camera_matrix ({error!r}); {SCENE_CAMERA}") from None
    return from_camera(*size_px, across, down)


FORMAT = Format(
    "neon-export",
    "Neon export (Pupil Cloud, Neon Player)",
    "a folder with gaze.csv that has a column 'gaze x [px]'",
    _fits,
    read,
    video,
    geometry=SCENE_CAMERA + " (about 15.5 for a Neon)",
    takes=("gaze_frame",),
)
