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

ENTRIES = [(n, k, j) for n in ("bounded", "paper", "modular", "bounded-modular") for k in (0, 1) for j in (0, 1)]


PREDICTORS: dict[str, Any] = {
    "linear": prediction.LinearPredictor,
    "mlp": prediction.MlpPredictor,
    "rls": prediction.RlsPredictor,
}


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
        for kind in PREDICTORS:
            config = small(**CIRCUITS[name], distance=distance, predictor={"kind": kind, "action_head": True})
            assert audit(config, seed=11) == (set(), [])


@pytest.mark.parametrize(("name", "k", "j"), [*ENTRIES, ("time-decay", 0, 0)])
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


@pytest.mark.parametrize("name", ["bounded", "modular", "time-decay"])
def test_a_cut_leaves_what_is_under_the_limit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    wrapped(
        monkeypatch, rfp.Propagation, "cut", lambda found, _: (rfp.Sensitivities(found[0].values * ERROR), found[1])
    )
    terms, parameters = audit(small(**CIRCUITS[name]), seed=11)
    assert terms == {"cut"}
    assert set(parameters) == set(MOVES[name])


@pytest.mark.parametrize(("name", "k"), [("bounded", 0), ("bounded", 1), ("modular", 0), ("modular", 1)])
def test_equation_four_reads_both_components(monkeypatch: pytest.MonkeyPatch, name: str, k: int) -> None:
    real = rfp.Propagation.gradient

    def planted(self: Any, sensitivities: Any, back: Tensor, room: Tensor | None) -> Any:
        scaled = back.clone()
        scaled[k] *= ERROR
        return real(self, sensitivities, scaled, room)

    monkeypatch.setattr(rfp.Propagation, "gradient", planted)
    terms, parameters = audit(small(**CIRCUITS[name]), seed=11)
    assert terms == {f"Eq. 4 {parameter}" for parameter in parameters}
    assert set(parameters) == set(MOVES[name])


@pytest.mark.parametrize(("name", "k"), [(n, k) for n in CIRCUITS for k in (0, 1) if (n, k) != ("time-decay", 1)])
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
@pytest.mark.parametrize("kind", list(PREDICTORS))
def test_the_way_back_to_the_state(monkeypatch: pytest.MonkeyPatch, kind: str, distance: str) -> None:
    wrapped(monkeypatch, PREDICTORS[kind], "back", lambda found, _: (found[0] * ERROR, found[1]))
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


WAY_BACK = {"dE/dh", "dE/dc", "dU"}
"""What every error on the way from the loss to y is seen in."""


def more_of(back: Callable[..., Tensor]) -> Callable[..., Any]:
    """Network._back with ``back`` (of its arguments and the config, scaled as y is read) 0.1 % too large."""
    real = network.Network._back

    def planted(self: Any, own: Any, new: Any, reading: Any, predicted: Any, missed: Any) -> Any:
        found, parts = real(self, own, new, reading, predicted, missed)
        e = prediction.distance_gradient(predicted.p, new.y, self.config.distance)
        term = back(self.weights, reading, missed, e)
        return found + term * (ERROR - 1.0), parts | {
            "U": parts["U"] + torch.outer(term * (ERROR - 1.0), own.state.flatten())
        }

    return planted


@pytest.mark.parametrize("distance", ["half_mse", "cosine"])
def test_what_the_residual_adds_on_the_way_back(monkeypatch: pytest.MonkeyPatch, distance: str) -> None:
    monkeypatch.setattr(network.Network, "_back", more_of(lambda weights, reading, missed, e: e))
    terms, parameters = audit(small(predictor={"residual": True}, distance=distance), seed=11)
    assert (terms, set(parameters)) == (WAY_BACK, {*BOUNDED, "U"})


