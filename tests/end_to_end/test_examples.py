"""The examples of docs/examples at a real worker: the closed loop, and the wire from another language."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.workers import Working, working
from tests.helpers import ROOT, environment

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def worker(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Working]:
    folder = tmp_path_factory.mktemp("worker")
    shutil.copytree(made_directory, folder / "data")
    with working(folder / "data", folder / "logs") as running:
        yield running


def test_the_closed_loop_reacts_and_tells_its_round_trip(worker: Working, tmp_path: Path) -> None:
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
    assert all(float(error) > 0 for _, error, *_ in told[1:]), "none was a repeat"
    assert {step for *_, step, _ in told} == {"on", "again"}, "some surprised and some did not"
    last = re.search(r"round trip of 12: median (\d+) ms, 99 % under (\d+) ms", done.stdout)
    assert last
    print(last.group())


def test_the_wire_from_node(worker: Working) -> None:
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
