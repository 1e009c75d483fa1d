"""Delimited text: rows, and columns as numbers and times. What is no number is NaN, what is no time is marked so."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError

TimeUnit = Literal["s", "ms", "us", "ns"]
UNIT_NS: dict[TimeUnit, int] = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def read_rows(path: Path, delimiter: str | None = None) -> tuple[list[str], list[list[str]]]:
    """The header and everything below it. Without ``delimiter``: the commonest of comma, semicolon and tab."""
    text = _text(path)
    first = text.partition("\n")[0]
    if not first.strip():
        raise SourceError(f"gaze file {path} is empty")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or max(",;\t", key=first.count)))
    except csv.Error as error:
        raise SourceError(f"gaze file {path} is no table: {error}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise SourceError(f"gaze file {path} has a header and no rows")
    return [name.strip() for name in rows[0]], rows[1:]


def read_columns(path: Path, names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, list[str]]:
    """The cells of the columns ``names``, and of those ``optional`` ones that are there, by name.

    Raises :class:`SourceError` that names what is missing and what is there.
    """
    header, rows = read_rows(path)
    missing = [name for name in names if name not in header]
    if missing:
        raise SourceError(f"{path} has no column {' and '.join(map(repr, missing))}; it has: {listed(header)}")
    wanted = [*names, *(name for name in optional if name in header)]
    return {name: column(rows, header.index(name)) for name in wanted}


def read_bare(path: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """The columns of a tab-separated table without a header (``.gz`` or not), named ``names`` from the left."""
    try:
        rows = [row for row in csv.reader(io.StringIO(_text(path), newline=""), delimiter="\t") if row]
    except csv.Error as error:
        raise SourceError(f"{path} is no table: {error}") from None
    return {name: column(rows, at) for at, name in enumerate(names)}


def header_of(path: Path) -> str:
    """The first line of a text file, without its end; empty where it can't be read."""
    try:
        with path.open("rb") as file:
            return file.readline(65_536).decode("utf-8-sig", errors="replace").strip("\r\n")
    except OSError:
        return ""


def column(rows: Iterable[Sequence[str]], at: int) -> list[str]:
    """One column; empty where a row is too short."""
    return [row[at] if at < len(row) else "" for row in rows]


def listed(names: Iterable[str]) -> str:
    """Names for an error, not too many."""
    return ", ".join(name[:40] for name in names)[:400]


def floats(cells: Sequence[str]) -> NDArray[np.float64]:
    """Numbers, NaN where there is none."""
    return np.array([to_float(cell) for cell in cells], np.float64)


def to_float(cell: str) -> float:
    """A finite number, or NaN."""
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def times(cells: Sequence[str], unit_ns: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Times in ns; whole numbers stay exact. The second array is False where there is none."""
    found, timed = np.zeros(len(cells), np.int64), np.zeros(len(cells), np.bool_)
    for at, cell in enumerate(cells):
        try:
            time_ns = int(cell) * unit_ns
        except ValueError:
            value = to_float(cell) * unit_ns
            if math.isnan(value):
                continue
            time_ns = round(value)
        if abs(time_ns) < 1 << 62:
            found[at], timed[at] = time_ns, True
    return found, timed


def all_times(path: Path, cells: Sequence[str], unit_ns: int) -> tuple[int, ...]:
    """Times in ns, every one of them needed. Raises :class:`SourceError` with the line of the first that is none."""
    found, timed = times(cells, unit_ns)
    if not timed.all():
        line = int(np.argmin(timed)) + 2
        raise SourceError(f"{path}, line {line}: {cells[line - 2][:40]!r} is no time")
    return tuple(found.tolist())


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"gaze file {path} can't be read: {getattr(error, 'strerror', None) or error}") from None
