from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model import worlds
from model.config import ModelConfig
from model.errors import ModelError
from model.experiments import FrozenTarget, PlantedRun, share
from model.learners import LEARNERS, NO_GAZE, config_of
from model.worlds import PlantedWorld, make_world, patches_digest, place_patches, walk

FEATURES, UNITS, PLACES, VIEWS = 12, 16, 6, 4


def table(seed: int = 0, jitter: float = 0.4) -> np.ndarray[Any, np.dtype[np.float32]]:
    """z of a small world without a retina: places apart, views scattered about them."""
    random = np.random.default_rng(seed)
    places = random.standard_normal((PLACES, 1, FEATURES))
    return (places + jitter * random.standard_normal((PLACES, VIEWS, FEATURES))).astype(np.float32)


def small_world(back: int, steps: int, *, seed: int = 0, **choices: Any) -> PlantedWorld:
    return PlantedWorld(walk(back, steps, seed=seed, places=PLACES, views=VIEWS, **choices), table(seed))


def small_config(**choices: Any) -> ModelConfig:
    sizes = {"units": UNITS, "embedding_size": 2 * UNITS, "retina": {"features": FEATURES}}
    return ModelConfig.preset("default", **sizes, predictor=NO_GAZE, **choices)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return place_patches(3, places=3, views=4)


def test_pictures_are_their_seeds(pictures: np.ndarray[Any, Any]) -> None:
    assert pictures.shape == (3, 4, 50, 50, 3)
    assert pictures.dtype == np.uint8
    again = place_patches(3, places=3, views=2)
    np.testing.assert_array_equal(again, pictures[:, :2])
    assert patches_digest(again) != patches_digest(pictures)
    assert not np.array_equal(place_patches(4, places=3, views=1)[:, 0], pictures[:, 0])


def test_views_of_a_place_differ_less_than_places(pictures: np.ndarray[Any, Any]) -> None:
    seen = pictures.astype(np.float64)
    means = seen.mean(axis=1)
    within = ((seen - means[:, None]) ** 2).mean()
    between = ((means - means.mean(axis=0)) ** 2).mean()
    assert 0.0 < within < between / 4
    assert len({view.tobytes() for view in pictures.reshape(-1, 50, 50, 3)}) == 12


@pytest.mark.parametrize("back", worlds.BACKS)
def test_the_rule_is_as_said(back: int) -> None:
    path = walk(back, 20_000, seed=1)
    np.testing.assert_array_equal(path.ruled[back:], path.following[path.place[:-back]])
    assert (path.ruled[:back] == -1).all()
    assert sorted(path.following) == list(range(worlds.PLACES))
    at, seen = 0, set()
    while at not in seen:
        seen.add(at)
        at = int(path.following[at])
    assert len(seen) == worlds.PLACES, "the ring goes through all places"
    held = (path.place == path.ruled)[back:].mean()
    assert held == pytest.approx(0.9 + 0.1 / worlds.PLACES, abs=0.01)
    assert np.bincount(path.place).min() > 0.8 * len(path.place) / worlds.PLACES


@pytest.mark.parametrize("back", [2, 5, 10])
def test_the_present_place_tells_nothing_of_the_next(back: int) -> None:
    place = walk(back, 60_000, seed=2).place
    together = np.zeros((worlds.PLACES, worlds.PLACES))
    np.add.at(together, (place[:-1], place[1:]), 1)
    best = together.max(axis=1) / together.sum(axis=1)
    assert best.max() < 0.2, "chance is 1/12; the rule would give 0.9"


def test_a_shorter_walk_is_the_beginning_of_a_longer_one() -> None:
    short, long = walk(5, 300, seed=4), walk(5, 500, seed=4)
    np.testing.assert_array_equal(short.place, long.place[:300])
    np.testing.assert_array_equal(short.view, long.view[:300])
    assert not np.array_equal(walk(5, 300, seed=5).place, short.place)


def test_sequences_begin_anew() -> None:
    path = walk(5, 60, seed=0, sequence_length=12)
    assert list(np.flatnonzero(path.start)) == [0, 12, 24, 36, 48]
    assert ((path.ruled == -1) == (np.arange(60) % 12 < 5)).all()


@pytest.mark.parametrize(
    "choices", [{"back": 0}, {"jump": 1.5}, {"places": 1}, {"sequence_length": 2}, {"steps": -1}, {"views": 0}]
)
def test_what_is_no_world_is_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        walk(**{"back": 2, "steps": 10, "seed": 0, **choices})


def test_the_best_guess_is_the_best() -> None:
    world = small_world(2, 8000)
    z, guess = world.features[2:], world.best_guess[2:]
    loss = ((z - guess) ** 2).mean()
    means = world.table.mean(axis=1)
    certain = ((z - means[world.walk.ruled[2:]]) ** 2).mean()
    overall = ((z - z.mean(axis=0)) ** 2).mean()
    assert loss < certain < overall
    random = np.random.default_rng(0)
    for _ in range(20):
        nudge = 0.1 * random.standard_normal(FEATURES).astype(np.float32)
        assert ((z - guess - nudge) ** 2).mean() > loss


