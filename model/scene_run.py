"""Learners on still scenes: where recurrence and a memory of places pay, and how much. Judged by scene.

A stream of scenes, each a picture under consecutive fixations; every scene begins with the zero state and is marked.
Of its last half (scenes that were never learned from before):

    skill_ar1     model/skill.py, against the four opponents without the scene's mean; skill: against all five
    curve         (E late / E early) / (E0 late / E0 early), late: positions 41 to 99, early: 1 to 5        (1)
    returns       1 - E / E(carry_ar1) of fixations that return after 15 or more (model/returns.py)         (2)

E0 in (1) is that of an untrained circuit on the same fixations: one that never learned, told nothing of the gaze, whose
predictor learned as the learner's did. ``curve_start`` is the same with the network as it began, the predictor
included: the paper's epoch 0. Its gates are zero, so what it makes of z is a fixed map, and its error that of
the running mean under it. What a predictor makes of z_t alone differs by chance between the few early positions and the
late ones; in ``curve`` that cancels out, in ``curve_start`` it does not.

Intervals (95 %) are by bootstrap over scenes; of two learners both are drawn alike. Scenes of one file are not
independent pictures: the intervals can't show how another set of files would come out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import frozen_rank, place_memory, skill
from model.action import Look
from model.bootstrap import Interval, block_interval
from model.config import ModelConfig
from model.learner import Learner
from model.returns import returns
from model.scene_watch import SceneWatch
from model.stream import StreamState

_STREAM = "scenes"
EARLY, LATE = (1, 5), (41, 99)
"""Positions, both ends counted."""
_ERRORS = len(skill.COLUMNS)
_EARLY, _LATE, _EARLY_0, _LATE_0, _RETURNED, _RETURNED_AR1 = range(_ERRORS, _ERRORS + 6)
COLUMNS = (*skill.COLUMNS, "early", "late", "early_untrained", "late_untrained", "returned", "returned_ar1")
"""Of one scene: sums of the errors of all its fixations, of the learner and the untrained network at early and late
positions, of the learner and AR(1) at returns."""


@dataclass(frozen=True)
class SceneStream:
    """T fixations in order, scene after scene."""

    features: NDArray[np.float32]
    """(T, m)."""
    looks: Sequence[Look]
    scene: NDArray[np.int64]
    """(T,): which scene, from 0, ascending."""

    def shuffled(self, seed: int) -> SceneStream:
        """The same fixations, z and gaze together, in random order over all scenes; scenes begin where they began."""
        order = np.random.default_rng(seed).permutation(len(self.scene))
        return replace(self, features=self.features[order], looks=[self.looks[place] for place in order.tolist()])

    def displaced(self, seed: int) -> list[Look]:
        """Of each fixation the place of another one (or, by chance, the same) of its scene: T."""
        random = np.random.default_rng(seed)
        parts = [np.flatnonzero(self.scene == scene) for scene in np.unique(self.scene)]
        return [self.looks[place] for own in parts for place in random.permutation(own).tolist()]


class SceneRun(NamedTuple):
    """What came of it."""

    told: dict[str, Any]
    """A row of the table."""
    sums: Tensor
    """Scenes x :data:`COLUMNS`, float64, of the scenes that are judged."""


def run_scenes(
    config: ModelConfig,
    stream: SceneStream,
    *,
    seed: int,
    written_at: Sequence[Look] | None = None,
    progress: Callable[[int], object] | None = None,
) -> SceneRun:
    """Every fixation once, in order. ``written_at`` (T): where the place memory is told that each was seen, a control.

    ``progress`` is told how many more were done, now and then.
    """
    learner = Learner(config, seed=seed)
    untrained = frozen_rank.frozen_map(learner.network.weights, config.components) @ learner.network.weights["V"].cpu()
    watch = SceneWatch(learner)
    total, judged = len(stream.scene), _judged(stream.scene)
    errors, known = torch.full((total, _ERRORS), float("nan")), torch.zeros(total, config.features)
    positions, largest, skipped, steps_s = np.zeros(total, np.int64), 0.0, 0, 0.0
    for at in range(total):
        if at == judged:
            watch.begin()
        start = at == 0 or bool(stream.scene[at] != stream.scene[at - 1])
        known[at] = learner.opponents.carry
        own, begun = learner.own.get(_STREAM), time.perf_counter()
        outcome = learner.observe(_STREAM, stream.features[at], stream.looks[at], start=start, marked=True)
        steps_s += time.perf_counter() - begun
        skipped += outcome.skipped is not None
        if written_at is not None and outcome.skipped is None:
            _write_elsewhere(learner, None if outcome.position == 0 else own, written_at[at])
        positions[at] = outcome.position
        if outcome.prediction_error is not None:
            errors[at] = skill.row(outcome.prediction_error, outcome.trivial)
        largest = max(largest, float(learner.own[_STREAM].state.abs().max()))
        if progress is not None and at % 100 == 99:
            progress(100)
    watch.close()
    offset = torch.from_numpy(stream.features) - known
    began = (offset @ untrained.T).square().mean(dim=1) * 0.5
    back, last = returns(np.array([look.degrees for look in stream.looks]), stream.scene), slice(judged, None)
    sums = scene_sums(errors[last], began[last], stream.scene[last], positions[last], back[last])
    told = {
        **measure(sums),
        **watch.told(),
        "returned": int(back[last].sum()),
        "largest_state": largest,
        "skipped": skipped,
        "ms_per_fixation": 1000.0 * (steps_s - watch.took_s) / max(total, 1),
    }
    return SceneRun(told, sums)


def _judged(scene: NDArray[np.int64]) -> int:
    """The first fixation of the first scene of the last half."""
    scenes = np.unique(scene)
    return int(np.searchsorted(scene, scenes[len(scenes) // 2]))


def _write_elsewhere(learner: Learner, before: StreamState | None, look: Look) -> None:
    """Undo what the place memory has just written and write it at ``look``; ``before``: None at a scene's start."""
    own = learner.own[_STREAM]
    if own.places is None or own.kept is None:
        return
    places = (before or learner.blank()).places
    assert places is not None
    decay = place_memory.DECAYS[learner.config.predictor.place_memory]
    learner.own[_STREAM] = replace(own, places=place_memory.write(places, look, own.kept, decay))


