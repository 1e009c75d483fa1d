from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from service.api.curve import Errors, best_trivial, by_position, running_mean, thin
from service.api.drawing import loss_picture, steps

FINITE = st.floats(0, 1e6, allow_nan=False)


def errors(error: np.ndarray, trivial: np.ndarray) -> Errors:
    n = len(error)
    return Errors(np.arange(n), np.arange(n) * 0.25, np.arange(n) % 7, error, trivial)


@given(arrays(np.float64, st.integers(0, 60), elements=st.one_of(FINITE, st.just(np.nan))), st.integers(1, 70))
def test_the_running_mean_is_the_mean_of_what_is_known(values: np.ndarray, window: int) -> None:
    got = running_mean(values, window)
    for i in range(len(values)):
        known = [v for v in values[max(0, i + 1 - window) : i + 1] if not np.isnan(v)]
        expected = np.mean(known) if known else np.nan
        np.testing.assert_allclose(got[i], expected, rtol=1e-9, atol=1e-6)


@settings(max_examples=200)
@given(arrays(np.float64, st.integers(0, 300), elements=FINITE), st.integers(2, 80))
def test_thinning_keeps_every_bins_extremes_and_no_more(values: np.ndarray, points: int) -> None:
    kept = thin(values, points)
    assert len(kept) <= max(points, 0) or len(values) <= points
    assert (np.diff(kept) > 0).all()
    if len(values) <= points:
        assert len(kept) == len(values)
        return
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()
    edges = np.linspace(0, len(values), points // 2 + 1).astype(int)
    for first, last in itertools.pairwise(edges):
        inside = values[kept[(kept >= first) & (kept < last)]]
        assert 1 <= len(inside) <= 2
        assert inside.min() == values[first:last].min()
        assert inside.max() == values[first:last].max()


def test_the_best_trivial_predictor_has_the_least_error() -> None:
    error = np.ones(100)
    trivial = np.stack([np.full(100, 1.3), np.full(100, 1.1), np.full(100, 1.2)], 1)
    assert best_trivial(errors(error, trivial)) == 1


def test_silence_on_hard_fixations_gains_nothing() -> None:
    error = np.r_[np.full(50, 1.0), np.full(50, 10.0)]
    steady = error + 0.1
    silent = np.r_[np.full(50, 1.5), np.full(50, np.nan)]
    rare = np.r_[np.full(10, 0.1), np.full(90, np.nan)]
    assert np.nanmean(silent) < steady.mean()
    assert best_trivial(errors(error, np.stack([silent, steady, rare], 1))) == 1


def test_there_may_be_no_trivial_predictor() -> None:
    assert best_trivial(errors(np.ones(3), np.full((3, 8), np.nan))) is None
    assert best_trivial(errors(np.ones(0), np.ones((0, 8)))) is None


def test_by_position_leaves_out_what_has_no_position() -> None:
    made = errors(np.array([1.0, 2.0, 4.0, 8.0]), np.ones((4, 8)))
    made = Errors(made.seq, made.time_s, np.array([-1, 0, 0, 5]), made.error, made.trivial)
    assert by_position(made, 5) == [(0, 3.0, 2)]
    assert by_position(made, 6) == [(0, 3.0, 2), (5, 8.0, 1)]


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_steps_are_inside_and_round(low: float, span: float, wanted: int) -> None:
    found = steps(low, low + span, wanted)
    assert len(found) <= wanted + 2
    assert all(low - 1e-6 * span <= value <= low + span * (1 + 1e-6) for value in found)


def test_a_picture_of_odd_curves() -> None:
    def point(seq: int, error: float) -> dict[str, float | None]:
        return {"seq": seq, "error": error, "smoothed": error, "trivial": None, "trivial_smoothed": None}

    for points in ([point(3, 0.0)], [point(3, 0.0), point(4, 0.0)], [point(1, 1e300), point(2**53 - 1, 1e-300)]):
        picture = loss_picture({"points": points}, "<s>")
        assert picture.startswith("<svg")
        assert "<s>" not in picture
        assert "nan" not in picture
        assert "inf" not in picture
