"""What several tests need: waiting for a condition, real ``rjepa`` processes, free ports, a plain client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

ROOT = Path(__file__).resolve().parent.parent


def wait_until(condition: Callable[[], Any], limit_s: float, what: str) -> Any:
    """Ask ``condition`` until it gives something true, and return that; fail after ``limit_s`` seconds."""
    import time

    end = time.monotonic() + limit_s
    tick = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {limit_s} s in vain for {what}")
        tick.wait(0.02)


def free_port() -> int:
    """A TCP port of the loopback that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Running:
    """A started ``rjepa`` process, in a process group of its own, its output in files."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def stdout(self) -> str:
        return self.out.read_text(errors="replace")

    def stderr(self) -> str:
        return self.err.read_text(errors="replace")

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group, as a crash would."""
        self._signal_group(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, limit_s: float = 20.0) -> int:
        """SIGTERM to the process itself; returns its exit code."""
        self.process.terminate()
        return self.wait(limit_s)

    def wait(self, limit_s: float) -> int:
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {limit_s} s; stderr:\n{self.stderr()[-3000:]}") from None

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: this one without any of rjepa's own variables."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RJEPA_")}
    return kept | {"PYTHONUNBUFFERED": "1"} | (extra or {})


def run_rjepa(
    *words: str | Path, limit_s: float = 60.0, env: dict[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run one ``rjepa`` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "rjepa", *map(str, words)],
        cwd=cwd,
        env=environment({"PYTHONPATH": str(ROOT)} | (env or {})),
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


@contextmanager
def start_rjepa(*words: str | Path, logs: Path, env: dict[str, str] | None = None) -> Iterator[Running]:
    """A running ``rjepa`` command; whatever is left of its group is killed at the end."""
    logs.mkdir(parents=True, exist_ok=True)
    number = len(list(logs.glob("*.err")))
    out, err = logs / f"{number}.out", logs / f"{number}.err"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "rjepa", *map(str, words)],
            cwd=ROOT,
            env=environment({"PYTHONPATH": str(ROOT)} | (env or {})),
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err_file,
            start_new_session=True,
        )
    running = Running(process, out, err)
    try:
        yield running
    finally:
        running.kill()


def patches(count: int, seed: int = 0) -> np.ndarray:
    """``count`` patches with some structure, uint8 (count, 50, 50, 3): smooth colour fields, not noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (count, 6, 6, 3))
    fine = coarse.repeat(9, axis=1).repeat(9, axis=2)[:, 2:52, 2:52]
    return (fine + generator.normal(0, 8, fine.shape)).clip(0, 255).astype(np.uint8)


class PlainClient:
    """A DEALER that speaks the wire by hand: a test says exactly what is sent and sees exactly what comes."""

    def __init__(self, address: str, context: zmq.Context[Any] | None = None) -> None:
        self._own = context is None
        self.context = context or zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)

    def __enter__(self) -> PlainClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()
        if self._own:
            self.context.term()

    def send(self, kind: str, body: dict[str, Any] | bytes, patch: bytes | None = None) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.socket.send_multipart([b"rjepa1", kind.encode(), raw] + ([] if patch is None else [patch]))

    def receive(self, limit_s: float = 20.0) -> tuple[str, dict[str, Any]]:
        """The next message from the worker: its kind and JSON."""
        if not self.socket.poll(int(limit_s * 1000)):
            raise AssertionError(f"nothing from the worker within {limit_s} s")
        frames = self.socket.recv_multipart()
        assert frames[0] == b"rjepa1"
        return frames[1].decode(), json.loads(frames[2])

    def expect(self, kind: str, limit_s: float = 20.0) -> dict[str, Any]:
        """The next message of ``kind``; acks and learned messages before it are passed over."""
        while True:
            got, body = self.receive(limit_s)
            if got == kind:
                return body
            assert got in ("ack", "learned"), f"wanted {kind}, got {got}: {body}"

    def hello(self, stream: str, notify: str = "learned", **more: Any) -> dict[str, Any]:
        self.send("hello", {"stream": stream, "notify": notify} | more)
        return self.expect("welcome")

    def fixation(self, stream: str, seq: int, patch: np.ndarray, **more: Any) -> None:
        self.send("fixation", fixation_body(stream, seq) | more, patch.tobytes())

    def until_learned(self, seq: int, limit_s: float = 60.0) -> list[dict[str, Any]]:
        """Everything said to have been learned, until ``seq`` is."""
        learned: list[dict[str, Any]] = []
        while not learned or learned[-1]["seq"] < seq:
            kind, body = self.receive(limit_s)
            assert kind in ("ack", "learned"), f"{kind}: {body}"
            if kind == "learned":
                learned.append(body)
        return learned


def fixation_body(stream: str, seq: int) -> dict[str, Any]:
    """The JSON of a valid fixation with a raw patch, its gaze wandering with ``seq``."""
    return {
        "stream": stream,
        "seq": seq,
        "onset": 0.25 * seq,
        "duration": 0.2,
        "gaze": {"x": (seq * 7 % 11) / 11, "y": (seq * 5 % 7) / 7},
        "patch": {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0},
    }
