"""What one learning step must touch in memory, whatever the program: the floor its speed is held against.

A tensor that a step reads in two places with something between that needs all of the first reading is read twice:
W for the gates' arguments and again to be changed, V for x and again to be changed, U for y and again on the way back,
P for the prediction and again for its gradient. Vectors are not counted.

Truncated back-propagation, the rival, is counted alike. It can't go back a step before it has gone back the one
after, so with dense gates it reads W at each of them, with others what it kept instead, each step's Jacobian; W at each
that is made anew; what it keeps of the past once.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.learner import Learner
from model.optimiser import Adam


class Touched(NamedTuple):
    """One tensor of a step."""

    name: str
    bytes: int
    reads: int
    writes: int

    @property
    def moved(self) -> int:
        """Bytes that come from memory or go there."""
        return self.bytes * (self.reads + self.writes)


def touched(learner: Learner) -> list[Touched]:
    """The matrices of one step of ``learner`` that learns: sensitivities, weights, the optimiser's moments."""
    network, learned = learner.network, learner.parameters.learned
    found = []
    if network.credited:
        found.append(_touched("S", learner.blank().sensitivities.values, 1, 1))
    for name, weight in network.weights.items():
        found.append(_touched(name, weight, 2, int(name in learned)))
    if isinstance(learner.optimiser, Adam):
        found += [_touched(f"moment {name}", tensor, 1, 1) for name, tensor in learner.optimiser.state.items()]
    if network.rls is not None:
        found += [_touched("P", network.rls.weights, 2, 1), _touched("R", network.rls.inverse, 2, 1)]
    return found


def touched_back(learner: Learner, *, reach: int, past: int, anew: bool) -> list[Touched]:
    """The same of back-propagation ``reach`` steps back at one fixation, which keeps ``past`` bytes of them."""
    network = learner.network
    again = reach * (int(anew) + int(network.circuit.gates == "dense"))
    found = [part for part in touched(learner) if part.name != "S"]
    for at, part in enumerate(found):
        if part.name in network.circuit.gate_names:
            found[at] = part._replace(reads=part.reads + again)
        elif part.name == "V" and anew:
            found[at] = part._replace(reads=part.reads + 1)
    found.append(Touched("past", past, 1, int(anew)))
    if network.credited:
        learned = [name for name in learner.parameters.learned if name in network.propagation.columns]
        found += [_touched(f"gradient {name}", network.weights[name], 1, 1) for name in learned]
    return found


def floor_bytes(learner: Learner) -> int:
    """Bytes read and written by one step, at least."""
    return sum(part.moved for part in touched(learner))


def state_bytes(learner: Learner) -> int:
    """What is carried from fixation to fixation for credit through time, of one stream."""
    values = learner.blank().sensitivities.values
    return values.numel() * values.element_size()


def _touched(name: str, tensor: Tensor, reads: int, writes: int) -> Touched:
    return Touched(name, tensor.numel() * tensor.element_size(), reads, writes)
