"""Rank, balance, retrieval, errors by position, and what is warned of, on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model import frozen_rank, retrieval
from model.balance import balance, linear_map
from model.bootstrap import NOTHING, Interval
from model.config import ModelConfig
from model.extent import Extents, row
from model.fidelity import Fidelity
from model.frozen_rank import Rank
from model.learner import Learner, Watched
from model.position_error import LAST, PositionErrors
from model.skill import Skill
from model.warned import KINDS, about_gradient, about_rank, about_skill


def spread(values: list[float], n: int, seed: int = 0) -> torch.Tensor:
    """n rows whose covariance has exactly these eigenvalues, off any axis and off the origin."""
    rng = np.random.default_rng(seed)
    k = len(values)
    x = rng.standard_normal((n, k))
    x -= x.mean(axis=0)
    x = np.linalg.qr(x)[0] * n**0.5 * np.array(values) ** 0.5
    return torch.from_numpy(x @ np.linalg.qr(rng.standard_normal((k, k)))[0] + 7.0)


@pytest.mark.parametrize("values", [[1.0] * 8, [5.0, 1.0, 1.0, 0.5], [9.0, 1e-9, 1e-9]])
@pytest.mark.parametrize("n", [1000, 200])
def test_the_rank_of_a_known_spectrum(values: list[float], n: int) -> None:
    rows = spread(values, n)
    truth = sum(values) ** 2 / sum(value**2 for value in values)
    assert frozen_rank.participation(rows) == pytest.approx(truth, rel=1e-6)
    assert frozen_rank.spectrum(rows) == pytest.approx(sorted(values, reverse=True), rel=1e-6, abs=1e-9)
    wide = torch.cat([rows[:110], torch.zeros(110, 300)], dim=1)  # more numbers than rows
    assert frozen_rank.participation(wide) == pytest.approx(frozen_rank.participation(rows[:110]), rel=1e-6)


def test_no_rank_of_too_few_or_of_equals() -> None:
    assert frozen_rank.participation(torch.randn(99, 3)) is None
    assert frozen_rank.participation(torch.full((200, 3), 1.7)) is None
    assert Rank(None, 4.0).ratio is None
    assert frozen_rank.spectrum(torch.randn(20, 3)) == []


def test_the_frozen_network_embeds_the_features_twice_and_remembers_nothing() -> None:
    config = ModelConfig.preset("default", units=6, embedding_size=9, retina={"features": 4})
    learner = Learner(config, seed=1)
    mapped = frozen_rank.frozen_map(learner.network.weights, 2)
    z = torch.randn(500, 4)
    v, u = learner.network.weights["V"], learner.network.weights["U"]
    y0 = torch.stack([u @ torch.cat([v @ each, v @ each]) for each in z])
    found = frozen_rank.measure(y0, z @ v.T, mapped)
    assert found.now == pytest.approx(found.frozen, rel=1e-5)
    assert found.now == pytest.approx(frozen_rank.participation(z), rel=0.3)


def test_the_picture_of_a_covariance() -> None:
    even = frozen_rank.picture(torch.eye(64, dtype=torch.float64) * 3.0)
    assert len(even) == 32
    assert all(even[i][j] == (round(0.5**0.5, 4) if i == j else 0.0) for i in range(32) for j in range(32))
    collapsed = frozen_rank.picture(torch.ones(8, 8, dtype=torch.float64))
    assert all(value == 1.0 for line in collapsed for value in line)


def test_balance_is_1_where_theorem_1_says_so() -> None:
    rng = np.random.default_rng(0)
    a = torch.from_numpy(rng.standard_normal((20, 20)))
    covariance = a @ a.T
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    turn = torch.from_numpy(np.linalg.qr(rng.standard_normal((20, 20)))[0])
    assert balance(2.0 * turn @ root, covariance) == pytest.approx(1.0)
    assert balance(torch.eye(20), covariance) == pytest.approx(float(covariance.trace() / covariance.norm() / 20**0.5))
    other = vectors @ torch.diag(values.flip(0).sqrt()) @ vectors.T
    assert (balance(other, covariance) or 0.0) < 0.5
    assert balance(torch.zeros(20, 20), covariance) is None


@pytest.mark.parametrize("kind", ["rls", "linear", "mlp"])
def test_the_linear_map_is_the_derivative_of_the_prediction(kind: str) -> None:
    predictor = {"kind": kind, "carry": False, "residual": True, "action": "none", "near": False, "place_memory": "off"}
    sizes = {"units": 5, "embedding_size": 10, "retina": {"features": 4}}
    learner = Learner(ModelConfig.preset("default", **sizes, predictor=predictor), seed=0, dtype=torch.float64)
    rng = np.random.default_rng(0)
    for _ in range(130):
        learner.observe("a", rng.standard_normal(4))
    found = linear_map(learner)
    if kind == "mlp":
        assert found is None
        return
    assert found is not None

    def predicted(y: torch.Tensor) -> torch.Tensor:
        opponents, reader = learner.opponents, learner.network.reader
        reading = reader.reading(y, opponents.mean, opponents.deviation, y.new_zeros(0), torch.zeros_like(y))
        return learner.network.predictor.predict(learner.network.weights, reading).p

    y, step = torch.from_numpy(rng.standard_normal(10)), torch.from_numpy(rng.standard_normal(10))
    assert torch.allclose(predicted(y + step) - predicted(y), found @ step, atol=1e-10)


def trials(keep: float, *, seed: int, n: int = 650, m: int = 8) -> retrieval.Retrieval:
    """A learner on z' = keep R z + noise, R a random rotation, asked at every step from the 350th."""
    config = ModelConfig.preset("default", units=m, embedding_size=2 * m, retina={"features": m})
    learner = Learner(config, seed=0)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((m, m)))[0]
    z, past, found = rng.standard_normal(m), [], []
    seen: list[Watched] = []
    learner.watch = seen.append

    def ask(step: Watched) -> None:
        if len(past) > 350 and step.made is not None:
            earlier = torch.from_numpy(np.stack(past[-100:-1])).float()
            told = retrieval.trial(learner.network, step.made, step.z, torch.from_numpy(past[-1]).float(), earlier)
            assert told is not None
            found.append(told)

    learner.watch = ask
    for _ in range(n):
        z = keep * turn @ z + (1 - keep**2) ** 0.5 * rng.standard_normal(m)
        if learner.observe("a", z).skipped is None:
            past.append(z)
    return retrieval.measure(torch.stack(found))


