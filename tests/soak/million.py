"""A data directory with a million records, written past the journal's own pen, which would take an hour."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service import records
from service.schema import TRIVIAL_ERRORS
from tests.service.api_support import Lab

PIECE = 10_000
EMBEDDING = records.pack(np.linspace(-1, 1, 256, dtype=np.float32))


def long_history(folder: Path, count: int, stream: str = "long", begun_s: float = 1.7e9) -> None:
    """``count`` fixations of ``stream``, four a second, in a new database of ``folder``; rows as the worker writes."""
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(folder)
    lab.claim(stream)
    lab.journal.close()
    generator = np.random.default_rng(0)
    with sqlite3.connect(folder / "rjepa.db") as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for first in tqdm(range(0, count, PIECE), desc="records", unit_scale=PIECE):
            seqs = range(first, min(count, first + PIECE))
            errors = 0.4 + 0.4 * np.exp(-np.array(seqs) / 50_000) + generator.gamma(2.0, 0.05, len(seqs))
            rows = [_row(seq, stream, begun_s, error) for seq, error in zip(seqs, errors.tolist(), strict=True)]
            connection.executemany(
                "INSERT INTO journal (id, time, kind, stream, seq, body) VALUES (?, ?, 'fixation', ?, ?, ?)",
                [(seq + 1, begun_s + 0.25 * seq, stream, seq, json.dumps({"onset": 0.25 * seq})) for seq in seqs],
            )
            connection.executemany(records.INSERT, rows)
        connection.execute(
            "UPDATE streams SET next_seq = ?, learned_seq = ?, learned = ?, last_time = ? WHERE name = ?",
            (count, count - 1, count, begun_s + 0.25 * count, stream),
        )
        connection.execute("UPDATE meta SET value = ? WHERE key = 'learned_id'", (str(count),))
    connection.close()


def _row(seq: int, stream: str, begun_s: float, error: float) -> tuple[object, ...]:
    """The values of :data:`service.records.COLUMNS`."""
    trivial = [error + 0.01 * (1 + i) for i in range(len(TRIVIAL_ERRORS))]
    arrival, learned = begun_s + 0.25 * seq, error if seq else None
    seen = (seq + 1, stream, seq, arrival, 0.25 * seq, 0.2, 0.5, 0.25, seq % 40, None)
    return (*seen, learned, *trivial, 40.0, 0.01, 60.0, None, 0, EMBEDDING)
