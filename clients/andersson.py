"""Gaze tracks from .mat files of Larsson et al. 2013 and Andersson et al. 2017 (Behav Res Methods 49(2)).

A struct ``ETdata`` holds screenDim (m), screenRes (px), viewDist (m) and pos (N, 6): time in us, two pupil columns, x
and y in screen px from the top left, and an expert's label. (0, 0) is lost data, a time of 0 no time. sampFreq can
be wrong: the times are trusted. What was looked at was shown full screen, so the frame is the screen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.gaze import GazeTrack
from clients.recorded import Asked, Format, Recorded
from clients.units import from_screen

FIXATION, SACCADE, OSCILLATION, PURSUIT, BLINK, UNDEFINED = 1, 2, 3, 4, 5, 6
"""What the expert's labels say."""


def read_andersson(path: Path) -> GazeTrack:
    """The gaze track in a .mat file. Raises :class:`SourceError`."""
    data = _struct(path)
    position = _position(path, data)
    try:
        width_m, height_m = (float(v) for v in np.ravel(data.screenDim))
        width_px, height_px = (float(v) for v in np.ravel(data.screenRes))
        frame = from_screen(width_m, height_m, float(data.viewDist))
    except (AttributeError, TypeError, ValueError):
        raise SourceError(f"{path}: ETdata has no screenDim, screenRes or viewDist of the expected shape") from None
    x, y = position[:, 3] / width_px, position[:, 4] / height_px
    lost = (position[:, 3] == 0) & (position[:, 4] == 0)
    x[lost] = y[lost] = np.nan
    timed = np.isfinite(position[:, 0]) & (position[:, 0] > 0)
    time_ns = np.where(timed, np.nan_to_num(position[:, 0]) * 1000.0, 0.0).round().astype(np.int64)
    note = f"screen of {width_px:g} x {height_px:g} px, {frame.width_deg:.1f} x {frame.height_deg:.1f} degrees"
    return GazeTrack(path, time_ns, timed, x, y, np.ones(len(x)), frame=frame, notes=(note,))


def read_labels(path: Path) -> NDArray[np.int64]:
    """The expert's label of every sample (N,)."""
    return np.nan_to_num(_position(path, _struct(path))[:, 5]).astype(np.int64)


def _position(path: Path, data: Any) -> NDArray[np.float64]:
    position = np.asarray(getattr(data, "pos", None))
    if position.ndim != 2 or position.shape[1] != 6 or position.dtype.kind not in "fiu":
        raise SourceError(f"{path}: ETdata.pos is not a table of 6 columns")
    return position.astype(np.float64)


def _struct(path: Path) -> Any:
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ModuleNotFoundError:
        raise SourceError(f"{path}: reading .mat needs scipy: pip install 'rjepa[recordings]'") from None
    try:
        found = loadmat(str(path), squeeze_me=True, struct_as_record=False)
    except OSError as error:
        raise SourceError(f"gaze file {path} can't be read: {error.strerror or error}") from None
    except (ValueError, NotImplementedError, MatReadError) as error:
        raise SourceError(f"gaze file {path} is no .mat file scipy reads: {error}") from None
    if "ETdata" not in found:
        names = ", ".join(name for name in found if not name.startswith("__"))
        raise SourceError(f"gaze file {path} has no struct ETdata; it has: {names or 'nothing'}")
    return found["ETdata"]


def _fits(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".mat"


def _read(path: Path, asked: Asked) -> Recorded:
    track = read_andersson(path)
    return Recorded(track, None, track.frame, notes=track.notes)


FORMAT = Format("andersson", "Andersson 2017 .mat", "a file NAME.mat", _fits, _read)