def test_retrieval_by_memory_alone_is_chance() -> None:
    found = trials(0.0, seed=1)
    assert found.prediction is not None
    assert found.copy_last is not None
    assert found.prediction < 0.04
    assert found.copy_last < 0.04


def test_retrieval_of_what_can_be_foreseen() -> None:
    found = trials(0.9, seed=0)
    assert found.prediction is not None
    assert found.copy_last is not None
    assert found.prediction > 0.25
    assert found.prediction > 2.0 * found.copy_last
    assert retrieval.measure(torch.ones(49, 2)).prediction is None


def test_errors_by_position() -> None:
    table = PositionErrors()
    for sequence in range(200):
        for position in range(1, 5):
            table.add(position, 1.0 / position + (sequence >= 100), 1.0 if sequence else None)
    table.add(LAST + 5, 3.0, None)
    told = table.told()
    assert [each["position"] for each in told] == [1, 2, 3, 4, LAST]
    assert [each["count"] for each in told] == [200] * 4 + [1]
    assert [each["mean"] for each in told[:4]] == pytest.approx([1.5, 1.0, 1 / 3 + 0.5, 0.75])
    assert told[1]["recent"] == pytest.approx(0.5 + 1 - 0.99**100)
    assert told[0]["untrained"] == pytest.approx(1.0)
    assert told[4]["untrained"] is None
    copy = PositionErrors()
    copy.unpack(table.pack())
    assert copy.told() == told
    with pytest.raises(ValueError, match="does not fit"):
        copy.unpack(torch.zeros(2, 5))


