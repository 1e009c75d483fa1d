"""CKA and RSA: their invariances, an independent slow formula, and a test whose p is uniform where nothing is alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import similarity
from model.errors import ModelError
from model.similarity import average_ranks, cka, cka_biased, compare, dissimilarities, picture, rsa

Array = np.ndarray[Any, np.dtype[np.float64]]
SEEDS = st.integers(0, 10_000)


def pair(seed: int, n: int = 24, d: int = 5, e: int = 9, noise: float = 1.0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, d)) + 2.0
    return x, x @ random.standard_normal((d, e)) + noise * random.standard_normal((n, e))


def slow_cka(x: Array, y: Array) -> float:
    """Song et al.'s estimator as a mean over quadruples of different stimuli, the definition of a U-statistic."""

    def hsic(k: Array, m: Array) -> float:
        n, total, count = len(k), 0.0, 0
        for i in range(n):
            for j in (j for j in range(n) if j != i):
                for q in (q for q in range(n) if q not in (i, j)):
                    for r in (r for r in range(n) if r not in (i, j, q)):
                        total += k[i, j] * (m[i, j] + m[q, r] - 2.0 * m[i, q])
                        count += 1
        return total / count

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / float(np.sqrt(hsic(k, k) * hsic(m, m)))


@pytest.mark.parametrize("shape", [(3, 4), (30, 2)], ids=["more stimuli", "more units"])
def test_debiased_cka_is_the_mean_over_quadruples(shape: tuple[int, int]) -> None:
    x, y = pair(1, n=9, d=shape[0], e=shape[1])
    assert cka(x, y) == pytest.approx(slow_cka(x, y), rel=1e-9)


def test_rsa_is_spearmans_of_the_dissimilarities() -> None:
    stats = pytest.importorskip("scipy.stats")
    x, y = pair(2)
    y[:6] = y[6:12]  # ties
    upper = np.triu_indices(len(x), 1)
    for kind, distance in (("correlation", lambda a: 1.0 - np.corrcoef(a)), ("euclidean", euclidean)):
        wanted = stats.spearmanr(np.round(distance(x)[upper], 12), np.round(distance(y)[upper], 12)).statistic
        assert rsa(x, y, kind) == pytest.approx(wanted, abs=1e-3)  # type: ignore[arg-type]
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0])
    np.testing.assert_array_equal(average_ranks(values), stats.rankdata(values))


def euclidean(a: Array) -> Array:
    return np.asarray(np.linalg.norm(a[:, None] - a[None], axis=2))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-6, 1e6), st.integers(3, 40))
