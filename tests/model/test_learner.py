"""The learner's promises: the same bits, no growth, nothing learned from what must not be, streams apart."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.errors import ModelError
from model.learner import TRIVIAL_ERRORS, Learner, Look, Outcome
from model.rfp import Sensitivities
from model.snapshot import Snapshot
from tests.model.fidelity import stream

MEDIUM: dict[str, Any] = {"units": 16, "embedding_size": 24, "retina": {"features": 12}}


def medium(preset: Any = "default", **choices: Any) -> ModelConfig:
    """A smaller preset; of so few numbers that chance makes repeats, so the guard is off unless it is asked for."""
    learning = {"repeat_threshold": 0.0, **choices.pop("learning", {})}
    return ModelConfig.preset(preset, **{**MEDIUM, **choices, "learning": learning})


def walk(learner: Learner, steps: int, *, seed: int = 0, names: tuple[str, ...] = ("a",)) -> list[Outcome]:
    """``steps`` fixations, the streams in ``names`` by turns."""
    rng = np.random.default_rng(seed)
    zs = stream(rng, steps, learner.config.features).astype(np.float32)
    looks = rng.random((steps, 2))
    return [
        learner.observe(names[i % len(names)], zs[i], Look((looks[i, 0], looks[i, 1])), start=i < len(names))
        for i in range(steps)
    ]


def same(one: Snapshot, other: Snapshot) -> bool:
    """The same bits everywhere, and the same counts."""
    return (
        one.meta == other.meta
        and one.tensors.keys() == other.tensors.keys()
        and all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    )


ALL = [
    ("default", {}),
    ("default", {"gates": "modular", "block": 4}),
    ("default", {"gates": "dense"}),
    ("default", {"predictor": {"kind": "mlp"}}),
    ("default", {"cell": "time-decay", "embedding_size": 12}),
    ("long", {}),
    ("paper", {"retina": {"stages": "all", "features": 12, "whiten": True}}),
]


@pytest.mark.parametrize(("preset", "choices"), ALL, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_the_same_fixations_give_the_same_bits(preset: str, choices: dict[str, Any]) -> None:
    twins = [Learner(medium(preset, **choices), seed=4) for _ in range(2)]
    outcomes = [
        walk(learner, 500 if preset == "default" and not choices else 150, names=("a", "b")) for learner in twins
    ]
    assert [o.prediction_error for o in outcomes[0]] == [o.prediction_error for o in outcomes[1]]
    assert same(twins[0].snapshot(), twins[1].snapshot())
    assert not same(twins[0].snapshot(), Learner(medium(preset, **choices), seed=4).snapshot())
    other = Learner(medium(preset, **choices), seed=5)
    assert not torch.equal(other.network.weights["V"], Learner(twins[0].config, seed=4).network.weights["V"])


def test_every_weight_moves_and_every_error_is_told() -> None:
    learner = Learner(medium(), seed=0)
    before = learner.all_weights()
    outcomes = walk(learner, 150)
    moved = {name for name, weight in learner.all_weights().items() if not torch.equal(weight, before[name])}
    assert moved == {"W_hh", "W_ch", "W_hc", "W_cc", "beta_h", "beta_c", "theta", "V", "P"}
    first, second, last = outcomes[0], outcomes[1], outcomes[-1]
    assert first.prediction_error is None
    assert set(first.trivial) == set(TRIVIAL_ERRORS)
    assert set(first.trivial.values()) == {None}
    assert second.prediction_error is not None
    assert [o.position for o in outcomes] == list(range(150))
    assert all(value is not None for name, value in last.trivial.items() if name != "carry_scene")
    assert last.trivial["carry_scene"] is None
    assert outcomes[98].effective_rank is None
    assert last.effective_rank is not None
    assert 1.0 <= last.effective_rank <= 24.0
    assert last.update_norm > 0.0
    assert last.embedding.dtype == np.float32
    assert last.embedding.shape == (24,)


def test_the_error_is_told_before_anything_is_learned_from_it() -> None:
    """A learner that may learn and one that may not tell the same error until a change could have been made."""
    zs = stream(np.random.default_rng(1), 3, 12)
    errors = []
    for on in (True, False):
        learner = Learner(medium(), seed=0)
        learner.set_learning(on)
        errors.append([learner.observe("a", z).prediction_error for z in zs])
    assert errors[0][:2] == errors[1][:2]
    assert errors[0][2] != errors[1][2]


def test_the_carry_scene_opponent_plays_where_sequences_are_marked() -> None:
    learner = Learner(medium(), seed=0)
    rng = np.random.default_rng(0)
    scene = rng.standard_normal(12)
    errors: list[dict[str, float | None]] = []
    for index in range(600):
        if index % 20 == 0:
            scene = rng.standard_normal(12)
        z = scene + 0.7 * rng.standard_normal(12)
        outcome = learner.observe("a", z, start=index % 20 == 0, marked=True)
        assert outcome.position == index % 20
        assert (outcome.trivial["carry_scene"] is None) == (index % 20 == 0)
        if index >= 400 and index % 20:
            errors.append(outcome.trivial)
    means = {name: np.mean([e[name] for e in errors if e[name] is not None]) for name in TRIVIAL_ERRORS}
    assert means["carry_scene"] < 0.9 * means["carry_ar1"] < 0.9 * means["carry_mean"]


def test_neither_memory_nor_what_is_kept_grows() -> None:
    learner = Learner(medium(), seed=0)

    def held() -> tuple[int, int]:
        gc.collect()
        tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
        dense = [t for t in tensors if t.layout is torch.strided]  # a packed retina of another test stays as it is
        return len(tensors), sum(t.untyped_storage().nbytes() for t in dense)

    walk(learner, 150)
    numbers, size = held()
    sizes = {name: tensor.shape for name, tensor in learner.snapshot().tensors.items()}
    walk(learner, 1350, seed=1)
    more, larger = held()
    assert abs(more - numbers) <= 5
    assert larger <= size * 1.02
    assert {name: tensor.shape for name, tensor in learner.snapshot().tensors.items()} == sizes


def shared(snapshot: Snapshot) -> dict[str, torch.Tensor]:
    """All but what belongs to streams."""
    return {name: tensor for name, tensor in snapshot.tensors.items() if not name.startswith("streams/")}


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e25])
@pytest.mark.parametrize("at_start", [False, True])
def test_what_is_not_finite_is_refused_and_changes_no_weight_or_statistic(bad: float, at_start: bool) -> None:
    learner = Learner(medium(), seed=0)
    walk(learner, 150, names=("a", "b"))
    before = learner.snapshot()
    z = np.zeros(12)
    z[3] = bad
    outcome = learner.observe("a", z, Look((0.5, 0.5)), start=at_start)
    assert outcome.skipped == "refused"
    assert outcome.reason
    assert outcome.prediction_error is None
    assert outcome.update_norm == 0.0
    after = learner.snapshot()
    assert all(torch.equal(tensor, shared(before)[name]) for name, tensor in shared(after).items())
    assert not after.tensors["streams/a/state"].any()
    assert not after.tensors["streams/a/sensitivities"].any()
    assert torch.equal(after.tensors["streams/b/state"], before.tensors["streams/b/state"])
    following = learner.observe("a", np.ones(12), Look((0.5, 0.5)))
    assert (following.position, following.prediction_error, following.skipped) == (0, None, None)


def test_an_overflow_inside_the_step_is_refused_too() -> None:
    """Features that are finite, weights that make more of them than float32 holds."""
    learner = Learner(medium(), seed=0)
    walk(learner, 150)
    learner.network.weights["theta"][3] = math.nan
    before = learner.snapshot()
    outcome = learner.observe("a", np.ones(12), Look((0.5, 0.5)))
    assert (outcome.skipped, outcome.reason) == ("refused", "the state is not finite")
    after = learner.snapshot()
    assert all(torch.equal(t.nan_to_num(7.0), shared(before)[n].nan_to_num(7.0)) for n, t in shared(after).items())


def test_a_gaze_beyond_all_bounds_is_no_gaze() -> None:
    """Finite in the message, and not when it is squared: the predictor is told what it is told without gaze."""
    told: list[Any] = []
    learner = Learner(medium(), seed=0)
    walk(learner, 150)
    learner.watch = lambda seen: told.append(seen.told)
    before = learner.snapshot()
    rng = np.random.default_rng(4)
    for place in ((1e200, -1e300), (1e200, 1e200), (61.0, 5.0), (-30.1, 5.0), (5.0, 34.1)):
        outcome = learner.observe("a", rng.standard_normal(12), Look((0.5, 0.5), gaze_deg=place))
        assert outcome.skipped is None
    assert not torch.stack(told).any()
    after = learner.snapshot()
    for name in ("mean", "variance"):
        assert torch.equal(after.tensors[f"statistics/action/{name}"], before.tensors[f"statistics/action/{name}"])
    assert after.meta["action_count"] == before.meta["action_count"]
    for place in ((60.0, 34.0), (-30.0, -17.0)):  # the frame's size beyond the frame
        learner.observe("a", rng.standard_normal(12), Look((0.5, 0.5), gaze_deg=place))
    assert not told[-2].any()
    assert told[-1].any()


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    learner = Learner(medium(predictor={"kind": "linear"}), seed=0)
    walk(learner, 150)
    snapshot = learner.snapshot()
    snapshot.tensors["streams/a/sensitivities"][0, 0, 0] = math.inf
    learner.load(snapshot)
    before = learner.snapshot()
    outcome = learner.observe("a", np.ones(12), Look((0.5, 0.5)))
    assert (outcome.skipped, outcome.reason) == ("refused", "the gradient is not finite")
    assert all(torch.equal(tensor, shared(before)[name]) for name, tensor in shared(learner.snapshot()).items())


GUARDED = {"repeat_threshold": 0.2}


def test_a_repeat_moves_nothing_and_a_start_waits_for_what_is_kept() -> None:
    learner = Learner(medium(learning=GUARDED), seed=0)
    walk(learner, 150)
    rng = np.random.default_rng(5)
    z = rng.standard_normal(12)
    kept = learner.observe("a", z, Look((0.5, 0.5)))
    before = learner.snapshot()
    again = learner.observe("a", z + 0.1 * rng.standard_normal(12), Look((0.1, 0.1)))
    assert (again.skipped, again.position, again.prediction_error) == ("repeat", kept.position, None)
    assert np.array_equal(again.embedding, kept.embedding)
    assert same(before, learner.snapshot())
    assert learner.observe("a", z, start=True).skipped == "repeat"
    fresh = learner.observe("a", rng.standard_normal(12))
    assert (fresh.position, fresh.prediction_error, fresh.skipped) == (0, None, None)
    silent = Learner(medium(), seed=0)
    assert [silent.observe("a", z).skipped for _ in range(3)] == [None, None, None]


def test_features_of_zero_again_and_again_are_repeats() -> None:
    learner = Learner(medium(learning=GUARDED), seed=0)
    assert [learner.observe("a", np.zeros(12)).skipped for _ in range(3)] == [None, "repeat", "repeat"]


def test_streams_have_their_own_states_and_share_weights() -> None:
    learner = Learner(medium(), seed=0)
    learner.set_learning(False)
    alone = Learner(medium(predictor={"action": "none"}), seed=0)
    alone.set_learning(False)
    zs = stream(np.random.default_rng(2), 40, 12)
    mixed = Learner(medium(predictor={"action": "none"}), seed=0)
    mixed.set_learning(False)
    for z in zs:
        alone.observe("a", z)
        mixed.observe("a", z)
        mixed.observe("b", -z)
    assert torch.equal(alone.own["a"].state, mixed.own["a"].state)
    assert torch.equal(alone.own["a"].sensitivities.values, mixed.own["a"].sensitivities.values)
    assert not torch.equal(mixed.own["a"].state, mixed.own["b"].state)
    assert mixed.streams() == ["a", "b"]
    mixed.forget("a")
    assert mixed.streams() == ["b"]
    mixed.begin_all()
    assert mixed.observe("b", zs[0]).position == 0
    mixed.reset("b")
    mixed.reset("unknown")
    assert mixed.observe("b", zs[5]).position == 0


def test_the_caller_may_reuse_its_arrays() -> None:
    learners = [Learner(medium(), seed=0) for _ in range(2)]
    buffer = np.zeros(12, dtype=np.float32)
    for z in stream(np.random.default_rng(3), 30, 12).astype(np.float32):
        buffer[:] = z
        learners[0].observe("a", torch.from_numpy(buffer))
        buffer[:] = np.nan
        learners[1].observe("a", z.copy())
    assert same(learners[0].snapshot(), learners[1].snapshot())


@pytest.mark.parametrize("learning", [True, False])
def test_a_gradient_for_show_refuses_no_step(learning: bool) -> None:
    learner = Learner(medium(learning={"warmup": 0}), seed=0)
    walk(learner, 30)
    learner.watch = lambda seen: None
    learner.set_learning(learning)
    own = learner.own["a"]
    learner.own["a"] = replace(own, sensitivities=Sensitivities(own.sensitivities.values * math.inf))
    outcome = learner.observe("a", np.full(12, 0.5, np.float32))
    assert outcome.skipped == ("refused" if learning else None)
    assert outcome.reason == ("the gradient is not finite" if learning else None)


def test_paused_it_watches_and_does_not_learn() -> None:
    learner = Learner(medium(), seed=0)
    walk(learner, 150)
    before = learner.all_weights()
    learner.set_learning(False)
    outcome = walk(learner, 20, seed=1)[-1]
    assert outcome.prediction_error is not None
    assert outcome.update_norm == 0.0
    assert all(torch.equal(before[name], weight) for name, weight in learner.all_weights().items())
    assert learner.describe()["learning"] is False
    learner.set_learning(True)
    assert walk(learner, 20, seed=2)[-1].update_norm > 0.0


def test_rates_are_named_checked_and_followed() -> None:
    learner = Learner(medium(), seed=0)
    assert learner.rates == {"gates": 1e-4, "retention": 5e-4, "input": 1e-4}
    for wrong, said in (
        ({"gates": 0.5, "predictor": 0.1}, "no rate 'predictor'; this model has gates, retention, input"),
        ({"gates": math.nan}, "rate gates is nan"),
        ({"gates": -1.0}, "rate gates is -1.0"),
        ({"gates": "fast"}, "rate gates is 'fast'"),
        ({"gates": True}, "rate gates is True"),
    ):
        with pytest.raises(ModelError, match=said):
            learner.set_rates(wrong)  # type: ignore[arg-type]
    assert learner.rates["gates"] == 1e-4
    learner.set_rates({"gates": 0.0, "input": 0.0, "retention": 0.0})
    learner.config.learning  # noqa: B018 - the configuration stays what it was
    before = learner.all_weights()
    walk(learner, 115)
    assert {n for n, w in learner.all_weights().items() if not torch.equal(w, before[n])} == {"P"}
    assert learner.describe()["rates"] == {"gates": 0.0, "retention": 0.0, "input": 0.0}


def test_embedding_an_image_learns_nothing() -> None:
    learner = Learner(medium(), seed=0)
    walk(learner, 120)
    before = learner.snapshot()
    z = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    y = learner.embed(z)
    assert y.shape == (24,)
    assert y.dtype == np.float32
    x = learner.network.weights["V"] @ torch.from_numpy(z)
    assert np.allclose(y, (learner.network.weights["U"] @ torch.cat([x, x])).numpy(), atol=1e-5)
    assert same(before, learner.snapshot())
    with pytest.raises(ModelError, match="not finite"):
        learner.embed(np.full(12, np.nan))
    with pytest.raises(ModelError, match=r"shape \(5,\); this model takes 12"):
        learner.embed(np.zeros(5))
    with pytest.raises(ModelError, match="shape"):
        learner.observe("a", np.zeros((1, 12)))


@pytest.mark.parametrize(("preset", "choices"), ALL, ids=lambda v: v if isinstance(v, str) else "-".join(v))
def test_what_it_says_of_itself(preset: str, choices: dict[str, Any]) -> None:
    import json

    learner = Learner(medium(preset, **choices), seed=0)
    told = json.loads(json.dumps(learner.describe()))
    assert told["rfp_exact"] is (learner.config.gates != "dense")
    assert told["embedding_size"] == len(learner.embed(np.ones(12)))
    weights = learner.all_weights()
    assert told["parameters"].pop("total") == sum(weight.numel() for weight in weights.values())
    assert told["parameters"] == {name: weight.numel() for name, weight in weights.items()}


def test_v_stays_near_orthonormal() -> None:
    learner = Learner(medium(units=12, learning={"rates": {"input": 1e-2}, "retraction": 0.1}), seed=0)
    free = Learner(medium(units=12, learning={"rates": {"input": 1e-2}, "retraction": 0.0}), seed=0)
    off = []
    for each in (learner, free):
        walk(each, 300)
        v = each.network.weights["V"]
        off.append(float((v @ v.T - torch.eye(12)).norm()))
    assert off[0] < 0.3 * off[1]
    tall = Learner(medium(units=24), seed=0)
    v = tall.network.weights["V"]
    assert torch.allclose(v.T @ v, 2.0 * torch.eye(12), atol=1e-5)
    walk(tall, 125)
    assert torch.allclose(v.T @ v, 2.0 * torch.eye(12), atol=0.05)


def test_sensitivities_over_the_limit_are_cut_and_told() -> None:
    learner = Learner(medium(sensitivity_limit=0.5), seed=0)
    outcomes = walk(learner, 30)
    cut = sum(outcome.cut_units for outcome in outcomes)
    assert cut > 0
    assert learner.describe()["cut_units"] == cut
    assert float(learner.own["a"].sensitivities.values.abs().max()) <= 0.5
    assert sum(outcome.cut_units for outcome in walk(Learner(medium(), seed=0), 30)) == 0


def test_a_sequence_ends_by_itself_at_its_length() -> None:
    learner = Learner(medium(learning={"sequence_length": 10}), seed=0)
    assert [outcome.position for outcome in walk(learner, 25)] == [*range(10), *range(10), *range(5)]


@pytest.mark.parametrize("gates", ["two-point", "modular"])
def test_it_learns_what_can_be_learned(gates: str) -> None:
    """z_{t+1} is a rotation of z_t and noise: known from z_t, but not by any dimension alone."""
    rng = np.random.default_rng(8)
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    learner = Learner(medium(gates=gates), seed=0)
    z, errors, opponents = rng.standard_normal(12), [], []
    for index in range(900):
        z = 0.9 * turn @ z + 0.43 * rng.standard_normal(12)
        outcome = learner.observe("a", z)
        if index >= 600:
            errors.append(outcome.prediction_error)
            opponents.append(min(v for v in outcome.trivial.values() if v is not None))
    assert np.mean(errors) < 0.6 * np.mean(opponents)  # type: ignore[arg-type]


def test_noise_is_not_learned() -> None:
    rng = np.random.default_rng(9)
    learner = Learner(medium(), seed=0)
    outcomes = [learner.observe("a", rng.standard_normal(12)) for _ in range(1500)][900:]
    error = np.mean([o.prediction_error for o in outcomes])  # type: ignore[misc]
    mean = np.mean([o.trivial["carry_mean"] for o in outcomes])  # type: ignore[misc]
    assert 0.98 * mean < error < 1.1 * mean
