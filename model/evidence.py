"""One table of what was known before each fixation, and how well each readout of it foresaw the features.

A row is the step to fixation t+1; its target is z_{t+1} less the running mean zbar, which no weight of the
learner can move. Kinds of columns, letters as in model/learner.py:

    one, z_t, z_{t-1}, zbar, told (action, near, place), s_t, p_t, and s_t and p_t of the untrained twin
    y_t where it is not an even rotation of s_t

Where z has more than 256 numbers, or s or p more than 512, a fixed random projection onto so many stands in.

Readouts (:mod:`model.readout`), each scored before it is fitted:

    base      one, z_t, z_{t-1}, zbar, told              circuit   base, s_t, p_t       twin   base, the twin's s_t, p_t
    prediction  one, p_t    untrained  one, the twin's p_t    now  one, z_t     embedding  one, y_t
    and the ceiling of model/ceiling.py
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ceiling import LAGS, Ceiling
from model.learner import Learner, Watched
from model.readout import BLOCK, Extension, Kind, Layout, Readout, Readouts
from model.twin import TwinStep

COLUMNS = ("mean", "base", "circuit", "twin", "prediction", "untrained", "now", "embedding", "ceiling")
"""Errors of a row: of the running mean, then of each readout."""
MOST_FEATURES = 256
"""Numbers of z that a row holds at most ..."""
MOST_STATE = 512
"""... and of s, and of p."""
_BASE = ("one", "z", "z_before", "mean", "told")


class Scored(NamedTuple):
    """One row's errors, as :data:`COLUMNS` orders them."""

    stream: str
    errors: Tensor


class Projection:
    """At most ``most`` numbers in place of ``size``: themselves, or a fixed random projection of them."""

    def __init__(self, size: int, most: int) -> None:
        self.size = min(size, most)
        self._map: Tensor | None = None
        if size > most:
            generator = torch.Generator().manual_seed(size)
            self._map = torch.randn(most, size, generator=generator) / math.sqrt(most)

    def __call__(self, values: Tensor) -> Tensor:
        """float32, on the CPU."""
        values = values.to("cpu", torch.float32)
        return values if self._map is None else self._map @ values


