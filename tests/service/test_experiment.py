from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from model import alignment, collapse, figure_four, gate_scale, learners
from model.config import RetinaConfig
from model.weights import parse_weights
from model.worlds import make_world
from service import (
    experiment_cli,
    experiment_features,
    experiment_scenes,
    experiment_world,
    learning_page,
    offline,
)
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, as_markdown, as_text, digest, table
from tests.helpers import ROOT

DOC = ROOT / "docs" / "learning.md"


class FakeFeatures:
    """Features without a retina: a fixed random map of the pixels."""

    asked = 0

    def __init__(self, folder: Path, source: Any, **_: Any) -> None:
        self.folder, self.source = folder, source

    def calibration(self, config: RetinaConfig) -> Any:
        return SimpleNamespace(digest=f"{config.features:064d}")

    def features(self, config: RetinaConfig, patches: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        type(self).asked += 1
        random = np.random.default_rng(config.features)
        flat = patches.reshape(len(patches), -1)[:, ::25].astype(np.float32) / 128.0 - 1.0
        return (flat @ (random.standard_normal((flat.shape[1], config.features)) / 12.0)).astype(np.float32)

    def reader(self, config: RetinaConfig) -> Any:
        return lambda patches: self.features(config, patches)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeFeatures]:
    monkeypatch.setattr(experiment_cli, "KeptFeatures", FakeFeatures)
    FakeFeatures.asked = 0
    return FakeFeatures


def world(tmp_path: Path, *words: str) -> int:
    common = ["--quiet", "--cache", str(tmp_path / "cache"), "--back", "2", "--fixations", "120"]
    return experiment_cli.main(["world", *common, *words])


