"""The truth that recurrent forward propagation is held against: slow, plain, sharing no formula with it.

Three algorithms over a window of fixations, all on torch's automatic differentiation:

    bptt            back-propagation through time: one graph over the whole window
    truncated_bptt  each loss reaches back a given number of steps
    rtrl            real-time recurrent learning with the complete Jacobian, O(n^3) memory: small n only

The gates' weights are written out as full n x n matrices, whatever their connectivity, and each formula of
the circuits is typed anew. What "equal" means: weights are held fixed over the window, the state before it
is given, targets, carry and running statistics are constants, as the learner had them at each step
(:class:`~model.learner.Watched`). The gradient is that of the summed loss (the head's loss added where there
is an action head).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jacrev

from model.config import ModelConfig
from model.learner import Watched

Weights = dict[str, Tensor]
_GATES = ("W_hh", "W_cc", "W_ch", "W_hc")
_NOT_RECURRENT = ("U", "P", "P_in", "P_out", "A")


def written_out(config: ModelConfig, weights: Weights) -> Weights:
    """``weights`` with the gates' as n x n matrices: once for a window, so that a graph holds each of them once."""
    return {name: _matrix(config, weight) if name in _GATES else weight for name, weight in weights.items()}


def step(config: ModelConfig, weights: Weights, state: Tensor, z: Tensor) -> Tensor:
    """The next state (K x n) from ``state`` and features ``z`` (m); ``weights`` as they are, or :func:`written_out`."""
    x = weights["V"] @ z
    if config.cell == "time-decay":
        return (1.0 / (1.0 + torch.exp(-weights["decay"]))) * state + x
    h, c = state[0], state[1]
    to_h = 1.0 - torch.tanh(_matrix(config, weights["W_ch"]) @ c)
    to_c = 1.0 - torch.tanh(_matrix(config, weights["W_hc"]) @ h)
    own_h, own_c = _matrix(config, weights["W_hh"]) @ h, _matrix(config, weights["W_cc"]) @ c
    if config.cell == "paper":
        keep_h, keep_c = torch.tanh(own_h), torch.tanh(own_c)
        if config.retention == "one-minus-tanh":
            keep_h, keep_c = 1.0 - keep_h, 1.0 - keep_c
        return torch.stack((to_h * x + keep_h * h, to_c * x + keep_c * c))
    kept_h = config.bound * torch.tanh(own_h + weights["beta_h"]) * h
    kept_c = config.bound * torch.tanh(own_c + weights["beta_c"]) * c
    turn = torch.complex(torch.cos(weights["theta"]), torch.sin(weights["theta"]))
    turned = torch.complex(kept_h, kept_c) * turn
    return torch.stack((to_h * x + turned.real, to_c * x + turned.imag))


def loss(config: ModelConfig, weights: Weights, state: Tensor, seen: Watched) -> tuple[Tensor, Tensor]:
    """E of predicting ``seen`` from ``state``, and the loss of the action head (0 without one)."""
    target = (weights["U"] @ step(config, weights, state, seen.z).flatten()).detach()
    carry = (weights["U"] @ step(config, weights, state, seen.carry).flatten()).detach()
    y = weights["U"] @ state.flatten()
    choices = config.predictor
    read = (y - seen.mean) / seen.deviation if choices.normalise else y
    phi = torch.cat((read, seen.told, torch.ones(1, dtype=y.dtype)))
    if choices.kind == "mlp":
        inner = weights["P_in"] @ phi
        hidden = inner.tanh() if choices.activation == "tanh" else inner.clamp(min=0.0)
        p = weights["P_out"] @ torch.cat((hidden, torch.ones(1, dtype=y.dtype)))
    else:
        p = weights["P"] @ phi
    p = p + (carry if choices.carry else 0.0) + (y if choices.residual else 0.0)
    head = torch.zeros((), dtype=y.dtype)
    if "A" in weights and seen.aim is not None:
        head = ((weights["A"] @ torch.cat((read, torch.ones(1, dtype=y.dtype))) - seen.aim) ** 2).mean() / 2
    if config.distance == "half_mse":
        return ((p - target) ** 2).mean() / 2, head
    lengths = torch.sqrt((p * p).sum() + 1e-8) * torch.sqrt((target * target).sum() + 1e-8)
    return 1.0 - (p * target).sum() / lengths, head


