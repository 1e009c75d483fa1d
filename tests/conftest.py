from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers import ROOT, free_port, start_rjepa, wait_until


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of real recordings that may lie beside the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the recordings are not on this machine (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def browser_path() -> str:
    """An installed Chromium; its absence skips on a laptop and fails in CI."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI"):
        pytest.fail("chromium is needed in CI")
    if found is None:
        pytest.skip("no chromium on this machine (Debian: apt install chromium)")
    return found


@pytest.fixture(scope="session")
def made_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory made once by a real worker (random weights, seed 0), never learned in: copy it."""
    from service.control import ControlClient

    folder = tmp_path_factory.mktemp("made")
    data_dir = folder / "data"
    words = ["--data-dir", data_dir, "--weights", "random", "--seed", "0"]
    ports = ["--ingest", f"tcp://127.0.0.1:{free_port()}", "--publish", f"tcp://127.0.0.1:{free_port()}"]
    with start_rjepa("worker", *words, *ports, logs=folder / "logs") as worker:

        def ready() -> bool:
            assert worker.alive(), worker.stderr()[-3000:]
            if not (data_dir / "control.sock").exists():
                return False
            return not ControlClient(data_dir).ask({"op": "status"}, timeout_s=5.0)["recovering"]

        wait_until(ready, 170.0, "a new data directory")
        assert worker.terminate() == 0, worker.stderr()[-3000:]
    return data_dir


@pytest.fixture
def data_dir(made_directory: Path, tmp_path: Path) -> Path:
    """A copy of the ready-made data directory, this test's own."""
    folder = tmp_path / "data"
    shutil.copytree(made_directory, folder)
    return folder
