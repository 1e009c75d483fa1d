"""The untrained twin: the same network on the same fixations, but for the circuit, which stays as it began.

Its predictor learns, by the learner's own rule; its W, beta, theta, V and U don't. So it is the random reservoir that a
trained circuit must beat, and its weights are the frozen network's. What the two have in common (zbar, what is
told of the next gaze) it takes from the learner's step; it makes no credit and has no trivial opponents. Where the
learner counts only some losses, the twin's predictor learns from all.

Gates start at zero and here stay there, so what they retain and let pass never changes, whatever the state:

    s' = A s + B V z,  A (K x K of each unit) and B those of the start                                  (1)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.config import ModelConfig
from model.guard import energy
from model.learner import Learner
from model.network import Network
from model.noted import Noted
from model.optimiser import Adam, Optimiser, Sgd
from model.prediction import Predicted, Reading, distance_gradient, distances
from model.statistics import RunningMoments

_RATE_FLOOR = 1.0 / 2000.0


class TwinStep(NamedTuple):
    """One step of the twin."""

    state: Tensor
    """K x n, before it."""
    prediction: Tensor | None
    """q; None at a sequence's start, or where it is not finite."""
    error: float | None


def twin_config(config: ModelConfig) -> ModelConfig:
    """``config`` with nothing to learn but the predictor."""
    choices = config.model_dump()
    choices["learning"]["rates"] |= {"gates": None, "retention": None, "input": None, "embedding": None}
    choices["predictor"]["action_head"] = False
    return ModelConfig.parse(choices)


class Twin:
    """Starts as ``learner`` did with ``seed``, and steps when told to."""

    def __init__(self, learner: Learner, seed: int) -> None:
        self.config = config = twin_config(learner.config)
        like = learner.blank().state
        self._zero = torch.zeros_like(like)
        self.network = Network(config, torch.Generator().manual_seed(seed), like)
        self._settled = self.network.circuit.settle(self.network.weights, self._zero)
        """Of equation (1): ``direct`` is A and ``passed`` B."""
        self._v, self._u = self.network.weights["V"].T, self.network.weights["U"].T
        self._moments = RunningMoments(config.embedding_size, (_RATE_FLOOR,), like)
        parameters = self.network.parameters
        self._optimiser: Optimiser = Sgd()
        if config.learning.optimiser == "adam":
            self._optimiser = Adam(parameters.flat, config.learning.adam_epsilon / config.embedding_size)
        self._pending = torch.zeros_like(parameters.flat)
        self._states: dict[str, Tensor] = {}
        self.steps = 0

    @torch.no_grad()
    def step(self, seen: Noted, rates: dict[str, float], *, learning: bool) -> TwinStep:
        """The step the learner made as ``seen``; ``rates`` are the learner's, by part."""
        network, weights = self.network, self.network.weights
        state = self._zero if seen.position == 0 else self._states.get(seen.stream, self._zero)
        settled = self._settled._replace(retained=(self._settled.direct * state).sum(dim=1))
        after = network.circuit.step(settled, torch.stack([seen.z, seen.carry]) @ self._v)
        ys = torch.cat([after, state.unsqueeze(0)]).flatten(1) @ self._u
        y, carried, y_before = ys.unbind()
        self._states[seen.stream] = after[0]
        if not math.isfinite(energy(ys.flatten())):
            self._states[seen.stream] = self._zero
            return TwinStep(self._zero, None, None)
        prediction, error = None, None
        if seen.position > 0:
            mean, deviation = self._moments.mean[0], self._moments.deviation()[0]
            reading = network.reader.reading(y_before, mean, deviation, seen.told, carried)
            predicted = network.predictor.predict(weights, reading)
            prediction = predicted.p
            error = float(distances(prediction.unsqueeze(0), y, self.config.distance))
            if learning and math.isfinite(error):
                self._learn(seen.position, reading, predicted, y, rates)
        self._moments.update(y, y_before if seen.position > 0 else None, self.steps)
        self.steps += 1
        return TwinStep(state, prediction, error)

    def _learn(self, position: int, reading: Reading, predicted: Predicted, y: Tensor, rates: dict[str, float]) -> None:
        """The predictor's own step; where the learner waits for a sequence's end, the next one's first prediction."""
        network, choices = self.network, self.config.learning
        if network.rls is not None:
            network.rls.update(reading.phi, predicted.p - y)
        if not network.parameters.learned or self.steps < choices.warmup:
            return
        due = (
            choices.update == "step"
            or position == 1
            or (choices.update != "sequence" and position % choices.update == 0)
        )
        if due and choices.update != "step":
            self._apply(rates)
        e = distance_gradient(predicted.p, y, self.config.distance)
        self._pending += network.parameters.gather(network.predictor.back(network.weights, reading, predicted, e)[1])
        if choices.update == "step":
            self._apply(rates)

    def _apply(self, rates: dict[str, float]) -> None:
        parameters = self.network.parameters
        parameters.flat.add_(self._optimiser.step(self._pending, parameters.rates({"predictor": rates["predictor"]})))
        self._pending.zero_()

    def forget(self, stream: str) -> None:
        """Its next fixation starts from the zero state."""
        self._states.pop(stream, None)

    def _tensors(self) -> dict[str, Tensor]:
        found = {"flat": self.network.parameters.flat, "pending": self._pending}
        found |= {f"optimiser/{name}": tensor for name, tensor in self._optimiser.state.items()}
        found |= {f"moments/{name}": tensor for name, tensor in self._moments.tensors().items()}
        if self.network.rls is not None:
            found |= {"rls/weights": self.network.rls.weights, "rls/inverse": self.network.rls.inverse}
        return found

    def pack(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of everything it learned, and the rest, JSON-able; its circuit comes from the seed."""
        tensors = {name: tensor.cpu().clone() for name, tensor in self._tensors().items()}
        tensors |= {f"states/{name}": state.cpu().clone() for name, state in self._states.items()}
        rls = self.network.rls
        meta = {"steps": self.steps, "optimiser_steps": self._optimiser.steps, "rls_steps": rls.steps if rls else 0}
        return tensors, {**meta, "states": list(self._states)}

    def unpack(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Go on from what :meth:`pack` gave. Raises KeyError or RuntimeError where it does not fit."""
        for name, tensor in self._tensors().items():
            tensor.copy_(tensors[name])
        self._states = {name: tensors[f"states/{name}"].to(self._zero, copy=True) for name in meta["states"]}
        self.steps, self._optimiser.steps = int(meta["steps"]), int(meta["optimiser_steps"])
        if self.network.rls is not None:
            self.network.rls.steps = int(meta["rls_steps"])
