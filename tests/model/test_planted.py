"""An error of 0.1 % in any one term makes the checks fail, and they name that term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model import network, prediction, rfp
from model.config import ModelConfig
from model.rgc import Circuit
from tests.model.fidelity import audit, small

ERROR = 1.001
CIRCUITS: dict[str, dict[str, Any]] = {
    "bounded": {"cell": "bounded"},
    "paper": {"cell": "paper"},
    "modular": {"cell": "paper", "gates": "modular", "block": 3},
    "bounded-modular": {"cell": "bounded", "gates": "modular", "block": 2},
    "time-decay": {"cell": "time-decay", "embedding_size": 5},
}
GATES = {"W_hh": "h", "W_ch": "h", "W_hc": "c", "W_cc": "c"}
BOUNDED = {
    "W_hh": "hc",
    "W_ch": "h",
    "W_hc": "c",
    "W_cc": "hc",
    "beta_h": "hc",
    "beta_c": "hc",
    "theta": "hc",
    "V": "hc",
}
MOVES: dict[str, dict[str, str]] = {
    "bounded": BOUNDED,
    "paper": {**GATES, "V": "hc"},
    "modular": {**GATES, "V": "hc"},
    "bounded-modular": BOUNDED,
    "time-decay": {"decay": "h", "V": "h"},
}
"""Which component each weight drives."""

ENTRIES = [("bounded", k, j) for k in (0, 1) for j in (0, 1)] + [("modular", k, j) for k in (0, 1) for j in (0, 1)]


def wrapped(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, change: Callable[[Any, Any], Any]) -> None:
    """``owner.name`` gives ``change(what it gave, its owner)`` from now on."""
    real = getattr(owner, name)

    def planted(self: Any, *arguments: Any, **named: Any) -> Any:
        return change(real(self, *arguments, **named), self)

    monkeypatch.setattr(owner, name, planted)


def rows(config: ModelConfig, k: int) -> slice:
    """Of a block's Kb numbers of state, those of component ``k``."""
    b = config.block if config.gates == "modular" else 1
    return slice(k * b, (k + 1) * b)


@pytest.mark.parametrize("name", list(CIRCUITS))
def test_nothing_is_named_where_nothing_is_planted(name: str) -> None:
    for distance in ("half_mse", "cosine"):
        for kind in ("linear", "mlp"):
            config = small(**CIRCUITS[name], distance=distance, predictor={"kind": kind, "action_head": True})
            assert audit(config, seed=11) == (set(), [])


@pytest.mark.parametrize(("name", "k", "j"), ENTRIES)
def test_an_entry_of_the_jacobian(monkeypatch: pytest.MonkeyPatch, name: str, k: int, j: int) -> None:
    config = small(**CIRCUITS[name])

    def plant(a: Tensor, _: Any) -> Tensor:
        scaled = a.clone()
        scaled[:, rows(config, k), rows(config, j)] *= ERROR
        return scaled

    wrapped(monkeypatch, rfp.Propagation, "jacobian", plant)
    terms, parameters = audit(config, seed=11)
    assert terms == {f"A[{'hc'[k]},{'hc'[j]}]"}
    assert parameters
    assert not {"U", "P"} & set(parameters)


@pytest.mark.parametrize(
    ("name", "weight", "moved"), [(n, w, m) for n, moves in MOVES.items() for w, parts in moves.items() for m in parts]
)
def test_a_drive(monkeypatch: pytest.MonkeyPatch, name: str, weight: str, moved: str) -> None:
    config = small(**CIRCUITS[name])

    def plant(drives: Tensor, owner: rfp.Propagation) -> Tensor:
        scaled = drives.clone()
        scaled[:, rows(config, "hc".index(moved)), owner.columns[weight]] *= ERROR
        return scaled

    wrapped(monkeypatch, rfp.Propagation, "drives", plant)
    assert audit(config, seed=11) == ({f"drive {weight} on {moved}"}, [weight])


