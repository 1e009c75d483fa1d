"""The record of one fixation: what was predicted, how wrong it was, and what the trivial predictors said.

The one place that knows how a record looks as a row of the database and as the JSON of HTTP and PUB.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.schema import TRIVIAL_ERRORS

COLUMNS = (
    "id",
    "stream",
    "seq",
    "time",
    "onset",
    "duration",
    "gaze_x",
    "gaze_y",
    "position",
    "sequence_id",
    "prediction_error",
    *(f"trivial_{name}" for name in TRIVIAL_ERRORS),
    "effective_rank",
    "update_norm",
    "latency_ms",
    "skipped",
    "timeline",
    "embedding",
)
SELECT = f"SELECT {', '.join(COLUMNS)} FROM records"
INSERT = f"INSERT INTO records ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"


@dataclass(frozen=True)
class Record:
    """One fixation's record. Times in s, ``latency_ms`` in ms; ``embedding`` is float32 little-endian, q numbers."""

    id: int
    stream: str
    seq: int
    time: float
    timeline: int
    onset: float | None = None
    duration: float | None = None
    gaze: tuple[float, float] | None = None
    position: int | None = None
    sequence_id: str | None = None
    prediction_error: float | None = None
    trivial_error: dict[str, float | None] = field(default_factory=dict)
    effective_rank: float | None = None
    update_norm: float | None = None
    latency_ms: float | None = None
    skipped: str | None = None
    embedding: bytes | None = None

    def row(self) -> tuple[Any, ...]:
        """The values of :data:`COLUMNS`."""
        x, y = self.gaze if self.gaze is not None else (None, None)
        return (
            self.id,
            self.stream,
            self.seq,
            self.time,
            self.onset,
            self.duration,
            x,
            y,
            self.position,
            self.sequence_id,
            finite(self.prediction_error),
            *(finite(self.trivial_error.get(name)) for name in TRIVIAL_ERRORS),
            finite(self.effective_rank),
            finite(self.update_norm),
            self.latency_ms,
            self.skipped,
            self.timeline,
            self.embedding,
        )

    @classmethod
    def from_row(cls, row: sqlite3.Row | tuple[Any, ...]) -> Record:
        """The record in a row of :data:`SELECT`."""
        value = dict(zip(COLUMNS, tuple(row), strict=True))
        x, y = value.pop("gaze_x"), value.pop("gaze_y")
        trivial = {name: value.pop(f"trivial_{name}") for name in TRIVIAL_ERRORS}
        return cls(gaze=None if x is None else (x, y), trivial_error=trivial, **value)

    def json(self, *, embedding: bool = False) -> dict[str, Any]:
        """The record as HTTP and PUB tell it."""
        told: dict[str, Any] = {
            "stream": self.stream,
            "seq": self.seq,
            "time": self.time,
            "onset": self.onset,
            "duration": self.duration,
            "gaze": None if self.gaze is None else {"x": self.gaze[0], "y": self.gaze[1]},
            "position": self.position,
            "sequence_id": self.sequence_id,
            "prediction_error": finite(self.prediction_error),
            "trivial_error": {name: finite(self.trivial_error.get(name)) for name in TRIVIAL_ERRORS},
            "effective_rank": finite(self.effective_rank),
            "update_norm": finite(self.update_norm),
            "latency_ms": self.latency_ms,
            "skipped": self.skipped,
            "timeline": self.timeline,
        }
        if embedding:
            told["embedding"] = None if self.embedding is None else numbers(self.embedding).tolist()
        return told


def finite(value: float | None) -> float | None:
    """``value``, or None where it is none or no finite number (JSON has no other)."""
    return None if value is None or not math.isfinite(value) else float(value)


def pack(values: NDArray[np.float32]) -> bytes:
    """float32 little-endian bytes of a vector."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def numbers(packed: bytes) -> NDArray[np.float32]:
    """The vector in ``packed`` (float32), as a copy that can be written."""
    return np.frombuffer(packed, dtype="<f4").astype(np.float32)
