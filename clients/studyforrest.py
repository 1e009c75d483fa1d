"""Scanpaths from studyforrest's tables of eye-movement events (Hanke et al. 2016, Scientific Data 3; Dar et al. 2021).

Tab-separated: onset and duration (s) in a run of the film, a label (FIXA fixation, PURS pursuit, SACC saccade, ...),
start and end (px) in the film's frame of 1280 x 546 px, origin top left. The screen was 26.5 cm wide and 63 cm away,
so the film was 23.75 degrees wide; 10.13 high. The film itself is not part of the data.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.recorded import Asked, Format, Recorded
from clients.tables import header_of
from clients.units import FrameSize

FILM_WIDTH_PX, FILM_HEIGHT_PX = 1280.0, 546.0
FILM = FrameSize(23.75, 10.13)
FIXATION, PURSUIT = "FIXA", "PURS"
_PATTERN = "*_events.tsv"
_COLUMNS = ("onset", "duration", "label", "start_x", "start_y", "end_x", "end_y")
_BETWEEN_RUNS_NS = 1_000_000_000


@dataclass(frozen=True)
class Scanpath:
    """N fixations in order. Times are integer ns from the first run's beginning, runs following one another."""

    run: NDArray[np.int64]
    """(N,): which table, from 0."""
    onset_ns: NDArray[np.int64]
    duration_ns: NDArray[np.int64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    """(N,): middle of the fixation, as a fraction of the film's frame; may lie outside it."""
    frame: FrameSize = FILM

    def __len__(self) -> int:
        return len(self.x)


def read_scanpath(path: Path) -> Scanpath:
    """All fixations of the table ``path``, or of every table in that folder. Raises :class:`SourceError`."""
    tables = sorted(path.glob(_PATTERN)) if path.is_dir() else [path]
    if not tables:
        raise SourceError(f"{path}: no table of events in this folder (looked for {_PATTERN})")
    rows: list[tuple[int, int, int, float, float]] = []
    begun_ns = 0
    for run, table in enumerate(tables):
        last_ns = 0
        for onset_s, duration_s, x, y, _ in _fixations(table, (FIXATION,)):
            onset_ns, duration_ns = round(onset_s * 1e9), round(duration_s * 1e9)
            rows.append((run, begun_ns + onset_ns, duration_ns, x / FILM_WIDTH_PX, y / FILM_HEIGHT_PX))
            last_ns = onset_ns + duration_ns
        begun_ns += last_ns + _BETWEEN_RUNS_NS
    if not rows:
        raise SourceError(f"{path}: no row is labelled {FIXATION}")
    runs, onsets, durations, xs, ys = zip(*rows, strict=True)
    return Scanpath(
        run=np.asarray(runs, np.int64),
        onset_ns=np.asarray(onsets, np.int64),
        duration_ns=np.asarray(durations, np.int64),
        x=np.asarray(xs, np.float64),
        y=np.asarray(ys, np.float64),
    )


def read(path: Path, asked: Asked) -> Recorded:
    """The fixations and pursuits of one table, or of a folder of them, one run after the other: there are no samples.

    A pursuit is taken where it began.
    """
    tables = sorted(path.glob(_PATTERN)) if path.is_dir() else [path]
    found: list[Fixation] = []
    pursuits = begun_ns = 0
    for table in tables:
        last_ns = 0
        for onset_s, duration_s, x, y, label in _fixations(table, (FIXATION, PURSUIT)):
            onset_ns, last_ns = round(onset_s * 1e9), round((onset_s + duration_s) * 1e9)
            begin_ns, end_ns = begun_ns + onset_ns, begun_ns + last_ns
            found.append(Fixation(begin_ns, end_ns, x / FILM_WIDTH_PX, y / FILM_HEIGHT_PX))
            pursuits += label == PURSUIT
        begun_ns += last_ns + _BETWEEN_RUNS_NS
    if not found:
        raise SourceError(f"{path}: no row is labelled {FIXATION} or {PURSUIT}")
    notes = (
        f"{len(found) - pursuits} fixations and {pursuits} pursuits in {len(tables)} runs, of a film of 1280 x 546 px",
    )
    return Recorded(fixations=tuple(found), frame=FILM, notes=notes)


def _fits(path: Path) -> bool:
    table = next(iter(sorted(path.glob(_PATTERN))), None) if path.is_dir() else path
    return table is not None and table.is_file() and set(_COLUMNS) <= set(header_of(table).split("\t"))


def _fixations(table: Path, labels: tuple[str, ...]) -> Iterator[tuple[float, float, float, float, str]]:
    """Onset and duration (s), place (px) and label of each event: a fixation's middle, a pursuit's beginning."""
    try:
        with table.open(newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(f"{table}: column {missing[0]} is missing; this is no table of eye-movement events")
            for line, row in enumerate(reader, start=2):
                if row["label"] in labels:
                    yield *_numbers(row, table, line), row["label"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{table} can't be read: {error}") from None


def _numbers(row: dict[str, str], table: Path, line: int) -> tuple[float, float, float, float]:
    try:
        onset, duration, x0, y0, x1, y1 = (float(row[name]) for name in _COLUMNS if name != "label")
    except (TypeError, ValueError):
        raise SourceError(f"{table}, line {line}: a number is missing or is none") from None
    x, y = (x0, y0) if row["label"] == PURSUIT else ((x0 + x1) / 2, (y0 + y1) / 2)
    found = (onset, duration, x, y)
    if not all(math.isfinite(value) for value in found) or onset < 0 or duration < 0:
        raise SourceError(f"{table}, line {line}: times must be finite and not negative")
    return found


FORMAT = Format(
    "studyforrest",
    "studyforrest event tables",
    "a .tsv with onset, duration, label, start_x, start_y, end_x and end_y, or a folder of *_events.tsv",
    _fits,
    read,
)
