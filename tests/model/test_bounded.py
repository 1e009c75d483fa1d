"""Whatever it is shown and whatever its weights are, nothing in the default learner runs away."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from model import reference
from model.config import ModelConfig
from model.errors import ModelError
from model.guard import Usual
from model.learner import Learner, Watched
from model.rgc import way_to_orthogonal
from tests.model import diagnosed, fidelity
from tests.model.adversarial import TROUBLES, Bounds, disturbed, live, ordinary

EASY = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)


def test_what_would_ruin_a_learner_leaves_it_as_it_was() -> None:
    """5,000 fixations, 700 of them of every kind of trouble; then the same fixations as an undisturbed one."""
    usual, length, judged = ordinary(4_300, diagnosed.M), 50, 1_000
    calm = live(Learner(diagnosed.small(), seed=0), disturbed(usual, every=150, until=0, length=length))
    learner = Learner(diagnosed.small(), seed=0)
    bounds = Bounds(learner)
    shaken = live(learner, disturbed(usual, every=150, until=150 * len(TROUBLES), length=length))
    assert bounds.found_broken() == []
    assert learner.steps + sum(shaken.skipped.values()) == 5_000
    assert shaken.cut_units == learner.cut_units == 0
    # Constant frames but the first, and of the far, the strong, the flash, the not finite every one.
    assert shaken.skipped["repeat"] - calm.skipped.get("repeat", 0) >= 49
    assert shaken.skipped["refused"] == 5 * 50 + 25 + 1 + 17 + 17 + 50
    undisturbed, found = calm.skill(judged).skill, shaken.skill(judged).skill
    assert undisturbed.low is not None
    assert undisturbed.high is not None
    assert found.value is not None
    assert undisturbed.low > 0.4
    assert undisturbed.low <= found.value <= undisturbed.high


def randomised(config: ModelConfig, seed: int, spread: float, dtype: torch.dtype) -> Learner:
    """Every weight normal with this standard deviation."""
    rng = np.random.default_rng(seed)
    learner = Learner(config, seed=seed, dtype=dtype)
    for weight in learner.network.weights.values():
        weight.copy_(torch.from_numpy(spread * rng.standard_normal(weight.shape)))
    return learner


@EASY
@given(
    st.sampled_from(["two-point", "modular", "dense"]),
    st.floats(0.01, 10.0),
    st.sampled_from([1e-3, 1.0, 30.0, 1e3]),
    st.sampled_from(["noise", "constant", "alternating"]),
    st.floats(0.05, 0.99),
    st.integers(0, 10_000),
)
def test_no_weights_and_no_inputs_take_a_state_beyond_its_bound(
    gates: str, spread: float, contrast: float, kind: str, bound: float, seed: int
) -> None:
    learning = {"warmup": 0, "repeat_threshold": 0.0, "far_threshold": 0.0}
    config = diagnosed.small(gates=gates, block=2, bound=bound, spans=(0.0, 0.0), learning=learning)
    learner = randomised(config, seed, spread, torch.float32)
    bounds, zs = Bounds(learner), contrast * diagnosed.noise(60, seed)
    for t, z in enumerate(zs):
        learner.observe("a", {"noise": z, "constant": zs[0], "alternating": (-1.0) ** t * zs[0]}[kind])
    assert bounds.broken == []
    assert bounds.largest_state <= math.sqrt(8.0) * bounds.largest_x / (1.0 - bound) * (1 + 1e-5)
    assert float(learner.own["a"].sensitivities.values.abs().max()) <= config.sensitivity_limit
    assert learner.cut_units == learner.describe()["cut_units"]


@EASY
@given(st.sampled_from([1, 2]), st.floats(0.1, 10.0), st.sampled_from([0.1, 1.0, 5.0]), st.integers(0, 10_000))
def test_credit_is_exact_with_any_weights_where_the_circuit_is_not_chaotic(
    block: int, spread: float, contrast: float, seed: int
) -> None:
    """Chaos: sensitivities past 1e4, of which no algorithm has ten digits left. Units are few: most circuits pass."""
    config = fidelity.small(gates="modular", block=block, units=4, embedding_size=7, learning={"far_threshold": 0.0})
    learner = randomised(config, seed, spread, torch.float64)
    watched: list[Watched] = []
    learner.watch = watched.append
    learner.set_learning(False)
    for z in contrast * fidelity.stream(np.random.default_rng(seed), 12, config.features):
        learner.observe("s", z)
        if float(learner.own["s"].sensitivities.values.abs().max()) > 1e4:
            break
    found = fidelity.summed(watched)
    assume(found)
    truth = reference.bptt(config, learner.all_weights(), torch.zeros_like(learner.own["s"].state), watched)
    largest = max(float(part.norm()) for part in truth.values())
    for name, part in found.items():  # 1 - tanh^2 of a saturated gate has lost its digits: hence the second term
        assert float((part - truth[name]).norm()) <= 1e-10 * (float(truth[name].norm()) + 1e-3 * largest), name


def test_chaos_is_bounded_cut_counted_and_told() -> None:
    """Of random gates of sd 10 under a constant input, some are chaotic: their states stay, their credit grows."""
    learning = {"warmup": 0, "repeat_threshold": 0.0, "rates": dict.fromkeys(("gates", "retention", "input"), 0.0)}
    config = diagnosed.small(units=60, embedding_size=20, learning=learning)
    learner = randomised(config, 1, 10.0, torch.float32)
    for beta in ("beta_h", "beta_c"):
        learner.network.weights[beta].zero_()
    bounds, z = Bounds(learner), 0.3 * diagnosed.noise(1)[0]
    cut = [learner.observe("a", z).cut_units for _ in range(300)]
    assert bounds.broken == []
    assert sum(cut) == learner.cut_units == learner.describe()["cut_units"] > 0
    assert max(cut) < 0.5 * config.units, "the others are not chaotic"
    assert float(learner.own["a"].sensitivities.values.abs().max()) <= config.sensitivity_limit


def test_a_cut_starts_its_own_unit_anew_and_touches_no_other() -> None:
    """The credit of a unit cut at step t is back-propagation up to t, and from there on again."""
    config = fidelity.small(units=8, sensitivity_limit=6.0)
    learner, rng = fidelity.prepared(config, seed=2, gate_scale=0.5)
    watched: list[Watched] = []
    learner.watch = watched.append
    states, cuts = [learner.own["s"].state], []
    cut_units = 0
    for z in fidelity.stream(rng, 14, config.features):
        cut_units += learner.observe("s", z, fidelity.gaze(rng)).cut_units
        states.append(learner.own["s"].state)
        cuts.append(~learner.own["s"].sensitivities.values.any(dim=2).any(dim=1))
    assert cut_units == sum(int(cut.sum()) for cut in cuts)
    cut = torch.stack(cuts)
    assert 0 < int(cut.any(dim=0).sum()) < 8, "some units were cut, and not all"
    found, weights = fidelity.summed(watched), learner.all_weights()
    for unit in range(8):
        edges = [0, *(t + 1 for t in torch.nonzero(cut[:, unit]).flatten().tolist() if t + 1 < len(watched)), 14]
        parts = [
            reference.bptt(config, weights, states[first], watched[first:last])
            for first, last in itertools.pairwise(edges)
        ]
        for name in ("W_hh", "W_ch", "W_hc", "W_cc", "beta_h", "beta_c", "theta", "V"):
            truth = torch.stack([part[name][unit] for part in parts]).sum(dim=0)
            assert float((found[name][unit] - truth).norm()) <= 1e-10 * float(truth.norm()), (unit, name)


RATES = [{"input": 0.1}, {"input": 1.0}, {"input": 1.0, "gates": 1.0, "retention": 1.0}]


@pytest.mark.parametrize("retraction", [0.001, 0.1])
@pytest.mark.parametrize("rates", RATES, ids=str)
def test_no_rate_lets_v_run_away(rates: dict[str, float], retraction: float) -> None:
    """Between two returns Adam moves an entry by at most 20 rate / sqrt(.1), and a return takes from the largest
    singular value all its share of s^2 - 1, or at least a half over sqrt(m) of it: the row sum's slack.
    """
    learner = Learner(diagnosed.small(learning={"rates": rates, "retraction": retraction}), seed=0)
    bounds = Bounds(learner)
    usual = ordinary(400, diagnosed.M)
    lived = live(learner, disturbed(usual, every=1, until=0, length=0))
    assert bounds.found_broken() == []
    assert "refused" not in lived.skipped
    away = 20.0 * rates["input"] * 0.1**-0.5 * diagnosed.M
    most = max((1.0 + 0.5 / retraction) ** 0.5, 2.0 * diagnosed.M**0.5 * away) + away
    ran = torch.linalg.svdvals(learner.network.weights["V"])
    assert float(ran[0]) <= most
    learner.set_rates(dict.fromkeys(rates, 0.0))
    live(learner, disturbed(usual, every=1, until=0, length=0))
    singular = torch.linalg.svdvals(learner.network.weights["V"])
    assert float((singular - 1.0).abs().max()) < (0.15 if retraction == 0.1 else float((ran - 1.0).abs().max()))


@pytest.mark.parametrize(("n", "m"), [(6, 6), (4, 7), (12, 6)])
def test_the_way_to_orthogonal_never_overshoots(n: int, m: int) -> None:
    rng = np.random.default_rng(3)
    for scale in (0.1, 0.9, 1.1, 5.0, 100.0, 1e6):
        for most in (0.1, 1.0):
            v = torch.from_numpy(scale * rng.standard_normal((n, m)))
            before = torch.linalg.svdvals(v) / max(1.0, n / m) ** 0.5
            way, share = way_to_orthogonal(v, most)
            after = torch.linalg.svdvals(v + share * way) / max(1.0, n / m) ** 0.5
            assert 0.0 < share <= most
            assert float(after.max()) <= max(1.2, float(before.max()))
            assert float(after.min()) >= 0.5 * float(before.min())
    near = torch.linalg.qr(torch.from_numpy(rng.standard_normal((m, m))))[0]
    assert way_to_orthogonal(near + 0.01 * torch.from_numpy(rng.standard_normal((m, m))), 0.1)[1] == 0.1


def test_what_is_far_is_refused_and_what_stays_becomes_the_usual() -> None:
    usual, rng = Usual(25.0), np.random.default_rng(0)
    assert [usual.take(float(e)) for e in (0.0, 1e6, *([1.0] * 18))] == [None] * 20
    for energy in rng.chisquare(10, 3000):
        assert usual.take(float(energy)) is None
    said = usual.take(1e6 * math.exp(usual.level))
    assert said == "the features are 1e+03 times as strong as usual"
    assert usual.take(0.0) is None, "nothing is too weak"
    level = usual.level
    for _ in range(100):
        assert usual.take(1e7) is not None
    assert usual.level - level == pytest.approx(100 / 2000 * math.log(25.0))
    refused = sum(usual.take(9e3) is not None for _ in range(6000))
    assert 1000 < refused < 3000, "900 times the usual: two factors of 25, less the last that needs no going"
    silent = Usual(0.0)
    assert [silent.take(e) for e in [1.0] * 30 + [1e30]] == [None] * 31
    with pytest.raises(ModelError, match="would refuse the usual: say 0, or more than 1"):
        ModelConfig.preset(learning={"far_threshold": 1.0})


def test_a_far_fixation_moves_nothing_and_the_next_goes_on() -> None:
    learner, twin = (Learner(diagnosed.small(), seed=0) for _ in range(2))
    usual = ordinary(200, diagnosed.M)
    for z, look in usual[:150]:
        for each in (learner, twin):
            each.observe("a", z, look)
    outcome = learner.observe("a", 30.0 * usual[150][0], usual[150][1])
    assert (outcome.skipped, outcome.position, outcome.cut_units) == ("refused", 149, 0)
    assert outcome.reason is not None
    assert outcome.reason.startswith("the features are")
    one, other = learner.snapshot(), twin.snapshot()
    assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())
    assert one.meta["usual"]["count"] == other.meta["usual"]["count"] + 1
    told = [each.observe("a", *usual[151]).prediction_error for each in (learner, twin)]
    assert told[0] == told[1] is not None
