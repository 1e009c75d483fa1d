"""`rjepa doctor` at a real worker with keys: what it says, its exit code, and that it moves nothing there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from clients.sender import Sender
from service.control import ControlClient
from tests.clients.fake_capture import capturing
from tests.end_to_end.workers import working
from tests.helpers import ROOT, environment, free_port, patches, run_rjepa

BLOCKED = ["torch", "torchvision", "fastapi", "uvicorn", "scipy", "model", "service"]


def doctor(*words: object, limit_s: float = 120.0) -> tuple[int, str]:
    """Run as a process in which nothing of the learning machine can be imported."""
    script = f"import sys\nfor name in {BLOCKED!r}: sys.modules[name] = None\nimport rjepa\nsys.exit(rjepa.main())"
    done = subprocess.run(
        [sys.executable, "-c", script, "doctor", "--cameras=0", "--within=20", *map(str, words)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def status(data_dir: Path) -> dict[str, Any]:
    told: dict[str, Any] = ControlClient(data_dir).ask({"op": "status"}, timeout_s=20.0)
    return told


@pytest.mark.soak  # ten calls at a real worker with keys: a minute; tests/clients/test_doctor.py has each answer
def test_at_a_worker_with_keys(data_dir: Path, tmp_path: Path) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    pairs = {}
    for name, where in (("anna", data_dir), ("stranger", tmp_path / "other")):
        pairs[name] = tmp_path / f"{name}.pair.json"
        words = ("--streams", "anna*", "--ingest", address, "--data-dir", where, "--out", pairs[name])
        made = run_rjepa("pair", name, *words)
        assert made.returncode == 0, made.stderr
    with working(data_dir, tmp_path / "logs", address) as worker, capturing() as capture:
        spool = tmp_path / "spool"
        with Sender(address, "anna-1", spool_dir=spool, key_file=pairs["anna"]) as sender:
            assert sender.wait_welcome(60) == 0
            before = status(data_dir)
            picture = tmp_path / "seen.png"
            words = (f"--pair={pairs['anna']}", "--stream=anna-1", f"--capture={capture.where}", f"--picture={picture}")
            code, told = doctor(*words)
            assert code == 0, told
            assert "with this computer's key; stream anna-1 may be written" in told
            assert "1280 x 720 px" in told
            assert cv2.imread(str(picture)) is not None
            for words, why in (
                ((f"--ingest={address}",), "asks for keys"),
                ((f"--pair={pairs['stranger']}",), "has another key"),
                ((f"--ingest={address}", f"--key={_unlisted(pairs, tmp_path)}"), "does not know this computer's key"),
                ((f"--pair={pairs['anna']}", "--stream=bert"), "may not write stream bert"),
            ):
                code, told = doctor(*words)
                assert code == 2, told
                assert why in told
                assert "--pair FILE" in told or "rjepa pair" in told
            assert status(data_dir)["owners"] == before["owners"], "nothing was claimed or moved"
            sender.offer(onset_s=0.0, duration_s=0.2, gaze=(0.5, 0.5), patch=patches(1)[0])
            assert sender.flush(timeout_s=60), "the stream's owner is still its owner"
        assert worker.process.terminate(60) == 0
    code, told = doctor(f"--pair={pairs['anna']}")
    assert code == 4
    assert "nothing listens" in told


def _unlisted(pairs: dict[str, Path], tmp_path: Path) -> Path:
    """A key file with the right worker's key, and a pair of keys that is on no list."""
    right, other = (json.loads(pairs[name].read_text()) for name in ("anna", "stranger"))
    path = tmp_path / "unlisted.json"
    path.write_text(json.dumps(other | {"server": right["server"]}))
    return path