class Evidence:
    """The table's last, unfinished block, the readouts, and what is remembered of each stream to make a row."""

    def __init__(self, learner: Learner) -> None:
        config = learner.config
        self._network = learner.network
        self._z = Projection(config.features, MOST_FEATURES)
        self._s = Projection(config.components * config.units, MOST_STATE)
        self._y = Projection(config.embedding_size, MOST_STATE)
        even = "U" not in learner.parameters.learned and config.embedding_size == config.components * config.units
        self._told = learner.network.reader.size - config.embedding_size - 1
        self._with_embedding = not even
        m, s, y = self._z.size, self._s.size, self._y.size
        kinds = [Kind("one", 1), Kind("z", m), Kind("z_before", m, "z"), Kind("mean", m, "z"), Kind("told", self._told)]
        kinds += [Kind("state", s), Kind("prediction", y), Kind("twin_state", s), Kind("twin_prediction", y)]
        kinds += [Kind("embedding", y)] if self._with_embedding else []
        layout = Layout(kinds)
        base = Readout(layout.columns(_BASE), m)
        learned = {
            "base": base,
            "circuit": Extension(base, layout.columns(("state", "prediction")), m),
            "twin": Extension(base, layout.columns(("twin_state", "twin_prediction")), m),
        }
        probes = {
            "prediction": ("one", "prediction"),
            "untrained": ("one", "twin_prediction"),
            "now": ("one", "z"),
            "embedding": ("one", "embedding" if self._with_embedding else "state"),
        }
        probing = {name: Readout(layout.columns(kinds), m) for name, kinds in probes.items()}
        self._readouts = Readouts(layout, [learned, probing], m)
        self._ceiling = Ceiling(m)
        self._rows = torch.zeros(BLOCK, layout.size)
        self._targets = torch.zeros(BLOCK, m)
        self._lags = torch.zeros(BLOCK, LAGS * m)
        self._streams: list[str] = []
        self._past: dict[str, Tensor] = {}
        """Of each stream: z_{t-1}, then d_t to d_{t-7}: 9 x m."""

    def add(self, seen: Watched, twin: TwinStep) -> list[Scored]:
        """Take in a step and the twin's; the scores of a block that it completes, else nothing."""
        assert seen.made is not None
        z, zbar = self._z(seen.z), self._z(seen.carry)
        past = self._past.get(seen.stream)
        if seen.position == 0 or past is None:
            past = torch.zeros(LAGS + 1, z.numel())
            past[0] = zbar
        attempt = seen.made.attempt
        before = seen.made.own.kept
        if attempt is not None and twin.prediction is not None and before is not None:
            now = self._z(before)
            told = seen.told.to("cpu", torch.float32)
            row = [torch.ones(1), now, past[0], zbar, told]
            row += [self._s(seen.made.own.state.flatten()), self._y(attempt.predicted.p)]
            row += [self._s(twin.state.flatten()), self._y(twin.prediction)]
            row += [self._y(seen.made.new.y_before)] if self._with_embedding else []
            place = len(self._streams)
            torch.cat(row, out=self._rows[place])
            self._targets[place] = z - zbar
            self._lags[place] = past[1:].reshape(-1)
            self._streams.append(seen.stream)
            past = torch.cat([now.unsqueeze(0), past[1:]])
        self._past[seen.stream] = torch.cat([past[:1], (z - zbar).unsqueeze(0), past[1:-1]])
        return self._take() if len(self._streams) == BLOCK else []

    def pending(self) -> list[Scored]:
        """The scores of the unfinished block: the same that it will get. Changes nothing."""
        held = len(self._streams)
        if not held:
            return []
        rows, targets, lags = self._rows[:held], self._targets[:held], self._lags[:held]
        return self._scored(targets, self._readouts.scores(rows, targets), self._ceiling.scores(lags, targets))

    def _take(self) -> list[Scored]:
        errors = self._readouts.take(self._rows, self._targets)
        found = self._scored(self._targets, errors, self._ceiling.take(self._lags, self._targets))
        self._streams = []
        return found

    def _scored(self, targets: Tensor, errors: dict[str, Tensor], ceiling: Tensor) -> list[Scored]:
        columns = {**errors, "mean": targets.square().mean(dim=1), "ceiling": ceiling}
        table = torch.stack([columns[name] for name in COLUMNS], dim=1)
        return [Scored(stream, row) for stream, row in zip(self._streams, table, strict=True)]

    def forget(self, stream: str) -> None:
        """Its next fixation begins anew; what the readouts learned from it stays."""
        self._past.pop(stream, None)

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able."""
        held = len(self._streams)
        tensors = {"rows": self._rows[:held].clone(), "targets": self._targets[:held].clone()}
        tensors["lags"] = self._lags[:held].clone()
        readouts, told = self._readouts.pack()
        ceiling, told_ceiling = self._ceiling.pack()
        tensors |= {f"readouts/{name}": tensor for name, tensor in readouts.items()}
        tensors |= {f"ceiling/{name}": tensor for name, tensor in ceiling.items()}
        tensors |= {f"past/{stream}": past.clone() for stream, past in self._past.items()}
        meta = {"streams": list(self._streams), "past": list(self._past), "readouts": told, "ceiling": told_ceiling}
        return tensors, meta

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        self._streams = list(meta["streams"])
        held = len(self._streams)
        self._rows[:held], self._targets[:held] = tensors["rows"], tensors["targets"]
        self._lags[:held] = tensors["lags"]
        self._readouts.unpack(_under("readouts/", tensors), meta["readouts"])
        self._ceiling.unpack(_under("ceiling/", tensors), meta["ceiling"])
        self._past = {stream: tensors[f"past/{stream}"].clone() for stream in meta["past"]}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
