"""The network: from a stream's state and what is seen next to the error and its gradients, changing nothing.

    s_{t+1} = RGC(s_t, V z_{t+1}),  y = U s                                               (1)
    E = D(p_t, stopgrad(y_{t+1})),  p_t from y_t and what is known beforehand              (2)
    dE/ds_t = U^T dE/dy_t by ordinary back-propagation; dE/dU = dE/dy_t s_t^T             (3)
    dE/dW, dE/dV by Eq. 4 of model/rfp.py with the sensitivities of s_t

Letters: m features, n units, K numbers of state per unit, q embedding.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from model.action import Look
from model.config import ModelConfig
from model.guard import energy, squares
from model.host import Later
from model.one_pass import Pass
from model.parameters import CREDITED, GROUPS, Parameters
from model.prediction import Predicted, Reading, distance_gradient, distances, make_predictor
from model.reading import Reader, Told
from model.rfp import Propagation, Sensitivities
from model.rgc import Circuit, Settled, orthogonal
from model.rls import RecursiveLeastSquares
from model.stream import StreamState
from model.trivial import Guesses, Opponents


class Imagined(NamedTuple):
    """The step with what was really seen, and with every simple guess of it."""

    settled: Settled
    x: Tensor
    """n: V z."""
    state: Tensor
    """K x n: the next state."""
    y: Tensor
    """q: its embedding, the target."""
    y_before: Tensor
    """q: y_t = U s_t, of the state before."""
    carried: Tensor
    """As many as there are guesses x q: the embeddings after each of them."""


class Passed(NamedTuple):
    """What ordinary back-propagation gives where model/one_pass.py makes the rest of the gradient."""

    down: Tensor
    """K x n: dE/ds_t."""
    rest: Tensor
    """Gradients of the weights no credit passes through, laid out as the end of the parameters."""


class Attempt(NamedTuple):
    """A prediction held against what came, nothing changed yet."""

    told: Told
    reading: Reading
    predicted: Predicted
    errors: list[float]
    """The learner's, then those of the guesses' embeddings and of what was carried."""
    strength: float
    """y'.y' of the target: finite only if the state is."""
    action_error: float | None
    """Half mean square error of the action head, where there is one."""
    back: Tensor | None
    """q: dE/dy_t; None where nothing is to be learned."""
    gradient: Tensor | None
    """Laid out as the parameters; None where nothing is to be learned, or where it is ``passed`` on and known to be
    finite."""
    steepness: float | None
    """The sum of squares of ``gradient``."""
    passed: Passed | None = None
    """None where nothing is to be learned, or not in one pass."""


class Made(NamedTuple):
    """One step from the inside; nothing in it is ever changed in place."""

    own: StreamState
    """The stream before it."""
    new: Imagined
    attempt: Attempt | None
    """None where nothing came before."""


class Network:
    """The weights and the pure functions of them.

    ``weights`` are by name, those that are learned views into ``parameters.flat``. P of the predictor
    ``rls`` is its own (``rls.weights``, float64).
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator, like: Tensor) -> None:
        self.config = config
        self.circuit = Circuit(config)
        self.propagation = Propagation(self.circuit, config.features)
        self.reader = Reader(config, like)
        self.rls: RecursiveLeastSquares | None = None
        choices, reads = config.predictor, self.reader.size
        if choices.kind == "rls":
            self.rls = RecursiveLeastSquares(
                config.embedding_size,
                reads,
                forgetting=choices.forgetting,
                prior=choices.prior,
                device=str(like.device),
            )
        self.predictor = make_predictor(config, reads, self.rls)
        rates = config.learning.rates.model_dump()
        self.parameters = Parameters(self._start(generator), rates, dtype=like.dtype, device=str(like.device))
        self.weights = self.parameters.by_name
        self.credited = any(GROUPS[name] in CREDITED for name in self.parameters.learned)
        """Whether any weight is learned through time."""
        self.one_pass: Pass | None = None
        """What learns gates and V and carries the credit on, where that is not :meth:`credit`."""

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All weights at the start, float64, drawn in this order."""
        config = self.config
        start = self.circuit.start(generator)
        start["V"] = orthogonal(config.units, config.features, generator)
        start["U"] = orthogonal(config.embedding_size, self.circuit.components * config.units, generator)
        start |= self.predictor.start(generator)
        if config.predictor.action_head:
            start["A"] = torch.zeros(2, config.embedding_size + 1, dtype=torch.float64)
        return start

    def embed(self, state: Tensor) -> Tensor:
        """y = U s, q numbers."""
        return self.weights["U"] @ state.flatten()

    def imagine(self, own: StreamState, guesses: Tensor, z: Tensor, y_before: Tensor | None = None) -> Imagined:
        """s' and y', really and for every guess of z (B x m): gates depend on s alone, so they differ in x only.

        ``y_before`` is y_t, where it is known already.
        """
        weights = self.weights
        arguments = None if self.one_pass is None else self.one_pass.arguments(weights, own.state)
        settled = self.circuit.settle(weights, own.state, arguments)
        x = torch.cat([z.unsqueeze(0), guesses]) @ weights["V"].t()
        states = self.circuit.step(settled, x)
        ys = states.flatten(1) @ weights["U"].t()
        before = self.embed(own.state) if y_before is None else y_before
        return Imagined(settled, x[0], states[0], ys[0], before, ys[1:])

    def attempt(
        self,
        own: StreamState,
        new: Imagined,
        guesses: Guesses,
        look: Look | None,
        opponents: Opponents,
        *,
        wanted: bool,
        shown: bool = True,
        room: Tensor | None = None,
    ) -> Attempt:
        """p, its error and every trivial one, and (if ``wanted``) the gradients.

        Where all else is learned in one pass only what that needs, unless all are to be ``shown``. ``room``: see
        :meth:`model.rfp.Propagation.gradient`.
        """
        told = self.reader.told(guesses.z, own.look, look, own.places)
        reading = self.reader.reading(new.y_before, opponents.mean, opponents.deviation, told.numbers, new.carried[0])
        predicted = self.predictor.predict(self.weights, reading)
        every = torch.cat([predicted.p.unsqueeze(0), guesses.embeddings, new.carried[1:]])
        missed = self._missed(told, reading)
        back, gradient, passed = None, None, None
        parts: dict[str, Tensor] = {}
        if wanted and self.parameters.learned:
            back, parts = self._back(own, new, reading, predicted, missed)
            if self.one_pass is not None:
                passed = Passed(self._down(own, back), self.parameters.gather(parts, self.one_pass.rest_names))
            if self.one_pass is None or shown:
                gradient = self._gradient(own, back, parts, room)
        later = Later()
        errors, strength = later.ask(distances(every, new.y, self.config.distance)), later.ask(squares(new.y))
        action = None if missed is None else later.ask(missed @ missed)
        looked_at = [gradient] if gradient is not None else [] if passed is None else [passed.down, passed.rest]
        sizes = [later.ask(squares(part)) for part in looked_at]
        later.read()
        steepness = None if gradient is None else later.one(sizes[0])
        if back is not None and gradient is None and not self._surely_finite(own, later, sizes):
            gradient = self._gradient(own, back, parts, room)
            steepness = energy(gradient)
        return Attempt(
            told, reading, predicted, later.all(errors), later.one(strength),
            None if action is None else later.one(action) * 0.25, back, gradient, steepness, passed,
        )  # fmt: skip

    def _surely_finite(self, own: StreamState, later: Later, sizes: list[int]) -> bool:
        one_pass, (down, rest) = self.one_pass, map(later.one, sizes)
        return one_pass is None or one_pass.surely_finite(own.sensitivities, down, rest)

    def _missed(self, told: Told, reading: Reading) -> Tensor | None:
        """2: what the action head, A [phi's part of y; 1], says of the saccade, less the saccade."""
        head = self.weights.get("A")
        if head is None or told.aim is None:
            return None
        return torch.addmv(head[:, -1], head[:, :-1], reading.phi[: self.config.embedding_size]) - told.aim

    def _back(
        self, own: StreamState, new: Imagined, reading: Reading, predicted: Predicted, missed: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Spatial back-propagation (3): dE/dy_t (q), and dE/dw by name of the weights that it passes."""
        e = distance_gradient(predicted.p, new.y, self.config.distance)
        back, parts = self.predictor.back(self.weights, reading, predicted, e)
        head = self.weights.get("A")
        if head is not None:
            parts["A"] = torch.zeros_like(head)
            if missed is not None:
                back = torch.addmv(back, head[:, :-1].T, missed, alpha=0.5)
                parts["A"] = torch.outer(missed * 0.5, torch.cat([reading.phi[: e.numel()], reading.phi[-1:]]))
        if reading.scale is not None:
            back = back * reading.scale
        if self.config.predictor.residual:
            back = back + e
        if "U" in self.parameters.learned:
            parts["U"] = torch.outer(back, own.state.flatten())
        return back, parts

    def _gradient(self, own: StreamState, back: Tensor, parts: dict[str, Tensor], room: Tensor | None = None) -> Tensor:
        """dE/dw of every learned weight, one vector: what was passed, and from dE/ds_t on Eq. 4."""
        if self.credited:
            parts |= self.propagation.gradient(own.sensitivities, self._down(own, back), room)
        return self.parameters.gather(parts)

    def _down(self, own: StreamState, back: Tensor) -> Tensor:
        """dE/ds_t, K x n."""
        return (self.weights["U"].T @ back).view_as(own.state)

    def gradient_again(self, own: StreamState, new: Imagined, told: Told, mean: Tensor, deviation: Tensor) -> Tensor:
        """The gradients of a step made before, what was told and the statistics (q each) given as they were then.

        ``new.carried`` starts with the embedding after the learner's own carry. Laid out as the parameters.
        """
        reading = self.reader.reading(new.y_before, mean, deviation, told.numbers, new.carried[0])
        predicted = self.predictor.predict(self.weights, reading)
        return self._gradient(own, *self._back(own, new, reading, predicted, self._missed(told, reading)))

    def credit(
        self, own: StreamState, new: Imagined, z: Tensor, room: Tensor | None = None
    ) -> tuple[Sensitivities, Tensor | None]:
        """The sensitivities of the next state, in ``room`` where there is one, and the sum of their squares: to be
        given to :meth:`cut`, unless there are none."""
        if not self.credited:
            return own.sensitivities, None
        partials = self.circuit.partials(new.settled, new.x)
        one_step = self.config.learning.credit == "one-step"
        jacobian = None if one_step else self.propagation.jacobian(partials, self.weights)
        drives = self.propagation.drives(partials, own.state, z, room)
        credit = self.propagation.advance(own.sensitivities, jacobian, drives)
        return credit, squares(credit.values)

    def cut(self, credit: Sensitivities, strength: float) -> tuple[Sensitivities, int]:
        """``credit`` without the units that are over the limit, which start from zero; how many these were."""
        return self.propagation.cut(credit, self.config.sensitivity_limit, strength)


def unfit(new: Imagined, attempt: Attempt | None, *, learning: bool) -> str | None:
    """Why a step must not be learned from, or None. What is not finite in the state or the reading shows in y and p.

    Without ``learning`` a gradient is for show, and stops nothing.
    """
    if not math.isfinite(energy(new.y) if attempt is None else attempt.strength):
        return "the state is not finite"
    if attempt is None:
        return None
    if not math.isfinite(attempt.errors[0]):
        return "the prediction error is not finite"
    if learning and attempt.steepness is not None and not math.isfinite(attempt.steepness):
        return "the gradient is not finite"
    return None
