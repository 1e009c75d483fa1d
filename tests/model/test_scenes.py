from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model import scene_run, skill
from model.action import Look
from model.bootstrap import NOTHING, block_interval
from model.config import ModelConfig
from model.learner import Learner
from model.returns import returns
from model.scene_run import COLUMNS, SceneStream, curve, differences, measure, run_scenes, scene_sums

SMALL = ModelConfig.preset(
    "default", retina={"features": 8}, units=8, embedding_size=16, predictor={"place_memory": "still"}
)
FRAME_DEG = (24.0, 10.0)


def apart(count: int) -> np.ndarray[Any, Any]:
    """Places 3 degrees from each other."""
    return np.stack([np.arange(count) * 3.0, np.zeros(count)], axis=1)


def test_a_return_is_to_a_place_left_long_ago_and_not_seen_since() -> None:
    gaze = apart(40)
    gaze[16] = gaze[1] + (0.6, 0.6)  # 15 before, 0.85 degrees away
    gaze[17] = gaze[1]  # 16 before, but also the one just before
    gaze[18] = gaze[3] + (0.9, 0.9)  # 15 before, 1.27 degrees away
    gaze[19] = gaze[5]  # 14 before
    gaze[39] = gaze[2]
    one = np.zeros(40, np.int64)
    assert np.flatnonzero(returns(gaze, one)).tolist() == [16, 39]
    assert np.flatnonzero(returns(gaze, one, after=14)).tolist() == [16, 19, 39]
    assert np.flatnonzero(returns(gaze, one, within=1.5)).tolist() == [16, 18, 39]
    two = np.repeat([0, 1], [10, 30])
    assert not returns(gaze, two).any(), "what was seen in another scene is not returned to"


def test_the_bootstrap_over_blocks_knows_the_error_of_a_mean() -> None:
    blocks = torch.tensor([[0.0, 2.0], [1.0, 2.0]]).repeat(50, 1)
    found = block_interval(blocks, lambda means: means[:, 0] / means[:, 1])
    assert found.value == 0.25
    # 100 blocks of 0 or 1: the mean's standard error is 0.05, and 1.96 of it 0.098
    assert found.low == pytest.approx((0.5 - 0.098) / 2, abs=0.01)
    assert found.high == pytest.approx((0.5 + 0.098) / 2, abs=0.01)
    assert found == block_interval(blocks, lambda means: means[:, 0] / means[:, 1])
    alike = block_interval(torch.ones(10, 1), lambda means: means[:, 0] * 3.0)
    assert (alike.value, alike.low, alike.high) == pytest.approx((3.0, 3.0, 3.0))
    assert block_interval(torch.ones(9, 1), lambda means: means[:, 0]) == NOTHING


def rows_of(own: float, opponents: float, scene: float) -> list[float]:
    values = {name: opponents for name in skill.COLUMNS} | {"error": own, "carry_scene": scene}
    return [values[name] for name in skill.COLUMNS]


def test_sums_of_scenes_and_what_they_say() -> None:
    missing = [float("nan")] * len(skill.COLUMNS)
    # each scene: its first fixation without a prediction, one early, one at no counted position, one late return
    one = [missing, rows_of(0.9, 1.0, 0.95), rows_of(0.7, 1.0, 0.8), rows_of(0.4, 1.0, 0.8)]
    errors = torch.tensor(one * 12)
    scene, positions = np.repeat(np.arange(3, 15), 4), np.tile([0, 5, 6, 41], 12)
    returned = np.tile([True, False, False, True], 12)
    sums = scene_sums(errors, torch.tensor([9.0, 2.0, 9.0, 1.9]).repeat(12), scene, positions, returned)
    assert sums.shape == (12, len(COLUMNS))
    first = dict(zip(COLUMNS, sums[0].tolist(), strict=True))
    assert first["error"] == pytest.approx(2.0)
    assert first["carry_ar1"] == pytest.approx(3.0)
    found = measure(sums)
    assert found["skill_ar1"] == pytest.approx(1.0 - 2.0 / 3.0)
    assert found["skill"] == pytest.approx(1.0 - 2.0 / 2.55)
    assert found["curve_start"] == pytest.approx((0.4 / 0.9) / (1.9 / 2.0))
    untrained = sums.clone()
    untrained[:, COLUMNS.index("early")], untrained[:, COLUMNS.index("late")] = 0.8, 0.7
    assert curve(sums, untrained)["curve"] == pytest.approx((0.4 / 0.9) / (0.7 / 0.8))
    assert curve(sums, sums)["curve"] == 1.0
    assert found["returns"] == pytest.approx(0.6)
    assert found["skill_low"] == pytest.approx(found["skill_high"]), "all scenes are alike"


