"""Records as a table: of pandas, polars or pyarrow, whichever is there.

With pyarrow they travel as an Arrow stream, several times faster than as pages of JSON; the columns are the same.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from clients.errors import OptionError

if TYPE_CHECKING:
    import httpx

Kind = Literal["pandas", "polars", "pyarrow", "rows"]
ARROW_TYPE = "application/vnd.apache.arrow.stream"
ACCEPT_ARROW = f"{ARROW_TYPE}, application/json;q=0.5"
"""An interface that has no Arrow answers in JSON."""

_WHOLE = frozenset({"seq", "position", "timeline"})
_TEXT = frozenset({"stream", "sequence_id", "skipped"})


def chosen(as_: str | None) -> str:
    """The kind of table that was asked for, or the first that is installed.

    Raises :class:`OptionError` where it is unknown, or not installed.
    """
    kinds = get_args(Kind)
    if as_ is not None and as_ not in kinds:
        raise OptionError(f"as_={as_!r} is none of {', '.join(kinds)}")
    wanted = [as_] if as_ is not None else [kind for kind in kinds if kind != "rows"]
    for kind in wanted:
        if kind == "rows" or installed(kind):
            return str(kind)
    told = "pandas, polars or pyarrow" if as_ is None else as_
    raise OptionError(f'a table needs {told}: pip install {wanted[0]}, or ask for as_="rows", a list of dictionaries')


def installed(library: str) -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec(library) is not None


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """A record as a row: gaze_x, gaze_y, trivial_copy_last and so on; the embedding, where there is one, last."""
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name == "gaze":
            row |= {"gaze_x": value and value["x"], "gaze_y": value and value["y"]}
        elif name == "trivial_error":
            row |= {f"trivial_{each}": error for each, error in value.items()}
        else:
            row[name] = value
    return row


def from_rows(rows: list[dict[str, Any]], kind: str) -> Any:
    """The table of rows made by :func:`flat`."""
    if kind == "rows":
        return rows
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    if kind == "pyarrow":
        arrow = importlib.import_module("pyarrow")
        fields = [(name, _arrow_type(arrow, name, values)) for name, values in columns.items()]
        return arrow.table(columns, schema=arrow.schema(fields))
    if kind == "polars":
        polars = importlib.import_module("polars")
        return polars.DataFrame(columns, schema={name: _polars_type(polars, name) for name in columns})
    pandas = importlib.import_module("pandas")
    return pandas.DataFrame({name: pandas.Series(values, dtype=_pandas_type(name, values))
                             for name, values in columns.items()})  # fmt: skip


def from_arrow(response: httpx.Response, limit: int | None, kind: str) -> Any:
    """The table in an Arrow stream, of which no more is read than ``limit`` rows need."""
    arrow = importlib.import_module("pyarrow")
    with arrow.ipc.open_stream(_Readable(response.iter_bytes())) as reader:
        batches, left = [], limit
        for batch in reader:
            batches.append(batch if left is None else batch.slice(0, left))
            left = None if left is None else left - batches[-1].num_rows
            if left == 0:
                break
        table = arrow.Table.from_batches(batches, schema=reader.schema)
    if kind == "polars":
        return importlib.import_module("polars").from_arrow(table)
    return table.to_pandas() if kind == "pandas" else table


class _Readable:
    """A body that comes in pieces, as a file that can only be read on."""

    closed = False

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces: Iterator[bytes] = iter(pieces)
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer at the end."""
        pieces, have = [self._left], len(self._left)
        while size < 0 or have < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        self._left = b"" if size < 0 else whole[size:]
        return whole if size < 0 else whole[:size]

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


def _arrow_type(arrow: Any, name: str, values: list[Any]) -> Any:
    if name == "embedding":
        size = next((len(value) for value in values if value is not None), 0)
        return arrow.list_(arrow.float32(), size) if size else arrow.list_(arrow.float32())
    return arrow.int64() if name in _WHOLE else arrow.string() if name in _TEXT else arrow.float64()


def _polars_type(polars: Any, name: str) -> Any:
    if name == "embedding":
        return polars.List(polars.Float32)
    return polars.Int64 if name in _WHOLE else polars.String if name in _TEXT else polars.Float64


def _pandas_type(name: str, values: list[Any]) -> Any:
    if name in _TEXT or name == "embedding":
        return None
    return "int64" if name in _WHOLE and None not in values else "float64"
