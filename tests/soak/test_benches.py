"""Every part of the benches that needs a worker or a rival, for a few seconds: it measures, and tells it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rjepa

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

SHORT = {
    "pipeline": ["--streams", "2", "--seconds", "2", "--beside", "2", "--parts", "load", "checkpoint", "export"],
    "recover": ["--fixations", "300", "--rounds", "1"],
    "start": ["--rounds", "1"],
    "ingest": ["--fixations", "2000", "--rounds", "1"],
}


@pytest.mark.parametrize("name", [*SHORT, "import", "recovery"])
def test_a_short_one(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = ["--beside", "2", "--seconds", "2", "--parts", name]
    words = [name, *SHORT[name]] if name in SHORT else ["pipeline", *pipeline]
    assert rjepa.main(["bench", *words, "--quiet", "--json", str(tmp_path / "found.json")]) == 0
    told = capsys.readouterr().out
    print(told)
    assert json.loads((tmp_path / "found.json").read_text())["command"].endswith("found.json")
    assert len(told.strip().splitlines()) >= 3


def test_the_rivals_of_the_retina(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    assert rjepa.main(["bench", "retina", "--shapes", "1", "--seconds", "1", "--threads", "1", "--quiet"]) == 0
    row = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert row[:2] == ["1", "1"]
    assert all(float(cell) > 0.0 for cell in row)