def test_the_rule_is_known_to_nobody_at_first_and_in_what_is_shuffled() -> None:
    world = small_world(5, 100)
    mean = world.table.mean(axis=(0, 1))
    np.testing.assert_allclose(world.best_guess[:5], np.tile(mean, (5, 1)), atol=1e-6)
    shuffled = world.shuffled(0)
    np.testing.assert_allclose(shuffled.best_guess, np.tile(mean, (100, 1)), atol=1e-6)
    assert sorted(shuffled.walk.place) == sorted(world.walk.place)
    assert not np.array_equal(shuffled.walk.place, world.walk.place)


def test_an_oracle_has_all_and_the_opponent_nothing() -> None:
    rows = np.random.default_rng(0).uniform(0.5, 1.0, (50, 3))
    rows[:, 2] = rows[:, 1] * 0.4
    rows[:, 0] = rows[:, 2]
    assert share(rows) == pytest.approx(1.0)
    rows[:, 0] = rows[:, 1]
    assert share(rows) == pytest.approx(0.0)
    rows[7] = np.nan
    assert share(rows) == pytest.approx(0.0)
    assert share(rows[:0]) is None
    assert share(np.ones((5, 3))) is None


def test_an_oracle_in_the_learners_place_reaches_the_optimum() -> None:
    """A predictor that is told E[z | rule] and carries it as the optimum does has the share 1."""
    world = small_world(2, 600)
    run = PlantedRun(small_config(), world, seed=0)
    run.run()
    oracle = run.rows[:, [2, 1, 2]]
    assert share(oracle[-150:]) == pytest.approx(1.0)
    last = run.rows[-150:]
    assert np.nanmean(last[:, 2]) < np.nanmean(last[:, 1]), "the optimum is below carry-mean"
    assert np.nanmean(last[:, 5]) < np.nanmean(last[:, 4]), "and so it is of the frozen target"


def test_a_frozen_target_is_read_from_a_state_that_holds_it() -> None:
    config = small_config()
    random = torch.Generator().manual_seed(0)
    mixing = torch.randn(FEATURES, 2 * UNITS, generator=random) / 5
    target = FrozenTarget(config, torch.zeros(FEATURES))
    late = []
    for step in range(1500):
        state = torch.randn(2, UNITS, generator=random)
        z = mixing @ state.flatten()
        read, mean, best = target.scored(state, z, z)
        assert best == 0.0
        if step >= 1000:
            late.append((read, mean, best))
    assert share(np.array(late)) == pytest.approx(1.0, abs=0.01)


def test_the_default_learns_what_is_two_back_and_the_memoryless_does_not() -> None:
    world = small_world(2, 1500)
    told = PlantedRun(small_config(), world, seed=0).run()
    assert told["share"] > 0.5
    assert told["share_frozen"] > 0.5
    assert told["skill_low"] > 0.0
    none = {"spans": (0.0, 0.0), "rotation": 0.0, "learning": {"rates": {"gates": None, "retention": None}}}
    blind = PlantedRun(small_config(**none), world, seed=0).run()
    assert blind["share"] < 0.1
    assert blind["share_frozen"] < 0.1


def test_nothing_is_found_where_all_is_shuffled() -> None:
    told = PlantedRun(small_config(), small_world(2, 1200).shuffled(0), seed=0).run()
    assert told["skill_low"] <= 0.0
    assert told["share"] is None


def test_the_same_run_gives_the_same_row() -> None:
    runs = []
    for _ in range(2):
        told = PlantedRun(small_config(), small_world(2, 400), seed=1).run()
        runs.append({name: value for name, value in told.items() if name != "ms_per_fixation"})
    assert runs[0] == runs[1]
    other = PlantedRun(small_config(), small_world(2, 400), seed=2).run()
    assert other["error"] != runs[0]["error"]


def test_progress_is_told_and_features_are_seen_once() -> None:
    asked: list[int] = []

    def features(patches: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.append(len(patches))
        return patches.reshape(len(patches), -1)[:, :FEATURES].astype(np.float32) / 255

    world = make_world(features, 1, 250, seed=0)
    assert asked == [worlds.PLACES * worlds.VIEWS]
    done: list[int] = []
    PlantedRun(small_config(), world, seed=0).run(done.append)
    assert sum(done) == 200


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_is_a_model(name: str) -> None:
    config = config_of(name)
    assert config.name == LEARNERS[name].preset
    assert config_of(name, gaze=False).predictor.action == "none"
    if name not in ("default", "long", "paper"):
        assert config != config_of(config.name), "it differs from its preset"


def test_an_unknown_learner_is_refused() -> None:
    with pytest.raises(ModelError, match="no learner 'nobody'"):
        config_of("nobody")


def test_a_person_can_look_at_it(pictures: np.ndarray[Any, Any]) -> None:
    path = walk(2, 48, seed=3)
    shown = worlds.picture(3, path, shown=24)
    assert shown.dtype == np.uint8
    assert shown.ndim == 3
    assert shown.shape[2] == 3
    colours = {tuple(int(v) for v in c) for c in shown.reshape(-1, 3)}
    assert {(0, 90, 181), (230, 120, 0), (160, 160, 160)} <= colours, "held, jumped and unknown are marked"
