"""Skill: how much better than the best trivial predictor, and whether that could be chance.

    skill     = 1 - E / min(E carry_mean, E carry_ar1, the recent two, and carry_scene where sequences are marked)
    skill_ar1 = the same without carry_scene
    own skill = 1 - E / min(E copy_last, E running_mean, E ar1): of y itself

The opponents carry the circuit's own memory (model/trivial.py), so a memory that merely carries its past
into the target earns nothing: on pure noise ordinary skill came to +0.37, and this to about -0.01.

"Learning" means that the lower end of the skill's interval is above 0 (and that no alarm of rank stands, see
model/warned.py). Over the last 5,000 fixations, all but the first 500 while there are fewer.

What it can't show: how much of what there is to learn was learned (see the probe's ceiling); whether the
circuit learned anything or the predictor alone did (see learned skill); own skill, alone, shows nothing at
all: a slow embedding has it on noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from model.bootstrap import NOTHING, Interval, interval
from model.trivial import TRIVIAL_ERRORS

COLUMNS = ("error", *TRIVIAL_ERRORS)
"""Of a row: the learner's error, then the trivial ones; NaN where there is none."""
_OWN = ("copy_last", "running_mean", "ar1")
_AR1 = ("carry_mean", "carry_ar1", "carry_mean_recent", "carry_ar1_recent")
_SCENE = "carry_scene"


class Skill(NamedTuple):
    """Every number is None (or an empty interval) until there are 600 fixations."""

    skill: Interval
    skill_ar1: Interval
    opponent: str | None
    """The best of the five: whom ``skill`` is against."""
    own: dict[str, float | None]
    """Against each of copy_last, running_mean and ar1, by name."""

    @property
    def learning(self) -> bool:
        """Whether the interval's lower end is above 0."""
        return self.skill.low is not None and self.skill.low > 0.0

    @property
    def own_skill(self) -> float | None:
        """Against the best of the three."""
        found = [value for value in self.own.values() if value is not None]
        return min(found) if found else None


def numbers(error: float, trivial: dict[str, float | None]) -> list[float]:
    """One fixation's errors as :data:`COLUMNS` orders them."""
    values = [error, *(trivial[name] for name in TRIVIAL_ERRORS)]
    return [math.nan if value is None else value for value in values]


def row(error: float, trivial: dict[str, float | None]) -> Tensor:
    """The :func:`numbers` as a row of a table."""
    return torch.tensor(numbers(error, trivial))


def measure(rows: Tensor) -> Skill:
    """Skill over ``rows`` (n x 9, oldest first).

    Where a fixation has no scene's error (nothing marks its stream's sequences), the cumulative AR(1)'s stands
    in for it; a fixation of which another error is missing is left out.
    """
    rows = rows.to(torch.float64)
    scene, ar1 = COLUMNS.index(_SCENE), COLUMNS.index("carry_ar1")
    marked = torch.isfinite(rows[:, scene])
    rows[:, scene] = torch.where(marked, rows[:, scene], rows[:, ar1])
    rows = rows[torch.isfinite(rows).all(dim=1)]
    four = [COLUMNS.index(name) for name in _AR1]
    five = [*four, scene] if bool(marked.any()) else four
    skill = interval(rows, lambda means: _against(means, five))
    if skill.value is None:
        return Skill(NOTHING, NOTHING, None, dict.fromkeys(_OWN))
    means = rows.mean(dim=0, keepdim=True)
    own = {name: _finite(float(_against(means, [COLUMNS.index(name)]))) for name in _OWN}
    best = five[int(means[0, five].argmin())]
    return Skill(skill, interval(rows, lambda means: _against(means, four)), COLUMNS[best], own)


def against_ar1(means: Tensor) -> Tensor:
    """skill_ar1 of R mean rows."""
    return _against(means, [COLUMNS.index(name) for name in _AR1])


def against_all(means: Tensor) -> Tensor:
    """skill of R mean rows of marked sequences: carry_scene is among the opponents."""
    return _against(means, [COLUMNS.index(name) for name in (*_AR1, _SCENE)])


def gain(rows: Tensor, others: Tensor) -> Interval:
    """``skill_ar1`` of ``rows`` less that of ``others``: two learners on the same fixations (n x 9 each), paired.

    Each is held against its own opponents, for these are told in its own embedding. A fixation that one of them has no
    error of is left out.
    """
    four = [COLUMNS.index(name) for name in ("error", *_AR1)]
    here = torch.isfinite(rows[:, four]).all(dim=1) & torch.isfinite(others[:, four]).all(dim=1)
    both, width = torch.cat([rows[here], others[here]], dim=1), rows.shape[1]
    return interval(both, lambda means: against_ar1(means[:, :width]) - against_ar1(means[:, width:]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _against(means: Tensor, opponents: list[int]) -> Tensor:
    """1 - E / the least of ``opponents``, for each of R mean rows."""
    return 1.0 - means[:, 0] / means[:, opponents].amin(dim=1)
