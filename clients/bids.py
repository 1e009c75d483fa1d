"""Eye tracking in BIDS 1.11 (BEP020): *_recording-eyeN_physio.tsv.gz with its .json, and *_physioevents.tsv.gz.

The table has no header; its columns stand in the sidecar, which says PhysioType "eyetrack". timestamp has a unit there
(s, ms, us or ns), else SamplingFrequency gives it; x_coordinate and y_coordinate are px of the screen from the top
left, or degrees from its centre. The screen (ScreenSize and ScreenDistance in m, ScreenResolution in px) stands in
StimulusPresentation of the task's *_events.json, here or in a folder above. Events: onset in the unit of the timestamps
(or rows, where OnsetSource is n/a), duration in s, trial_type, message.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clients.errors import OptionError, SourceError, UnitsUnknown
from clients.fixations import Fixation
from clients.gaze import GazeTrack
from clients.recorded import Asked, Format, Recorded
from clients.tables import UNIT_NS, floats, read_bare, times
from clients.told import placed
from clients.units import FrameSize, from_screen
from clients.video import SECOND_NS

GAZE, EVENTS = "_physio.tsv.gz", "_physioevents.tsv.gz"
UNITS = {
    "s": "s", "sec": "s", "second": "s", "seconds": "s",
    "ms": "ms", "msec": "ms", "millisecond": "ms", "milliseconds": "ms",
    "us": "us", "µs": "us", "μs": "us", "microsecond": "us", "microseconds": "us",
    "ns": "ns", "nanosecond": "ns", "nanoseconds": "ns",
}  # fmt: skip
FARTHEST_M = 10.0
"""A ScreenDistance beyond this is one in cm or mm: nobody looks at a screen from there."""


def read(path: Path, asked: Asked) -> Recorded:
    """The recording of one eye: ``path`` is its table, or a folder that holds one recording."""
    table = _table(path, asked.settings.eye)
    told = _sidecar(table)
    cells = read_bare(table, _columns(table, told))
    unit_ns = _unit_ns(table, told, cells["timestamp"])
    time_ns, timed = times(cells["timestamp"], unit_ns)
    screen = _screen(table)
    frame = None if screen is None else _frame(table, screen)
    x, y, note = _fractions(table, told, cells, asked, screen, asked.frame or frame)
    track = GazeTrack(table, time_ns, timed, x, y, np.ones(len(x)))
    fixations, messages = _events(table, track, unit_ns)
    return Recorded(track, fixations, frame, messages, (f"eye {told.get('RecordedEye', 'not told')}", note))


def _fits(path: Path) -> bool:
    return path.name.endswith(GAZE) or (path.is_dir() and bool(_eye_tables(path)))


def _eye_tables(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob(f"*{GAZE}")) if _told(_json_of(file)).get("PhysioType") == "eyetrack"]


def _table(path: Path, eye: str | None) -> Path:
    """The table to read. Raises where a folder holds more than one run, or not the eye asked for."""
    tables = _eye_tables(path) if path.is_dir() else [path]
    if not tables:
        raise SourceError(f"{path} has no *{GAZE} whose sidecar says PhysioType eyetrack")
    runs = {re.sub(r"_recording-[^_]+", "", file.name) for file in tables}
    if len(runs) > 1:
        names = ", ".join(file.name for file in tables)
        raise SourceError(f"{path} holds more than one recording ({names}): name one of these files")
    if eye is None:
        return tables[0]
    fit = [file for file in tables if str(_told(_json_of(file)).get("RecordedEye", "")).lower() == eye]
    if not fit:
        raise OptionError(f"--eye {eye}: no sidecar in {path} says that RecordedEye is {eye}")
    return fit[0]


def _json_of(table: Path) -> Path:
    return table.with_name(table.name.replace(".tsv.gz", ".json"))


def _told(path: Path) -> dict[str, Any]:
    """A sidecar's object; empty where there is none. Raises :class:`SourceError` where it can't be read."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise SourceError(f"{path} is no JSON object")
    return found


def _sidecar(table: Path) -> dict[str, Any]:
    told = _told(_json_of(table))
    if not told:
        raise SourceError(f"{table} has no sidecar {_json_of(table).name}: it tells the columns")
    return told


def _columns(table: Path, told: dict[str, Any]) -> list[str]:
    columns = told.get("Columns")
    names = [str(name) for name in columns] if isinstance(columns, list) else []
    missing = [name for name in ("timestamp", "x_coordinate", "y_coordinate") if name not in names]
    if missing:
        raise SourceError(
            f"{_json_of(table)}: Columns lacks {' and '.join(missing)}; it has: {', '.join(names) or 'none'}"
        )
    return names


def _unit_of(told: dict[str, Any], column: str) -> str:
    described = told.get(column)
    return str(described.get("Units", "")).strip() if isinstance(described, dict) else ""


