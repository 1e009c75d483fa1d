"""The learner: one fixation in, one learning step, test then train.

:meth:`Learner.observe` reads top to bottom in the order of the mathematics; what it calls is pure until the
step is known to be finite. Letters: m features, n units, K numbers of state per unit, q embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import place_memory, stored
from model.action import Look
from model.config import ModelConfig
from model.errors import ModelError
from model.guard import Usual, energy, is_repeat
from model.host import Later, upload
from model.network import Attempt, Imagined, Made, Network, unfit
from model.optimiser import Optimiser
from model.outcome import Outcome, Watched
from model.rank import RankWindow
from model.rfp import Sensitivities
from model.snapshot import Snapshot
from model.stream import StreamState
from model.trivial import TRIVIAL_ERRORS, Guesses, Opponents, by_name
from model.update import Norm, Update, nowhere

__all__ = ["TRIVIAL_ERRORS", "Learner", "Look", "Outcome", "Watched"]


class Learner:
    """Shared weights, one state per stream. Not thread-safe: one thread learns.

    The same configuration, seed and fixations give the same bits, on one kind of device and one number of
    threads. Its memory does not grow with the number of fixations.
    """

    of: type[Network] = Network
    """What its network is made of."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        seed: int,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        measured: bool = True,
    ) -> None:
        """Without ``measured`` the trivial predictors and the rank are left out; what is learned is the same."""
        self.config = config
        self._measured = measured
        self.dtype = dtype
        self._here = torch.zeros(1, dtype=dtype)
        self._like = like = torch.zeros(1, dtype=dtype, device=device)
        self.generator = torch.Generator().manual_seed(seed)
        self.network = self.of(config, self.generator, like)
        self.parameters = self.network.parameters
        self.update = Update(config, self.network)
        self.usual = Usual(config.learning.far_threshold)
        self.opponents = Opponents(config.features, config.embedding_size, like, measured=measured)
        self.rank = RankWindow(config.embedding_size, like)
        self.own: dict[str, StreamState] = {}
        self._room: Tensor | None = None
        """Sensitivities no longer needed, where the next are written: memory taken anew would come from the system."""
        self.learning = True
        self.steps = 0
        """Fixations kept, of all streams."""
        self.cut_units = 0
        """Units whose sensitivities were cut, ever."""
        self.watch: Callable[[Watched], None] | None = None
        """Called for every fixation kept, before weights change."""

    @torch.no_grad()
    def observe(
        self,
        stream: str,
        z: np.ndarray[Any, Any] | Tensor,
        look: Look | None = None,
        *,
        start: bool = False,
        marked: bool = False,
    ) -> Outcome:
        """Learn one fixation of ``stream``: its features ``z`` (m), and where the eye was.

        ``start``: it begins a new sequence. ``marked``: sequences are marked in this stream, so the scene's
        predictor is an opponent too. Raises :class:`ModelError` where z has another length; z that is not
        finite, or far stronger than usual, is a refused step, not an error.
        """
        here, own = self._features(z), self.own.get(stream) or self.blank()
        own = replace(own, fresh=True) if start and not own.fresh else own
        strength = energy(here)
        if not math.isfinite(strength):
            return self._refuse(stream, own, "the features are not finite")
        if is_repeat(here, own.here, self.config.learning.repeat_threshold):  # 0
            return self._unmoved(stream, own, "repeat")
        if (far := self.usual.take(strength)) is not None:
            return self._unmoved(stream, own, "refused", far)
        z, later = upload(here, self._like), Later()
        own, flushed = self._begin(own, later) if own.fresh else (own, nowhere)  # 1
        guesses = self._guesses(own, marked)
        new = self._imagine(own, guesses, z)  # 2
        attempt = self._attempt(own, new, guesses, look)  # 3, 4, 5 and the gradients of 6
        if (reason := unfit(new, attempt, learning=self.learning)) is not None:
            return self._refuse(stream, own, reason)
        self._show(stream, own, new, z, attempt)
        step = self.update.step(own, new, attempt if self.learning else None, z, self._room, later)  # 6, 7, 8
        self._remember(own, new, z, attempt, marked)  # 10
        rank, y = self.rank.ask(later), later.ask(new.y)
        later.read()
        credit, cut = step.settle()
        if credit.values is not own.sensitivities.values:
            self._room = own.sensitivities.values
        self.own[stream] = self._move(step.own, new, credit, z, here, look)  # 9
        self.cut_units += cut
        return Outcome(
            prediction_error=attempt.errors[0] if attempt else None,
            trivial=by_name(attempt.errors[1:] if attempt else None),
            embedding=later.array(y),
            position=own.position,
            effective_rank=rank(),
            update_norm=math.hypot(flushed(), step.changed()),
            action_error=attempt.action_error if attempt else None,
            cut_units=cut,
        )

    def _guesses(self, own: StreamState, marked: bool) -> Guesses | None:
        """Simple guesses of what comes, from what came before it; None at a sequence's start."""
        if own.position == 0 or own.kept is None:
            return None
        scene = own.seen / own.position if marked else None
        return self.opponents.guesses(own.kept, self.network.embed(own.state), scene)

    def _imagine(self, own: StreamState, guesses: Guesses | None, z: Tensor) -> Imagined:
        if guesses is None:
            return self.network.imagine(own, z.new_zeros(0, z.numel()), z)
        return self.network.imagine(own, guesses.features, z, guesses.embeddings[0])

    def _attempt(self, own: StreamState, new: Imagined, guesses: Guesses | None, look: Look | None) -> Attempt | None:
        """None where nothing came before."""
        if guesses is None:
            return None
        wanted = self.steps >= self.config.learning.warmup and (self.learning or self.watch is not None)
        shown = self.watch is not None
        return self.network.attempt(
            own, new, guesses, look, self.opponents, wanted=wanted, shown=shown, room=self._room
        )

    def _begin(self, own: StreamState, later: Later) -> tuple[StreamState, Norm]:
        """A sequence starts: what is left of the last one's gradients is applied, its state forgotten."""
        changed = self.update.apply(own.pending, later) if own.pending is not None and self.learning else nowhere
        return replace(self.blank(), kept=own.kept, here=own.here, fresh=False, embedding=own.embedding), changed

    def _move(
        self, own: StreamState, new: Imagined, credit: Sensitivities, z: Tensor, here: Tensor, look: Look | None
    ) -> StreamState:
        """The stream after the step; ``here`` is z on the host."""
        places = own.places
        if places is not None and look is not None:
            places = place_memory.write(places, look, z, place_memory.DECAYS[self.config.predictor.place_memory])
        return StreamState(
            state=new.state,
            sensitivities=credit,
            fresh=own.position + 1 == self.config.learning.sequence_length,
            position=own.position + 1,
            kept=z,
            here=here,
            look=look,
            seen=own.seen + z,
            places=places,
            pending=own.pending,
            embedding=new.y,
        )

    def _remember(self, own: StreamState, new: Imagined, z: Tensor, attempt: Attempt | None, marked: bool) -> None:
        """Running statistics take the step in."""
        before = None
        if attempt is not None and own.kept is not None:
            before = (own.kept, new.y_before)
            self.network.reader.moments = attempt.told.moments
            if marked:
                self.opponents.scene.update(own.kept, own.seen / own.position, z)
        self.opponents.update(z, new.y, before, self.steps)
        if self._measured:
            self.rank.add(new.y)
        self.steps += 1

    def _show(self, stream: str, own: StreamState, new: Imagined, z: Tensor, attempt: Attempt | None) -> None:
        if self.watch is None:
            return
        opponents, told = self.opponents, attempt.told if attempt else None
        gradient = attempt.gradient if attempt else None
        self.watch(
            Watched(
                stream,
                own.position,
                z,
                opponents.carry.clone(),
                opponents.mean.clone(),
                opponents.deviation,
                told.numbers if told else z.new_zeros(0),
                told.aim if told else None,
                attempt.errors[0] if attempt else None,
                None if gradient is None else self.parameters.split(gradient),
                Made(own, new, attempt),
            )
        )

    def _refuse(self, stream: str, own: StreamState, reason: str) -> Outcome:
        """Weights and statistics stay; the stream begins anew."""
        self.own[stream] = replace(self.blank(), kept=own.kept, here=own.here)
        return self._skipped(self.own[stream], 0 if own.fresh else own.position, "refused", reason)

    def _unmoved(self, stream: str, own: StreamState, skipped: str, reason: str | None = None) -> Outcome:
        """Nothing moves, but a sequence that was to start still will."""
        self.own[stream] = own
        return self._skipped(own, 0 if own.fresh else max(own.position - 1, 0), skipped, reason)

    def _skipped(self, own: StreamState, position: int, skipped: str, reason: str | None) -> Outcome:
        return Outcome(None, by_name(None), _array(own.embedding), position, self.rank.rank(), 0.0, skipped, reason)

    def _features(self, z: np.ndarray[Any, Any] | Tensor) -> Tensor:
        """A copy of z on the host, checked for its shape."""
        found = torch.as_tensor(z).to(self._here, copy=True)
        if found.shape != (self.config.features,):
            raise ModelError(f"z has shape {tuple(found.shape)}; this model takes {self.config.features} features")
        return found

    def blank(self) -> StreamState:
        """A stream of which nothing was seen."""
        config, like = self.config, self._like
        state = like.new_zeros(self.network.circuit.components, config.units)
        remembers = config.predictor.place_memory != "off"
        return StreamState(
            state=state,
            sensitivities=self.network.propagation.zero(like),
            fresh=True,
            position=0,
            kept=None,
            here=None,
            look=None,
            seen=like.new_zeros(config.features),
            places=place_memory.empty(config.features, like) if remembers else None,
            pending=None,
            embedding=like.new_zeros(config.embedding_size),
        )

    def reset(self, stream: str) -> None:
        """A new sequence begins at the next fixation of ``stream``."""
        if stream in self.own:
            self.own[stream] = replace(self.own[stream], fresh=True)

    def begin_all(self) -> None:
        """A new sequence begins at the next fixation of every stream."""
        for stream in self.own:
            self.reset(stream)

    def forget(self, stream: str) -> None:
        """Drop all that is kept of ``stream``; what the weights learned from it stays."""
        self.own.pop(stream, None)

    def streams(self) -> list[str]:
        """Streams of which something is kept."""
        return list(self.own)

    def set_learning(self, on: bool) -> None:
        """Pause or resume: paused, weights stay; states, sensitivities and statistics go on."""
        self.learning = on

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates by part; only what is learned has one."""
        return dict(self.update.rates)

    @property
    def optimiser(self) -> Optimiser:
        """What makes gradients a change."""
        return self.update.optimiser

    def set_rates(self, rates: dict[str, float]) -> None:
        """Change some rates.

        Raises :class:`ModelError`, nothing changed, for an unknown part or a rate not in [0, 1].
        """
        self.update.set_rates(rates)

    @torch.no_grad()
    def embed(self, z: np.ndarray[Any, Any] | Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The embedding (q) of ``z`` (m) from the zero state with today's weights; changes nothing.

        Raises :class:`ModelError` where z has another length or is not finite.
        """
        found = self._features(z)
        if not math.isfinite(energy(found)):
            raise ModelError("the features are not finite: nothing was embedded")
        settled = self.network.circuit.settle(self.network.weights, self.blank().state)
        state = self.network.circuit.step(settled, self.network.weights["V"] @ upload(found, self._like))
        return _array(self.network.weights["U"] @ state.flatten())

    def all_weights(self) -> dict[str, Tensor]:
        """Copies of every weight by name, P of the predictor ``rls`` among them, in the learner's dtype."""
        found = {name: weight.clone() for name, weight in self.network.weights.items()}
        if self.network.rls is not None:
            found["P"] = self.network.rls.weights.to(self._like, copy=True)
        return found

    def describe(self) -> dict[str, Any]:
        """What this model is, JSON-able."""
        return stored.describe(self)

    def snapshot(self) -> Snapshot:
        """Everything a step reads, as independent copies."""
        return stored.take(self)

    def load(self, snapshot: Snapshot) -> None:
        """Go on from ``snapshot``, with the same bits.

        Raises :class:`ModelError`, nothing changed, if it does not fit.
        """
        stored.put(self, snapshot)


def _array(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return tensor.detach().to("cpu", torch.float32, copy=True).numpy()
