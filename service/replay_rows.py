"""How a replay came out beside its source: mean error and skill by stream, and how many records are the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from model import skill
from model.ring import SCORED, WARM
from service.records import COLUMNS, SELECT, Record
from service.storage import open_reader

_UNLIKE = COLUMNS.index("latency_ms")


class Compared(NamedTuple):
    """One stream, over the fixations both predicted; skill is None where there are too few."""

    stream: str
    fixations: int
    same: int
    """Records equal in everything but ``latency_ms``."""
    error: float | None
    source_error: float | None
    skill: float | None
    source_skill: float | None


def compare(source: Path, replayed: Path, after: int) -> list[Compared]:
    """Every stream's records above journal id ``after``, in the source and in the replay."""
    with closing(open_reader(source / "rjepa.db")) as theirs, closing(open_reader(replayed / "rjepa.db")) as ours:
        streams = [row[0] for row in ours.execute("SELECT name FROM streams ORDER BY name")]
        return [_compared(name, _records(theirs, name, after), _records(ours, name, after)) for name in streams]


def _compared(stream: str, theirs: Iterator[Record], ours: Iterator[Record]) -> Compared:
    """Both come by id; what only one of them has does not count."""
    count = same = 0
    errors: tuple[list[Tensor], list[Tensor]] = ([], [])
    old = next(theirs, None)
    for record in ours:
        while old is not None and old.id < record.id:
            old = next(theirs, None)
        if old is None or old.id != record.id:
            continue
        count, same = count + 1, same + (_row(record) == _row(old))
        if record.prediction_error is not None and old.prediction_error is not None:
            errors[0].append(skill.row(record.prediction_error, record.trivial_error))
            errors[1].append(skill.row(old.prediction_error, old.trivial_error))
    (error, level), (old_error, old_level) = map(_measured, errors)
    return Compared(stream, count, same, error, old_error, level, old_level)


def table(rows: list[Compared]) -> str:
    """The rows as text."""
    head = ("stream", "fixations", "same", "error", "source's", "skill", "source's")
    lines = [f"{head[0]:<20}" + "".join(f" {name:>10}" for name in head[1:])]
    for row in rows:
        numbers = [f"{'-' if value is None else format(value, '.5g'):>10}" for value in row[3:]]
        lines.append(f"{row.stream:<20} {row.fixations:>10} {row.same:>10} {' '.join(numbers)}")
    return "\n".join(lines)


def _records(reader: sqlite3.Connection, stream: str, after: int) -> Iterator[Record]:
    rows = reader.execute(f"{SELECT} WHERE stream = ? AND id > ? ORDER BY id", (stream, after))
    return (Record.from_row(row) for row in rows)


def _row(record: Record) -> tuple[object, ...]:
    row = record.row()
    return row[:_UNLIKE] + row[_UNLIKE + 1 :]


def _measured(rows: list[Tensor]) -> tuple[float | None, float | None]:
    """The mean error and the skill, as the diagnostics measure it."""
    if not rows:
        return None, None
    stacked = torch.stack(rows)
    return float(stacked[:, 0].double().mean()), skill.measure(stacked[WARM:][-SCORED:]).skill.value
