"""``rjepa api`` as a process: how it starts, refuses and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from service.access_cli import make_token
from service.parent import VARIABLE
from tests.helpers import ROOT, Running, environment, free_port, run_rjepa, start_rjepa, wait_until


def answers(process: Running, port: int) -> bool:
    assert process.alive(), process.stderr()
    try:
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_asked_with_code_0(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    with start_rjepa("api", f"--data-dir={tmp_path}", f"--http=127.0.0.1:{port}", logs=tmp_path / "logs") as process:
        wait_until(lambda: answers(process, port), 30, "livez")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0), "learning goes first"
        process.process.send_signal(number)
        assert process.wait(10) == 0, process.stderr()
        assert "Traceback" not in process.stderr()
    with socket.create_server(("127.0.0.1", port)):
        pass  # the port is free again


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    port = free_port()
    reading, writing = os.pipe()
    with (tmp_path / "err").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "rjepa", "api", f"--data-dir={tmp_path}", f"--http=127.0.0.1:{port}"],
            cwd=ROOT,
            env=environment({VARIABLE: str(reading)}),
            pass_fds=[reading],
            stderr=errors,
        )
    os.close(reading)
    try:
        running = Running(process, tmp_path / "out", tmp_path / "err")
        wait_until(lambda: answers(running, port), 30, "livez")
        os.close(writing)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_rjepa("api", f"--data-dir={tmp_path}", f"--http={address}")
    assert done.returncode == 4
    assert f"{address} is taken" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_open_address_needs_tokens(tmp_path: Path) -> None:
    done = run_rjepa("api", f"--data-dir={tmp_path}", "--http=0.0.0.0:0")
    assert done.returncode == 2
    assert "rjepa token add" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    make_token(tmp_path / "access", "screen", "read")
    port = free_port()
    with start_rjepa("api", f"--data-dir={tmp_path}", f"--http=0.0.0.0:{port}", logs=tmp_path / "logs") as process:
        wait_until(lambda: answers(process, port), 30, "livez")
        assert httpx.get(f"http://127.0.0.1:{port}/v1/streams", timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--http=203.0.113.1:8000"], "rjepa token add"),
        (["--http=localhost"], "HOST:PORT"),
        (["--wrong=1"], "--wrong"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path: Path, words: list[str], told: str) -> None:
    done = run_rjepa("api", f"--data-dir={tmp_path}", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    make_token(tmp_path / "access", "screen", "read")
    done = run_rjepa("api", f"--data-dir={tmp_path}", "--http=203.0.113.1:8000")
    assert done.returncode == 2
    assert "can't be opened" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_broken_token_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "tokens.json").write_text("[]")
    done = run_rjepa("api", f"--data-dir={tmp_path}", "--http=127.0.0.1:0")
    assert done.returncode == 2
    assert "tokens.json" in done.stderr
