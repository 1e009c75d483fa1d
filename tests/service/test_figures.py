"""Every experiment's pictures and page, from real rows: the files hold the series and the numbers they claim."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import matplotlib as mpl
import numpy as np
import pytest

import service.figures
from service import experiment_cli
from service.errors import ExperimentRefused
from service.experiment_cli import TOLD, draw, held
from service.figures import docs, pages
from service.figures.canvas import named
from tests.helpers import ROOT
from tests.service.test_experiment import FakeFeatures

LEARNING = ROOT / "docs" / "learning"
SVG = "{http://www.w3.org/2000/svg}"

FEW: dict[str, dict[str, tuple[Any, ...]]] = {
    "world": {"learner": ("default", "frozen", "paper"), "back": (2, 5)},
    "fidelity": {"circuit": ("two-point", "dense")},
    "learning": {"seed": (0, 1)},
    "alignment": {"setting": ("decay", "default")},
    "collapse": {"setting": ("P, W", "sgd", "default")},
    "streams": {"stream": ("bikes", "planted k=2"), "learner": ("default", "paper")},
    "endless": {"seed": (0, 1)},
    "participants": {"stream": ("demo",)},
    "scenes": {"learner": ("still", "default", "still-shuffled", "still less default")},
    "compare": {},
}
"""Real rows, as few as show everything."""
SERIES: dict[str, tuple[str, ...]] = {
    "world": ("mean-k-2-12000", "mean-k-5-40000"),
    "world-course": ("mean-default", "seed-2-frozen"),
    "fidelity": ("mean-two-point", "seed-0-dense"),
    "learning": (
        "mean-rfp-once-a-sequence",
        "mean-bptt-once-a-sequence",
        "mean-untrained-epoch-0",
        "seed-1-online-rfp",
    ),
    "alignment": ("mean-p-and-u-learn-both-decay", "law-0", "mean-the-preset-default-carry-least-squares"),
    "collapse-bikes-covariance": ("covariance-sgd", "covariance-default"),
    "collapse-bikes-spectrum": ("mean-learned", "mean-as-it-began", "seed-2-learned"),
    "collapse-bikes-told": ("mean-must-be-told", "mean-control", "interval-must-be-told-sgd"),
    "streams": ("mean-bikes", "interval-bikes-default", "interval-planted-k-2-default-shuffled"),
    "streams-measures": ("mean-prediction-p", "mean-copy-last", "mean-embedding-y"),
    "endless": ("mean-skill", "interval-skill", "mean-rank-ratio", "seed-1-largest-state"),
    "participants": ("mean-alone", "mean-by-turns", "interval-one-state-demo-participant-1"),
    "scenes": ("mean-skill-ar1", "interval-curve-still", "mean-returns"),
    "scenes-differences": ("interval-skill-ar1-still-less-default",),
    "compare": ("null-cka", "value-rsa", "interval-cka", "halves-rsa", "unlike-a", "unlike-b"),
}
LABELS = {
    "world": "share of the optimum (0: the mean, 1: the best there is), last quarter of the fixations",
    "world-course": "fixations (thousands)",
    "fidelity": "gate scale (standard deviation × √units a gate reads)",
    "learning": "position in the sequence (fixations)",
    "alignment": "fixations (thousands)",
    "collapse-bikes-covariance": "correlation of embedding dimensions (root mean square of a tile)",
    "collapse-bikes-spectrum": "share of the variance",
    "collapse-bikes-told": "first told (fixations)",
    "streams": "skill (share of the best trivial predictor's error that is saved), 95 %",
    "streams-measures": "R² of the next features",
    "endless": "fixations (thousands)",
    "participants": "skill, 95 % (share)",
    "scenes": "skill against AR(1) (share), 95 %",
    "scenes-differences": "difference in skill against AR(1) (share), 95 %",
    "compare": "similarity (1: the same)",
}


def few(experiment: str) -> list[dict[str, Any]]:
    _, rows = held(LEARNING / f"{experiment}.json")
    return [row for row in rows if all(row[name] in values for name, values in FEW[experiment].items())]


def line(tree: ElementTree.ElementTree[Any], gid: str) -> np.ndarray[Any, Any]:
    """The points of a series in the picture, (N, 2)."""
    group = next(node for node in tree.iter(f"{SVG}g") if node.get("id") == gid)
    found = next(node.get("d") or "" for node in group.iter(f"{SVG}path"))
    return np.array(re.findall(r"[ML] (\S+) (\S+)", found), dtype=float)


def test_every_experiment_is_drawn() -> None:
    assert set(pages.DRAWN) == set(TOLD) == set(FEW) == set(docs.SHOWN)


@pytest.mark.parametrize("experiment", FEW)
def test_rows_become_json_pictures_and_a_page(experiment: str, tmp_path: Path) -> None:
    rows, before = few(experiment), dict(mpl.rcParams)
    written = draw(experiment, rows, tmp_path)
    assert dict(mpl.rcParams) == before, "nothing global is touched"
    assert json.loads((tmp_path / f"{experiment}.json").read_text()) == {"experiment": experiment, "rows": rows}
    pictures = sorted(path.stem for path in tmp_path.glob("*.svg"))
    assert pictures == sorted(path.stem for path in tmp_path.glob("*.png"))
    assert set(docs.SHOWN[experiment]) <= set(pictures)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    page = (tmp_path / f"{experiment}.md").read_text()
    for name in pictures:
        shape = cv2.imread(str(tmp_path / f"{name}.png")).shape
        assert shape[1] == 1136, "two columns of a journal at 160 dots per inch"
        assert f"]({name}.svg)" in page
        tree = ElementTree.parse(tmp_path / f"{name}.svg")
        ids = {node.get("id") for node in tree.iter()}
        assert set(SERIES[name]) <= ids, sorted(str(one) for one in ids if one and "-" in one)
        text = {"".join(node.itertext()).strip() for node in tree.iter(f"{SVG}text")}
        assert LABELS[name] in text, sorted(text)
        assert pages.source_of(rows) in (tmp_path / f"{name}.svg").read_text()
    assert page.count("\n- ") >= 2
    assert "no number" not in page
    assert "nan" not in page.lower()


def test_a_line_has_the_numbers_and_the_page_says_them(tmp_path: Path) -> None:
    rows = few("learning")
    draw("learning", rows, tmp_path)
    tree = ElementTree.parse(tmp_path / "learning.svg")
    for method, gid in (("rfp", "mean-rfp-once-a-sequence"), ("frozen", "mean-circuit-frozen")):
        mine = [row for row in rows if row["method"] == method]
        wanted = np.array([np.mean([row[f"error_{at}"] for row in mine]) for at in range(1, 12)])
        drawn = line(tree, gid)
        assert drawn.shape == (11, 2)
        assert np.corrcoef(drawn[:, 1], wanted)[0, 1] == pytest.approx(-1.0, abs=1e-6), "downwards is less"
        assert (np.diff(drawn[:, 0]) > 0.0).all()
        said = next(
            text
            for text in (tmp_path / "learning.md").read_text().splitlines()
            if text.startswith(f"- {_said(method)}")
        )
        assert f"{wanted[:4].mean():.2f} before position 5, {wanted[4:].mean():.2f} from there on" in said


def _said(method: str) -> str:
    return {"rfp": "RFP, once a sequence", "frozen": "circuit frozen"}[method]


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows = few("participants")
    one, other = draw("participants", rows, tmp_path / "one"), draw("participants", rows, tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_an_experiment_draws_what_it_ran_and_goes_on_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment_cli, "KeptFeatures", FakeFeatures)
    common = ["--seeds", "0", "--quiet", "--cache", str(tmp_path / "cache"), "--figures", str(tmp_path / "drawn")]
    words = ["alignment", "--settings", "decay", "--fixations", "40", *common]
    assert experiment_cli.main(words) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / "drawn").iterdir()}
    assert set(first) == {"alignment.json", "alignment.png", "alignment.svg", "alignment.md"}
    assert b"40 fixations" in first["alignment.md"]
    asked = FakeFeatures.asked
    assert experiment_cli.main(words) == 0
    assert FakeFeatures.asked == asked, "the rows beside the picture are those of --json"
    assert {path.name: path.read_bytes() for path in (tmp_path / "drawn").iterdir()} == first
    rows = tmp_path / "drawn" / "alignment.json"
    assert experiment_cli.main(["draw", str(rows), "--figures", str(tmp_path / "again")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first


def test_rows_kept_elsewhere_are_drawn_too(tmp_path: Path) -> None:
    rows, array = tmp_path / "rows.json", str(tmp_path / "a.npy")
    np.save(array, np.random.default_rng(0).standard_normal((20, 4)))
    for seed in ("0", "1"):
        more = ["--seed", seed, "--json", str(rows), "--figures", str(tmp_path / "drawn"), "--draws", "9", "--quiet"]
        assert experiment_cli.main(["compare", array, array, *more]) == 0
    assert len(json.loads(rows.read_text())["rows"]) == 4
    assert [row["seed"] for row in json.loads((tmp_path / "drawn" / "compare.json").read_text())["rows"]] == [1, 1]


def test_what_can_not_be_drawn_is_said(tmp_path: Path) -> None:
    empty, other, none = tmp_path / "empty.json", tmp_path / "other.json", tmp_path / "none.json"
    empty.write_text('{"experiment": "world", "rows": []}')
    other.write_text('{"experiment": "hope", "rows": []}')
    for path, said in ((empty, "nothing to draw"), (other, "no experiment 'hope'"), (none, "No such file")):
        with pytest.raises(ExperimentRefused, match=said):
            experiment_cli.main(["draw", str(path), "--figures", str(tmp_path / "drawn")])
    rows = few("participants")
    with pytest.raises(ExperimentRefused, match="another version; run the experiment again"):
        draw("participants", [{"learner": "default"}], tmp_path)
    with pytest.raises(ExperimentRefused, match="two versions"):
        draw("participants", [*rows, {**rows[0], "config": "other"}], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentRefused, match="name another folder with --figures"):
        draw("participants", rows, tmp_path / "file")


def test_a_seed_without_a_number_takes_the_mean_away_and_not_the_picture(tmp_path: Path) -> None:
    rows = [{**row, "cosine": None, "relative_error": None} if row["seed"] == 1 else row for row in few("fidelity")]
    draw("fidelity", rows, tmp_path)
    tree = ElementTree.parse(tmp_path / "fidelity.svg")
    assert not list(next(node for node in tree.iter(f"{SVG}g") if node.get("id") == "mean-dense").iter(f"{SVG}use"))


def test_without_matplotlib_pictures_are_refused_before_anything_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "figures", service.figures)  # put back at the end, as are the modules
    for name in [name for name in sys.modules if name.startswith("service.figures")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExperimentRefused, match=r"pip install 'rjepa\[figures\]'"):
        experiment_cli.main(["fidelity", "--figures", "/nowhere"])


@pytest.mark.parametrize("experiment", docs.SHOWN)
def test_the_pictures_of_the_docs_are_of_the_rows_there_are(experiment: str) -> None:
    _, rows = held(LEARNING / f"{experiment}.json")
    told = (ROOT / "docs" / "figures.md").read_text()
    assert f"rjepa experiment {experiment}" in told
    for name in docs.SHOWN[experiment]:
        svg = ROOT / "docs" / "images" / f"{name}.svg"
        assert f"(images/{name}.svg)" in told
        assert pages.source_of(rows) in svg.read_text(), "make docs"
        assert svg.stat().st_size < 150_000


def test_the_pictures_of_the_docs_are_drawn_as_today(tmp_path: Path) -> None:
    """One of them to the byte, where matplotlib is the one they were drawn with."""
    (svg,) = docs.draw(LEARNING / "learning.json", ["learning"], tmp_path)
    kept = (ROOT / "docs" / "images" / "learning.svg").read_text()
    if f"matplotlib {mpl.__version__}<" not in kept:
        pytest.skip("the docs were drawn with another matplotlib")
    assert svg.read_text() == kept, "make docs"


def test_names_of_files_and_series() -> None:
    assert named("planted k=5") == "planted-k-5"
    assert named("P, W, U, V") == "p-w-u-v"
