"""The notebook: plain, without outputs, and every cell runs over a folder of recordings."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.lab import LIMIT_S, Lab, a_recording
from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
RUNNER = Path(__file__).with_name("run_notebook.py")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_a_notebook_without_outputs(path: Path) -> None:
    held: dict[str, Any] = json.loads(path.read_text())
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    assert held["metadata"]["kernelspec"]["language"] == "python"
    ids = [cell["id"] for cell in held["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in held["cells"]:
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | (
            {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        )
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    told = "".join("".join(cell["source"]) for cell in held["cells"])
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", told):
        assert (path.parent / target).exists(), target


def test_a_folder_of_recordings(lab: Lab) -> None:
    """Real ones if they are on this machine, else made ones; either way every cell, in a process of its own."""
    folder = lab.folder / "notebook"
    (folder / "recordings").mkdir(parents=True)
    real = ROOT.parent / "shared" / "data" / "andersson2017"
    options: dict[str, str] = {}
    if real.is_dir():
        for viewer in ("TH34", "TH46"):
            gaze = real / "gaze_videos" / f"{viewer}_video_BergoDalbana_labelled_RA.mat"
            (folder / "recordings" / f"{viewer}.mat").symlink_to(gaze)
            (folder / "recordings" / f"{viewer}.avi").symlink_to(real / "videos" / "BergoDalbana.avi")
    else:
        a_recording(folder / "recordings", "one", "one", 3.0)
        a_recording(folder / "recordings", "two", "two", 2.0)
        options = {"OPTIONS = {}": "OPTIONS = dict(px_per_degree=31.5)"}
    (path,) = NOTEBOOKS
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(path), json.dumps(options)],
        cwd=folder, env=lab.env, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    fixations = [int(count) for count in re.findall(r"(?m)^\w+: (\d+) fixations, the longest", done.stdout)]
    assert len(fixations) == 2
    assert min(fixations) > 5
    assert f"(({sum(fixations)}, 256), ({sum(fixations)},))" in done.stdout, "embeddings, a row for each"
    assert "not learning yet (too few fixations" in done.stdout
    assert re.search(r"RSA: rho = -?0\.\d+, p = [01]\.\d+", done.stdout)
    assert "Warning" not in done.stderr, done.stderr