@pytest.mark.parametrize("name", ["bounded", "modular", "time-decay"])
def test_the_recurrence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    wrapped(monkeypatch, rfp.Propagation, "advance", lambda s, _: rfp.Sensitivities(s.values * ERROR))
    terms, parameters = audit(small(**CIRCUITS[name]), seed=11)
    assert terms == {"advance"}
    assert set(parameters) == set(MOVES[name])


@pytest.mark.parametrize(("name", "weight"), [(n, w) for n in ("bounded", "modular", "time-decay") for w in MOVES[n]])
def test_equation_four(monkeypatch: pytest.MonkeyPatch, name: str, weight: str) -> None:
    wrapped(monkeypatch, rfp.Propagation, "gradient", lambda parts, _: {**parts, weight: parts[weight] * ERROR})
    assert audit(small(**CIRCUITS[name]), seed=11) == ({f"Eq. 4 {weight}"}, [weight])


@pytest.mark.parametrize("k", [0, 1])
def test_equation_four_reads_both_components(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    real = rfp.Propagation.gradient

    def planted(self: Any, sensitivities: Any, back: Tensor) -> Any:
        scaled = back.clone()
        scaled[k] *= ERROR
        return real(self, sensitivities, scaled)

    monkeypatch.setattr(rfp.Propagation, "gradient", planted)
    terms, parameters = audit(small(), seed=11)
    assert terms == {f"Eq. 4 {name}" for name in parameters}
    assert set(parameters) == set(BOUNDED)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("name", ["bounded", "paper", "modular"])
def test_the_step_itself(monkeypatch: pytest.MonkeyPatch, name: str, k: int) -> None:
    config = small(**CIRCUITS[name])

    def plant(state: Tensor, _: Any) -> Tensor:
        scaled = state.clone()
        scaled[..., k, :] *= ERROR
        return scaled

    wrapped(monkeypatch, Circuit, "step", plant)
    terms, parameters = audit(config, seed=11)
    assert f"{'hc'[k]}'" in terms
    assert parameters


@pytest.mark.parametrize(
    ("kind", "weight"), [("linear", "P"), ("linear", "U"), ("linear", "A"), ("mlp", "P_in"), ("mlp", "P_out")]
)
def test_a_gradient_of_ordinary_back_propagation(monkeypatch: pytest.MonkeyPatch, kind: str, weight: str) -> None:
    def plant(gradient: Tensor, owner: Any) -> Tensor:
        changed = gradient.clone()
        owner.parameters.split(changed)[weight].mul_(ERROR)
        return changed

    wrapped(monkeypatch, network.Network, "_gradient", plant)
    config = small(predictor={"kind": kind, "action_head": True})
    assert audit(config, seed=11) == ({f"d{weight}"}, [weight])


@pytest.mark.parametrize("distance", ["half_mse", "cosine"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_way_back_to_the_state(monkeypatch: pytest.MonkeyPatch, kind: str, distance: str) -> None:
    predictor = prediction.LinearPredictor if kind == "linear" else prediction.MlpPredictor
    wrapped(monkeypatch, predictor, "back", lambda found, _: (found[0] * ERROR, found[1]))
    terms, parameters = audit(small(predictor={"kind": kind}, distance=distance), seed=11)
    assert terms == {"dE/dh", "dE/dc", "dU"}
    assert set(parameters) == {*BOUNDED, "U"}


@pytest.mark.parametrize("distance", ["half_mse", "cosine"])
def test_the_distances_gradient(monkeypatch: pytest.MonkeyPatch, distance: str) -> None:
    real = prediction.distance_gradient
    monkeypatch.setattr(network, "distance_gradient", lambda *a: real(*a) * ERROR)
    terms, parameters = audit(small(distance=distance), seed=11)
    assert terms == {"dE/dh", "dE/dc", "dU", "dP"}
    assert set(parameters) == {*BOUNDED, "U", "P"}


def test_a_gradient_of_zero_is_no_proof() -> None:
    from tests.model.fidelity import relative_errors

    with pytest.raises(AssertionError, match="the gradient of V is zero"):
        relative_errors({"V": torch.zeros(2)}, {"V": torch.zeros(2)})
