"""A data directory with a million records, written past the journal's own pen, which would take an hour."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
from tqdm import tqdm

from service import records
from service.records import Record
from service.schema import TRIVIAL_ERRORS
from tests.service.api_support import Lab

PIECE = 10_000
EMBEDDING = np.linspace(-1, 1, 256, dtype=np.float32)


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
            rows = [_record(seq, stream, begun_s, float(error)).row() for seq, error in zip(seqs, errors, strict=True)]
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


def _record(seq: int, stream: str, begun_s: float, error: float) -> Record:
    return Record(
        id=seq + 1,
        stream=stream,
        seq=seq,
        time=begun_s + 0.25 * seq,
        timeline=0,
        onset=0.25 * seq,
        duration=0.2,
        gaze=(0.5, 0.25),
        position=seq % 40,
        prediction_error=error if seq else None,
        trivial_error={name: error + 0.01 * (1 + i) for i, name in enumerate(TRIVIAL_ERRORS)},
        effective_rank=40.0,
        update_norm=0.01,
        latency_ms=60.0,
        embedding=records.pack(EMBEDDING),
    )