def bptt(
    config: ModelConfig,
    weights: Weights,
    start: Tensor,
    window: Sequence[Watched],
    counts: Sequence[bool] | None = None,
) -> Weights:
    """The gradient by name of the summed losses of ``window``, from the state ``start`` before it (K x n).

    ``counts``: which losses are summed; all without it. A fixation at position 0 starts from the zero state
    and has no loss.
    """
    leaves = _leaves(weights)
    whole = written_out(config, leaves)
    state, total = start, torch.zeros((), dtype=start.dtype)
    for index, seen in enumerate(window):
        if seen.position == 0:
            state = torch.zeros_like(start)
        elif counts is None or counts[index]:
            total = total + sum(loss(config, whole, state, seen))
        state = step(config, whole, state, seen.z)
    return _gradients(total, leaves)


def truncated_bptt(
    config: ModelConfig, weights: Weights, start: Tensor, window: Sequence[Watched], reach: int
) -> Weights:
    """The summed gradients of each loss through at most ``reach`` steps of the circuit."""
    states = [start]
    for seen in window:
        before = torch.zeros_like(start) if seen.position == 0 else states[-1]
        states.append(step(config, weights, before, seen.z).detach())
    summed = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for index, seen in enumerate(window):
        if seen.position == 0:
            continue
        first = max(0, index - min(reach, seen.position))
        leaves = _leaves(weights)
        whole = written_out(config, leaves)
        state = torch.zeros_like(start) if window[first].position == 0 else states[first]
        for earlier in window[first:index]:
            state = step(config, whole, state, earlier.z)
        found = _gradients(sum(loss(config, whole, state, seen), torch.zeros((), dtype=start.dtype)), leaves)
        summed = {name: summed[name] + found[name] for name in summed}
    return summed


def rtrl(config: ModelConfig, weights: Weights, start: Tensor, window: Sequence[Watched]) -> Weights:
    """The same gradient as :func:`bptt`, forward: d state / d every recurrent weight, whole, at every step."""
    recurrent = [name for name in weights if name not in _NOT_RECURRENT]
    influence = {name: torch.zeros(*start.shape, *weights[name].shape, dtype=start.dtype) for name in recurrent}
    summed = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    state = start
    for seen in window:
        if seen.position == 0:
            state = torch.zeros_like(start)
            influence = {name: torch.zeros_like(part) for name, part in influence.items()}
        else:
            leaves, here = _leaves(weights), state.clone().requires_grad_()
            total = sum(loss(config, leaves, here, seen), torch.zeros((), dtype=start.dtype))
            found = _gradients(total, {**leaves, "state": here})
            back = found.pop("state")
            for name in summed:
                summed[name] = summed[name] + found[name]
                if name in influence:
                    summed[name] = summed[name] + torch.tensordot(back, influence[name], dims=2)
        after, direct = _jacobians(config, weights, recurrent, state, seen.z)
        influence = {name: torch.tensordot(after, influence[name], dims=2) + direct[name] for name in recurrent}
        state = step(config, weights, state, seen.z).detach()
    return summed


def _jacobians(
    config: ModelConfig, weights: Weights, recurrent: list[str], state: Tensor, z: Tensor
) -> tuple[Tensor, Weights]:
    """d state' / d state (K x n x K x n), and d state' / d each recurrent weight, the state held."""

    def following(state: Tensor, *parts: Tensor) -> Tensor:
        return step(config, {**weights, **dict(zip(recurrent, parts, strict=True))}, state, z)

    arguments = (state, *(weights[name] for name in recurrent))
    after, *direct = jacrev(following, argnums=tuple(range(len(arguments))))(*arguments)
    return after, dict(zip(recurrent, direct, strict=True))


def _matrix(config: ModelConfig, weight: Tensor) -> Tensor:
    """n x n, whatever the connectivity; a matrix already stays as it is."""
    if weight.dim() == 2:
        return weight
    if config.gates == "two-point":
        return torch.diag(weight)
    whole: Tensor = torch.block_diag(*weight.unbind())  # type: ignore[no-untyped-call]
    return whole


def _leaves(weights: Weights) -> Weights:
    return {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}


def _gradients(total: Tensor, leaves: Weights) -> Weights:
    """By name; zero where ``total`` does not depend on a weight."""
    if not total.requires_grad:
        return {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if part is None else part
        for (name, leaf), part in zip(leaves.items(), found, strict=True)
    }
