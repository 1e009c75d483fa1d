"""Two participants by turns in one machine: does each learn as well as alone?

    alone        a learner of its own
    by turns     weights shared, each with a state of its own (its own stream)
    one state    the control: the same turns told as one stream, not marked, so that each inherits the other's memory

Turns are of so many fixations. Each participant's skill (after its first 500 fixations) is told beside the difference
from its skill alone on the same fixations, with a paired interval: at least as good means that this does not lie
below 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import skill
from model.action import Look
from model.config import ModelConfig
from model.learner import Learner
from model.ledger import Ledger
from model.ring import WARM
from model.stream_run import columns, told_skill

ARRANGEMENTS = ("alone", "by turns", "one state")
TURN = 100
"""Fixations of one turn."""


class Person(NamedTuple):
    """What one participant saw: (T, m), and where."""

    features: NDArray[np.float32]
    looks: Sequence[Look | None]


def order(lengths: Sequence[int], turn: int) -> list[tuple[int, int]]:
    """(participant, fixation) as they come, ``turn`` fixations each in turn; those whose fixations end drop out."""
    turns = range(0, max(lengths, default=0), turn)
    return [
        (person, at)
        for first in turns
        for person, length in enumerate(lengths)
        for at in range(first, min(first + turn, length))
    ]


def run(
    config: ModelConfig,
    people: Sequence[Person],
    *,
    turn: int = TURN,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> list[dict[str, Any]]:
    """A row for each arrangement and participant (1, 2, ...)."""
    told = progress or (lambda _: None)
    turns = order([len(person.features) for person in people], turn)
    alone = [
        _errors(config, people, [each for each in turns if each[0] == number], str, seed, told)[number]
        for number in range(len(people))
    ]
    found = {
        "alone": alone,
        "by turns": _errors(config, people, turns, str, seed, told),
        "one state": _errors(config, people, turns, lambda _: "all", seed, told),
    }
    return [
        {
            "arrangement": arrangement,
            "participant": number + 1,
            **told_skill(skill.measure(_predicted(errors))),
            **columns("gain", skill.gain(errors[WARM:], alone[number][WARM:])),
        }
        for arrangement in ARRANGEMENTS
        for number, errors in enumerate(found[arrangement])
    ]


def _errors(
    config: ModelConfig,
    people: Sequence[Person],
    turns: list[tuple[int, int]],
    stream_of: Callable[[int], str],
    seed: int,
    progress: Callable[[int], object],
) -> list[Tensor]:
    """Of one learner: each participant's rows of errors, in order (empty where it took no part)."""
    learner = Learner(config, seed=seed)
    ledger = Ledger(learner)
    for done, (person, at) in enumerate(turns, start=1):
        stream, z = stream_of(person), people[person].features[at]
        ledger.note(stream, z, learner.observe(stream, z, people[person].looks[at]))
        if done % 100 == 0:
            progress(100)
    errors, who = ledger.errors(), torch.tensor([person for person, _ in turns])
    return [errors[who == number] for number in range(len(people))]


def _predicted(errors: Tensor) -> Tensor:
    """Those that had a prediction, after the first 500 of them."""
    return errors[torch.isfinite(errors[:, 0])][WARM:]
