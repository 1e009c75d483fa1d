"""The learners that are compared, by name: the default, its parts taken away one by one, and the other presets.

A control differs from what it controls in one choice:

    one-step      credit for the last step alone, no sensitivities carried
    frozen        the circuit stays as it began; the predictor alone learns
    memoryless    the gates let nothing stay: the state is the input

Of ``narrow`` (n = 60 and V at 1e-3) no random circuit is wide enough to hold the past by luck, and V must be learned.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from model.config import ModelConfig, PresetName
from model.errors import ModelError


class Kind(NamedTuple):
    """A learner: a preset, what differs from it, and what that is in words."""

    preset: PresetName
    choices: dict[str, Any]
    text: str


_ONE_STEP = {"learning": {"credit": "one-step"}}
_FROZEN = {"learning": {"rates": {"gates": None, "retention": None, "input": None}}}
_TIGHT = {"learning": {"retraction": 0.1, "rates": {"retention": 1e-3}}}
_NARROW = {"units": 60, "embedding_size": 120, "learning": {"rates": {"input": 1e-3}}}
_NARROW_ONE_STEP = {**_NARROW, "learning": {"rates": {"input": 1e-3}, "credit": "one-step"}}

_MEMORYLESS = {"spans": (0.0, 0.0), "rotation": 0.0, "learning": {"rates": {"gates": None, "retention": None}}}
_STILL = {"predictor": {"place_memory": "still"}}

NO_GAZE: dict[str, Any] = {"action": "none", "near": False, "place_memory": "off"}
"""Choices of the predictor where the world has no gaze: inputs that would always be zero."""
_PLAIN = {"predictor": NO_GAZE}
_ACTION = {"predictor": {"near": False, "place_memory": "off"}}

LEARNERS: dict[str, Kind] = {
    "default": Kind("default", {}, "the default preset"),
    "one-step": Kind("default", _ONE_STEP, "the default, credit for the last step alone"),
    "frozen": Kind("default", _FROZEN, "the default, its circuit never learned"),
    "memoryless": Kind("default", _MEMORYLESS, "the default, gates fixed so that nothing stays"),
    "rotation-zero": Kind("default", {"rotation": 0.0}, "the default, rotation zero at the start"),
    "zero-start": Kind("default", {"rotation": 0.0, "spans": (0.0, 0.0)}, "the default, all zero at the start"),
    "mlp": Kind("default", {"predictor": {"kind": "mlp"}}, "the default with the paper's predictor"),
    "narrow": Kind("default", _NARROW, "n = 60, V at 1e-3"),
    "narrow-one-step": Kind("default", _NARROW_ONE_STEP, "n = 60, V at 1e-3, credit for the last step alone"),
    "modular-4": Kind("default", {"gates": "modular", "block": 4}, "the default, gates reading blocks of 4"),
    "dense": Kind("default", {"gates": "dense"}, "the default, gates reading all units: credit is approximate"),
    "tight": Kind("default", _TIGHT, "the default, V kept near orthonormal, beta and theta at 1e-3"),
    "long": Kind("long", {}, "the preset for long dependencies"),
    "long-one-step": Kind("long", _ONE_STEP, "long, credit for the last step alone"),
    "long-tight": Kind("long", _TIGHT, "long, V kept near orthonormal"),
    "long-frozen": Kind("long", _FROZEN, "long, its circuit never learned"),
    "paper": Kind("paper", {}, "the paper's own recipe"),
    "still": Kind("default", _STILL, "the default for still scenes: the place memory does not fade"),
    "still-one-step": Kind("default", {**_STILL, **_ONE_STEP}, "still, credit for the last step alone"),
    "still-frozen": Kind("default", {**_STILL, **_FROZEN}, "still, its circuit never learned"),
    "still-tight": Kind("default", {**_STILL, **_TIGHT}, "still, V kept near orthonormal, beta and theta at 1e-3"),
    "still-memoryless": Kind("default", {**_STILL, **_MEMORYLESS}, "still, gates fixed so that nothing stays"),
    "no-place": Kind("default", {"predictor": {"place_memory": "off"}}, "the default without the place memory"),
    "action": Kind("default", _ACTION, "the default, told where the eye goes and nothing else of it"),
    "action-head": Kind("default", {"predictor": {"action_head": True}}, "the default, predicting its saccade as well"),
    "action-memoryless": Kind("default", {**_ACTION, **_MEMORYLESS}, "action, gates fixed so that nothing stays"),
    "plain": Kind("default", _PLAIN, "the default, told nothing of the gaze"),
    "plain-one-step": Kind("default", {**_PLAIN, **_ONE_STEP}, "plain, credit for the last step alone"),
    "plain-frozen": Kind("default", {**_PLAIN, **_FROZEN}, "plain, its circuit never learned"),
    "plain-memoryless": Kind("default", {**_PLAIN, **_MEMORYLESS}, "plain, gates fixed so that nothing stays"),
}
"""By the name that tables give them."""

WITHOUT_GAZE = tuple(name for name, kind in LEARNERS.items() if set(kind.choices.get("predictor", {})) <= {"kind"})
"""Those that differ where the world has no gaze: the others differ only in what they are told of it."""


def config_of(name: str, *, gaze: bool = True, retina: Literal["own"] | dict[str, Any] = "own") -> ModelConfig:
    """The configuration of learner ``name``; without ``gaze`` it has no inputs for it. Raises :class:`ModelError`."""
    if name not in LEARNERS:
        raise ModelError(f"no learner {name!r}; there are {', '.join(LEARNERS)}")
    preset, choices, _ = LEARNERS[name]
    chosen = dict(choices)
    if not gaze:
        chosen["predictor"] = {**chosen.get("predictor", {}), **NO_GAZE}
    if retina != "own":
        chosen["retina"] = retina
    return ModelConfig.preset(preset, **chosen)
