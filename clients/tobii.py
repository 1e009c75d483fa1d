"""Tobii Pro Lab's data export: a tab-separated table of one recording.

Recording timestamp [us | μs | ms], Gaze point X and Y [DACS px] (screen, origin top left) or [MCS px] (the scene camera
of glasses), Eye movement type with Gaze event duration [ms]. Rows of other sensors (Mouse, Gyroscope ...) and rows that
only hold an Event are no gaze. Recording resolution width and height, where exported, are the screen's.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from clients.errors import SourceError, UnitsUnknown
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.recorded import Asked, Format, Recorded
from clients.tables import UNIT_NS, TimeUnit, column, floats, header_of, listed, read_rows, times
from clients.told import placed

TIME = "recording timestamp"
UNIT_NAMES: dict[str, TimeUnit] = {"us": "us", "μs": "us", "µs": "us", "ms": "ms"}
TRACKER = "eye tracker"


def read(path: Path, asked: Asked) -> Recorded:
    """The recording in the table ``path``."""
    header, rows = read_rows(path, "\t")
    names = [name.lower() for name in header]
    stamp, unit = _time_column(path, header, asked)
    x_at, y_at, system = _gaze_columns(path, header)
    if "sensor" in names:
        at = names.index("sensor")
        messages = _messages(rows, names, stamp, unit)
        rows = [row for row in rows if at < len(row) and row[at].strip().lower() == TRACKER]
    else:
        messages = _messages(rows, names, stamp, unit)
        rows = [row for row in rows if not _only_an_event(row, names)]
    if not rows:
        raise SourceError(f"{path} has no row of the eye tracker; export it with the gaze data")
    size_px = asked.gaze_px or _resolution(rows, names) or asked.shown_px
    time_ns, timed = times(column(rows, stamp), UNIT_NS[unit])
    x, y = floats(column(rows, x_at)) / size_px[0], floats(column(rows, y_at)) / size_px[1]
    track = GazeTrack(path, time_ns, timed, x, y, np.ones(len(x)))
    fixations = _fixations(rows, names, track)
    note = f"gaze in {system} px of {size_px[0]:g} x {size_px[1]:g}, time in {unit}"
    return Recorded(track, fixations, None, messages, (note,))


def _fits(path: Path) -> bool:
    header = header_of(path).lower() if path.is_file() and path.suffix.lower() in (".tsv", ".txt") else ""
    return TIME in header and "gaze point x" in header and "\t" in header


def _time_column(path: Path, header: list[str], asked: Asked) -> tuple[int, TimeUnit]:
    for at, name in enumerate(header):
        found = re.fullmatch(rf"{TIME}(?: *\[(\w+)\])?", name.lower())
        if found:
            unit = asked.settings.time_unit or UNIT_NAMES.get(found[1] or "")
            if unit is None:
                raise UnitsUnknown(f"{path}: nothing says the unit of {name!r}; give --time-unit us or ms")
            return at, unit
    raise SourceError(f"{path} has no column 'Recording timestamp'; it has: {listed(header)}")


def _gaze_columns(path: Path, header: list[str]) -> tuple[int, int, str]:
    """Where x and y stand, and the system they are in."""
    lower = [name.lower() for name in header]
    for system in ("DACS", "MCS"):
        wanted = [f"gaze point {axis} [{system.lower()} px]" for axis in "xy"]
        if all(name in lower for name in wanted):
            return lower.index(wanted[0]), lower.index(wanted[1]), system
    bare = [f"gaze point {axis}" for axis in "xy"]
    if all(name in lower for name in bare):
        return lower.index(bare[0]), lower.index(bare[1]), "DACS"
    raise SourceError(f"{path} has no columns 'Gaze point X [DACS px]' and Y (or [MCS px]); it has: {listed(header)}")


def _only_an_event(row: list[str], names: list[str]) -> bool:
    at = names.index("event") if "event" in names else -1
    return 0 <= at < len(row) and bool(row[at].strip())


def _messages(rows: list[list[str]], names: list[str], stamp: int, unit: TimeUnit) -> tuple[tuple[int, str], ...]:
    told = [row for row in rows if _only_an_event(row, names)]
    time_ns, timed = times(column(told, stamp), UNIT_NS[unit])
    texts = column(told, names.index("event")) if told else []
    return tuple((int(time_ns[at]), texts[at]) for at in np.flatnonzero(timed).tolist())


def _resolution(rows: list[list[str]], names: list[str]) -> tuple[float, float] | None:
    found = []
    for side in ("width", "height"):
        at = next((at for at, name in enumerate(names) if name.startswith(f"recording resolution {side}")), None)
        values = floats(column(rows, at)) if at is not None else np.array([])
        values = values[np.isfinite(values)]
        found.append(float(np.median(values)) if len(values) else 0.0)
    return (found[0], found[1]) if min(found) > 0 else None


def _fixations(rows: list[list[str]], names: list[str], track: GazeTrack) -> tuple[Fixation, ...] | None:
    """Stretches of rows that are called Fixation, by the number Tobii gives each, or by being next to each other."""
    if "eye movement type" not in names:
        return None
    kinds = [kind.strip().lower() for kind in column(rows, names.index("eye movement type"))]
    index = next((at for at, name in enumerate(names) if name.startswith("eye movement type index")), None)
    numbers = column(rows, index) if index is not None else [""] * len(rows)
    found: list[Fixation] = []
    before: tuple[str, str] = ("", "")
    for at in np.flatnonzero(track.timed).tolist():
        now = (kinds[at], numbers[at])
        time_ns = int(track.time_ns[at])
        if kinds[at] == "fixation":
            onset_ns = found[-1].onset_ns if found and now == before else time_ns
            if found and now == before:
                found.pop()
            found.append(Fixation(onset_ns, time_ns, float("nan"), float("nan")))
        before = now
    return placed(track, found) if found else None


FORMAT = Format(
    "tobii",
    "Tobii Pro Lab export",
    "a .tsv with 'Recording timestamp' and 'Gaze point X'",
    _fits,
    read,
    takes=("time_unit", "gaze_frame"),
)
