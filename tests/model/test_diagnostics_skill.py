"""The bootstrap against brute force; skill on errors whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model import skill
from model.bootstrap import AT_LEAST, block_size, interval
from model.ring import Ring
from model.trivial import TRIVIAL_ERRORS


def mean(means: torch.Tensor) -> torch.Tensor:
    return means[:, 0]


def slow(seed: int, n: int, keep: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(n)
    for t in range(1, n):
        x[t] = keep * x[t - 1] + (1 - keep**2) ** 0.5 * x[t]
    return x


def test_the_interval_is_that_of_brute_force() -> None:
    x = slow(1, 3000, 0.95)
    rng = np.random.default_rng(2)
    block = block_size(len(x))
    resamples = []
    for _ in range(2000):
        drawn = [x[np.arange(s, s + block) % len(x)] for s in rng.integers(0, len(x), len(x) // block)]
        resamples.append(np.concatenate(drawn).mean())
    low, high = np.quantile(resamples, [0.025, 0.975])
    found = interval(torch.from_numpy(x).unsqueeze(1), mean)
    assert found.value == pytest.approx(x.mean(), abs=1e-12)
    assert found.low is not None
    assert found.high is not None
    assert found.low == pytest.approx(low, abs=0.08 * (high - low))
    assert found.high == pytest.approx(high, abs=0.08 * (high - low))


def test_what_hangs_together_in_time_is_less_certain() -> None:
    rows = {keep: torch.from_numpy(slow(3, 5000, keep)).unsqueeze(1) for keep in (0.0, 0.95)}
    widths = {}
    for keep, x in rows.items():
        found = interval(x, mean)
        assert found.low is not None
        assert found.high is not None
        widths[keep] = found.high - found.low
    assert widths[0.0] == pytest.approx(2 * 1.96 / 5000**0.5, rel=0.35)
    assert widths[0.95] > 3.0 * widths[0.0]


def test_few_rows_or_no_numbers_have_no_interval() -> None:
    assert interval(torch.zeros(AT_LEAST - 1, 1), mean).value is None
    assert interval(torch.zeros(500, 2), lambda m: m[:, 0] / m[:, 1]) == (None, None, None)
    assert (block_size(5000), block_size(2000), block_size(400)) == (500, 500, 100)


def errors(n: int, seed: int, **levels: float) -> torch.Tensor:
    """n rows whose mean errors are ``levels``, 1 where none is given, with a common noise."""
    rng = np.random.default_rng(seed)
    noise = rng.gamma(4.0, 0.25, n)
    table = [
        skill.row(levels.get("error", 1.0) * e, {k: levels.get(k, 1.0) * e for k in TRIVIAL_ERRORS}) for e in noise
    ]
    return torch.stack(table)


def test_skill_is_against_the_best_opponent() -> None:
    found = skill.measure(
        errors(3000, 0, error=0.8, carry_ar1=0.9, copy_last=2.0, running_mean=1.6, ar1=1.2, carry_scene=0.7)
    )
    assert found.opponent == "carry_scene"
    assert found.skill.value == pytest.approx(1 - 0.8 / 0.7)
    assert not found.learning
    assert found.skill_ar1.value == pytest.approx(1 - 0.8 / 0.9)
    assert found.own == pytest.approx({"copy_last": 0.6, "running_mean": 0.5, "ar1": 1 - 0.8 / 1.2})
    assert found.own_skill == pytest.approx(1 - 0.8 / 1.2)


def test_learning_means_that_the_lower_end_is_above_0() -> None:
    rng = np.random.default_rng(4)
    rows = errors(2000, 1)
    rows[:, 0] *= torch.from_numpy(rng.normal(1.0, 0.2, 2000)).float()
    assert not skill.measure(rows).learning
    rows[:, 0] *= 0.97
    found = skill.measure(rows)
    assert found.learning
    assert found.skill.low is not None
    assert 0.0 < found.skill.low < 0.03
    rows[1000:, 0] *= 1.3  # the same on average, but in one half alone
    assert not skill.measure(rows).learning


def test_an_opponent_that_does_not_play_is_none() -> None:
    rows = errors(1000, 2, error=0.9, carry_scene=0.5)
    rows[:, 1 + TRIVIAL_ERRORS.index("carry_scene")] = float("nan")
    assert skill.measure(rows).opponent != "carry_scene"
    assert skill.measure(rows).skill.value == pytest.approx(0.1)
    rows[500:, 1 + TRIVIAL_ERRORS.index("carry_scene")] = rows[500:, 0] * 0.5 / 0.9  # half of them marked
    found = skill.measure(rows)
    assert found.opponent == "carry_scene"
    assert found.skill.value == pytest.approx(1 - 0.9 / 0.75, abs=0.03)  # (1 + 0.5) / 2, but for the noise


def test_errors_that_are_not_finite_are_left_out() -> None:
    rows = errors(1000, 3, error=0.9)
    rows[::10, 2] = float("inf")
    assert skill.measure(rows).skill.value == pytest.approx(0.1)
    rows[:, 2] = float("inf")
    assert skill.measure(rows).skill.value is None


def test_the_window_is_the_last_5000_without_the_first_500() -> None:
    ring = Ring(5000, 1)
    lengths = {}
    for count in range(1, 12_001):
        ring.add(torch.tensor([float(count)]))
        if count in (400, 501, 3000, 5400, 12_000):
            lengths[count] = (ring.scored().shape[0], ring.scored()[-1:].tolist())
    assert {count: found[0] for count, found in lengths.items()} == {
        400: 0,
        501: 1,
        3000: 2500,
        5400: 4900,
        12_000: 5000,
    }
    assert lengths[12_000][1] == [[12_000.0]]
    assert ring.rows()[0].item() == 7001.0
    copy = Ring(5000, 1)
    copy.unpack(*ring.pack())
    for each in (ring, copy):
        each.add(torch.tensor([-1.0]))
    assert torch.equal(ring.rows(), copy.rows())
    with pytest.raises(ValueError, match="don't fit"):
        copy.unpack(torch.zeros(3, 1), 5)
