"""Gaze tracks from tables: CSV or TSV with a time, x and y, and perhaps a confidence.

Which column is what, and in what unit, is said by options, else by the header (``timestamp [ns]``, ``gaze x [px]``,
``norm_pos_x``, ``x_px`` ...). Where neither says, the unit is taken from the numbers if they allow one reading
only; what was decided is told in the track's notes.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.gaze import GazeTrack
from clients.units import FrameSize

TimeUnit = Literal["s", "ms", "us", "ns"]
GazeUnit = Literal["px", "norm", "deg"]
Origin = Literal["top", "bottom"]

UNIT_NS: dict[TimeUnit, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
WANTED = ("timestamp", "x", "y")
NAMES = {
    "timestamp": (r"timestamp", r"gaze_timestamp", r"time", r"t", r"recording timestamp", r"time_?stamp.*", r"onset"),
    "x": (r"x", r"norm_pos_x", r"gaze_?x", r"gaze x", r"gaze_?pos_?x", r"x_coordinate", r"pos_?x", r"gaze point x"),
    "y": (r"y", r"norm_pos_y", r"gaze_?y", r"gaze y", r"gaze_?pos_?y", r"y_coordinate", r"pos_?y", r"gaze point y"),
    "confidence": (r"confidence",),
}
_UNIT = re.compile(r"[\s_]*(?:[\[(]\s*(?:dacs\s+)?(s|ms|us|µs|ns|px|norm|deg)\s*[\])]|_(s|ms|us|ns|px|norm|deg))$")
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 0.0004, 0.06
"""Gaze is sampled at 17 to 2500 Hz; so the interval between two times tells their unit."""


@dataclass(frozen=True)
class TableOptions:
    """What the user says about a table; None is left to the header and the numbers.

    ``columns`` maps timestamp, x, y and confidence to column names. ``size_px`` is the size of the picture that
    pixels refer to, ``frame`` its degrees (needed for gaze in degrees from the centre).
    """

    columns: dict[str, str]
    time_unit: TimeUnit | None = None
    gaze_unit: GazeUnit | None = None
    origin: Origin | None = None
    size_px: tuple[float, float] | None = None
    frame: FrameSize | None = None


def parse_columns(text: str | None) -> dict[str, str]:
    """``timestamp=T,x=A,y=B`` as a dict. Raises :class:`OptionError`."""
    columns = {}
    for part in text.split(",") if text else []:
        name, equals, column = part.partition("=")
        if not equals or name.strip() not in NAMES or not column.strip():
            raise OptionError(
                f"--columns {part.strip()!r}: timestamp=NAME,x=NAME,y=NAME and perhaps confidence=NAME are wanted"
            )
        columns[name.strip()] = column.strip()
    return columns


def read_table(path: Path, options: TableOptions) -> GazeTrack:
    """The gaze track in a CSV or TSV file. Raises :class:`SourceError` that names what was found and wanted."""
    header, rows = _rows(path)
    columns = _choose(path, header, options.columns)
    cells = {name: [row[at] if at < len(row) else "" for row in rows] for name, at in columns.items()}
    named = {name: header[at] for name, at in columns.items()}
    x, y = _floats(cells["x"]), _floats(cells["y"])
    lost = (x == 0.0) & (y == 0.0)
    x[lost] = y[lost] = np.nan
    if not np.isfinite(x).any():
        raise SourceError(f"gaze file {path} has no sample with a time and a position: x is never a number but 0")
    time_unit, time_why = _time_unit(path, named["timestamp"], cells["timestamp"], options.time_unit)
    time_ns, timed = _times(cells["timestamp"], UNIT_NS[time_unit])
    gaze_unit, gaze_why = _gaze_unit(path, named, x, y, options.gaze_unit)
    origin: Origin = options.origin or ("bottom" if "norm_pos" in named["y"].lower() else "top")
    x, y = _fractions(path, x, y, gaze_unit, origin, options)
    confidence = _floats(cells["confidence"]) if "confidence" in cells else np.ones(len(x))
    notes = (
        f"time from {named['timestamp']!r} in {time_unit} ({time_why})",
        f"gaze from {named['x']!r}, {named['y']!r} in {gaze_unit} ({gaze_why}), origin {origin} left",
    )
    return GazeTrack(path, time_ns, timed, x, y, confidence, frame=options.frame, notes=notes)


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and everything below it."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            first = file.readline()
            if not first.strip():
                raise SourceError(f"gaze file {path} is empty")
            delimiter = max(",;\t", key=first.count)
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=delimiter) if row]
    except OSError as error:
        raise SourceError(f"gaze file {path} can't be read: {error.strerror}") from None
    except csv.Error as error:
        raise SourceError(f"gaze file {path} is no table: {error}") from None
    if len(rows) < 2:
        raise SourceError(f"gaze file {path} has a header and no rows")
    return [name.strip() for name in rows[0]], rows[1:]


def _choose(path: Path, header: Sequence[str], named: dict[str, str]) -> dict[str, int]:
    """Which column is what. Raises :class:`SourceError` with what is there and what is missing."""
    chosen = {}
    for what, patterns in NAMES.items():
        if what in named:
            if named[what] not in header:
                raise SourceError(f"gaze file {path} has no column {named[what]!r} for {what}; it has: {_list(header)}")
            chosen[what] = header.index(named[what])
            continue
        bare = [_UNIT.sub("", name.lower()).strip() for name in header]
        found = (at for pattern in patterns for at, name in enumerate(bare) if re.fullmatch(pattern, name))
        at = next(found, None)
        if at is not None:
            chosen[what] = at
    missing = [what for what in WANTED if what not in chosen]
    if missing:
        example = ",".join(f"{what}=NAME" for what in missing)
        raise SourceError(
            f"gaze file {path} has no column for {' and '.join(missing)}; it has: {_list(header)}. "
            f"Say which is which with --columns {example}"
        )
    return chosen


def _list(header: Iterable[str]) -> str:
    return ", ".join(name[:40] for name in header)[:400]


def _floats(cells: Sequence[str]) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    return np.array([_float(cell) for cell in cells], np.float64)


def _float(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _times(cells: Sequence[str], unit_ns: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times in ns; whole numbers stay exact. The second array is False where there is none."""
    times, timed = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.bool_)
    for at, cell in enumerate(cells):
        try:
            time_ns = int(cell) * unit_ns
        except ValueError:
            value = _float(cell) * unit_ns
            if math.isnan(value):
                continue
            time_ns = round(value)
        if abs(time_ns) < 1 << 62:
            times[at], timed[at] = time_ns, True
    return times, timed


