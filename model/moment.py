"""What diagnostics held at one moment: copies, taken quickly on the learner's thread, told of on any other."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from model import fidelity, frozen_rank, retrieval
from model.balance import balance, linear_map
from model.bootstrap import NOTHING, Interval
from model.evidence import Pending
from model.fidelity import Fidelity, FidelityWindow, Kept
from model.frozen_rank import Rank
from model.learner import Learner
from model.place_memory import COLUMNS, ROWS
from model.rfp import is_exact
from model.verdict import LEARNING, judge
from model.warned import Warned, about_gradient, about_rank, about_skill
from model.windows import Windows


class Moment:
    """Of ``stream``, or of all streams in journal order where that is None.

    ``windows`` and ``gradients`` (by stream) are its own, ``learner`` one that nobody teaches.
    """

    def __init__(
        self,
        stream: str | None,
        windows: Windows,
        pending: Pending,
        frozen: Tensor,
        learner: Learner,
        gradients: dict[str, FidelityWindow],
        newest: str | None,
        *,
        comparable: bool = True,
    ) -> None:
        self._stream = stream
        self._windows = windows
        self._waiting = pending
        self._frozen = frozen
        self._learner = learner
        self._gradients = gradients
        self._newest = newest
        """Whose memory of places is told."""
        self._comparable = comparable
        """Whether there is an untrained twin that has learned from as much."""

    @torch.no_grad()
    def representation(self) -> dict[str, Any]:
        """Everything but the gradient; JSON-able.

        A number is None until enough was seen for it (600 fixations for skill and probe, 100 for the ranks).
        Changes nothing; about 0.1 s.
        """
        windows, pending = self._windows, self._waiting.errors(self._stream)
        found = windows.skill()
        rank, retrieved, read = windows.rank(self._frozen), windows.retrieval(), windows.probe(pending)
        embeddings, reach = windows.embeddings.rows(), windows.extents.measure()
        spread = frozen_rank.covariance(embeddings)
        p = linear_map(self._learner)
        seen = embeddings.shape[0] >= 2
        verdict = judge(found, windows.errors.count, self._about_rank(rank, pending))
        return {
            "stream": self._stream,
            "window": max(0, min(windows.errors.held, windows.errors.count - 500)),
            "count": windows.errors.count,
            "skipped": dict(windows.skipped),
            "learning": verdict.word == LEARNING,
            "verdict": verdict.word,
            "why": verdict.why,
            "skill": found.skill.told(),
            "skill_ar1": found.skill_ar1.value,
            "skill_ar1_interval": found.skill_ar1.told(),
            "opponent": found.opponent,
            "own_skill": found.own_skill,
            "own_skill_against": found.own,
            "learned_skill": self._learned_skill(pending).told(),
            "effective_rank": rank.now,
            "effective_rank_frozen": rank.frozen,
            "rank_ratio": rank.ratio,
            "spectrum": frozen_rank.spectrum(embeddings),
            "covariance": frozen_rank.picture(spread) if seen else [],
            "retrieval": retrieved.prediction,
            "retrieval_trivial": retrieved.copy_last,
            "retrieval_chance": retrieval.CHANCE,
            "retrieval_trials": retrieved.trials,
            "probe": read.prediction,
            "probe_features": read.now,
            "probe_embedding": read.embedding,
            "probe_untrained": read.untrained if self._comparable else None,
            "probe_ceiling": read.ceiling,
            "probe_ceiling_told": read.ceiling_told,
            "balance": balance(p, spread) if p is not None and seen else None,
            "error_by_position": windows.positions.told(),
            "largest_state": reach.largest,
            "largest_state_ever": reach.largest_ever,
            "state_rms": reach.rms,
            "cut_units": reach.cut_units,
            "place_memory": self._places(),
        }

    def _places(self) -> dict[str, Any] | None:
        """Which cells of the frame are known, how well (0 to 1), row by row from the top; None without the memory."""
        own = None if self._newest is None else self._learner.own.get(self._newest)
        if own is None or own.places is None:
            return None
        known = own.places.confidence.cpu().view(ROWS, COLUMNS).tolist()
        return {"stream": self._newest, "columns": COLUMNS, "rows": ROWS, "known": known}

    def gradient(self) -> dict[str, Any]:
        """Exactness, live fidelity and credit, summed over the streams; JSON-able.

        Changes nothing; about a second per stream.
        """
        names, kept = self._kept()
        truth = [fidelity.backward(self._learner, each) for each in kept]
        anew = [fidelity.forward(self._learner, each) for each in kept]
        live, credit = self._live_and_credit(kept, truth)
        return {
            "stream": self._stream,
            "streams": names,
            "window": sum(sum(each.counts) for each in kept),
            "rfp_exact": is_exact(self._learner.config),
            "exactness": fidelity.compare_sums(anew, truth).told(),
            "live": live.told(),
            "credit": credit.told(),
            "cut_units": self._learner.cut_units,
        }

    def _kept(self) -> tuple[list[str], list[Kept]]:
        """The streams that have gradients, and their windows."""
        found = {name: window.kept(name) for name, window in self._gradients.items()}
        held = {name: kept for name, kept in found.items() if kept is not None}
        return list(held), list(held.values())

    def _live_and_credit(self, kept: list[Kept], truth: list[Tensor]) -> tuple[Fidelity, Fidelity]:
        """Summed over the windows."""
        live = [each.live for each in kept]
        of_errors = [fidelity.backward_of_errors(self._learner, each) for each in kept]
        return fidelity.compare_sums(live, truth), fidelity.compare_sums(live, of_errors)

    def warnings(self) -> list[Warned]:
        """What is wrong now; see :mod:`model.warned`. Changes nothing; half a second."""
        rank, pending = self._windows.rank(self._frozen), self._waiting.errors(self._stream)
        return self._warnings(self._about_rank(rank, pending), *self._live_now())

    def _about_rank(self, rank: Rank, pending: Tensor) -> list[Warned]:
        lost = self._windows.probe_lost(pending) if self._comparable else NOTHING
        return about_rank(rank, lost, *self._windows.skills_of_halves())

    def _learned_skill(self, pending: Tensor) -> Interval:
        return self._windows.learned_skill(pending) if self._comparable else NOTHING

    def _live_now(self) -> tuple[Fidelity, Fidelity]:
        _, kept = self._kept()
        return self._live_and_credit(kept, [fidelity.backward(self._learner, each) for each in kept])

    def _warnings(self, of_rank: list[Warned], live: Fidelity, credit: Fidelity) -> list[Warned]:
        return [
            *about_skill(self._windows.skill(), *self._windows.skills_of_halves()),
            *of_rank,
            *about_gradient(live, credit, exact=is_exact(self._learner.config)),
        ]

    def look(self) -> dict[str, Any]:
        """The few numbers that are kept between two looks, and what is wrong; JSON-able. About half a second."""
        live, credit = self._live_now()
        windows, found = self._windows, self._windows.skill()
        rank, pending = windows.rank(self._frozen), self._waiting.errors(self._stream)
        of_rank = self._about_rank(rank, pending)
        verdict = judge(found, windows.errors.count, of_rank)
        return {
            "count": windows.errors.count,
            "learning": verdict.word == LEARNING,
            "verdict": verdict.word,
            "why": verdict.why,
            "skill": found.skill.told(),
            "learned_skill": self._learned_skill(pending).told(),
            "rank_ratio": rank.ratio,
            "live_cosine": live.cosine,
            "warned": [each._asdict() for each in self._warnings(of_rank, live, credit)],
        }


def untaught(learner: Learner) -> Learner:
    """A copy of what the measures read of ``learner``, to be read while the learner goes on; it can't learn."""
    found = copy.copy(learner)
    found.watch = None
    found.own = dict(learner.own)
    found.opponents = copy.deepcopy(learner.opponents)
    network = found.network = copy.copy(learner.network)
    network.weights = {name: weight.clone() for name, weight in learner.network.weights.items()}
    network.reader = copy.copy(learner.network.reader)
    if learner.network.rls is not None:
        network.rls = copy.copy(learner.network.rls)
        network.rls.weights = learner.network.rls.weights.clone()
    return found