def _unit_ns(table: Path, told: dict[str, Any], cells: list[str]) -> int:
    """By the sidecar's Units, else by SamplingFrequency and the steps between timestamps."""
    unit = UNITS.get(_unit_of(told, "timestamp").lower())
    if unit is not None:
        return UNIT_NS[unit]  # type: ignore[index]
    steps = np.diff(floats(cells[:10_000]))
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    rate = told.get("SamplingFrequency")
    for unit_ns in UNIT_NS.values():
        if isinstance(rate, int | float) and rate > 0 and abs(step * unit_ns / SECOND_NS * rate - 1.0) < 0.1:
            return unit_ns
    raise UnitsUnknown(
        f"{_json_of(table)}: neither Units of timestamp nor SamplingFrequency ({rate}) tell the unit of timestamps "
        f"with steps of {step:g}; add Units (s, ms, us or ns)"
    )


def _screen(table: Path) -> dict[str, Any] | None:
    """StimulusPresentation of the run, or of what stands above it; None if nothing tells it."""
    whole = table.name.split("_recording-")[0].removesuffix(GAZE)
    task = re.search(r"_(task-[^_]+)", table.name)
    names = [f"{whole}_events.json", *([f"{task[1]}_events.json"] if task else []), "events.json"]
    for folder in (table.parent, *list(table.absolute().parent.parents)[:4]):
        for name in names:
            found = _told(folder / name).get("StimulusPresentation")
            if isinstance(found, dict) and "ScreenSize" in found:
                return found
    return None


def _frame(table: Path, screen: dict[str, Any]) -> FrameSize | None:
    try:
        width_m, height_m = (float(value) for value in screen["ScreenSize"])
        distance_m = float(screen["ScreenDistance"])
    except (KeyError, TypeError, ValueError):
        return None
    if distance_m > FARTHEST_M:
        raise UnitsUnknown(
            f"StimulusPresentation of {table.name} says ScreenDistance {distance_m:g}; it is in m there: correct it"
        )
    return from_screen(width_m, height_m, distance_m)


def _fractions(
    table: Path,
    told: dict[str, Any],
    cells: dict[str, list[str]],
    asked: Asked,
    screen: dict[str, Any] | None,
    frame: FrameSize | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    x, y = floats(cells["x_coordinate"]), floats(cells["y_coordinate"])
    unit = _unit_of(told, "x_coordinate").lower()
    if unit.startswith("deg"):
        if frame is None:
            raise UnitsUnknown(
                f"{table} is in degrees and nothing tells the screen: give --screen-mm and --distance-mm"
            )
        return x / frame.width_deg + 0.5, y / frame.height_deg + 0.5, "in degrees from the centre"
    if unit not in ("pixel", "pixels", "px", ""):
        raise UnitsUnknown(f"{_json_of(table)}: x_coordinate is in {unit!r}; pixel and degree are read")
    resolution = (screen or {}).get("ScreenResolution")
    size_px = asked.gaze_px or (tuple(resolution) if isinstance(resolution, list) and len(resolution) == 2 else None)
    if size_px is None:
        raise UnitsUnknown(
            f"{table} is in px and no *_events.json tells the screen's (StimulusPresentation, ScreenResolution): "
            "give --gaze-frame WIDTHxHEIGHT"
        )
    return x / float(size_px[0]), y / float(size_px[1]), f"in px of {size_px[0]:g} x {size_px[1]:g}"


def _events(
    table: Path, track: GazeTrack, unit_ns: int
) -> tuple[tuple[Fixation, ...] | None, tuple[tuple[int, str], ...]]:
    """The fixations and the messages of *_physioevents.tsv.gz; (None, ()) where there is none."""
    path = table.with_name(table.name.replace(GAZE, EVENTS))
    if not path.is_file():
        return None, ()
    told = _sidecar(path)
    names = [str(name) for name in told.get("Columns", ())]
    cells = read_bare(path, names)
    onset_ns, timed = times(cells.get("onset", []), 1 if told.get("OnsetSource") == "n/a" else unit_ns)
    if told.get("OnsetSource") == "n/a":
        rows = np.clip(onset_ns, 0, len(track) - 1)
        onset_ns = track.time_ns[rows]
    messages, fixations = [], []
    duration_s = floats(cells.get("duration", [""] * len(onset_ns)))
    kinds = cells.get("trial_type", [""] * len(onset_ns))
    texts = cells.get("message", [""] * len(onset_ns))
    for at in np.flatnonzero(timed).tolist():
        begin_ns = int(onset_ns[at])
        if kinds[at].lower() == "fixation" and np.isfinite(duration_s[at]):
            end_ns = begin_ns + round(float(duration_s[at]) * SECOND_NS)
            fixations.append(Fixation(begin_ns, end_ns, float("nan"), float("nan")))
        if texts[at] not in ("", "n/a"):
            messages.append((begin_ns, texts[at]))
    return (placed(track, fixations) if fixations else None), tuple(messages)


FORMAT = Format(
    "bids",
    "BIDS eye tracking",
    f"a file *{GAZE}, or a folder with one whose .json says PhysioType eyetrack",
    _fits,
    read,
    takes=("eye", "gaze_frame"),
)
