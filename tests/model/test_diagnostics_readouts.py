"""Readouts against numpy on data whose answer is known, and the numbers made from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model import learned_skill, probe
from model.ceiling import LAGS, Ceiling
from model.evidence import COLUMNS
from model.readout import BLOCK, FORGETTING, RIDGES, Extension, Kind, Layout, Readout, Readouts

LAYOUT = Layout([Kind("one", 1), Kind("a", 6), Kind("b", 4, "a"), Kind("c", 5)])
TARGETS = 3


def readouts() -> Readouts:
    base = Readout(LAYOUT.columns(("one", "a", "b")), TARGETS)
    extension = Extension(base, LAYOUT.columns(("c",)), TARGETS)
    other = Readout(LAYOUT.columns(("one", "c")), TARGETS)
    return Readouts(LAYOUT, [{"base": base, "more": extension}, {"c": other}], TARGETS)


def mean_squares(rows: np.ndarray, decay: np.ndarray) -> dict[str, float]:
    """Of each kind, each row weighed by ``decay``."""
    return {k.name: (decay @ rows[:, LAYOUT.places[k.name]] ** 2 / decay.sum()).mean() for k in LAYOUT.kinds}


def table(blocks: int, seed: int, *, useful: float = 0.0, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows, and targets that depend on kind a, and by ``useful`` on kind c."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((blocks * BLOCK, LAYOUT.size))
    rows[:, 0] = 1.0
    rows[:, LAYOUT.places["c"]] *= 3.0
    weights = np.random.default_rng(99).standard_normal((LAYOUT.size, TARGETS)) * 0.3
    targets = rows[:, LAYOUT.places["a"]] @ weights[LAYOUT.places["a"]] + 0.2
    targets += useful * rows[:, LAYOUT.places["c"]] @ weights[LAYOUT.places["c"]]
    targets += noise * rng.standard_normal(targets.shape)
    return torch.from_numpy(rows).float(), torch.from_numpy(targets).float()


def fitted(blocks: int, **choices: float) -> tuple[Readouts, dict[str, torch.Tensor]]:
    found, scores = readouts(), []
    rows, targets = table(blocks, 0, **choices)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        told = found.scores(rows[part], targets[part])
        taken = found.take(rows[part], targets[part])
        assert all(torch.equal(told[name], taken[name]) for name in told), "scored after it was fitted"
        scores.append(taken)
    return found, {name: torch.cat([each[name] for each in scores]) for name in scores[0]}


def test_a_readout_solves_the_ridge_problem() -> None:
    found, _ = fitted(16)
    rows, targets = (part.numpy().astype(float) for part in table(16, 0))
    decay = FORGETTING ** (BLOCK * np.repeat(np.arange(15, -1, -1), BLOCK))
    for name, kinds in (("base", ("one", "a", "b")), ("c", ("one", "c"))):
        readout = found.all[name]
        x = rows[:, readout.columns.numpy()]
        means = mean_squares(rows, decay)
        scale = np.concatenate([[means[k.scale or k.name]] * k.size for k in LAYOUT.kinds if k.name in kinds])
        for index, ridge in enumerate(RIDGES[:-1]):
            stacked = np.vstack([x * decay[:, None] ** 0.5, np.diag((ridge * scale) ** 0.5)])
            right = np.vstack([targets * decay[:, None] ** 0.5, np.zeros((x.shape[1], TARGETS))])
            truth = np.linalg.lstsq(stacked, right, rcond=None)[0]
            assert readout.weights[index].numpy() == pytest.approx(truth, abs=2e-5)
        assert not readout.weights[-1].any()


def test_an_extension_solves_both_ridges_at_once() -> None:
    found, _ = fitted(16, useful=0.5)
    base, more = found.all["base"], found.all["more"]
    rows, targets = (part.numpy().astype(float) for part in table(16, 0, useful=0.5))
    decay = FORGETTING ** (BLOCK * np.repeat(np.arange(15, -1, -1), BLOCK))
    means = mean_squares(rows, decay)
    own = np.array([means["one"]] + 10 * [means["a"]]) * RIDGES[base.used]
    for index, ridge in enumerate(RIDGES[:-1]):
        penalty = np.concatenate([own, 5 * [means["c"] * ridge]])
        stacked = np.vstack([rows * decay[:, None] ** 0.5, np.diag(penalty**0.5)])
        right = np.vstack([targets * decay[:, None] ** 0.5, np.zeros((LAYOUT.size, TARGETS))])
        truth = np.linalg.lstsq(stacked, right, rcond=None)[0]
        assert more.weights[index].numpy() == pytest.approx(truth, abs=5e-5)
    assert more.weights[-1, :11].numpy() == pytest.approx(base.weights[base.used].numpy(), abs=1e-5)


def test_errors_come_to_those_of_least_squares_and_no_lower() -> None:
    _, scores = fitted(40, useful=0.5, noise=0.5)
    assert scores["more"][2000:].mean().item() == pytest.approx(0.25, rel=0.06)
    assert scores["base"][2000:].mean() > 1.5 * scores["more"][2000:].mean()


def test_further_columns_that_say_nothing_are_no_gain_and_no_loss() -> None:
    _, scores = fitted(40, useful=0.0)
    gain = 1 - scores["more"][500:].mean() / scores["base"][500:].mean()
    assert abs(gain.item()) < 1e-3
    null = readouts()
    rows, _ = table(20, 1)
    targets = torch.randn(len(rows), TARGETS, generator=torch.Generator().manual_seed(5))
    taken = [null.take(rows[s : s + BLOCK], targets[s : s + BLOCK]) for s in range(0, len(rows), BLOCK)]
    error = torch.cat([each["base"] for each in taken])[500:].mean()
    assert error.item() == pytest.approx(targets[500:].square().mean().item(), rel=2e-3)


def test_readouts_go_on_with_the_same_bits() -> None:
    found, _ = fitted(5)
    copy = readouts()
    copy.unpack(*found.pack())
    rows, targets = table(20, 7)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        one, other = found.take(rows[part], targets[part]), copy.take(rows[part], targets[part])
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(torch.equal(found.pack()[0][name], tensor) for name, tensor in copy.pack()[0].items())


def ceiling_of(z: np.ndarray) -> tuple[Ceiling, np.ndarray]:
    """The ceiling fed with a whole series, and its error of each target."""
    m = z.shape[1]
    padded = np.vstack([np.zeros((LAGS, m)), z])
    lags = np.stack([padded[t : t + LAGS][::-1].reshape(-1) for t in range(1, len(z))])
    found, errors = Ceiling(m), []
    x, y = torch.from_numpy(lags).float(), torch.from_numpy(z[1:]).float()
    for start in range(0, len(x) - BLOCK + 1, BLOCK):
        errors.append(found.take(x[start : start + BLOCK], y[start : start + BLOCK]))
    return found, torch.cat(errors).numpy()


def test_the_ceiling_finds_what_the_last_eight_hold() -> None:
    rng = np.random.default_rng(0)
    m, n, back = 4, 8000, 5
    turn = np.linalg.qr(rng.standard_normal((m, m)))[0]
    z = rng.standard_normal((n, m))
    for t in range(back, n):
        z[t] = 0.8 * turn @ z[t - back] + 0.6 * z[t]
    _, errors = ceiling_of(z)
    assert 1 - errors[3000:].mean() / z[3000:].var() == pytest.approx(0.64, abs=0.02)
    noise = rng.standard_normal((4000, m))
    _, errors = ceiling_of(noise)
    assert errors[500:].mean() == pytest.approx((noise[501:3969] ** 2).mean(), rel=5e-3)


def test_the_ceiling_goes_on_with_the_same_bits() -> None:
    z = np.random.default_rng(1).standard_normal((700, 3))
    found, _ = ceiling_of(z)
    copy = Ceiling(3)
    copy.unpack(*found.pack())
    lags, targets = torch.randn(BLOCK, LAGS * 3), torch.randn(BLOCK, 3)
    assert torch.equal(found.take(lags, targets), copy.take(lags, targets))
    assert all(torch.equal(found.pack()[0][name], tensor) for name, tensor in copy.pack()[0].items())


def rows_of(n: int = 1000, **levels: float) -> torch.Tensor:
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.gamma(4.0, 0.25, (n, 1))).float()
    return noise * torch.tensor([levels.get(name, 1.0) for name in COLUMNS])


def test_r2_and_learned_skill_from_errors() -> None:
    rows = rows_of(
        prediction=0.8, now=0.9, embedding=0.85, untrained=0.95, ceiling=0.7, base=0.65, circuit=0.5, twin=0.6
    )
    read = probe.measure(rows)
    assert read == pytest.approx((0.2, 0.1, 0.15, 0.05, 0.3, 0.35))
    assert probe.lost(rows).value == pytest.approx(0.15)
    assert learned_skill.measure(rows).value == pytest.approx((0.6 - 0.5) / 0.65)
    assert probe.measure(rows[:50]).prediction is None
    assert probe.measure(torch.zeros(500, len(COLUMNS))).prediction is None
    assert learned_skill.measure(torch.zeros(500, len(COLUMNS))).value is None