def test_how_far_states_went() -> None:
    extents = Extents()
    assert extents.measure().largest is None
    extents.add(row(torch.full((2, 3), -8.0)), 2)
    for _ in range(1000):
        extents.add(row(torch.tensor([[1.0, -2.0, 1.0], [0.0, 0.0, 0.0]])), 0)
    found = extents.measure()
    assert (found.largest, found.largest_ever, found.rms, found.cut_units) == (2.0, 8.0, pytest.approx(1.0), 2)
    copy = Extents()
    copy.unpack(*extents.pack())
    assert copy.measure() == found


def skill_of(value: float, width: float = 0.01) -> Skill:
    found = Interval(value, value - width, value + width)
    return Skill(found, found, "carry_ar1", {})


LOST, HELD = Interval(-0.1, -0.15, -0.05), Interval(0.0, -0.05, 0.05)


def kinds(found: list) -> list[str]:
    assert all(each.kind in KINDS and each.detail for each in found)
    return [each.kind for each in found]


def test_skill_is_warned_of() -> None:
    nothing = Skill(NOTHING, NOTHING, None, {})
    assert about_skill(nothing, nothing, nothing) == []
    assert about_skill(skill_of(0.1), skill_of(0.1), skill_of(0.1)) == []
    assert about_skill(skill_of(-0.005), skill_of(0.0), skill_of(-0.01)) == []
    assert kinds(about_skill(skill_of(-0.1), skill_of(-0.1), skill_of(-0.1))) == ["skill_negative"]
    assert kinds(about_skill(skill_of(0.02), skill_of(0.1), skill_of(-0.06))) == ["skill_fell"]


def test_rank_is_warned_of() -> None:
    well, ill = skill_of(0.1), skill_of(0.05)
    assert about_rank(Rank(None, None), LOST, well, ill) == []
    assert about_rank(Rank(50.0, 51.0), LOST, well, ill) == []
    assert about_rank(Rank(35.0, 51.0), HELD, well, ill) == []
    assert about_rank(Rank(35.0, 51.0), NOTHING, well, ill) == []
    assert kinds(about_rank(Rank(35.0, 51.0), LOST, well, ill)) == ["rank_low"]
    assert kinds(about_rank(Rank(25.0, 51.0), HELD, well, ill)) == ["rank_low"], "nothing accounts for it"
    assert about_rank(Rank(25.0, 51.0), Interval(0.05, 0.02, 0.08), well, ill) == [], "slow context does"
    assert about_rank(Rank(25.0, 51.0), NOTHING, well, ill) == []
    assert kinds(about_rank(Rank(5.1, 51.0), HELD, well, ill)) == ["rank_lost"]
    assert kinds(about_rank(Rank(90.0, 51.0), HELD, well, ill)) == ["rank_high"]
    assert about_rank(Rank(90.0, 51.0), HELD, ill, well) == []


def test_the_gradient_is_warned_of() -> None:
    good, fair, bad, none = Fidelity(0.95, 0.3), Fidelity(0.7, 0.8), Fidelity(0.3, 1.0), Fidelity(None, None)
    for live, credit in ((none, none), (good, good), (fair, good), (bad, good), (good, bad)):
        assert about_gradient(live, credit, exact=False) == []
    assert about_gradient(fair, bad, exact=True) == []
    assert kinds(about_gradient(fair, fair, exact=False)) == ["gradient_doubtful"]
    assert kinds(about_gradient(bad, fair, exact=False)) == ["gradient_doubtful"]
    assert kinds(about_gradient(bad, bad, exact=True)) == ["gradient_lost"]
