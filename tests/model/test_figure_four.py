from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model import figure_four
from model.config import ModelConfig
from model.learners import NO_GAZE
from model.through_time import ThroughTime
from model.worlds import PlantedWorld, walk

FEATURES, UNITS = 8, 10


def world(steps: int, back: int = 2) -> PlantedWorld:
    random = np.random.default_rng(0)
    table = random.standard_normal((4, 1, FEATURES)) + 0.3 * random.standard_normal((4, 3, FEATURES))
    path = walk(back, steps, seed=0, places=4, views=3, sequence_length=figure_four.SEQUENCE)
    return PlantedWorld(path, table.astype(np.float32))


def small(update: str, **choices: Any) -> ModelConfig:
    return ModelConfig.preset(
        "default",
        units=UNITS,
        embedding_size=2 * UNITS,
        retina={"features": FEATURES},
        predictor=NO_GAZE,
        learning={"update": update, "warmup": 0, "repeat_threshold": 0.0, **choices},
    )


def errors(row: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array([row[f"error_{position}"] for position in range(1, figure_four.SEQUENCE)])


def test_forward_propagation_and_bptt_learn_the_same() -> None:
    rates = {"rates": {"gates": 1e-2, "retention": 1e-2, "input": 1e-2}}
    rows = {m: figure_four.run(small("sequence", **rates), m, world(360), seed=0) for m in ("rfp", "bptt")}
    np.testing.assert_allclose(errors(rows["rfp"]), errors(rows["bptt"]), rtol=1e-3)
    still = figure_four.run(
        small("sequence", rates={"gates": None, "retention": None, "input": None}), "rfp", world(360), seed=0
    )
    assert np.abs(errors(still) - errors(rows["rfp"])).max() > 0.01, "the circuit did learn"


def test_the_gradient_is_truly_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"rates": {"gates": 1e-2, "retention": 1e-2, "input": 1e-2}}
    right = figure_four.run(small("sequence", **rates), "bptt", world(240), seed=0)
    real = ThroughTime.gradient
    monkeypatch.setattr(ThroughTime, "gradient", lambda self, streams: {n: -g for n, g in real(self, streams).items()})
    wrong = figure_four.run(small("sequence", **rates), "bptt", world(240), seed=0)
    assert np.abs(errors(right) - errors(wrong)).max() > 1e-3


def test_what_is_learned_shows_where_the_information_arrives() -> None:
    told = figure_four.run(small("step"), "online", world(1800), seed=0)
    assert errors(told)[0] > 0.9, "at position 1 nothing is known"
    assert errors(told)[1:].max() < 0.8
    assert told["from_k"] < 0.8
    flat = figure_four.run(small("step"), "untrained", world(600), seed=0)
    np.testing.assert_allclose(errors(flat), 1.0, atol=0.1)


@pytest.mark.parametrize("method", figure_four.METHODS)
def test_every_method_is_a_model(method: str) -> None:
    choices = figure_four.config_of(method).learning
    assert choices.update == ("step" if method in ("untrained", "frozen", "online") else "sequence")
    assert (choices.rates.gates, choices.rates.retention, choices.rates.input).count(None) == 3 * (method == "frozen")
