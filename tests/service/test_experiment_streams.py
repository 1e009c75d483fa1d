"""The experiments that look at streams: which streams, what is measured of each, and that a second run goes on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model import snapshot
from model.figure_four import beside
from service import experiment_cli, experiment_endless, experiment_sources, offline
from service.errors import CalibrationSourceError, ExperimentRefused
from tests.service.test_experiment import FakeFeatures, film, scanpath


@pytest.fixture(autouse=True)
def without_a_retina(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(experiment_cli, "KeptFeatures", FakeFeatures)
    grey = film(tmp_path / "grey.avi", 120)
    monkeypatch.setattr(experiment_sources, "demo_video", lambda: grey)


def run(name: str, tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    rows = tmp_path / f"{name}.json"
    common = ["--seeds", "0", "--quiet", "--cache", str(tmp_path), "--json", str(rows)]
    assert experiment_cli.main([name, *words, *common]) == 0
    held: list[dict[str, Any]] = json.loads(rows.read_text())["rows"]
    return held


def watching(tmp_path: Path, count: int = 40) -> list[str]:
    return ["--scanpath", str(scanpath(tmp_path, count)), "--video", str(tmp_path / "grey.avi")]


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "ms_per_fixation"}


def test_one_command_makes_every_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*watching(tmp_path), "--demo", "--planted", "2", "5", "--fixations", "30", "--lean"]
    held = run("streams", tmp_path, *words, "--learners", "default")
    assert [(row["stream"], row["gaze"], row["fixations"]) for row in held] == [
        ("planted k=2", False, 30),
        ("planted k=5", False, 30),
        ("grey", True, 30),
        ("demo", True, 30),
    ]
    assert all(row["lean"] and "probe" not in row for row in held)
    assert "planted k=5" in capsys.readouterr().out


def test_what_was_lean_is_filled_in_and_what_is_whole_is_left(tmp_path: Path) -> None:
    words = [*watching(tmp_path), "--learners", "default"]
    (lean,) = run("streams", tmp_path, *words, "--lean")
    assert without_time(run("streams", tmp_path, *words, "--lean")[0]) == without_time(lean)
    (whole,) = run("streams", tmp_path, *words)
    assert not whole["lean"]
    assert "probe" in whole
    assert run("streams", tmp_path, *words, "--lean") == [whole]


def test_the_default_on_the_shuffled_stream_is_one_of_the_learners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service import experiment_streams

    monkeypatch.setattr(experiment_streams, "LEARNERS_TOLD", ("default", "frozen"))
    held = run("streams", tmp_path, *watching(tmp_path, 20), "--lean")
    assert [(row["learner"], row["shuffled"]) for row in held] == [
        ("default", False),
        ("frozen", False),
        ("default", True),
    ]
    assert held[0]["features"] == held[2]["features"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["streams"], "--scanpath PATH and --video FILE .* or --demo, or --planted K"),
        (["collapse", "--video", "a.avi"], "need --scanpath"),
        (["collapse", "--demo", "--settings", "hope"], "no setting 'hope'; there are nothing; "),
        (["endless"], "endless needs a stream"),
        (["endless", "--scanpath", "a", "--video", "none.avi"], "none.avi can't be read"),
        (["participants"], "or --demo"),
        (["participants", "--demo", "--learners", "nobody"], "no learner 'nobody'"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(ExperimentRefused, match=said):
        experiment_cli.main([*words, "--quiet", "--cache", str(tmp_path)])


def test_an_endless_run_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "light.avi", 200)
    words = [*watching(tmp_path, 50), str(tmp_path / "light.avi"), "--part", "60", "--fixations", "180"]
    whole = run("endless", tmp_path, *words)
    assert [(row["part"], row["until"], row["video"]) for row in whole] == [
        (1, 60, "grey"),
        (2, 120, "light"),
        (3, 180, "grey"),
    ]
    assert all(row["largest_state"] > 0.0 for row in whole)
    other = tmp_path / "other"
    other.mkdir()
    real = experiment_endless._write

    def stopped(found: snapshot.Snapshot, path: Path) -> None:
        real(found, path)
        if len(found.meta["rows"]) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(experiment_endless, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("endless", other, *words)
    monkeypatch.setattr(experiment_endless, "_write", real)
    asked = FakeFeatures.asked
    again = run("endless", other, *words)
    assert FakeFeatures.asked == asked + 1, "the last part alone"
    assert [without_time(row) for row in again] == [without_time(row) for row in whole]
    asked = FakeFeatures.asked
    assert run("endless", other, *words) == again
    assert FakeFeatures.asked == asked


def test_participants_have_a_row_for_each_arrangement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*watching(tmp_path), "--demo", "--fixations", "30", "--turn", "10"]
    held = run("participants", tmp_path, *words)
    assert [(row["stream"], row["arrangement"], row["participant"]) for row in held] == [
        (stream, arrangement, number)
        for stream in ("grey", "demo")
        for arrangement in ("alone", "by turns", "one state")
        for number in (1, 2)
    ]
    asked = FakeFeatures.asked
    assert run("participants", tmp_path, *words) == held
    assert FakeFeatures.asked > asked, "what was seen is part of the key"
    assert "one state" in capsys.readouterr().out


def test_collapse_tells_what_was_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = run("collapse", tmp_path, "--demo", "--settings", "P, W", "--fixations", "260")
    (row,) = held
    assert (row["stream"], row["wrong"], row["word"]) == ("demo", True, "not learning yet")
    assert [each["fixations"] for each in row["asked"]] == [250]
    assert len(row["spectrum"]) == len(row["spectrum_frozen"]) == 120
    assert np.shape(row["covariance"]) == np.shape(row["covariance_frozen"]) == (32, 32)
    assert run("collapse", tmp_path, "--demo", "--settings", "P, W", "--fixations", "260") == held
    assert "P and two-point W, Adam 1e-3" in capsys.readouterr().out


def test_figure_four_is_told_beside_bptt(tmp_path: Path) -> None:
    held = run("learning", tmp_path, "--back", "2", "--fixations", "240")
    told = {row["method"]: row for row in held}
    assert list(told) == ["bptt", "rfp", "online", "frozen", "untrained"]
    assert told["bptt"]["over_bptt"] == 1.0
    assert told["rfp"]["over_bptt"] == pytest.approx(1.0, abs=1e-3)
    assert told["untrained"]["over_bptt"] == pytest.approx(told["untrained"]["error"] / told["bptt"]["error"])


def test_the_share_by_which_one_is_off() -> None:
    flat = {f"error_{at}": 1.0 for at in range(1, 12)} | {"error": 2.0}
    found = beside({**flat, "error_3": 0.9, "error": 1.5}, flat)
    assert found == {"over_bptt": 0.75, "most_off": pytest.approx(0.1)}
    assert beside(flat, {**flat, "error": None, "error_1": None}) == {"over_bptt": None, "most_off": 0.0}


def test_a_scanpath_goes_on_at_its_beginning(tmp_path: Path) -> None:
    path, videos = scanpath(tmp_path, 12), [tmp_path / "grey.avi"]
    twice = offline.scanpath_over(path, videos, seed=0, count=26)
    assert len(twice.patches) == 24, "the one off the frame is left out both times"
    np.testing.assert_array_equal(twice.gaze[:12], twice.gaze[12:])
    later = offline.scanpath_over(path, videos, seed=0, first=13, count=13)
    np.testing.assert_array_equal(later.patches, twice.patches[12:])
    assert not np.array_equal(later.patches, twice.patches[:12]), "the video went on meanwhile"


def test_the_demos_observer_without_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = offline.observed(tmp_path / "grey.avi", 30, seed=1)
    assert (seen.patches.shape, seen.gaze.shape) == ((30, 50, 50, 3), (30, 2))
    assert seen.frame_deg == (30.0, 15.0)
    assert ((seen.gaze >= 0.0) & (seen.gaze <= 1.0)).all()
    assert len(np.unique(seen.gaze[:, 0])) > 25
    np.testing.assert_array_equal(offline.observed(tmp_path / "grey.avi", 10, seed=1).patches, seen.patches[:10])
    assert not np.array_equal(offline.observed(tmp_path / "grey.avi", 30, seed=2).gaze, seen.gaze)
    monkeypatch.setattr(offline, "PATCHES", 20)
    black = tmp_path / "black.avi"
    writer = cv2.VideoWriter(str(black), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (120, 60))
    for _ in range(10):
        writer.write(np.zeros((60, 120, 3), np.uint8))
    writer.release()
    with pytest.raises(CalibrationSourceError, match="nothing to see"):
        offline.observed(black, 3, seed=0)


def test_a_streams_options_are_those_of_every_experiment_that_looks() -> None:
    parser = argparse.ArgumentParser()
    experiment_sources.add_options(parser)
    assert vars(parser.parse_args(["--demo", "--planted", "1", "10"])) == {
        "scanpath": None,
        "video": None,
        "shots": None,
        "demo": True,
        "planted": [1, 10],
    }
