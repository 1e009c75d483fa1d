"""A learner at one moment, and its file: safetensors, with the rest as JSON in the file's metadata.

Everything a step reads is in a :class:`Snapshot`: parameters, optimiser, every stream's state and
sensitivities, statistics, counts, generator. A learner that loads it goes on with the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from model.errors import ModelError

FORMAT = "rjepa-snapshot-1"
PIECE_BYTES = 1 << 20

_DTYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16",
    torch.float16: "F16", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""By what safetensors calls them, in the order it writes them in: the largest first, so that all are aligned."""
_PLACES = {dtype: place for place, dtype in enumerate(_DTYPES)}


class Snapshot(NamedTuple):
    """``tensors`` by name, any dtype, on the CPU; ``meta`` is JSON-able."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def pieces(snapshot: Snapshot) -> Iterator[memoryview]:
    """The file of ``snapshot`` from its first byte to its last, at most :data:`PIECE_BYTES` at once; nothing is copied.

    The same bytes as the library's own ``save_file``, which writes all at once. The same learner gives the same file.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in snapshot.tensors.items()}
    names = sorted(tensors, key=lambda name: (_PLACES[tensors[name].dtype], name))
    # One key: the library writes several in no settled order.
    header: dict[str, Any] = {"__metadata__": {FORMAT: json.dumps(snapshot.meta, sort_keys=True)}}
    end = 0
    for name in names:
        tensor = tensors[name]
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    told = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    yield from _cut(memoryview(len(told).to_bytes(8, "little") + told))
    for name in names:
        yield from _cut(tensors[name].reshape(-1).view(torch.uint8).numpy().data)


def write(snapshot: Snapshot, path: Path) -> None:
    """Write ``snapshot`` to ``path``. Neither atomic nor synced: that is the caller's."""
    with path.open("wb") as file:  # buffered: it writes on where the disk took less than it was given
        for piece in pieces(snapshot):
            file.write(piece)


def read(path: Path) -> Snapshot:
    """The snapshot in ``path``. Raises :class:`ModelError` if it is none or is damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if FORMAT not in metadata:
                raise ModelError(f"{path}: no snapshot of the format {FORMAT!r}; its metadata has {sorted(metadata)}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        return Snapshot(tensors, json.loads(metadata[FORMAT]))
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: no snapshot that can be read: {error}") from None


def _cut(whole: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(whole), PIECE_BYTES):
        yield whole[begin : begin + PIECE_BYTES]
