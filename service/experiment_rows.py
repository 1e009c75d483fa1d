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


class KeptRows:
    """Rows by key. A row begins with its key, so the same run is found again; another version's rows stay apart."""

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
        self.rows = [kept for kept in self.rows if self._of(kept) != self._of(row)] + [row]
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


@dataclass(frozen=True)
class Column:
    """One column: its heading, the row's value, how many digits; ``each`` tells every seed's value beside the mean."""

    heading: str
    value: str
    digits: int = 3
    each: bool = False


def table(rows: Iterable[Row], by: Sequence[Column], columns: Sequence[Column]) -> list[list[str]]:
    """Heading and lines: one line for each value of ``by``, in order of appearance, the mean over its rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column.value] for column in by), []).append(row)
    lines = [[column.heading for column in (*by, *columns)]]
    for key, members in groups.items():
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
    values = [row.get(column.value) for row in rows]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not numbers:
        return _plain(values[0]) if values and isinstance(values[0], str | bool) else "–"
    told = _number(statistics.fmean(numbers), column.digits)
    if column.each and len(numbers) > 1:
        told += " (" + " ".join(_number(number, column.digits) for number in numbers) + ")"
    return told


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _number(value: float, digits: int) -> str:
    if value and abs(value) < 10.0**-digits / 2:
        return f"{value:.0e}"
    return f"{value:.{digits}f}"
