"""A learner in one's own process: what a recording shows, what is learned from it, as a worker does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import rjepa
from clients.errors import ClientError
from model.config import ModelConfig
from model.errors import ModelError
from model.learner import Learner, Look
from service.errors import LearnRefused
from service.offline import recorded
from tests.service.test_learn import a_recording

RNG = np.random.default_rng(5)


def test_a_recording_is_read_as_it_is_streamed(tmp_path: Path) -> None:
    a_recording(tmp_path, "one", 3.0, 0)
    ((video, gaze),) = rjepa.recordings_in(tmp_path)
    seen = rjepa.read_recording(gaze, video=video, px_per_degree=10)
    assert seen.name == "one"
    assert seen.patches.shape == (10, 50, 50, 3)
    assert seen.gaze.shape == (10, 2)
    assert seen.frame_deg == (32.0, 24.0)
    assert np.allclose(np.diff(seen.onset_s), 0.3, atol=0.02), "300 ms at each place"
    assert ((seen.duration_s > 0.2) & (seen.duration_s < 0.3)).all()
    assert seen.dropped == {}
    assert any("px" in note for note in seen.notes)
    other, dropped = recorded(video, gaze, {"px_per_degree": "10"})
    assert np.array_equal(other.patches, seen.patches), "what rjepa learn sees"
    assert not dropped


def test_what_cannot_be_read_says_the_way_out(tmp_path: Path) -> None:
    a_recording(tmp_path, "one", 1.0, 0)
    gaze, video = tmp_path / "one.csv", tmp_path / "one.avi"
    with pytest.raises(LearnRefused, match="no option px_per_degre; there are: px_per_degree"):
        rjepa.read_recording(gaze, video=video, px_per_degre=10)
    with pytest.raises(ClientError, match="--px-per-degree"):
        rjepa.read_recording(gaze, video=video)
    with pytest.raises(ClientError, match="--video"):
        rjepa.read_recording(gaze, px_per_degree=10)
    with pytest.raises(LearnRefused, match="nothing was seen"):
        rjepa.read_recording(gaze, video=video, px_per_degree=10, min_confidence=1.0, time_unit="ns")


def test_a_study_is_the_learner_with_its_diagnostics() -> None:
    """650 fixations: the same errors and embeddings as the learner alone, and a skill with its interval."""
    config = ModelConfig.preset("default")
    z = RNG.standard_normal((650, config.features)).astype(np.float32)
    gaze = RNG.uniform(0.0, 1.0, (650, 2))
    starts = np.zeros(650, bool)
    starts[[0, 400]] = True
    study = rjepa.Study(seed=3)
    first = study.learn("anna", z[:600], gaze=gaze[:600], frame_deg=(30.0, 20.0), starts=starts[:600], quiet=True)
    then = study.learn("anna", z[600:], gaze=gaze[600:], frame_deg=(30.0, 20.0), starts=starts[600:], quiet=True)
    alone = Learner(config, seed=3)
    for at in range(650):
        look = Look((float(gaze[at, 0]), float(gaze[at, 1])), frame_deg=(30.0, 20.0))
        outcome = alone.observe("anna", z[at], look, start=bool(starts[at]), marked=True)
        course, row = (first, at) if at < 600 else (then, at - 600)
        told = outcome.prediction_error
        assert (told is None and np.isnan(course.prediction_error[row])) or told == course.prediction_error[row]
        assert np.array_equal(course.embedding[row], outcome.embedding)
        assert course.position[row] == outcome.position
    assert np.isnan(first.prediction_error[[0, 400]]).all(), "a trial's first has no prediction"
    assert set(first.trivial_error) == set(outcome.trivial)
    assert first.skipped == (None,) * 600
    measures = study.measures("anna")
    assert measures["count"] == 648
    assert measures["skill"]["low"] < measures["skill"]["value"] < measures["skill"]["high"]
    assert study.measures()["verdict"] == "not learning yet"
    assert study.gradient("anna")["exactness"]["cosine"] > 0.999
    before = {name: weight.clone() for name, weight in study.learner.all_weights().items()}
    assert np.isfinite(study.embed(z[:3])).all()
    assert all((before[name] == weight).all() for name, weight in study.learner.all_weights().items())


def test_shapes_that_do_not_fit_are_refused_and_nothing_is_learned() -> None:
    study = rjepa.Study(gates="modular")
    z = RNG.standard_normal((4, study.config.features)).astype(np.float32)
    with pytest.raises(ModelError, match=r"gaze \(N, 2\)"):
        study.learn("anna", z, gaze=np.zeros((3, 2)))
    with pytest.raises(ModelError, match=r"starts \(N,\)"):
        study.learn("anna", z, starts=np.zeros(5, bool))
    assert study.learner.steps == 0
    assert len(study.learn("anna", z[:0], quiet=True).embedding) == 0


def test_weights_are_named_or_refused() -> None:
    with pytest.raises(TypeError, match="weights"):
        rjepa.features(np.zeros((1, 50, 50, 3), np.uint8))  # type: ignore[call-arg]
    with pytest.raises(ModelError, match="random"):
        rjepa.features(np.zeros((1, 50, 50, 3), np.uint8), weights="imagenet")
