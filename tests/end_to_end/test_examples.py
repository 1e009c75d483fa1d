"""The examples of docs/examples at a real worker: the closed loop, and the wire from another language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.control import ControlClient
from service.errors import WorkerUnreachable
from tests.helpers import ROOT, environment, free_port, start_rjepa, wait_until

EXAMPLES = ROOT / "docs" / "examples"


@dataclass
class Worker:
    """Its two addresses."""

    ingest: str
    publish: str


@pytest.fixture(scope="module")
def worker(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    data_dir = folder / "data"
    shutil.copytree(made_directory, data_dir)
    running = Worker(*(f"tcp://127.0.0.1:{free_port()}" for _ in range(2)))
    words = ("--data-dir", data_dir, "--weights", "random", "--ingest", running.ingest, "--publish", running.publish)
    with start_rjepa("worker", *words, logs=folder / "logs") as process:

        def ready() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return not ControlClient(data_dir).ask({"op": "status"}, timeout_s=10.0)["recovering"]
            except WorkerUnreachable:
                return False

        wait_until(ready, 120.0, "the worker")
        yield running


def test_the_closed_loop_reacts_and_tells_its_round_trip(worker: Worker, tmp_path: Path) -> None:
    words = ["--ingest", worker.ingest, "--publish", worker.publish, "--stream", "loop", "--spool", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "closed_loop.py"), *words, "--count", "12"],
        env=environment({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"(?m)^fixation (\d+): error (None|[0-9.e-]+), (on|again), (\d+) ms$", done.stdout)
    assert [int(seq) for seq, *_ in told] == list(range(12)), done.stdout
    assert told[0][1] == "None", "the first has no prediction"
    assert all(float(error) > 0 for _, error, *_ in told[1:])
    assert {step for *_, step, _ in told} == {"on", "again"}, "some surprised and some did not"
    last = re.search(r"round trip of 12: median (\d+) ms, 95 % under (\d+) ms", done.stdout)
    assert last
    print(last.group())


def test_the_wire_from_node(worker: Worker) -> None:
    folder = EXAMPLES / "node"
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on this machine")
    if not (folder / "node_modules" / "zeromq").is_dir():
        pytest.skip("zeromq is not installed for node: npm install, in docs/examples/node")
    for begin in (0, 70):
        done = subprocess.run(
            [node, str(folder / "client.mjs"), worker.ingest, "from-node", "70"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["next_seq_at_hello"] == begin
        assert (told["acked"], told["learned"]) == (begin + 69, 70)
        assert told["last"] is None or told["last"] > 0
