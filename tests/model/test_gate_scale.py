from __future__ import annotations

import pytest

from model.gate_scale import CIRCUITS, measure


@pytest.mark.parametrize("circuit", [name for name in CIRCUITS if "dense" not in name])
@pytest.mark.parametrize("scale", [0.0, 0.3])
def test_two_point_and_modular_gates_are_exact(circuit: str, scale: float) -> None:
    found = measure(circuit, scale, seed=0)
    assert found["relative_error"] is not None
    assert found["relative_error"] < 1e-10


def test_dense_gates_are_exact_at_zero_alone() -> None:
    zero, small = measure("dense", 0.0, seed=0), measure("dense", 0.1, seed=0)
    assert zero["relative_error"] is not None
    assert small["relative_error"] is not None
    assert zero["relative_error"] < 1e-10
    assert 0.01 < small["relative_error"] < 0.5
    assert measure("dense", 0.1, seed=0) == small
    assert measure("dense", 0.1, seed=1) != small
