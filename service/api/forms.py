"""What ``records`` can be told as: JSON, CSV or an Arrow stream, each made piece by piece.

A form begins with ``head``, goes on with ``rows`` for every batch read, and ends with ``tail``; what they give is put
one after the other. A row has the values of ``columns``.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any, Protocol

import numpy as np

from service import records
from service.api.columns import EMBEDDING, NAMES
from service.records import Record, numbers

JSON_TYPE = "application/json"
CSV_TYPE = "text/csv"
ARROW_TYPE = "application/vnd.apache.arrow.stream"

Rows = list[tuple[Any, ...]]


class Form(Protocol):
    """One way of telling records."""

    columns: tuple[str, ...]
    piece: int
    """Records of one batch: about a megabyte at most."""

    def head(self) -> bytes:
        """What comes before the first record."""

    def rows(self, rows: Rows) -> bytes:
        """A batch, not empty."""

    def tail(self) -> bytes:
        """What comes after the last record; without it the answer is not whole."""


class JsonPage:
    """``{"records": [...], "next": cursor}``."""

    columns = records.COLUMNS
    piece = 100

    def __init__(self, embeddings: bool, following: int | None) -> None:
        self._embeddings = embeddings
        self._following = following
        self._between = b""

    def head(self) -> bytes:
        """The beginning of the object."""
        return b'{"records":['

    def rows(self, rows: Rows) -> bytes:
        """Records as JSON objects."""
        before, self._between = self._between, b","
        return before + ",".join(self._json(Record.from_row(row)) for row in rows).encode()

    def tail(self) -> bytes:
        """The cursor of the next page, and the end."""
        return f'],"next":{json.dumps(self._following)}}}'.encode()

    def _json(self, record: Record) -> str:
        return json.dumps(record.json(embedding=self._embeddings), allow_nan=False, separators=(",", ":"))


class CsvPage:
    """RFC 4180, UTF-8, a header line; null is an empty field, a number its shortest form that is exactly it.

    An embedding is as many columns as it has numbers: ``embedding_0`` and on.
    """

    def __init__(self, embedding_size: int | None) -> None:
        self._size = embedding_size or 0
        self.columns = NAMES + ((EMBEDDING,) if self._size else ())
        self.piece = 100 if self._size else 1000
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text)

    def head(self) -> bytes:
        """The header line."""
        self._writer.writerow([*NAMES, *(f"{EMBEDDING}_{i}" for i in range(self._size))])
        return self._taken()

    def rows(self, rows: Rows) -> bytes:
        """A line for each record."""
        self._writer.writerows(rows if not self._size else [(*row[:-1], *self._numbers(row[-1])) for row in rows])
        return self._taken()

    def tail(self) -> bytes:
        """Nothing: the last line has its end."""
        return b""

    def _numbers(self, packed: bytes | None) -> list[float] | list[None]:
        return [None] * self._size if packed is None else list(numbers(packed).astype(np.float64).tolist())

    def _taken(self) -> bytes:
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text.encode()


def example_page(rows: Rows) -> str:
    """What a CSV page of these rows looks like, without embeddings."""
    page = CsvPage(None)
    return (page.head() + page.rows(rows) + page.tail()).decode()
