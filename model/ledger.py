"""What a run leaves behind at next to no cost: the errors of each fixation, rank, and how far the state went.

Where only skill is asked for, or a stream is too long for every measure, this stands in for the diagnostics: the skill
and the ranks are theirs (model/skill.py, model/frozen_rank.py), the readouts, the twin and the gradients are left out.
What it holds grows with the number of fixations, 36 bytes each: it is for runs that end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import frozen_rank, skill
from model.frozen_rank import Rank
from model.learner import Learner, Outcome
from model.ring import SCORED, WARM, Ring
from model.skill import Skill


class Ledger:
    """Stands beside ``learner``, which must not have learned yet: its weights now are the frozen network's."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        weights = learner.network.weights
        self._first_input = weights["V"].clone()
        self._frozen = frozen_rank.frozen_map(weights, learner.config.components).clone()
        self.clear()

    def clear(self) -> None:
        """A new part of the run begins: nothing is noted yet."""
        self._errors: list[Tensor] = []
        self._embeddings = Ring(frozen_rank.WINDOW, self._learner.config.embedding_size)
        self._inputs = Ring(frozen_rank.WINDOW, self._learner.config.units)
        self.largest_state = 0.0
        """The largest number of any state."""
        self.skipped = 0
        """Fixations not learned from."""

    @torch.no_grad()
    def note(self, stream: str, z: np.ndarray[Any, Any], outcome: Outcome) -> None:
        """Take in what came of ``z`` (m) in ``stream``, after the learner has observed it."""
        error = outcome.prediction_error
        self._errors.append(_NOTHING if error is None else skill.row(error, outcome.trivial))
        if outcome.skipped is not None:
            self.skipped += 1
            return
        self._embeddings.add(torch.from_numpy(outcome.embedding))
        self._inputs.add(self._first_input @ torch.as_tensor(z).to(self._first_input))
        self.largest_state = max(self.largest_state, float(self._learner.own[stream].state.abs().max()))

    def errors(self) -> Tensor:
        """N x 9, a row for each fixation as model/skill.py orders them; NaN where nothing was predicted."""
        return torch.stack(self._errors) if self._errors else torch.zeros(0, len(skill.COLUMNS))

    def skill(self, *, warm: int = WARM, most: int = SCORED) -> Skill:
        """Of the last ``most`` errors there are, without the first ``warm``."""
        rows = self.errors()
        rows = rows[torch.isfinite(rows[:, 0])]
        return skill.measure(rows[warm:][-most:])

    def rank(self) -> Rank:
        """Of the last 1,000 embeddings, beside the frozen network's."""
        return frozen_rank.measure(self._embeddings.rows(), self._inputs.rows(), self._frozen)

    def frozen_embeddings(self) -> Tensor:
        """N x q: what the frozen network makes of the last 1,000."""
        return self._inputs.rows().to(self._frozen.dtype) @ self._frozen.T


_NOTHING = torch.full((len(skill.COLUMNS),), float("nan"))
