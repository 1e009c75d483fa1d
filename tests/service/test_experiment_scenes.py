from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from model.learners import LEARNERS, WITHOUT_GAZE
from service import experiment_cli, offline
from service.errors import CalibrationSourceError, ExperimentRefused
from service.scenes import SCALES, Crop, blank_parts, scenes_under
from tests.service.test_experiment import FakeFeatures, film

HEADING = "onset\tduration\tlabel\tstart_x\tstart_y\tend_x\tend_y\n"


def table(path: Path, count: int, *, off: int = 0, seed: int = 0) -> Path:
    """``count`` fixations at random places of the film's frame, every ``off``-th of them off it."""
    random = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        x, y = random.uniform(0, 1280), random.uniform(0, 546)
        x = -50.0 if off and index % off == 0 else x
        rows.append(f"{0.5 * index}\t0.3\tFIXA\t{x}\t{y}\t{x}\t{y}\n")
    path.write_text(HEADING + "".join(rows))
    return path


def picture(path: Path, seed: int = 0) -> Path:
    noise = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC))
    return path


def test_stretches_follow_one_another_within_a_run(tmp_path: Path) -> None:
    table(tmp_path / "a_events.tsv", 57, off=8, seed=0)  # 49 on the frame: one stretch of 40
    table(tmp_path / "b_events.tsv", 85, seed=1)
    found, frame = offline.stretches(tmp_path, 40, 3)
    assert [gaze.shape for gaze in found] == [(40, 2)] * 3
    assert (frame.width_deg, frame.height_deg) == (23.75, 10.13)
    assert all(((gaze >= 0) & (gaze <= 1)).all() for gaze in found)
    whole, _ = offline.stretches(tmp_path / "b_events.tsv", 85, 1)
    np.testing.assert_array_equal(np.concatenate(found[1:]), whole[0][:80])
    more, _ = offline.stretches(tmp_path, 40, 4)
    np.testing.assert_array_equal(more[3], whole[0][20:60], "gone through again, half a stretch further on")
    with pytest.raises(CalibrationSourceError, match="no 50 stretches of 60 fixations"):
        offline.stretches(tmp_path, 60, 50)


def test_overlap_and_part_of_a_crop() -> None:
    crop = Crop(0.0, 0.0, 0.5, 0.5)
    assert crop.overlap(crop) == 1.0
    assert crop.overlap(Crop(0.25, 0.0, 0.5, 0.5)) == pytest.approx(1 / 3)
    assert crop.overlap(Crop(0.5, 0.5, 0.5, 0.5)) == 0.0
    frame = np.arange(200 * 100 * 3, dtype=np.int64).reshape(100, 200, 3).astype(np.uint8)
    np.testing.assert_array_equal(Crop(0.25, 0.1, 0.5, 0.5).of(frame), frame[10:60, 50:150])


def test_scenes_are_still_and_differ(tmp_path: Path) -> None:
    path = table(tmp_path / "a_events.tsv", 130)
    files = [picture(tmp_path / "noise.png"), film(tmp_path / "grey.avi", 120)]
    scenes = scenes_under(path, files, seed=0, count=6, length=20, quiet=True)
    assert (scenes.count, scenes.files) == (6, 2)
    assert np.bincount(scenes.scene).tolist() == [20] * 6
    assert scenes.seen.patches.shape == (120, 50, 50, 3)
    again = scenes_under(path, files, seed=0, count=6, length=20, quiet=True)
    np.testing.assert_array_equal(again.seen.patches, scenes.seen.patches)
    other = scenes_under(path, files, seed=1, count=6, length=20, quiet=True)
    assert not np.array_equal(other.seen.patches, scenes.seen.patches)


def test_a_scene_shows_its_crop_where_the_eye_was(tmp_path: Path) -> None:
    """A picture whose red rises to the right and whose green rises downwards: a patch says where it was cut."""
    right, down = np.meshgrid(np.linspace(20, 250, 600), np.linspace(20, 250, 400))
    assert cv2.imwrite(str(tmp_path / "ramp.png"), np.stack([np.full_like(right, 99), down, right], 2).astype(np.uint8))
    path = table(tmp_path / "a_events.tsv", 60)
    scenes = scenes_under(path, [tmp_path / "ramp.png"], seed=0, count=2, length=30, quiet=True)
    for scene in range(2):
        own = scenes.scene == scene
        gaze, red = scenes.seen.gaze[own], scenes.seen.patches[own].mean(axis=(1, 2))[:, 0]
        inside = (np.abs(gaze - 0.5) < (0.38, 0.24)).all(axis=1)
        slope, base = np.polyfit(gaze[inside, 0], red[inside], 1)
        np.testing.assert_allclose(red[inside], base + slope * gaze[inside, 0], atol=1.5)
        assert SCALES[0] * 228 < slope < SCALES[1] * 232, "a crop is 0.4 to 1 times as wide as fits"


