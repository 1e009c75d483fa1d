"""What the predictor reads: the embedding, and what is known of the next fixation before it is looked at.

    phi = [(y - mu) / sqrt(var + 1e-4); action; near; place and its confidence; 1]        (1)
    action: (a - mean) / sqrt(var + 1e-4), its running mean and variance taken in first    (2)

Where no gaze is given, or one out of reach, action, near and place are zero. All but y is a constant to the gradient.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model import place_memory
from model.action import ACTION_SIZE, Look, action, nearness
from model.config import ModelConfig
from model.host import upload
from model.place_memory import PlaceMemory
from model.prediction import VARIANCE_FLOOR, Reading

_RATE_FLOOR = 1.0 / 2000.0
_SACCADE = slice(10, 12)


class ActionMoments(NamedTuple):
    """Running mean and variance of the action (54 each) over so many actions; replaced, never changed."""

    mean: Tensor
    variance: Tensor
    actions: int


class Told(NamedTuple):
    """What is known of the next fixation before it is looked at."""

    numbers: Tensor
    """Action, near, place and its confidence, as far as they are read."""
    aim: Tensor | None
    """2: the saccade, normalised as the action is; the action head's target. None without gaze."""
    moments: ActionMoments
    """The action's statistics with this one taken in: kept if the step is."""


class Reader:
    """Builds readings of ``size`` numbers; holds the action's statistics."""

    def __init__(self, config: ModelConfig, like: Tensor) -> None:
        choices = config.predictor
        self._choices = choices
        self._features = config.features
        self._told = (
            ACTION_SIZE * (choices.action == "gaze")
            + config.features * choices.near
            + (config.features + 1) * (choices.place_memory != "off")
        )
        self.size = config.embedding_size + self._told + 1
        self.moments = ActionMoments(like.new_zeros(ACTION_SIZE), like.new_zeros(ACTION_SIZE), 0)
        self._one = like.new_ones(1)

    def told(self, z: Tensor, here: Look | None, there: Look | None, memory: PlaceMemory | None) -> Told:
        """What is known after ``z`` was seen at ``here`` and the eye has gone to ``there``. Changes nothing."""
        if here is None or there is None or not (here.in_reach and there.in_reach):
            return Told(z.new_zeros(self._told), None, self.moments)
        parts: list[Tensor] = []
        aim, moments = None, self.moments
        if self._choices.action == "gaze" or self._choices.action_head:
            normalised, moments = self._normalise(upload(action(here, there), z))
            aim = normalised[_SACCADE]
            if self._choices.action == "gaze":
                parts.append(normalised)
        if self._choices.near:
            parts.append(z * nearness(here, there))
        if memory is not None:
            parts.append(place_memory.read(memory, there))
        return Told(torch.cat(parts) if parts else z.new_zeros(0), aim, moments)

    def _normalise(self, a: Tensor) -> tuple[Tensor, ActionMoments]:
        """Equation (2)."""
        old = self.moments
        rate = max(1.0 / (old.actions + 1), _RATE_FLOOR)
        offset = a - old.mean
        mean = old.mean + rate * offset
        variance = torch.lerp(old.variance, offset * offset, rate)
        return (a - mean) / (variance + VARIANCE_FLOOR).sqrt(), ActionMoments(mean, variance, old.actions + 1)

    def reading(self, y: Tensor, mean: Tensor, deviation: Tensor, told: Tensor, carry: Tensor) -> Reading:
        """Equation (1) for the embedding ``y`` with its running ``mean`` and ``deviation`` (q each)."""
        choices = self._choices
        scale = 1.0 / deviation if choices.normalise else None
        first = (y - mean) * scale if scale is not None else y
        base = carry if choices.carry else torch.zeros_like(y)
        return Reading(torch.cat([first, told, self._one]), scale, base + y if choices.residual else base)
