"""A learner at one moment, and its file: safetensors, with the rest as JSON in the file's metadata.

Everything a step reads is in a :class:`Snapshot`: parameters, optimiser, every stream's state and
sensitivities, statistics, counts, generator. A learner that loads it goes on with the same bits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from model.errors import ModelError

FORMAT = "rjepa-snapshot-1"


class Snapshot(NamedTuple):
    """``tensors`` by name, any dtype, on the CPU; ``meta`` is JSON-able."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def write(snapshot: Snapshot, path: Path) -> None:
    """Write ``snapshot`` to ``path``. Neither atomic nor synced: that is the caller's."""
    # One key: the library writes several in no settled order, and the same learner must give the same file.
    metadata = {FORMAT: json.dumps(snapshot.meta, sort_keys=True)}
    safetensors.torch.save_file({name: t.contiguous() for name, t in snapshot.tensors.items()}, path, metadata)


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
