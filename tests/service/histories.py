"""Long histories, written through the journal's own pen, and readers that hold an export against the database."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from clients.wire import MAX_SEQ
from service import records
from service.api.columns import EMBEDDING, NAMES
from service.history import view
from service.journal import Journal, Turn
from service.records import Record, pack
from service.schema import TRIVIAL_ERRORS
from tests.service.api_support import MODEL

TURN = 10_000
SKIPS = ("lost", "refused", "quarantined", "repeat")


def write_history(folder: Path, count: int, *, stream: str = "s1", embedding_size: int = 4) -> None:
    """``count`` records of ``stream``, their journal ids from 1: of every kind, with and without each thing that may
    be missing."""
    journal = Journal(folder / "rjepa.db")
    try:
        journal.put_meta("model", json.dumps(MODEL | {"embedding_size": embedding_size}))
        journal.claim(stream, 1, 1.0)
        made = _records(count, stream, embedding_size)
        for first in tqdm(range(0, count, TURN), desc="records", unit_scale=TURN, disable=count <= TURN):
            turn = [next(made) for _ in range(min(TURN, count - first))]
            journal.put_turn(Turn(turn[-1].id, list(turn)), turn[-1].time)
    finally:
        journal.close()


def _records(count: int, stream: str, size: int) -> Iterator[Record]:
    generator = np.random.default_rng(0)
    for seq in range(count):
        lost = seq % 97 == 3
        error = None if lost or seq % 40 == 0 else float(generator.gamma(2.0, 0.25))
        marked = not lost and seq % 400 >= 40
        yield Record(
            id=seq + 1,
            stream=stream,
            seq=seq,
            time=1.7e9 + 0.25 * seq + float(generator.random()) / 10,
            timeline=0,
            onset=None if lost else 0.25 * seq,
            duration=None if lost else float(generator.random()),
            gaze=None if lost else (float(generator.random()), float(generator.random())),
            position=None if lost else seq % 40,
            sequence_id=f'scene {seq // 40}, "ä"' if marked else None,
            prediction_error=error,
            trivial_error={
                name: None if error is None or (name == "carry_scene" and not marked) else error * (1.1 + 0.1 * i)
                for i, name in enumerate(TRIVIAL_ERRORS)
            },
            effective_rank=None if seq < 100 else 1.0 + seq / count,
            update_norm=None if error is None else float(generator.random()) / 1e3,
            latency_ms=None if lost else 40.0 + float(generator.random()),
            skipped=SKIPS[seq // 97 % 4] if lost else None,
            embedding=None if lost else pack(generator.standard_normal(size, dtype=np.float32)),
        )


def records_page(
    connection: sqlite3.Connection, stream: str, *, after: int = -1, limit: int = 1000, timeline: int | None = None
) -> tuple[list[Record], int | None]:
    """Records above seq ``after``, ascending by seq, and the cursor of the next page."""
    found = view(connection, stream, timeline)
    if found is None:
        return [], None
    end = found.page_end(connection, after=after, limit=limit)
    rows = found.rows(connection, records.COLUMNS, after=after, until=MAX_SEQ, limit=limit)
    return [Record.from_row(row) for row in rows], end


def database_rows(folder: Path, stream: str = "s1", *, embeddings: bool = False) -> Iterator[tuple[Any, ...]]:
    """The rows of ``records`` as SQLite has them, ascending by seq."""
    columns = (*NAMES, EMBEDDING) if embeddings else NAMES
    connection = sqlite3.connect(f"file:{folder / 'rjepa.db'}?mode=ro", uri=True)
    try:
        query = f"SELECT {', '.join(columns)} FROM records WHERE stream = ? ORDER BY seq"
        yield from connection.execute(query, (stream,))
    finally:
        connection.close()


def arrow_rows(source: IO[bytes] | bytes) -> Iterator[tuple[Any, ...]]:
    """The rows of an Arrow stream, an embedding as its bytes. Raises where the stream has no end of its own."""
    with pa.ipc.open_stream(source) as reader:
        for batch in reader:
            batch.validate(full=True)
            columns = [_column(batch.column(i)) for i in range(batch.num_columns)]
            yield from zip(*columns, strict=True)


def _column(array: Any) -> list[Any]:
    if not pa.types.is_fixed_size_list(array.type):
        return list(array.to_pylist())
    size = array.type.list_size
    packed = array.values.to_numpy().astype("<f4").tobytes()  # every slot, those of nulls too
    known = array.is_valid().to_pylist()
    return [packed[4 * size * i : 4 * size * (i + 1)] if valid else None for i, valid in enumerate(known)]


def csv_rows(lines: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a CSV page, as the types of the database; an embedding as its bytes."""
    reader = csv.reader(lines, strict=True)
    head = next(reader)
    width = len(NAMES)
    assert head == [*NAMES, *(f"{EMBEDDING}_{i}" for i in range(len(head) - width))]
    kinds = [str if name in ("stream", "sequence_id", "skipped") else _number for name in NAMES]
    for row in reader:
        told = tuple(None if text == "" else kind(text) for kind, text in zip(kinds, row, strict=False))
        if len(head) == width:
            yield told
        else:
            yield (*told, None if row[width] == "" else np.array(row[width:], dtype=np.float64).astype("<f4").tobytes())


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdecimal() else float(text)