def scene_sums(
    errors: Tensor,
    untrained: Tensor,
    scene: NDArray[np.int64],
    positions: NDArray[np.int64],
    returned: NDArray[np.bool_],
) -> Tensor:
    """Scenes x :data:`COLUMNS`, of fixations without a missing error.

    ``errors``: T x :data:`model.skill.COLUMNS`; ``untrained`` (T), E0; the others (T,).
    """
    whole = torch.isfinite(errors).all(dim=1)
    masks = [(positions >= low) & (positions <= high) for low, high in (EARLY, LATE)]
    early, late, back = (torch.from_numpy(mask).to(errors) for mask in (*masks, returned))
    own, ar1 = errors[:, 0], errors[:, skill.COLUMNS.index("carry_ar1")]
    further = [own * early, own * late, untrained * early, untrained * late, own * back, ar1 * back]
    rows = torch.cat([errors, torch.stack(further, dim=1)], dim=1)[whole].to(torch.float64)
    _, numbers = np.unique(scene, return_inverse=True)
    number = torch.from_numpy(numbers.astype(np.int64))
    sums = torch.zeros(int(number.max()) + 1, len(COLUMNS), dtype=torch.float64)
    return sums.index_add_(0, number[whole], rows)


def _curve_start(means: Tensor) -> Tensor:
    """Equation (1): late over early errors; how many fixations each is of cancels out."""
    return (means[:, _LATE] / means[:, _EARLY]) / (means[:, _LATE_0] / means[:, _EARLY_0])


def _returns(means: Tensor) -> Tensor:
    """Equation (2)."""
    return 1.0 - means[:, _RETURNED] / means[:, _RETURNED_AR1]


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "skill_ar1": skill.against_ar1,
    "skill": skill.against_all,
    "curve_start": _curve_start,
    "returns": _returns,
}
"""Statistics of mean rows of :data:`COLUMNS`, by the name a row has them under."""


def measure(sums: Tensor) -> dict[str, float | None]:
    """Each of :data:`MEASURES` over ``sums`` with its ends, ``_low`` and ``_high``."""
    return _row({name: block_interval(sums, statistic) for name, statistic in MEASURES.items()})


def curve(sums: Tensor, untrained: Tensor) -> dict[str, float | None]:
    """Equation (1) with its ends, ``untrained`` the sums of an untrained circuit on the same scenes."""
    swapped = sums.clone()
    swapped[:, [_EARLY_0, _LATE_0]] = untrained[:, [_EARLY, _LATE]]
    return _row({"curve": block_interval(swapped, _curve_start)})


def differences(sums: Tensor, others: Tensor) -> dict[str, float | None]:
    """Each of :data:`MEASURES`, of one run less that of another on the same scenes, scenes drawn alike."""
    width = len(COLUMNS)

    def less(statistic: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda means: statistic(means[:, :width]) - statistic(means[:, width:])

    both = torch.cat([sums, others], dim=1)
    return _row({name: block_interval(both, less(statistic)) for name, statistic in MEASURES.items()})


def _row(found: dict[str, Interval]) -> dict[str, float | None]:
    return {
        f"{name}{end}": value
        for name, interval in found.items()
        for end, value in zip(("", "_low", "_high"), interval, strict=True)
    }
