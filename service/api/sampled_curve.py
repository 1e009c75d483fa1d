"""A first picture of a long history: evenly spread runs of fixations instead of every one.

Reading a million errors takes seconds; a run of ``window`` fixations before each of a few hundred places takes a few
hundred look-ups. The running mean at those places is exact. Least and greatest errors are those of the runs alone, so
whoever shows it must say that it is a sample (``sampled`` in the answer: how many fixations were read).
"""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np

from service.api.curve import Errors, best_trivial
from service.history import lineage, where_lineage
from service.schema import TRIVIAL_ERRORS

_COLUMNS = ", ".join(["seq", "time", "prediction_error", *(f"trivial_{name}" for name in TRIVIAL_ERRORS)])


def sampled_loss(
    connection: sqlite3.Connection, stream: str, learned_seq: int, places: int, window: int
) -> dict[str, Any]:
    """Like :func:`service.api.loss.loss_by_time`, of about ``places`` runs of ``window`` fixations; never complete."""
    condition, values = where_lineage(lineage(connection))
    query = (
        f"SELECT {_COLUMNS} FROM records WHERE stream = ? AND seq <= ? AND prediction_error IS NOT NULL AND {condition}"
        " ORDER BY seq DESC LIMIT ?"
    )
    runs, before = [], -1
    for end in np.linspace(min(learned_seq, window), learned_seq, places).astype(int).tolist():
        cursor = connection.execute(query, (stream, end, *values, window))
        cursor.row_factory = None
        rows = np.array(cursor.fetchall()[::-1], dtype=np.float64).reshape(-1, 3 + len(TRIVIAL_ERRORS))
        if len(rows) and rows[-1, 0] > before:
            before = int(rows[-1, 0])
            runs.append(rows)
    every = np.concatenate(runs) if runs else np.empty((0, 3 + len(TRIVIAL_ERRORS)))
    seq, position = every[:, 0].astype(np.int64), np.full(len(every), -1, np.int64)
    best = best_trivial(Errors(seq, every[:, 1], position, every[:, 2], every[:, 3:]))
    return {
        "points": [point for run in runs for point in _points(run, best)],
        "count": learned_seq + 1,
        "sampled": len(every),
        "window": window,
        "trivial_name": None if best is None else TRIVIAL_ERRORS[best],
    }


def _points(run: np.ndarray[Any, np.dtype[np.float64]], best: int | None) -> list[dict[str, Any]]:
    """The least, the greatest and the last error of a run; the running means stand at the last."""
    last = len(run) - 1
    trivial = run[:, 3 + best] if best is not None else np.full(len(run), np.nan)
    known = trivial[np.isfinite(trivial)]
    found = []
    for i in sorted({int(np.argmin(run[:, 2])), int(np.argmax(run[:, 2])), last}):
        found.append(
            {
                "seq": int(run[i, 0]),
                "time": float(run[i, 1]),
                "error": float(run[i, 2]),
                "smoothed": float(run[:, 2].mean()) if i == last else None,
                "trivial": float(trivial[i]) if np.isfinite(trivial[i]) else None,
                "trivial_smoothed": float(known.mean()) if i == last and len(known) else None,
            }
        )
    return found
