from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model import alignment
from model.alignment import RATE, Setting, run, settings
from model.config import ModelConfig
from model.worlds import PlantedWorld, walk


def world(steps: int = 400, features: int = 8) -> PlantedWorld:
    random = np.random.default_rng(0)
    table = random.standard_normal((4, 1, features)) + 0.3 * random.standard_normal((4, 3, features))
    return PlantedWorld(walk(1, steps, seed=0, places=4, views=3), table.astype(np.float32))


def small(setting: Setting) -> Setting:
    choices = setting.config.model_dump(mode="json")
    choices |= {"units": 10, "embedding_size": 8, "retina": {**choices["retina"], "features": 8}}
    return setting._replace(config=ModelConfig.parse(choices))


@pytest.mark.parametrize("decay", [0.5, 0.05, 0.0])
def test_the_law_of_balance_holds(decay: float) -> None:
    told = run(small(settings()["decay"])._replace(weight_decay=decay), world(), seed=1)
    np.testing.assert_allclose(told["apart"], told["law"], rtol=0.01)
    assert told["law"][-1] == pytest.approx(np.exp(-2.0 * RATE * decay * 400))
    assert told["at"][-1] == 400
    assert len(told["at"]) == len(told["balance"]) == len(told["rank"])


def test_what_the_law_is_not_for_does_not_keep_it() -> None:
    alone = run(small(settings()["P alone"])._replace(weight_decay=0.5), world(), seed=1)
    assert alone["last_law"] is None
    assert abs(alone["last_apart"] - np.exp(-2.0 * RATE * 0.5 * 400)) > 0.1
    wrong = run(small(settings()["decay"])._replace(weight_decay=0.5), world(), seed=1)
    planted = [value * 1.05 for value in wrong["apart"]]
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(planted, wrong["law"], rtol=0.01)


def test_the_defaults_balance_is_shown_and_nothing_promised() -> None:
    setting = settings()["default"]
    choices = setting.config.model_dump(mode="json")
    choices |= {"units": 8, "embedding_size": 16, "retina": {**choices["retina"], "features": 8}}
    told = run(setting._replace(config=ModelConfig.parse(choices)), world(200), seed=0)
    assert told["last_apart"] is None
    assert told["last_law"] is None
    assert 0.0 <= told["last_balance"] <= 1.0
    assert told["rank"][-1] >= 1.0


def test_the_progress_is_told_and_short_worlds_are_looked_at_too() -> None:
    done: list[int] = []
    told = run(small(settings()["no decay"]), replace(world(200)), seed=0, progress=done.append)
    assert sum(done) == 200
    assert told["at"] == sorted(set(told["at"]))
    assert alignment.LOOKS <= len(told["at"]) <= alignment.LOOKS + 1
