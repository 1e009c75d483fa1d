"""Weights by name in one flat vector, so that an optimiser's step is a handful of operations.

A weight belongs to a group, and a group has a learning rate; weights of a group without a rate are fixed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GROUPS: dict[str, str] = {
    "W_hh": "gates",
    "W_ch": "gates",
    "W_hc": "gates",
    "W_cc": "gates",
    "beta_h": "retention",
    "beta_c": "retention",
    "theta": "retention",
    "decay": "retention",
    "V": "input",
    "U": "embedding",
    "P": "predictor",
    "P_in": "predictor",
    "P_out": "predictor",
    "A": "action",
}
"""The group of every weight a model can have."""
CREDITED = ("gates", "retention", "input")
"""Groups whose weights act through time: the circuit's, and V."""


class Parameters:
    """``by_name`` holds every weight; those that are learned are views into ``flat``, in the given order."""

    def __init__(
        self, start: dict[str, Tensor], rates: dict[str, float | None], *, dtype: torch.dtype, device: str
    ) -> None:
        """``start``: float64 on the CPU, by name; ``rates`` by group, None for a fixed one."""
        self.learned = [name for name in start if rates[GROUPS[name]] is not None]
        self.shapes = {name: tensor.shape for name, tensor in start.items()}
        self.flat = torch.zeros(sum(start[name].numel() for name in self.learned), dtype=dtype, device=device)
        self._places: dict[str, slice] = {}
        end = 0
        for name in self.learned:
            self._places[name] = slice(end, end := end + start[name].numel())
        placed = self.split(self.flat)
        self.by_name = {
            name: placed.get(name, torch.empty(t.shape, dtype=dtype, device=device)) for name, t in start.items()
        }
        for name, tensor in start.items():
            self.by_name[name].copy_(tensor)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views into a vector laid out as ``flat``, by name, shaped as the weights."""
        parts = torch.split(flat, [place.stop - place.start for place in self._places.values()])
        found = dict(zip(self._places, parts, strict=True))
        return {
            name: part.view(self.shapes[name]) if len(self.shapes[name]) > 1 else part for name, part in found.items()
        }

    def place(self, name: str) -> int:
        """Where a weight begins in ``flat``; -1 where it is fixed."""
        return self._places[name].start if name in self._places else -1

    def gather(self, parts: dict[str, Tensor], names: list[str] | None = None) -> Tensor:
        """One vector, laid out as ``flat``, from parts by name; all that are learned, or some ``names``."""
        chosen = self.learned if names is None else names
        return torch.cat([parts[name].reshape(-1) for name in chosen]) if chosen else self.flat.new_zeros(0)

    def rates(self, by_group: dict[str, float]) -> Tensor:
        """Each weight's rate, laid out as ``flat``."""
        found = torch.empty_like(self.flat)
        for name, part in self.split(found).items():
            part.fill_(by_group[GROUPS[name]])
        return found

    def count(self) -> dict[str, int]:
        """How many numbers each weight has."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}
