"""The rows of an experiment: kept in a JSON file as each is finished, and told as a table."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import ExperimentRefused

Row = dict[str, Any]
Value = float | int | str | None
_DIGITS = 12


def digest(thing: Any) -> str:
    """A short name of anything JSON-able: the beginning of its sha256, in hex."""
    return hashlib.sha256(json.dumps(thing, sort_keys=True).encode()).hexdigest()[:_DIGITS]


MADE_BY = ("config", "calibration", "features")
"""Parts of a key that say what made the row, not which row it is: one of another version is replaced."""


class KeptRows:
    """Rows by key. A row begins with its key, so the same run is found again; one of another version is run again,
    and goes when the new one is there."""

    def __init__(self, path: Path | None, experiment: str, key: Sequence[str]) -> None:
        """Read what ``path`` holds; None keeps nothing. Raises :class:`ExperimentRefused` for another file."""
        self.path = path
        self.rows: list[Row] = []
        self._experiment = experiment
        self._key = tuple(key)
        if path is None or not path.exists():
            return
        try:
            held = json.loads(path.read_text())
            if held["experiment"] != experiment:
                raise ValueError(f"it holds the experiment {held['experiment']!r}")
            self.rows = list(held["rows"])
            for row in self.rows:
                self._of(row)
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ExperimentRefused(f"{path} holds no rows of {experiment} ({error}): name another file") from None

    def find(self, key: Row) -> Row | None:
        """The row of ``key``, if it is finished."""
        wanted = self._of(key)
        return next((row for row in self.rows if self._of(row) == wanted), None)

    def add(self, row: Row) -> None:
        """Keep ``row``; on the disk, whole or not at all, when this returns. Raises :class:`ExperimentRefused`."""
        self.rows = [kept for kept in self.rows if self._which(kept) != self._which(row)] + [row]
        if self.path is None:
            return
        told = ",\n".join(json.dumps(kept) for kept in self.rows)
        text = f'{{"experiment": {json.dumps(self._experiment)}, "rows": [\n{told}\n]}}\n'
        partial = self.path.with_name(f".{self.path.name}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        except OSError as error:
            raise ExperimentRefused(f"{self.path} can't be written ({error}): name another file") from None

    def _of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key)

    def _which(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self._key if name not in MADE_BY)


@dataclass(frozen=True)
class Column:
    """One column: its heading, the row's value, how many digits; ``each`` tells every seed's value beside the mean,
    ``count`` how many rows there are instead."""

    heading: str
    value: str
    digits: int = 3
    each: bool = False
    count: bool = False


SEEDS = Column("seeds", "seed", count=True)
"""Of how many seeds a line is the mean."""


def table(rows: Iterable[Row], by: Sequence[Column], columns: Sequence[Column]) -> list[list[str]]:
    """Heading and lines: one line for each value of ``by``, in order of appearance, the mean over its rows.

    Raises :class:`ExperimentRefused` where a line would mix rows of two versions, or count a seed twice.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column.value] for column in by), []).append(row)
    lines = [[column.heading for column in (*by, *columns)]]
    for key, members in groups.items():
        seeds = [row["seed"] for row in members if "seed" in row]
        if len({row.get("config") for row in members}) > 1 or len(set(seeds)) < len(seeds):
            raise ExperimentRefused(f"rows of {key} are of two versions or twice of one seed: run the older ones again")
        lines.append([*(_plain(value) for value in key), *(_cell(members, column) for column in columns)])
    return lines


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """For a terminal."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """For a page."""
    heading, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([heading, "|" + " --- |" * len(lines[0]), *rest])


def _cell(rows: Sequence[Row], column: Column) -> str:
    """The mean; words and yes or no of each seed where they differ; a seed that came to no number takes the mean away,
    one that was not asked is left out."""
    if column.count:
        return str(len(rows))
    values = [row[column.value] for row in rows if column.value in row]
    told = [_told(value, column.digits) for value in values]
    if any(isinstance(value, str | bool) for value in values):
        return told[0] if len(set(told)) == 1 else " / ".join(told)
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "–"
    if len(numbers) < len(values):
        return "– (" + " ".join(told) + ")"
    mean = _number(statistics.fmean(numbers), column.digits)
    return f"{mean} ({' '.join(told)})" if column.each and len(values) > 1 else mean


def _told(value: Any, digits: int) -> str:
    """One row's value."""
    if value is None:
        return "–"
    return _number(value, digits) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _number(value: float, digits: int) -> str:
    if value and abs(value) < 10.0**-digits / 2:
        return f"{value:.0e}"
    return f"{value:.{digits}f}"
