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

A whole block is scored and fitted on a thread of its own (:mod:`model.scorer`), for that takes up to half a second.
What comes of it is the same whenever it is asked for: blocks are taken in order, each by what the ones before it left.
"""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ceiling import LAGS, Ceiling
from model.helper import helper
from model.learner import Learner
from model.noted import Noted
from model.readout import BLOCK, Extension, Kind, Layout, Readout, Readouts
from model.ring import Ring
from model.scorer import COLUMNS, Block, Scorer, Taken
from model.twin import TwinStep

__all__ = ["COLUMNS", "MOST_FEATURES", "MOST_STATE", "Evidence", "Pending", "Projection"]

MOST_BLOCKS = 4
"""Whole blocks that may wait to be scored; the next one waits for the first."""
MOST_FEATURES = 256
"""Numbers of z that a row holds at most ..."""
MOST_STATE = 512
"""... and of s, and of p."""
_BASE = ("one", "z", "z_before", "mean", "told")


class _Flying(NamedTuple):
    """A whole block on the other thread."""

    streams: list[str]
    """Whose each row is ..."""
    rings: list[Ring | None]
    """... and where its errors belong, besides all streams' ring; None where the stream has none."""
    taken: Future[Taken]


class Pending(NamedTuple):
    """The rows whose errors are in no ring yet, as they were at one moment; asked from any thread."""

    flying: list[tuple[list[str], Future[Taken]]]
    streams: list[str]
    """Whose each row of the unfinished block is."""
    block: Block
    """The unfinished block."""
    scorer: Scorer
    """What scores it where nothing is flying."""

    def errors(self, stream: str | None) -> Tensor:
        """Of the rows of ``stream``, or of all, oldest first: rows x :data:`COLUMNS`."""
        parts = [(streams, taken.result().errors) for streams, taken in self.flying]
        if self.streams:
            scorer = self.flying[-1][1].result().after if self.flying else self.scorer
            parts.append((self.streams, scorer.scores(self.block)))
        found = [errors[_of(streams, stream)] for streams, errors in parts]
        return torch.cat(found) if found else torch.zeros(0, len(COLUMNS))


def _of(streams: list[str], stream: str | None) -> list[int]:
    return [row for row, name in enumerate(streams) if stream is None or name == stream]


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
        self._scorer = Scorer(Readouts(layout, [learned, probing], m), Ceiling(m))
        """The helper's while something is flying."""
        self._latest = self._scorer.frozen()
        self._sizes = (layout.size, m, LAGS * m)
        self._block = self._blank()
        self._streams: list[str] = []
        self._helper = helper("evidence")
        self._flying: deque[_Flying] = deque()
        self._past: dict[str, Tensor] = {}
        """Of each stream: z_{t-1}, then d_t to d_{t-7}: 9 x m."""
        self._one = torch.ones(1)

    def _blank(self) -> Block:
        return Block(*(torch.zeros(BLOCK, size) for size in self._sizes))

    def add(self, seen: Noted, twin: TwinStep) -> bool:
        """Take in a step and the twin's; whether the block is whole: then :meth:`hand_over` is next."""
        z, zbar = self._z(seen.z), self._z(seen.carry)
        deviation = z - zbar
        past = self._past.get(seen.stream)
        if seen.position == 0 or past is None:
            past = torch.zeros(LAGS + 1, z.numel())
            past[0] = zbar
        now = past[0]
        if seen.prediction is not None and twin.prediction is not None and seen.before is not None:
            now = self._z(seen.before)
            told = seen.told.to("cpu", torch.float32)
            row = [self._one, now, past[0], zbar, told]
            row += [self._s(seen.state.flatten()), self._y(seen.prediction)]
            row += [self._s(twin.state.flatten()), self._y(twin.prediction)]
            row += [self._y(seen.y_before)] if self._with_embedding else []
            place = len(self._streams)
            torch.cat(row, out=self._block.rows[place])
            self._block.targets[place] = deviation
            self._block.lags[place] = past[1:].reshape(-1)
            self._streams.append(seen.stream)
        self._past[seen.stream] = torch.cat([now.unsqueeze(0), deviation.unsqueeze(0), past[1:-1]])
        return len(self._streams) == BLOCK

    @property
    def streams(self) -> list[str]:
        """Whose each row of the unfinished block is."""
        return self._streams

    def hand_over(self, rings: list[Ring | None]) -> None:
        """Have the whole block scored and fitted; ``rings``: where each row's errors belong."""
        taken = self._helper.submit(self._scorer.take, self._block)
        self._flying.append(_Flying(self._streams, rings, taken))
        self._block, self._streams = self._blank(), []

    def landed(self, *, wait: bool = False) -> list[tuple[list[Ring | None], Tensor]]:
        """The blocks that were scored since: where each row belongs, and the errors. Waits where too many are flying.

        ``wait``: for all of them.
        """
        found = []
        while self._flying:
            if not (wait or self._flying[0].taken.done() or len(self._flying) > MOST_BLOCKS):
                break
            first = self._flying.popleft()
            errors, self._latest = first.taken.result()
            found.append((first.rings, errors))
        return found

    @property
    def busy(self) -> bool:
        """Whether a block is being scored now."""
        return any(not flying.taken.done() for flying in self._flying)

    def pending(self) -> Pending:
        """The rows that have not landed. Changes nothing."""
        flying = [(each.streams, each.taken) for each in self._flying]
        return Pending(flying, list(self._streams), self._block.first(len(self._streams)), self._latest)

    def forget(self, stream: str) -> None:
        """Its next fixation begins anew, and no row of it is kept; what the readouts learned from it stays."""
        self._past.pop(stream, None)
        left = [row for row, name in enumerate(self._streams) if name != stream]
        for kept, part in zip(block := self._blank(), self._block, strict=True):
            kept[: len(left)] = part[left]
        self._block, self._streams = block, [self._streams[row] for row in left]

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it holds, and the rest, JSON-able. Only where everything has landed."""
        assert not self._flying
        rows, targets, lags = self._block.first(len(self._streams))
        tensors, told = self._scorer.pack()
        tensors |= {"rows": rows, "targets": targets, "lags": lags}
        tensors |= {f"past/{stream}": past.clone() for stream, past in self._past.items()}
        return tensors, {**told, "streams": list(self._streams), "past": list(self._past)}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        self._streams = list(meta["streams"])
        held = len(self._streams)
        for name, table in zip(("rows", "targets", "lags"), self._block, strict=True):
            table[:held] = tensors[name]
        self._scorer.unpack(tensors, meta)
        self._latest = self._scorer.frozen()
        self._past = {stream: tensors[f"past/{stream}"].clone() for stream in meta["past"]}