def test_the_command_writes_its_rows_and_its_table(
    tmp_path: Path, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.json"
    assert world(tmp_path, "--seeds", "0", "1", "--learners", "default", "frozen", "--json", str(rows)) == 0
    held = json.loads(rows.read_text())
    assert held["experiment"] == "world"
    found = [(row["learner"], row["seed"], row["back"], row["fixations"]) for row in held["rows"]]
    assert found == [(name, seed, 2, 120) for name in ("default", "frozen") for seed in (0, 1)]
    assert all(0.0 < row["optimum"] < row["carry_mean"] for row in held["rows"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["k", "fixations", "stream"]
    assert [line.split()[3] for line in out[1:]] == ["default", "frozen"]


def test_what_is_finished_is_not_computed_again(tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.json"
    words = ["--learners", "default", "--json", str(rows)]
    assert world(tmp_path, "--seeds", "0", *words) == 0
    before = json.loads(rows.read_text())["rows"]
    asked = fake.asked
    assert world(tmp_path, "--seeds", "0", *words) == 0
    assert fake.asked == asked
    assert world(tmp_path, "--seeds", "0", "1", *words) == 0
    assert fake.asked == asked + 1
    after = json.loads(rows.read_text())["rows"]
    assert after[0] == before[0]
    assert len(after) == 2


def test_an_interrupted_run_keeps_and_tells_what_is_finished(
    tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(features: Any, back: int, steps: int, *, seed: int) -> Any:
        if seed == 1:
            raise KeyboardInterrupt
        return make_world(features, back, steps, seed=seed)

    monkeypatch.setattr(experiment_world, "make_world", interrupted)
    rows = tmp_path / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        world(tmp_path, "--seeds", "0", "1", "--learners", "default", "--json", str(rows))
    assert len(json.loads(rows.read_text())["rows"]) == 1
    assert "default" in capsys.readouterr().out


def test_a_shuffled_world_has_rows_of_its_own(tmp_path: Path, fake: Any) -> None:
    rows = tmp_path / "rows.json"
    for words in ([], ["--shuffled"]):
        assert world(tmp_path, "--seeds", "0", "--learners", "default", "--json", str(rows), *words) == 0
    held = json.loads(rows.read_text())["rows"]
    assert [row["stream"] for row in held] == ["planted", "shuffled"]
    assert held[1]["share"] is None


def test_markdown(tmp_path: Path, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert world(tmp_path, "--seeds", "0", "--learners", "default", "--markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| k | fixations | stream | learner | seeds | share of the optimum |")
    assert set(lines[1]) <= set("| -")
    assert lines[2].startswith("| 2 | 120 | planted | default |")


def test_a_picture_of_a_world(tmp_path: Path) -> None:
    path = tmp_path / "world.png"
    assert experiment_cli.main(["world", "--show", str(path), "--seeds", "3", "--back", "5"]) == 0
    picture = cv2.imread(str(path))
    assert picture is not None
    assert picture.shape[0] > 500
    with pytest.raises(ExperimentRefused, match="can't be written"):
        experiment_cli.main(["world", "--show", str(tmp_path / "none" / "world.png")])


@pytest.mark.parametrize(
    ("words", "said"),
    [(["world", "--learners", "nobody"], "no learner 'nobody'"), (["streams"], "--scanpath PATH and --video")],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, fake: Any, words: list[str], said: str) -> None:
    with pytest.raises(ExperimentRefused, match=said) as refused:
        experiment_cli.main([*words, "--quiet", "--cache", str(tmp_path)])
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"experiment": "streams", "rows": []}', '{"experiment": "world", "rows": [{}]}']
)
def test_another_file_is_not_overwritten(tmp_path: Path, fake: Any, text: str) -> None:
    rows = tmp_path / "rows.json"
    rows.write_text(text)
    with pytest.raises(ExperimentRefused, match="holds no rows of world"):
        world(tmp_path, "--json", str(rows))
    assert rows.read_text() == text


def test_rows_are_found_by_their_key_and_replaced(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "deep" / "rows.json", "world", ("learner", "seed"))
    kept.add({"learner": "default", "seed": 0, "share": 0.5})
    kept.add({"learner": "default", "seed": 1, "share": 0.6})
    kept.add({"learner": "default", "seed": 0, "share": 0.7})
    again = KeptRows(tmp_path / "deep" / "rows.json", "world", ("learner", "seed"))
    assert again.find({"learner": "default", "seed": 0}) == {"learner": "default", "seed": 0, "share": 0.7}
    assert again.find({"learner": "frozen", "seed": 0}) is None
    assert len(again.rows) == 2


def test_a_row_of_another_version_is_run_again_and_replaced(tmp_path: Path) -> None:
    kept = KeptRows(tmp_path / "rows.json", "world", ("learner", "seed", "config", "calibration"))
    old, new = ({"learner": "default", "seed": 0, "config": name, "calibration": "c"} for name in ("old", "new"))
    kept.add(old)
    assert kept.find(new) is None
    kept.add(new)
    assert KeptRows(tmp_path / "rows.json", "world", ("learner", "seed", "config", "calibration")).rows == [new]


def test_a_table_never_mixes_two_versions_nor_counts_a_seed_twice() -> None:
    one = {"k": 2, "seed": 0, "config": "a", "share": 0.1}
    for other in ({**one, "seed": 1, "config": "b"}, {**one, "share": 0.2}):
        with pytest.raises(ExperimentRefused, match="two versions or twice of one seed"):
            table([one, other], (Column("k", "k"),), (Column("share", "share"),))


def test_a_table_hides_no_seed() -> None:
    rows = [{"k": 2, "told": 750, "word": "yes", "by": True}, {"k": 2, "told": None, "word": "no", "by": False}]
    columns = (Column("told", "told", 0, each=True), Column("word", "word"), Column("by", "by"))
    assert table(rows, (Column("k", "k"),), columns)[1] == ["2", "– (750 –)", "yes / no", "True / False"]
    alike = [{"k": 2, "word": "yes"}, {"k": 2, "word": "yes"}]
    assert table(alike, (Column("k", "k"),), (Column("word", "word"),))[1] == ["2", "yes"]


def test_a_table_tells_means_and_each_seed() -> None:
    rows = [{"k": 2, "share": share, "low": None, "live": 1e-9} for share in (0.25, 0.75)] + [{"k": 5, "share": 0.1}]
    columns = (Column("share", "share", 2, each=True), Column("low", "low"), Column("live", "live"))
    lines = table(rows, (Column("k", "k"),), columns)
    assert lines == [["k", "share", "low", "live"], ["2", "0.50 (0.25 0.75)", "–", "1e-09"], ["5", "0.10", "–", "–"]]
    assert as_markdown(lines).splitlines()[2] == "| 2 | 0.50 (0.25 0.75) | – | 1e-09 |"
    assert as_text(lines).splitlines()[2] == "5  0.10              –    –"


def test_features_are_computed_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.model.retinas import SMALL, small_retina

    small = small_retina()
    monkeypatch.setattr(experiment_features, "calibrate", lambda *_, **__: small.calibration)
    patches = np.random.default_rng(0).integers(0, 255, (5, 50, 50, 3), np.uint8)
    kept = KeptFeatures(tmp_path, parse_weights("random"), seed=0, quiet=True)
    z = kept.features(SMALL, patches)
    np.testing.assert_allclose(z, small.retina.features(patches), rtol=1e-4, atol=1e-4)

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    monkeypatch.setattr(experiment_features, "calibrate", never)
    monkeypatch.setattr(experiment_features, "Retina", never)
    again = KeptFeatures(tmp_path, parse_weights("random"), seed=0, quiet=True)
    np.testing.assert_array_equal(again.features(SMALL, patches), z)
    with pytest.raises(AssertionError, match="computed again"):
        again.features(SMALL, patches[:4])


def film(path: Path, level: int, frames: int = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (120, 60))
    random = np.random.default_rng(level)
    for _ in range(frames):
        writer.write(np.clip(random.integers(0, 40, (60, 120, 3)) + level, 0, 255).astype(np.uint8))
    writer.release()
    return path


def scanpath(folder: Path, count: int) -> Path:
    heading = "onset\tduration\tlabel\tstart_x\tstart_y\tend_x\tend_y\n"
    rows = [f"{0.5 * i}\t0.3\tFIXA\t{100 + 20 * i}\t200\t{100 + 20 * i}\t200\n" for i in range(count)]
    path = folder / "a_events.tsv"
    path.write_text(heading + "".join(rows) + f"{0.5 * count}\t0.3\tFIXA\t-50\t200\t-50\t200\n")
    return path


def test_a_scanpath_over_one_video_goes_round(tmp_path: Path) -> None:
    path = scanpath(tmp_path, 12)
    seen = offline.scanpath_over(path, [film(tmp_path / "grey.avi", 120)], seed=0)
    assert seen.patches.shape == (12, 50, 50, 3), "the one off the frame is left out"
    assert seen.gaze.shape == (12, 2)
    np.testing.assert_allclose(seen.gaze[:, 0], (100 + 20 * np.arange(12)) / 1280)
    assert seen.frame_deg == (23.75, 10.13)
    # 2 s of video, a fixation each half second: the fifth sees the frame of the first, elsewhere
    few = offline.scanpath_over(path, [tmp_path / "grey.avi"], seed=0, count=5)
    np.testing.assert_array_equal(few.patches, seen.patches[:5])


def test_shots_of_several_videos_are_cut_to_each_other(tmp_path: Path) -> None:
    videos = [film(tmp_path / "dark.avi", 60), film(tmp_path / "light.avi", 200)]
    path = scanpath(tmp_path, 50)
    seen = offline.scanpath_over(path, videos, seed=0)
    light = seen.patches.mean(axis=(1, 2, 3)) > 130
    assert light.any()
    assert not light.all()
    changes = int((light[1:] != light[:-1]).sum())
    assert 1 <= changes <= 8, "shots last 3 s and more: six fixations"
    np.testing.assert_array_equal(offline.scanpath_over(path, videos, seed=0).patches, seen.patches)
    assert not np.array_equal(offline.scanpath_over(path, videos, seed=1).patches, seen.patches)


def test_streams_has_a_row_for_each_learner(tmp_path: Path, fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--scanpath", str(scanpath(tmp_path, 40)), "--video", str(film(tmp_path / "grey.avi", 120))]
    rows = tmp_path / "rows.json"
    common = ["--seeds", "0", "--learners", "default", "memoryless", "--json", str(rows), "--quiet"]
    assert experiment_cli.main(["streams", *words, *common, "--cache", str(tmp_path)]) == 0
    held = json.loads(rows.read_text())["rows"]
    assert [(row["stream"], row["learner"], row["fixations"], row["judged"]) for row in held] == [
        ("grey", "default", 40, False),
        ("grey", "memoryless", 40, False),
    ]
    assert {"skill", "skill_low", "learned_skill", "rank_ratio", "probe_ceiling", "live_cosine"} <= set(held[0])
    assert "grey" in capsys.readouterr().out


def configs(name: str, row: dict[str, Any]) -> Any:
    """What a row of docs/learning was made by, as it is today; None where none made it: a difference, a comparison."""
    if name == "fidelity":
        return gate_scale.config_of(row["circuit"]).model_dump(mode="json")
    if name == "compare":
        return None
    if name == "alignment":
        setting = alignment.settings()[row["setting"]]
        return [setting.config.model_dump(mode="json"), setting.weight_decay]
    if name == "learning":
        return figure_four.config_of(row["method"]).model_dump(mode="json")
    if name == "collapse":
        setting = collapse.settings(gaze=not row["stream"].startswith("planted"))[row["setting"]]
        return [setting.config.model_dump(mode="json"), setting.weight_decay]
    learner, _ = experiment_scenes.CONTROLS.get(row["learner"], (row["learner"], None))
    gaze = row.get("gaze", name != "world")
    return None if " less " in learner else learners.config_of(learner, gaze=gaze).model_dump(mode="json")


@pytest.mark.parametrize("path", sorted(DOC.with_suffix("").glob("*.json")), ids=lambda path: path.stem)
def test_the_rows_are_of_the_learners_there_are_today(path: Path) -> None:
    for row in json.loads(path.read_text())["rows"]:
        config = configs(path.stem, row)
        assert config is None or row["config"] == digest(config), row


def test_the_pages_tables_are_those_of_the_rows() -> None:
    text = DOC.read_text()
    assert learning_page.page(text, DOC.with_suffix("")) == text, "python -m service.learning_page"


def test_a_table_is_written_anew_and_the_rest_is_left(tmp_path: Path) -> None:
    row = {"circuit": "dense", "scale": 0.1, "cosine": 0.99, "relative_error": 0.13, "seed": 0, "config": "x"}
    (tmp_path / "fidelity.json").write_text(json.dumps({"experiment": "fidelity", "rows": [row]}))
    text = "before\n<!-- table fidelity -->\nold\n<!-- end -->\nafter\n"
    fresh = learning_page.page(text, tmp_path)
    assert "| dense | 0.1 | 0.9900 | 0.13 |" in fresh
    assert "old" not in fresh
    assert fresh.startswith("before\n")
    assert fresh.endswith("<!-- end -->\nafter\n")
    assert learning_page.page(fresh, tmp_path) == fresh
