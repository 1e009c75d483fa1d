"""``schemathesis run``: every check it has, over the whole document, against a real worker and its interface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.service.api_support import interface
from tests.soak.test_fuzz_wire import live, tapped

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
EXAMPLES = 50
"""Generated calls of each operation in the phase of fuzzing; the other phases make as many as the document asks for."""


def test_schemathesis_finds_nothing(data_dir: Path, tmp_path: Path) -> None:
    with live(data_dir, tmp_path / "logs") as worker, interface(data_dir, request_rate=1e6) as client:
        tapped(worker.address, tmp_path)
        done = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("--config-file", ROOT / "tests" / "soak" / "schemathesis.toml"),
                *("run", f"{str(client.base_url).rstrip('/')}/openapi.json"),
                *("--seed", "1", "--max-examples", str(EXAMPLES), "--continue-on-failure"),
                *("--request-timeout", "120"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        assert worker.process.alive(), worker.process.stderr()[-3000:]
        assert "Traceback" not in worker.process.stderr()
        assert client.get("/readyz").status_code == 200
