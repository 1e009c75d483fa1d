"""Gaze tracks from tables: CSV or TSV with a time, x and y, and perhaps a confidence.

Which column is what, and in what unit, is said by options, else by the header (``timestamp [ns]``, ``gaze x [px]``,
``norm_pos_x``, ``x_px`` ...). Where neither says, the unit is taken from the numbers if they allow one reading
only; what was decided is told in the track's notes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.gaze import GazeTrack
from clients.recorded import Asked, Format, Recorded
from clients.tables import UNIT_NS, TimeUnit, column, floats, listed, read_rows, times
from clients.units import FrameSize

GazeUnit = Literal["px", "norm", "deg"]
Origin = Literal["top", "bottom"]

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
    header, rows = read_rows(path)
    columns = _choose(path, header, options.columns)
    cells = {name: column(rows, at) for name, at in columns.items()}
    named = {name: header[at] for name, at in columns.items()}
    x, y = floats(cells["x"]), floats(cells["y"])
    lost = (x == 0.0) & (y == 0.0)
    x[lost] = y[lost] = np.nan
    if not np.isfinite(x).any():
        raise SourceError(f"gaze file {path} has no sample with a time and a position: x is never a number but 0")
    time_unit, time_why = _time_unit(path, named["timestamp"], cells["timestamp"], options.time_unit)
    time_ns, timed = times(cells["timestamp"], UNIT_NS[time_unit])
    gaze_unit, gaze_why = _gaze_unit(path, named, x, y, options.gaze_unit)
    origin: Origin = options.origin or ("bottom" if "norm_pos" in named["y"].lower() else "top")
    x, y = _fractions(path, x, y, gaze_unit, origin, options)
    confidence = floats(cells["confidence"]) if "confidence" in cells else np.ones(len(x))
    notes = (
        f"time from {named['timestamp']!r} in {time_unit} ({time_why})",
        f"gaze from {named['x']!r}, {named['y']!r} in {gaze_unit} ({gaze_why}), origin {origin} left",
    )
    return GazeTrack(path, time_ns, timed, x, y, confidence, frame=options.frame, notes=notes)


def _choose(path: Path, header: Sequence[str], named: dict[str, str]) -> dict[str, int]:
    """Which column is what. Raises :class:`SourceError` with what is there and what is missing."""
    chosen = {}
    for what, patterns in NAMES.items():
        if what in named:
            if named[what] not in header:
                raise SourceError(
                    f"gaze file {path} has no column {named[what]!r} for {what}; it has: {listed(header)}"
                )
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
            f"gaze file {path} has no column for {' and '.join(missing)}; it has: {listed(header)}. "
            f"Say which is which with --columns {example}"
        )
    return chosen


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
    steps = np.diff(floats(cells[:10_000]))
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


def _fits(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (".csv", ".tsv", ".txt")


def _read(path: Path, asked: Asked) -> Recorded:
    settings = asked.settings
    options = TableOptions(
        columns=parse_columns(settings.columns),
        time_unit=settings.time_unit,
        gaze_unit=settings.gaze_unit,
        origin=settings.origin,
        size_px=asked.gaze_px or asked.shown_px,
        frame=asked.frame,
    )
    track = read_table(path, options)
    return Recorded(track, notes=track.notes)


FORMAT = Format(
    "table",
    "table of gaze samples",
    "a .csv, .tsv or .txt with a header",
    _fits,
    _read,
    takes=("columns", "time_unit", "gaze_unit", "gaze_frame", "origin"),
)
