"""Records as an Arrow IPC stream: a schema, record batches, and a mark at the end without which it was cut.

Made with nanoarrow: a megabyte where pyarrow has 170, and all that writing needs. Text is utf8, not a dictionary,
which it can't write.
"""

from __future__ import annotations

from typing import Any

import nanoarrow as na
import numpy as np
from nanoarrow import ipc
from numpy.typing import NDArray

from service.api.columns import COLUMNS, EMBEDDING, NAMES, Column
from service.api.forms import Rows

_KINDS = {"int64": na.int64, "float64": na.float64, "utf8": na.string}


class ArrowStream:
    """One schema and a batch for every piece; an embedding is a fixed-size list of float32."""

    piece = 1000

    def __init__(self, embedding_size: int | None) -> None:
        self.columns = NAMES + ((EMBEDDING,) if embedding_size else ())
        self._size = embedding_size or 0
        self._schema = _schema(self._size)
        self._sink = _Sink()
        self._writer = ipc.StreamWriter.from_writable(self._sink)

    def head(self) -> bytes:
        """The schema; a batch without rows brings it along."""
        self._writer.write_array(self._batch([()] * len(self.columns), 0))
        return self._sink.taken()

    def rows(self, rows: Rows) -> bytes:
        """One record batch."""
        self._writer.write_array(self._batch(list(zip(*rows, strict=True)), len(rows)))
        return self._sink.taken()

    def tail(self) -> bytes:
        """The mark of the end."""
        self._writer.close()
        return self._sink.taken()

    def _batch(self, values: list[tuple[Any, ...]], count: int) -> Any:
        arrays = [_array(column, told) for column, told in zip(COLUMNS, values, strict=False)]
        if self._size:
            arrays.append(_vectors(values[-1], self._size))
        return na.c_array_from_buffers(self._schema, count, [None], children=arrays)


class _Sink:
    """Where the writer writes: kept until it is taken."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _schema(size: int) -> Any:
    """The schema, with unit and description of each column as its metadata."""
    fields = {column.name: _KINDS[column.kind](nullable=not column.needed) for column in COLUMNS}
    told = {column.name: {"unit": column.unit, "description": column.said} for column in COLUMNS}
    if size:
        fields[EMBEDDING] = _list_type(size)
        told[EMBEDDING] = {"unit": "", "description": "null where the fixation has none"}
    plain = na.c_schema(na.struct(fields))
    children = list(plain.children)
    return plain.modify(children=[child.modify(metadata=told[child.name]) for child in children])


def _list_type(size: int) -> Any:
    return na.fixed_size_list(na.float32(nullable=False), size)


def _array(column: Column, values: tuple[Any, ...]) -> Any:
    """A column's values with None as null."""
    kind = _KINDS[column.kind](nullable=not column.needed)
    if column.kind == "utf8":
        return na.c_array(values, kind)
    # A number that is NaN can't come out of SQLite, so that NaN is free to stand for null here.
    known = np.array(values, dtype=np.float64)
    valid = ~np.isnan(known)
    if column.kind == "int64":
        numbers = np.array([0 if value is None else value for value in values], dtype=np.int64)
        return na.c_array_from_buffers(kind, len(values), [_bits(valid), numbers])
    return na.c_array_from_buffers(kind, len(values), [_bits(valid), np.where(valid, known, 0.0)])


def _vectors(values: tuple[bytes | None, ...], size: int) -> Any:
    """Packed vectors (float32 little-endian) as lists of ``size`` numbers. Raises ValueError for another length."""
    nothing = bytes(4 * size)
    packed = b"".join(nothing if value is None else value for value in values)
    numbers = np.frombuffer(packed, dtype="<f4")
    if len(numbers) != size * len(values):
        raise ValueError(f"an embedding that has not {size} numbers")
    child = na.c_array_from_buffers(na.float32(nullable=False), len(numbers), [None, numbers])
    valid = np.array([value is not None for value in values], dtype=bool)
    return na.c_array_from_buffers(_list_type(size), len(values), [_bits(valid)], children=[child])


def _bits(valid: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
    """A validity bitmap; None, which stands for it, where all are valid."""
    return None if valid.all() else np.packbits(valid, bitorder="little")
