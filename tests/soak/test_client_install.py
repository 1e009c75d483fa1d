"""The wheel in an empty environment: what an acquisition computer installs, its size, and that it works there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import write_video
from tests.clients.peer import Peer, running_peer
from tests.helpers import ROOT, environment, free_port, patches

pytestmark = pytest.mark.soak

LARGEST_MB = 300
OLDEST = "python3.10"
"""Taken where it is there; else the Python of these tests."""


def said(*words: str | Path, code: int = 0, cwd: Path | None = None) -> str:
    """Output of a command that ends with ``code``."""
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, check=False, timeout=3600, cwd=cwd, env=environment()
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def an_old_python() -> str:
    found = shutil.which(OLDEST)
    if (
        found is not None
        and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0
    ):
        return found
    return sys.executable


def the_wheel(folder: Path) -> Path:
    """What ``make wheel`` makes, built of a copy, so that nothing an earlier build left is in it."""
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "dist", "node_modules", "tests", "*.egg-info")
    )
    said(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source)
    (wheel,) = folder.glob("*.whl")
    return wheel


def size_mb(folder: Path) -> float:
    """Of everything in it, each file once, in units of 1e6 bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def test_the_base_install(tmp_path: Path) -> None:
    wheel, empty = the_wheel(tmp_path), tmp_path / "empty"
    said(an_old_python(), "-m", "venv", empty)
    there = empty / ("Scripts" if os.name == "nt" else "bin")
    python, rjepa = there / "python", there / "rjepa"
    said(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    print(f"\nbase install: {size_mb(empty):.0f} MB with {said(python, '--version').strip()}", flush=True)
    assert size_mb(empty) < LARGEST_MB
    everything = (
        "import clients, importlib, importlib.util, pkgutil\n"
        "for module in pkgutil.walk_packages(clients.__path__, 'clients.'): importlib.import_module(module.name)\n"
        "from rjepa import Sender\n"
        "print(*[name for name in ('torch', 'torchvision', 'fastapi', 'scipy') if importlib.util.find_spec(name)])"
    )
    assert said(python, "-c", everything, cwd=tmp_path).split() == [], "nothing of the learning machine came with it"
    assert "pip install 'rjepa[service]'" in said(rjepa, "worker", "--weights=random", code=1, cwd=tmp_path)
    nowhere = (f"--ingest=tcp://127.0.0.1:{free_port()}", f"--capture=127.0.0.1:{free_port()}", "--cameras=0")
    assert "pip install 'rjepa[" in said(rjepa, "doctor", *nowhere, code=4, cwd=tmp_path)
    with running_peer() as peer:
        _streams(peer, rjepa, tmp_path)


def _streams(peer: Peer, rjepa: Path, tmp_path: Path) -> None:
    said(rjepa, "doctor", f"--ingest={peer.address}", "--cameras=0", "--within=20", cwd=tmp_path)
    video = write_video(tmp_path / "scene.avi", [patch.repeat(5, 0).repeat(5, 1) for patch in patches(50)])
    words = (
        "stream",
        "simulated",
        video,
        "--fixations=20",
        "--speed=max",
        "--stream=s1",
        f"--spool={tmp_path / 'spool'}",
    )
    said(rjepa, *words, f"--ingest={peer.address}", cwd=tmp_path)
    assert len(peer.messages("s1")) == 20