def test_a_crop_of_what_is_there_is_taken_rather_than_a_blank_one(tmp_path: Path) -> None:
    """The right 0.45 of the picture is noise, the rest a plain grey."""
    grey = np.full((240, 640, 3), 128, np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, (24, 29, 3), np.uint8)
    grey[:, 352:] = cv2.resize(noise, (288, 240), interpolation=cv2.INTER_CUBIC)
    assert cv2.imwrite(str(tmp_path / "half.png"), grey)
    assert blank_parts(grey.mean(axis=2)) == 4
    path = table(tmp_path / "a_events.tsv", 260)
    scenes = scenes_under(path, [tmp_path / "half.png"], seed=0, count=12, length=20, quiet=True)
    spread = np.array([scenes.seen.patches[scenes.scene == scene].std() for scene in range(12)])
    assert (spread > 20).all(), "no scene is plain grey"


def test_what_shows_nothing_is_no_scene(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "black.png"), np.zeros((100, 200, 3), np.uint8))
    path, noise = table(tmp_path / "a_events.tsv", 130), picture(tmp_path / "noise.png")
    scenes = scenes_under(path, [noise, tmp_path / "black.png"], seed=0, count=6, length=20, quiet=True)
    assert np.bincount(scenes.scene).tolist() == [20] * 3
    with pytest.raises(CalibrationSourceError, match="no fixation shows anything"):
        scenes_under(path, [tmp_path / "black.png"], seed=0, count=2, length=20, quiet=True)


def run(tmp_path: Path, *words: str) -> list[dict[str, Any]]:
    rows = tmp_path / "rows.json"
    common = ["--scanpath", str(tmp_path / "a_events.tsv"), "--pictures", str(tmp_path / "noise.png")]
    common += ["--fixations", "200", "--seeds", "0", "--quiet", "--cache", str(tmp_path / "cache"), "--json", str(rows)]
    assert experiment_cli.main(["scenes", *common, *words]) == 0
    held: list[dict[str, Any]] = json.loads(rows.read_text())["rows"]
    return held


def test_scenes_has_a_row_for_each_learner_and_each_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment_cli, "KeptFeatures", FakeFeatures)
    table(tmp_path / "a_events.tsv", 210)
    picture(tmp_path / "noise.png")
    learners = ("plain", "plain-memoryless", "still-shuffled", "still-wrong-places")
    held = run(tmp_path, "--learners", *learners)
    assert [row["learner"] for row in held] == ["plain-frozen", *learners, "plain less plain-memoryless"]
    assert {(row["scenes"], row["fixations"], row.get("judged", False)) for row in held} == {(2, 200, False)}
    assert len({row["config"] for row in held}) == 5, "both controls are of one learner"
    assert all(row["largest_state"] > 0 for row in held[:-1])
    assert [row["learner"] for row in held if "curve" not in row] == ["still-shuffled", "plain less plain-memoryless"]
    assert held[0]["skill"] is None, "one scene has no interval"
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "learner",
        *learners,
        "plain less plain-memoryless",
    ]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("run again")

    from service import experiment_scenes

    monkeypatch.setattr(experiment_scenes, "run_scenes", never)
    assert run(tmp_path, "--learners", *learners) == held
    # the difference is lost: it is made again from what both runs left, without running them
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps({"experiment": "scenes", "rows": held[:-1]}))
    assert run(tmp_path, "--learners", "plain", "plain-memoryless") == held


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--learners", "nobody"], "no learner 'nobody'"), ([], "scenes needs --scanpath PATH")],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(ExperimentRefused, match=said):
        experiment_cli.main(["scenes", "--quiet", "--cache", str(tmp_path), *words])


def test_what_differs_in_what_is_told_of_the_gaze_is_not_run_where_there_is_none() -> None:
    assert {"default", "mlp", "dense", "long", "paper", "memoryless"} <= set(WITHOUT_GAZE)
    assert not {"still", "no-place", "action", "plain", "plain-frozen"} & set(WITHOUT_GAZE)
    assert set(WITHOUT_GAZE) < set(LEARNERS)