def test_cka_does_not_change_by_rotation_shift_and_scale(seed: int, scale: float, units: int) -> None:
    x, y = pair(seed, d=units)
    random = np.random.default_rng(seed + 1)
    rotation, _ = np.linalg.qr(random.standard_normal((units, units)))
    moved = scale * (x @ rotation + random.standard_normal(units))
    for measure in (cka, cka_biased):
        assert measure(moved, y) == pytest.approx(measure(x, y), rel=1e-7, abs=1e-9)
        assert measure(y, x) == pytest.approx(measure(x, y), rel=1e-9, abs=1e-12)
        assert measure(x, moved) == pytest.approx(1.0, rel=1e-7)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_rsa_does_not_change_by_what_keeps_the_order_of_dissimilarities(seed: int, scale: float) -> None:
    x, y = pair(seed)
    random = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(random.standard_normal((5, 5)))
    assert rsa(scale * (x @ rotation) + 1.0, y, "euclidean") == pytest.approx(rsa(x, y, "euclidean"), abs=1e-4)
    for kind in ("correlation", "euclidean"):
        assert rsa(x, x, kind) == pytest.approx(1.0)  # type: ignore[arg-type]
    found = dissimilarities(x, "euclidean")
    one, other = similarity._ranked(found), similarity._ranked(np.expm1(found) ** 3)
    np.testing.assert_allclose(one.ranks, other.ranks, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_what_is_independent_is_near_zero_debiased_and_not_as_it_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.standard_normal((60, 40)), random.standard_normal((60, 40))
    assert abs(cka(x, y)) < 0.12
    assert cka_biased(x, y) > 0.3
    assert abs(rsa(x, y)) < 0.2


def test_a_shuffled_value_and_a_halfs_are_those_of_the_data_so_ordered() -> None:
    x, y = pair(3, n=40)
    order, kept = np.random.default_rng(0).permutation(40), np.arange(0, 40, 2)
    for test, measure in ((similarity._Cka(x, y), cka), (similarity._Rsa(x, y, "correlation"), rsa)):
        assert test.value() == pytest.approx(measure(x, y))  # type: ignore[attr-defined]
        assert test.shuffled(order) == pytest.approx(measure(x, y[order]))  # type: ignore[attr-defined]
        assert test.part(kept) == pytest.approx(measure(x[kept], y[kept]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("measure", ["cka", "rsa"])
def test_p_is_uniform_where_nothing_is_alike_and_small_where_it_is(measure: Any) -> None:
    random = np.random.default_rng(0)
    ps = [
        compare(measure, random.standard_normal((16, 4)), random.standard_normal((16, 4)), draws=19, seed=seed).p
        for seed in range(150)
    ]
    assert abs(np.mean(ps) - 0.5) < 0.09
    assert abs(np.mean(np.array(ps) <= 0.1) - 0.1) < 0.08
    assert min(ps) >= 1 / 20
    x, y = pair(4, n=40)
    found = compare(measure, x, y, draws=99)
    assert found.p == 0.01
    assert found.null_low <= found.null_mean <= found.null_high < found.low < found.value < found.high
    assert found == compare(measure, x, y, draws=99), "the seed alone decides"


def test_the_interval_is_as_wide_as_values_of_other_stimuli_spread() -> None:
    values, widths = [], []
    for seed in range(60):
        random = np.random.default_rng(seed)
        x = random.standard_normal((60, 5))
        found = compare("cka", x, x + 1.5 * random.standard_normal((60, 5)), draws=40)
        values.append(found.value)
        widths.append(np.std(found.halves))
    assert 0.8 < np.mean(widths) / np.std(values) < 1.7


def walks(seed: int, n: int = 300) -> Array:
    """Responses that follow one another smoothly in time, and know nothing of any other."""
    steps = np.random.default_rng(seed).standard_normal((n, 3))
    found = np.zeros_like(steps)
    for at in range(1, n):
        found[at] = 0.9 * found[at - 1] + steps[at]
    return found


def test_blocks_keep_what_time_alone_makes_alike() -> None:
    """Two walks with nothing in common: shuffled singly p is often small, in blocks it is not."""
    ps = {
        block: [
            compare("cka", walks(seed), walks(seed + 1000), block=block, draws=39, seed=seed).p for seed in range(40)
        ]
        for block in (1, 30)
    }
    assert np.mean(np.array(ps[1]) < 0.05) > 0.3
    assert np.mean(np.array(ps[30]) < 0.05) < 0.2
    x = walks(0)
    assert compare("cka", x, x, block=30, draws=60).p == pytest.approx(1 / 61)


def test_blocks_stay_whole() -> None:
    random = np.random.default_rng(0)
    for order in similarity._shuffled(25, 4, 5, random):
        assert sorted(order) == list(range(25))
        breaks = np.flatnonzero(np.diff(order) != 1) + 1
        assert {int(order[at]) % 4 for at in [0, *breaks]} == {0}
    for kept in similarity._halves(40, 4, 5, random):
        assert len(kept) == 20
        assert len(set(kept)) == 20


def test_a_picture_of_dissimilarities() -> None:
    x, _ = pair(5, n=100)
    found = np.array(picture(x))
    assert found.shape == (40, 40)
    np.testing.assert_allclose(found, found.T)
    assert 0.0 <= found.min() < found.max() <= 1.0
    assert np.array(picture(x[:8])).shape == (8, 8)


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (np.ones((20, 3)), np.ones((21, 3)), "20 stimuli on the first side, 21 on the second"),
        (np.ones(20), np.ones((20, 3)), r"first side has shape \(20,\)"),
        (np.ones((20, 3)), np.ones((20, 3)), "nothing to compare"),
        (np.eye(4), np.eye(4), "4 stimuli: from 8 to 4,000"),
        (np.eye(20), np.where(np.eye(20) > 0, np.nan, 0.0), "not finite, at stimulus 0"),
        (np.array([["a", "b"]] * 20), np.ones((20, 2)), "real numbers"),
    ],
)
def test_what_can_not_be_compared_is_said(x: Any, y: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        cka(x, y)


def test_what_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similarity, "MOST_NUMBERS", 50)
    with pytest.raises(ModelError, match="60 numbers, more than 50"):
        cka(*pair(0, n=12, d=5))
    monkeypatch.undo()
    x, y = pair(0)
    with pytest.raises(ModelError, match="24 stimuli are 5 blocks of 5; 10 are needed"):
        compare("cka", x, y, block=5)
    with pytest.raises(ModelError, match="draws 0"):
        compare("cka", x, y, draws=0)
    with pytest.raises(ModelError, match="2 units have no correlation"):
        rsa(x[:, :2], y)
    x[3] = 1.0
    with pytest.raises(ModelError, match="alike to stimulus 3"):
        rsa(x, y)
    with pytest.raises(ModelError, match="no structure beyond chance"):
        cka(np.eye(20), np.eye(20))