@pytest.mark.parametrize("kind", ["linear", "mlp", "rls"])
def test_what_the_action_head_adds_on_the_way_back(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def term(weights: Any, reading: Any, missed: Any, e: Tensor) -> Tensor:
        if missed is None:
            return torch.zeros_like(e)
        added: Tensor = 0.5 * (weights["A"][:, :-1].T @ missed) * reading.scale
        return added

    monkeypatch.setattr(network.Network, "_back", more_of(term))
    terms, parameters = audit(small(predictor={"kind": kind, "action_head": True}), seed=11)
    assert (terms, set(parameters)) == (WAY_BACK, {*BOUNDED, "U"})


def test_what_the_action_head_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped(monkeypatch, network.Network, "_missed", lambda missed, _: None if missed is None else missed * ERROR)
    terms, parameters = audit(small(predictor={"action_head": True}), seed=11)
    assert (terms, set(parameters)) == ({*WAY_BACK, "dA"}, {*BOUNDED, "U", "A"})


def test_the_scale_by_which_y_is_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the gradient takes it alone: what is read stays right."""
    wrapped(monkeypatch, network.Reader, "reading", lambda found, _: found._replace(scale=found.scale * ERROR))
    for kind in ("linear", "mlp", "rls"):
        terms, parameters = audit(small(predictor={"kind": kind, "action_head": True}), seed=11)
        assert (terms, set(parameters)) == (WAY_BACK, {*BOUNDED, "U"})


@pytest.mark.parametrize(("kind", "named"), [("linear", {"P"}), ("mlp", {"P_in", "P_out"}), ("rls", set())])
def test_what_the_predictor_reads_of_y(monkeypatch: pytest.MonkeyPatch, kind: str, named: set[str]) -> None:
    def plant(found: Any, _: Any) -> Any:
        phi = found.phi.clone()
        phi[:7] *= ERROR
        return found._replace(phi=phi)

    wrapped(monkeypatch, network.Reader, "reading", plant)
    terms, parameters = audit(small(predictor={"kind": kind}), seed=11)
    assert terms == {*WAY_BACK, *(f"d{name}" for name in named)}
    assert set(parameters) == {*BOUNDED, "U", *named}


@pytest.mark.parametrize("base", [{"carry": True}, {"carry": False, "residual": True}], ids=["carry", "residual"])
def test_what_a_prediction_starts_from(monkeypatch: pytest.MonkeyPatch, base: dict[str, bool]) -> None:
    wrapped(monkeypatch, network.Reader, "reading", lambda found, _: found._replace(base=found.base * ERROR))
    terms, parameters = audit(small(predictor=base), seed=11)
    assert (terms, set(parameters)) == ({*WAY_BACK, "dP"}, {*BOUNDED, "U", "P"})


@pytest.mark.parametrize("term", ["along the target", "along the prediction"])
def test_a_term_of_the_cosines_gradient(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    real = prediction.distance_gradient

    def planted(p: Tensor, target: Tensor, kind: str) -> Tensor:
        towards = -target / ((p @ p + 1e-8).sqrt() * (target @ target + 1e-8).sqrt())
        whole = real(p, target, kind)
        return whole + (ERROR - 1.0) * (towards if term == "along the target" else whole - towards)

    monkeypatch.setattr(network, "distance_gradient", planted)
    terms, parameters = audit(small(distance="cosine"), seed=11)
    assert (terms, set(parameters)) == ({*WAY_BACK, "dP"}, {*BOUNDED, "U", "P"})


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_slope_of_the_hidden_units(monkeypatch: pytest.MonkeyPatch, activation: str) -> None:
    """What passes them on the way back, wrong in all that lies before them."""

    def plant(found: Any, _: Any) -> Any:
        back, parts = found
        return back * ERROR, {**parts, "P_in": parts["P_in"] * ERROR}

    wrapped(monkeypatch, prediction.MlpPredictor, "back", plant)
    terms, parameters = audit(small(predictor={"kind": "mlp", "activation": activation}), seed=11)
    assert (terms, set(parameters)) == ({*WAY_BACK, "dP_in"}, {*BOUNDED, "U", "P_in"})


def test_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped(monkeypatch, network.Network, "imagine", lambda new, _: new._replace(y=new.y * ERROR))
    terms, parameters = audit(small(), seed=11)
    assert (terms, set(parameters)) == ({*WAY_BACK, "dP"}, {*BOUNDED, "U", "P"})


def test_a_gradient_of_zero_is_no_proof() -> None:
    from tests.model.fidelity import relative_errors

    with pytest.raises(AssertionError, match="the gradient of V is zero"):
        relative_errors({"V": torch.zeros(2)}, {"V": torch.zeros(2)})
