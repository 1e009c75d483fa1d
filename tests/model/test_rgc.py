"""The circuits: the paper's limits, the bound, and where the bounded one becomes the paper's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model import rfp
from model.config import ModelConfig
from model.rgc import BoundedCell, Circuit, PaperCell, TimeDecayCell, orthogonal
from tests.model.fidelity import small


def weights_of(circuit: Circuit, rng: np.random.Generator, scale: float) -> dict[str, torch.Tensor]:
    start = circuit.start(torch.Generator().manual_seed(0))
    return {name: torch.from_numpy(scale * rng.standard_normal(weight.shape)) for name, weight in start.items()}


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(["two-point", "modular", "dense"]),
    st.integers(0, 10_000),
    st.floats(0.0, 30.0),
    st.floats(0.0, 100.0),
    st.floats(0.05, 0.99),
)
def test_the_bounded_state_is_bounded_whatever_the_weights(
    gates: str, seed: int, scale: float, size: float, rho: float
) -> None:
    """|s'| <= |input| + rho |s| for each unit's pair, the input at most 2 |x| in each number."""
    rng = np.random.default_rng(seed)
    config = ModelConfig.preset(gates=gates, block=2, units=6, embedding_size=6, bound=rho, spans=(0.0, rho / 2))  # type: ignore[arg-type]
    circuit = Circuit(config)
    weights = weights_of(circuit, rng, scale)
    state = torch.from_numpy(size * rng.standard_normal((2, 6)))
    for _ in range(20):
        x = torch.from_numpy(rng.standard_normal(6) * size)
        settled = circuit.settle(weights, state)
        after = circuit.step(settled, x)
        passed = (settled.passed * x).norm(dim=0)
        assert bool((settled.passed >= 0.0).all())
        assert bool((settled.passed <= 2.0).all())
        assert bool((after.norm(dim=0) <= passed + rho * state.norm(dim=0) + 1e-9 * (1.0 + size)).all())
        state = after
    assert float(state.norm(dim=0).max()) <= 5.0 * (1.0 + size) * 2.0 * 2.0**0.5 / (1.0 - rho)


@pytest.mark.parametrize("gates", ["two-point", "modular", "dense"])
def test_without_bound_bias_and_rotation_it_is_the_papers(gates: str) -> None:
    rng = np.random.default_rng(1)
    circuit = Circuit(small(cell="paper", gates=gates, block=3))
    weights = weights_of(circuit, rng, 0.7)
    state, x = torch.from_numpy(rng.standard_normal((2, 6))), torch.from_numpy(rng.standard_normal(6))
    arguments = circuit.arguments(weights, state)
    nothing = {name: torch.zeros(6, dtype=torch.float64) for name in ("beta_h", "beta_c", "theta")}
    bounded = BoundedCell(1.0, (0.0, 0.0), 0.0).settle(nothing, arguments, state)
    paper = PaperCell("tanh").settle({}, arguments, state)
    for one, other in zip(bounded[:5], paper[:5], strict=True):
        assert torch.equal(one, other)
    assert torch.equal(circuit.step(bounded, x), circuit.step(paper, x))


def test_the_papers_two_conditions_on_the_retention() -> None:
    """From the zero state the input passes straight through; with zero weights tanh keeps nothing, 1 - tanh all."""
    x = torch.tensor([0.5, -2.0, 3.0, 0.1, 1.0, -1.0], dtype=torch.float64)
    state = torch.arange(12, dtype=torch.float64).view(2, 6)
    for retention, kept in (("tanh", 0.0), ("one-minus-tanh", 1.0)):
        circuit = Circuit(small(cell="paper", retention=retention))
        zero = circuit.start(torch.Generator())
        rng = np.random.default_rng(2)
        from_zero = circuit.step(circuit.settle(weights_of(circuit, rng, 1.0), torch.zeros_like(state)), x)
        assert torch.equal(from_zero, torch.stack([x, x]))
        assert torch.equal(circuit.step(circuit.settle(zero, state), x), x + kept * state)


def test_the_time_decay_unit_is_a_geometric_sum() -> None:
    circuit = Circuit(small(cell="time-decay", embedding_size=5))
    weights = {"decay": torch.logit(torch.full((6,), 0.5, dtype=torch.float64))}
    state = torch.zeros(1, 6, dtype=torch.float64)
    for _ in range(4):
        state = circuit.step(circuit.settle(weights, state), torch.ones(6, dtype=torch.float64))
    assert torch.allclose(state, torch.full((1, 6), 1.875, dtype=torch.float64))
    lambdas = torch.sigmoid(TimeDecayCell().start(6, torch.Generator().manual_seed(0))["decay"])
    assert torch.allclose(lambdas.sort().values, torch.linspace(0.05, 0.95, 6, dtype=torch.float64))


def test_where_it_starts() -> None:
    config = ModelConfig.preset("default")
    circuit = Circuit(config)
    start = circuit.start(torch.Generator().manual_seed(3))
    assert all(not start[name].any() for name in circuit.gate_names)
    for name in ("beta_h", "beta_c"):
        spans = (config.bound * torch.tanh(start[name])).sort().values
        assert torch.allclose(spans, torch.linspace(0.0, 0.9, 128, dtype=torch.float64), atol=1e-12)
    assert not torch.equal(start["beta_h"], start["beta_c"])
    assert 0.0 <= float(start["theta"].min()) < 0.3
    assert 2.8 < float(start["theta"].max()) <= torch.pi
    long = Circuit(ModelConfig.preset("long")).start(torch.Generator().manual_seed(3))
    spans = 0.95 * torch.tanh(long["beta_c"])
    assert (float(spans.min()), float(spans.max())) == pytest.approx((0.7, 0.93))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (5, 8), (16, 8), (10, 8)])
def test_random_orthogonal_maps(rows: int, columns: int) -> None:
    found = orthogonal(rows, columns, torch.Generator().manual_seed(1))
    assert found.shape == (rows, columns)
    if rows <= columns:
        assert torch.allclose(found @ found.T, torch.eye(rows, dtype=torch.float64))
    else:
        assert torch.allclose(found.T @ found, rows / columns * torch.eye(columns, dtype=torch.float64))


def test_a_unit_over_the_limit_starts_again_alone() -> None:
    for gates, touched in (("two-point", 1), ("modular", 3)):
        circuit = Circuit(small(gates=gates, block=3))
        propagation = rfp.Propagation(circuit, 5)
        values = torch.ones_like(propagation.zero(torch.zeros(1)).values)
        for bad in (2e6, -2e6, float("nan"), float("inf")):
            values[1, 0, 2] = bad
            cut, units = propagation.cut(rfp.Sensitivities(values), 1e6, float((values * values).sum()))
            assert units == touched
            assert not cut.values[1].any()
            assert bool((cut.values[0] == 1.0).all())
        values[1] = 1e6
        assert propagation.cut(rfp.Sensitivities(values), 1e6, float((values * values).sum()))[1] == 0
