"""Memory-free retrieval: is the prediction nearest to what really came, among a hundred that could have come?

    candidates   U RGC(s_t, V z_j), j the true next and the 99 fixations before t (t itself is none)
    asked        p_t, and (copy-last, the trivial answer) U RGC(s_t, V z_t)
    a hit        the true next has the highest cosine, all less the candidates' mean

Every candidate is carried by the same memory s_t, so the memory can't tell them apart: ordinary retrieval
reached 0.97 on pure noise, this stays at the chance of 1/100. Tried at every fourth fixation.

What it can't show: how near the prediction came in size, only in direction; and on a stream that hardly
changes the 99 before look like the true one, so compare it with copy-last, never with another stream.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.errors import ModelError
from model.network import Made, Network

EARLIER = 99
CHANCE = 1.0 / (EARLIER + 1)
EVERY = 4
COLUMNS = ("hit", "hit_copy_last")
_AT_LEAST = 50


class Retrieval(NamedTuple):
    """Shares of hits; None until there are 50 trials."""

    prediction: float | None
    copy_last: float | None
    trials: int


@torch.no_grad()
def trial(network: Network, made: Made, z_next: Tensor, z_now: Tensor, earlier: Tensor) -> Tensor | None:
    """The two of :data:`COLUMNS` for one step, from z_{t+1}, z_t and the 99 before (99 x m).

    ``network`` must still have the weights of the step. None where there was no prediction.
    """
    if made.attempt is None:
        return None
    if earlier.shape[0] != EARLIER:
        raise ModelError(f"retrieval is among {EARLIER} earlier fixations, not {earlier.shape[0]}")
    weights = network.weights
    z = torch.cat([z_next.unsqueeze(0), earlier.to(z_next), z_now.unsqueeze(0)])
    states = network.circuit.step(made.new.settled, z @ weights["V"].T)
    carried = states.flatten(1) @ weights["U"].T
    candidates, copied = carried[:-1], carried[-1]
    centre = candidates.mean(dim=0)
    asked = torch.stack([made.attempt.predicted.p, copied]) - centre
    closeness = asked @ (torch.nn.functional.normalize(candidates - centre, dim=1)).T
    return (closeness[:, 0] > closeness[:, 1:].amax(dim=1)).to("cpu", torch.float32)


def measure(rows: Tensor) -> Retrieval:
    """The shares over ``rows`` (trials x 2)."""
    if rows.shape[0] < _AT_LEAST:
        return Retrieval(None, None, rows.shape[0])
    prediction, copy_last = rows.to(torch.float64).mean(dim=0).tolist()
    return Retrieval(prediction, copy_last, rows.shape[0])
