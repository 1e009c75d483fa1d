"""The learner's parts against what they stand for, written out."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from model import place_memory
from model.action import ACTION_SIZE, Look, action, nearness
from model.config import ModelConfig, PredictorConfig
from model.errors import ModelError
from model.guard import is_repeat
from model.optimiser import Adam
from model.prediction import distance_gradient, distances
from model.rank import WINDOW, RankWindow
from model.reading import Reader
from model.rls import RecursiveLeastSquares
from model.statistics import RunningMoments, SceneRegression
from model.trivial import Opponents, by_name

LIKE = torch.zeros(1, dtype=torch.float64)


def test_effective_rank_is_the_participation_ratio_of_the_window() -> None:
    rng = np.random.default_rng(0)
    window = RankWindow(6, LIKE)
    scale = np.array([3.0, 2.0, 1.0, 0.5, 0.1, 0.1])
    ys = rng.standard_normal((2600, 6)) * scale + 5.0
    ys[300] = 1e7
    for index, y in enumerate(ys):
        window.add(torch.from_numpy(y))
        if index in (98, 99, 700, 1000, 1500, 2599):
            eigenvalues = np.linalg.eigvalsh(np.cov(ys[max(0, index - WINDOW + 1) : index + 1].T))
            truth = eigenvalues.sum() ** 2 / (eigenvalues**2).sum()
            found = window.rank()
            assert found is None if index == 98 else found == pytest.approx(truth, rel=1e-6 if index != 1500 else 1e-2)
    still = RankWindow(6, LIKE)
    for _ in range(200):
        still.add(torch.ones(6, dtype=torch.float64) * 3.3)
    assert still.rank() is None
    far = RankWindow(6, LIKE)
    for y in rng.standard_normal((200, 6)) * 1e90:
        far.add(torch.from_numpy(y))
    assert far.rank() is None, "its square is past the largest number"


def test_recursive_least_squares_is_weighted_ridge_regression() -> None:
    rng = np.random.default_rng(1)
    forgetting, prior, steps = 0.99, 3.0, 150
    rls = RecursiveLeastSquares(2, 4, forgetting=forgetting, prior=prior, device="cpu")
    phi, target = rng.standard_normal((steps, 4)), rng.standard_normal((steps, 2))
    for p, y in zip(torch.from_numpy(phi), torch.from_numpy(target), strict=True):
        before = rls.weights.clone()
        changed = rls.learn(p, rls.weights @ p - y)
        assert changed == pytest.approx(float((rls.weights - before).norm()))
    decay = forgetting ** np.arange(steps - 1, -1, -1.0)
    gram = (phi * decay[:, None]).T @ phi + forgetting**steps * prior * np.eye(4)
    truth = np.linalg.solve(gram, (phi * decay[:, None]).T @ target).T
    assert np.allclose(rls.weights.numpy(), truth, atol=1e-10)
    assert np.allclose(rls.inverse.numpy(), np.linalg.inv(gram), atol=1e-10)


def test_recursive_least_squares_does_not_wind_up() -> None:
    """Nothing excites the second input for a long time; then one sample must not be believed without end."""
    rls = RecursiveLeastSquares(1, 2, forgetting=0.99, prior=1000.0, device="cpu")
    for _ in range(20_000):
        rls.learn(torch.tensor([1.0, 0.0]), torch.tensor([0.0]))
    assert float(rls.inverse.diagonal().max()) <= 1.01 * 0.99**-200 / 1000.0
    assert torch.equal(rls.inverse, rls.inverse.T)


def test_adam_is_torchs() -> None:
    rng = np.random.default_rng(2)
    weight = torch.from_numpy(rng.standard_normal(7))
    theirs = weight.clone().requires_grad_()
    reference = torch.optim.Adam([theirs], lr=0.01, eps=1e-3)
    ours = Adam(weight, 1e-3)
    for _ in range(20):
        gradient = torch.from_numpy(rng.standard_normal(7))
        theirs.grad = gradient.clone()
        reference.step()
        weight = weight + ours.step(gradient, torch.full((7,), 0.01, dtype=torch.float64))
    assert torch.allclose(weight, theirs.detach(), atol=1e-12)


@pytest.mark.parametrize("kind", ["half_mse", "cosine"])
def test_a_distances_gradient(kind: str) -> None:
    rng = np.random.default_rng(3)
    target = torch.from_numpy(rng.standard_normal(5))
    for p in (torch.from_numpy(rng.standard_normal(5)), torch.zeros(5, dtype=torch.float64)):
        leaf = p.clone().requires_grad_()
        (truth,) = torch.autograd.grad(distances(leaf.unsqueeze(0), target, kind)[0], leaf)
        assert torch.allclose(distance_gradient(p, target, kind), truth, atol=1e-12)
    assert float(distances(target.unsqueeze(0), target, kind)[0]) == pytest.approx(0.0, abs=1e-7)
    assert float(distances(-target.unsqueeze(0), target, "cosine")[0]) == pytest.approx(2.0)


def test_running_moments_are_the_cumulative_ones_and_the_recent_ones() -> None:
    rng = np.random.default_rng(4)
    values = np.zeros((400, 3))
    for index in range(1, 400):
        values[index] = [0.8, -0.4, 0.0] * values[index - 1] + rng.standard_normal(3) + [1.0, 0.0, 0.0]
    moments = RunningMoments(3, (0.0, 0.1), LIKE)
    recent = np.zeros(3)
    for index, value in enumerate(torch.from_numpy(values)):
        moments.update(value, torch.from_numpy(values[index - 1]) if index else None, index)
        recent += max(0.1, 1.0 / (index + 1)) * (values[index] - recent)
    assert np.allclose(moments.mean[0].numpy(), values.mean(axis=0))
    assert np.allclose(moments.mean[1].numpy(), recent)
    slopes = (moments.covariance[0] / moments.variance[0]).numpy()
    assert np.allclose(slopes, [0.8, -0.4, 0.0], atol=0.12)
    guess = moments.ar1(torch.from_numpy(values[-1]))[0].numpy()
    assert np.allclose(guess, values.mean(axis=0) + slopes * (values[-1] - values.mean(axis=0)))
    assert torch.allclose(moments.deviation(), (moments.variance + 1e-4).sqrt())


def test_the_slope_of_an_ar1_stays_within_one() -> None:
    moments = RunningMoments(1, (0.0,), LIKE)
    for index in range(6):
        moments.update(LIKE + 2.0**index, LIKE + 2.0 ** (index - 1) if index else None, index)
    mean = float(moments.mean[0, 0])
    assert abs(float(moments.ar1(LIKE + 1000.0)[0, 0]) - mean) <= 1000.0 - mean + 1e-9


def test_the_scenes_regression_is_ridge_regression() -> None:
    rng = np.random.default_rng(5)
    regression = SceneRegression(1, LIKE)
    z, s = rng.standard_normal((2, 300))
    n = 0.4 * z + 0.5 * s + 0.1 * rng.standard_normal(300) + 2.0
    for a, b, c in zip(z, s, n, strict=True):
        regression.update(LIKE + a, LIKE + b, LIKE + c)
    x = np.stack([z - z.mean(), s - s.mean()], axis=1)
    ridge = 10.0 / 301 * np.mean(x[:, 0] ** 2)
    slopes = np.linalg.solve(x.T @ x / 300 + ridge * np.eye(2), x.T @ (n - n.mean()) / 300)
    truth = n.mean() + slopes @ [1.0 - z.mean(), -2.0 - s.mean()]
    assert float(regression.predict(LIKE + 1.0, LIKE - 2.0)) == pytest.approx(truth)


def test_the_scenes_regression_is_as_good_with_features_of_any_scale() -> None:
    rng = np.random.default_rng(7)
    usual, small = SceneRegression(3, LIKE), SceneRegression(3, LIKE)
    for row in torch.from_numpy(rng.standard_normal((60, 3, 3))):
        usual.update(*row)
        small.update(*(row * 0.02))
    z, scene = torch.from_numpy(rng.standard_normal((2, 3)))
    assert torch.allclose(small.predict(z * 0.02, scene * 0.02), usual.predict(z, scene) * 0.02, rtol=1e-9)


def test_opponents_tell_their_guesses_in_the_order_of_the_errors() -> None:
    opponents = Opponents(2, 3, LIKE)
    rng = np.random.default_rng(6)
    rows = torch.from_numpy(rng.standard_normal((50, 5)))
    for index, row in enumerate(rows):
        before = None if index == 0 else (rows[index - 1, :2], rows[index - 1, 2:])
        opponents.update(row[:2], row[2:], before, index)
    z, y = rows[-1, :2], rows[-1, 2:]
    without, marked = opponents.guesses(z, y, None), opponents.guesses(z, y, z * 0.5)
    assert without.features.shape == (5, 2)
    assert marked.features.shape == (6, 2)
    assert torch.equal(without.features[0], opponents.carry)
    assert torch.allclose(without.features[1], rows[:, :2].mean(dim=0))
    assert torch.equal(without.embeddings[0], y)
    assert torch.equal(without.embeddings[1], opponents.mean)
    told = by_name([float(k) for k in range(8)])
    assert list(told) == ["copy_last", "running_mean", "ar1", *[f"carry_{n}" for n in _CARRIED]]
    assert [told[f"carry_{n}"] for n in _CARRIED] == [3.0, 5.0, 4.0, 6.0, 7.0]
    assert by_name([0.0] * 7)["carry_scene"] is None
    assert by_name([math.inf] * 8)["copy_last"] is None


_CARRIED = ("mean", "ar1", "mean_recent", "ar1_recent", "scene")


def test_a_look_in_degrees() -> None:
    assert Look((0.5, 0.25)).degrees == (15.0, 4.25)
    assert Look((0.5, 0.25), frame_deg=(40.0, 20.0)).degrees == (20.0, 5.0)
    assert Look((0.5, 0.25), gaze_deg=(3.0, 4.0)).degrees == (3.0, 4.0)
    for wrong in ((math.nan, 0.0), (0.0, math.inf)):
        with pytest.raises(ModelError, match="no place"):
            Look(wrong)
    with pytest.raises(ModelError, match="no place"):
        Look((0.0, 0.0), frame_deg=(0.0, 1.0))


def test_an_action_is_where_the_eye_goes() -> None:
    here, there = Look((0.2, 0.4), frame_deg=(32.0, 20.0)), Look((0.5, 0.5), frame_deg=(32.0, 20.0))
    a = action(here, there).numpy()
    assert a.shape == (ACTION_SIZE,)
    assert a[:14] == pytest.approx([6.4, 8, 16, 10, 6.4**2, 64, 51.2, 256, 100, 160, 9.6, 2, 9.6**2, 4])
    centres = np.array([[4.0 * (c + 0.5), 4.0 * (r + 0.5)] for r in range(5) for c in range(8)])
    assert a[14:] == pytest.approx(np.exp(-((centres - [16, 10]) ** 2).sum(axis=1) / (2 * 2.5**2)))
    assert nearness(here, here) == 1.0
    assert nearness(here, there) == pytest.approx(math.exp(-(9.6**2 + 4) / (2 * 1.5**2)))


def test_what_is_told_has_the_same_length_with_and_without_gaze() -> None:
    z, look = torch.ones(12, dtype=torch.float64), Look((0.3, 0.3))
    for choices in ({}, {"action": "none"}, {"near": False}, {"place_memory": "off"}, {"action_head": True}):
        config = ModelConfig.preset(units=16, embedding_size=24, retina={"features": 12}, predictor=choices)
        memory = place_memory.empty(12, LIKE) if config.predictor.place_memory != "off" else None
        reader = Reader(config, LIKE)
        sizes = {reader.told(z, a, b, memory).numbers.numel() for a in (look, None) for b in (look, None)}
        assert sizes == {reader.size - 24 - 1}


def test_an_action_is_normalised_by_what_it_was_so_far_and_kept_only_if_the_step_is() -> None:
    config = ModelConfig.preset(units=16, embedding_size=24, retina={"features": 12})
    reader = Reader(config, LIKE)
    z, memory = torch.zeros(12, dtype=torch.float64), place_memory.empty(12, LIKE)
    rng = np.random.default_rng(7)
    looks = [Look((float(x), float(y))) for x, y in rng.random((60, 2))]
    raw, last = [], None
    for here, there in itertools.pairwise(looks):
        last = reader.told(z, here, there, memory)
        assert reader.moments.actions == len(raw)
        reader.moments = last.moments
        raw.append(action(here, there).numpy())
    assert last is not None
    mean = np.mean(raw, axis=0)
    assert np.allclose(reader.moments.mean.numpy(), mean)
    scale = np.sqrt(reader.moments.variance.numpy() + 1e-4)
    assert np.allclose(last.numbers[:ACTION_SIZE].numpy(), (raw[-1] - mean) / scale)
    assert last.aim is not None
    assert np.allclose(last.aim.numpy(), ((raw[-1] - mean) / scale)[10:12])


def test_the_place_memory_tells_what_was_seen_there_and_how_well_it_is_known() -> None:
    memory = place_memory.empty(3, LIKE)
    left, right = Look((0.2, 0.5)), Look((0.8, 0.5))
    seen = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    unknown = place_memory.read(memory, left)
    assert not unknown.any()
    for _ in range(12):
        memory = place_memory.write(memory, left, seen, 1.0)
    told = place_memory.read(memory, left)
    assert told[-1] > 0.5
    assert torch.allclose(told[:3], seen, rtol=0.2)
    assert float(place_memory.read(memory, right).abs().max()) < 1e-6
    faded = memory
    for _ in range(30):
        faded = place_memory.write(faded, right, -seen, place_memory.DECAYS["moving"])
    assert float(place_memory.read(faded, left)[-1]) < 0.1 * float(told[-1])
    assert float(memory.confidence.max()) <= 1.0


def test_a_wide_frame_has_no_blind_spots() -> None:
    """Between the centres of four cells, where a sigma of 1 degree would see nothing."""
    memory = place_memory.empty(1, LIKE)
    corner = Look((3 / 12, 2 / 6), frame_deg=(110.0, 90.0))
    for _ in range(40):
        memory = place_memory.write(memory, corner, torch.ones(1, dtype=torch.float64), 1.0)
    assert float(place_memory.read(memory, corner)[-1]) > 0.5


def test_what_is_a_repeat() -> None:
    z = torch.tensor([1.0, 2.0, -2.0])
    assert is_repeat(z, z.clone(), 0.2)
    assert is_repeat(z, z * 1.4, 0.2)
    assert not is_repeat(z, z * 1.5, 0.2)
    assert not is_repeat(z, None, 0.2)
    assert not is_repeat(z, z, 0.0)
    assert is_repeat(torch.zeros(3), torch.zeros(3), 0.2)
    assert not is_repeat(torch.zeros(3), z, 0.2)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"colour": "red"}, "colour: Extra inputs"),
        ({"predictor": {"kindd": "mlp"}}, "predictor.kindd: Extra inputs"),
        ({"learning": {"rates": {"gate": 1.0}}}, "learning.rates.gate: Extra inputs"),
        ({"retina": {"stage": "all"}}, "retina.stage: Extra inputs"),
        ({"gates": "sparse"}, "gates: Input should be 'two-point', 'modular' or 'dense'"),
        ({"learning": {"update": 1}}, "learning.update"),
        ({"gates": "modular", "block": 3}, "block 3 does not divide the 128 units"),
        ({"cell": "time-decay", "gates": "dense"}, "time decay unit has no dense gates"),
        ({"retention": "one-minus-tanh"}, "for the cell paper alone"),
        ({"embedding_size": 257}, "embedding_size 257"),
        ({"spans": (0.5, 0.95)}, "stay below the bound"),
        ({"learning": {"rates": {"predictor": 1e-3}}}, "rls has no rate"),
        ({"retina": {"stages": "last", "whiten": False}}, "features is 128"),
    ],
)
def test_a_wrong_choice_is_named(choices: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError) as caught:
        ModelConfig.preset("default", **choices)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_presets() -> None:
    with pytest.raises(ModelError, match="no preset 'fast'; there are default, long, paper"):
        ModelConfig.preset("fast")  # type: ignore[arg-type]
    default, paper, long = (ModelConfig.preset(name) for name in ("default", "paper", "long"))
    assert default == ModelConfig()
    assert (long.units, long.embedding_size, long.spans) == (256, 512, (0.7, 0.93))
    assert (paper.cell, paper.gates, paper.embedding_size) == ("paper", "dense", 120)
    assert not paper.predictor.carry
    assert not paper.predictor.near
    assert paper.predictor.action == "none"
    assert ModelConfig.preset(gates="dense").learning.rates.gates == 3e-5
    assert ModelConfig.preset(gates="dense", learning={"rates": {"gates": 1e-3}}).learning.rates.gates == 1e-3
    assert ModelConfig.preset(predictor={"kind": "mlp"}).learning.rates.predictor == 1e-4
    assert ModelConfig.preset(predictor=PredictorConfig(near=False)).predictor.near is False
    for config in (default, paper, long):
        assert ModelConfig.parse(config.model_dump(mode="json")) == config