def test_differences_are_paired() -> None:
    """Scenes differ widely and alike for both learners: each one's interval is wide, their difference's is not."""
    level = torch.linspace(0.2, 1.8, 40, dtype=torch.float64).unsqueeze(1)
    ones = torch.ones(40, len(COLUMNS), dtype=torch.float64)
    first, second = ones.clone(), ones.clone()
    first[:, :1], second[:, :1] = level - 0.2, level - 0.1
    alone, paired = measure(first), differences(first, second)
    assert paired["skill_ar1"] == pytest.approx(0.1)
    assert paired["skill_ar1_low"] == pytest.approx(0.1)
    assert float(alone["skill_ar1_high"] or 0) - float(alone["skill_ar1_low"] or 0) > 0.2
    assert differences(first, first)["skill"] == 0.0


def made_stream(scenes: int, length: int = 40) -> SceneStream:
    """Every scene has six places, each with something of its own to be seen, slightly other each time."""
    random = np.random.default_rng(0)
    shown = random.standard_normal((scenes, 6, 8))
    place = random.integers(0, 6, (scenes, length))
    z = shown[np.arange(scenes)[:, None], place] + 0.4 * random.standard_normal((scenes, length, 8))
    looks = [Look((0.1 + 0.16 * at, 0.3 + 0.08 * at), frame_deg=FRAME_DEG) for at in place.ravel().tolist()]
    return SceneStream(z.reshape(-1, 8).astype(np.float32), looks, np.repeat(np.arange(scenes), length))


def test_the_place_memory_is_worth_something_where_places_are_what_was_seen_there() -> None:
    stream = made_stream(26)
    told, sums = run_scenes(SMALL, stream, seed=0)
    assert sums.shape[0] == 13, "the last half is judged"
    assert told["skill"] > 0.15
    assert told["skill_low"] > 0.05
    assert told["returned"] > 0
    assert told["returns"] > 0.3
    assert told["probe"] > told["probe_features"] + 0.05
    assert told["retrieval"] > told["retrieval_trivial"]
    assert 0.3 < told["rank_ratio"] < 1.5
    wrong, wrong_sums = run_scenes(SMALL, stream, seed=0, written_at=stream.displaced(0))
    assert wrong["skill"] < told["skill"] - 0.1
    assert (differences(sums, wrong_sums)["skill_low"] or 0.0) > 0.05
    shuffled, _ = run_scenes(SMALL, stream.shuffled(0), seed=0)
    assert shuffled["skill"] < 0.02


def test_written_where_it_was_seen_is_what_the_learner_does_itself() -> None:
    stream = made_stream(4)
    own, again = (run_scenes(SMALL, stream, seed=0, written_at=looks).sums for looks in (None, stream.looks))
    torch.testing.assert_close(own, again, rtol=0, atol=0)


def test_displaced_and_shuffled_keep_what_they_must() -> None:
    stream = made_stream(5)
    for scene in range(5):
        own = np.flatnonzero(stream.scene == scene)
        places, others = ([looks[at].gaze for at in own] for looks in (stream.looks, stream.displaced(1)))
        assert sorted(places) == sorted(others)
        assert places != others
    mixed = stream.shuffled(1)
    pairs = {(tuple(z), look.gaze) for z, look in zip(stream.features.tolist(), stream.looks, strict=True)}
    assert {(tuple(z), look.gaze) for z, look in zip(mixed.features.tolist(), mixed.looks, strict=True)} == pairs
    np.testing.assert_array_equal(mixed.scene, stream.scene)


def test_the_untrained_network_is_one_that_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unlearning(Learner):
        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            self.set_learning(False)

    monkeypatch.setattr(scene_run, "Learner", Unlearning)
    told, sums = run_scenes(SMALL, made_stream(20, length=45), seed=0)
    named = dict(zip(COLUMNS, sums.T, strict=True))
    torch.testing.assert_close(named["early"], named["early_untrained"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(named["late"], named["late_untrained"], rtol=1e-4, atol=1e-5)
    assert told["curve_start"] == pytest.approx(1.0, abs=1e-4)