def _told_unit(name: str) -> str | None:
    found = _UNIT.search(name.lower())
    return (found.group(1) or found.group(2)).replace("µs", "us") if found else None


def _time_unit(path: Path, name: str, cells: Sequence[str], given: TimeUnit | None) -> tuple[TimeUnit, str]:
    """The time column's unit and why."""
    if given is not None:
        return given, "as said"
    told = _told_unit(name)
    for unit in UNIT_NS:
        if told == unit:
            return unit, "by its name"
    steps = np.diff(_floats(cells[:10_000]))
    steps = steps[np.isfinite(steps) & (steps > 0)]
    interval = float(np.median(steps)) if len(steps) else 0.0
    for unit, unit_ns in UNIT_NS.items():
        if SHORTEST_INTERVAL_S <= interval * unit_ns / UNIT_NS["s"] <= LONGEST_INTERVAL_S:
            return unit, f"by its steps of {interval:g}"
    raise UnitsUnknown(
        f"gaze file {path}: nothing says the unit of column {name!r} (steps of {interval:g}); "
        "give --time-unit s, ms, us or ns"
    )


def _gaze_unit(
    path: Path, named: dict[str, str], x: NDArray[np.float64], y: NDArray[np.float64], given: GazeUnit | None
) -> tuple[GazeUnit, str]:
    """The unit of x and y and why."""
    if given is not None:
        return given, "as said"
    told = {_told_unit(named[axis]) for axis in ("x", "y")}
    for unit in ("px", "norm", "deg"):
        if told == {unit}:
            return unit, "by its name"
    if "norm" in named["x"].lower():
        return "norm", "by its name"
    largest = np.nanquantile(np.abs(np.concatenate([x, y])), 0.9)
    if largest <= 1.5:
        return "norm", "by its numbers, nearly all in 0..1"
    if largest >= 50:
        return "px", "by its numbers, far above 1"
    raise UnitsUnknown(f"gaze file {path}: nothing says the unit of {named['x']!r}; give --gaze-unit px, norm or deg")


def _fractions(
    path: Path,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    unit: GazeUnit,
    origin: Origin,
    options: TableOptions,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fractions of the frame from its top left."""
    if unit == "px":
        if options.size_px is None:
            raise UnitsUnknown(
                f"gaze file {path} is in pixels: give --gaze-frame WIDTHxHEIGHT, the picture they refer to"
            )
        x, y = x / options.size_px[0], y / options.size_px[1]
    elif unit == "deg":
        if options.frame is None:
            raise UnitsUnknown(f"gaze file {path} is in degrees: give --px-per-degree, so that they can be placed")
        # Degrees count from the frame's centre.
        sign = -1.0 if origin == "bottom" else 1.0
        return x / options.frame.width_deg + 0.5, sign * y / options.frame.height_deg + 0.5
    return (x, 1.0 - y) if origin == "bottom" else (x, y)
