"""The real worker as a process: killed, stopped, asked, offered the same things in other bursts."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from service.checkpoints import Checkpoints
from service.control import ControlClient
from service.errors import WorkerUnreachable
from service.records import Record
from service.storage import open_reader
from tests.helpers import PlainClient, Running, free_port, patches, run_rjepa, start_rjepa, wait_until
from tests.service.bench import same_bits
from tests.service.histories import records_page

PATCHES = patches(400)


@dataclass
class Working:
    """A running worker that can be asked."""

    process: Running
    ingest: str
    publish: str
    data_dir: Path

    def ask(self, op: str, **more: Any) -> dict[str, Any]:
        return ControlClient(self.data_dir).ask({"op": op, **more}, timeout_s=30.0)

    def command(self, name: str, stream: str | None = None, **arguments: Any) -> dict[str, Any]:
        return self.ask("command", name=name, stream=stream, arguments=arguments)

    def client(self) -> PlainClient:
        return PlainClient(self.ingest)

    def records(self, stream: str) -> list[Record]:
        with closing(open_reader(self.data_dir / "rjepa.db")) as reader:
            return records_page(reader, stream, limit=10_000)[0]

    def stream(self, name: str, first: int, count: int) -> list[dict[str, Any]]:
        """Send fixations of a stream and wait until they are learned."""
        with self.client() as client:
            assert client.hello(name)["next_seq"] == first
            for seq in range(first, first + count):
                client.fixation(name, seq, PATCHES[seq])
            return client.until_learned(first + count - 1)


@contextmanager
def working_on(folder: Path, logs: Path, *words: str) -> Iterator[Working]:
    """A worker on ``folder``, ready."""
    ingest, publish = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    options = ["--data-dir", folder, "--weights", "random", "--ingest", ingest, "--publish", publish, *words]
    with start_rjepa("worker", *options, logs=logs) as process:
        working = Working(process, ingest, publish, folder)

        def ready() -> bool:
            assert process.alive(), process.stderr()[-3000:]
            try:
                return not working.ask("status")["recovering"]
            except WorkerUnreachable:
                return False

        wait_until(ready, 120.0, "the worker")
        yield working


def test_killed_stopped_and_never_twice(data_dir: Path, made_directory: Path, tmp_path: Path) -> None:
    """Two directories, the same fixations: one in bursts and killed -9 half way, one at once and stopped half way."""
    killed, stopped, logs = data_dir, tmp_path / "stopped", tmp_path / "logs"
    shutil.copytree(made_directory, stopped)
    count = 120

    with working_on(killed, logs, "--checkpoint-every", "2") as working, working.client() as client:
        client.hello("s")
        for begin in range(0, 60, 6):
            for seq in range(begin, begin + 6):
                client.fixation("s", seq, PATCHES[seq])
            client.until_learned(begin + 1)
        working.process.kill()
    with working_on(killed, logs) as working, working.client() as client:
        next_seq = client.hello("s", epoch=1, acked=55)["next_seq"]
        assert 56 <= next_seq <= 60, "what was acked is there"
        for seq in range(next_seq, count):
            client.fixation("s", seq, PATCHES[seq])
        client.until_learned(count - 1)
        records = working.records("s")
        assert [record.seq for record in records] == list(range(count))
        assert [record.position for record in records] == list(range(count)), "a restart begins no sequence"
        assert [record.prediction_error is None for record in records] == [True] + [False] * (count - 1)
        os.kill(working.process.pid, signal.SIGINT)
        assert working.process.wait(10.0) == 0

    with working_on(stopped, logs) as working, working.client() as client:
        client.hello("s", notify="durable")
        for seq in range(count):
            client.fixation("s", seq, PATCHES[seq])
        while client.receive()[1]["seq"] < count - 1:
            pass
        assert working.process.terminate(limit_s=10.0) == 0, working.process.stderr()[-2000:]
    assert not (stopped / "control.sock").exists()
    with working_on(stopped, logs) as working:
        wait_until(lambda: working.ask("status")["waiting"] == 0, 60.0, "the rest to be learned")
        assert [record.seq for record in working.records("s")] == list(range(count))
        assert working.process.terminate(limit_s=10.0) == 0

    learners, watched = [], []
    for folder in (killed, stopped):
        checkpoints = Checkpoints(folder / "checkpoints")
        newest = checkpoints.list()[-1]
        assert newest.cursors == {"s": count}
        learners.append(checkpoints.read(newest.id)[1])
        watched.append(checkpoints.diagnostics(newest.id))
    assert same_bits(*learners)
    assert same_bits(*watched), "diagnostics too"


@pytest.fixture(scope="module")
def shared(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Working]:
    """One worker for the tests that leave it running; each has streams of its own."""
    folder = tmp_path_factory.mktemp("shared")
    shutil.copytree(made_directory, folder / "data")
    with working_on(folder / "data", folder / "logs", "--publish-embeddings") as working:
        yield working
        assert working.process.terminate() == 0


def test_records_are_published(shared: Working) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as listener:
        listener.connect(shared.publish)
        listener.subscribe(b"record/pub/")
        shared.stream("other", 0, 2)

        def heard() -> bool:
            shared.stream("pub", len(shared.records("pub")), 1)
            return bool(listener.poll(100))

        wait_until(heard, 20.0, "a record")
        topic, body = listener.recv_multipart()
        assert topic == b"record/pub/"
        told = json.loads(body)
        record = next(record for record in shared.records("pub") if record.seq == told["seq"])
        assert told == record.json(embedding=True)
        assert len(told["embedding"]) == 256


def test_status(shared: Working) -> None:
    shared.stream("status", 0, 1)
    status = shared.ask("status")
    assert (status["pid"], status["waiting"], status["storage"]) == (shared.process.pid, 0, None)
    assert status["owners"]["status"] == {"connected": True, "epoch": 1}
    assert set(status) >= {"started", "recovered", "to_recover", "oldest_wait_s", "last_checkpoint", "model"}
    assert (status["model"]["weights"], status["model"]["rfp_exact"]) == ("random", True)


def test_refusals_are_one_line_with_the_way_out(shared: Working, tmp_path: Path) -> None:
    """Each names what was wrong, ends with its exit code, and disturbs nobody."""
    other = tmp_path / "other"
    ports = ["--ingest", f"tcp://127.0.0.1:{free_port()}", "--publish", f"tcp://127.0.0.1:{free_port()}"]
    refused: list[tuple[list[str | Path], int, tuple[str, ...]]] = [
        (["--data-dir", shared.data_dir, "--weights", "random", *ports], 3, (str(shared.process.pid), "in use")),
        (["--data-dir", other, "--weights", "random", "--ingest", shared.ingest], 4, (shared.ingest, "--ingest")),
        (["--data-dir", other, *ports], 2, ("--weights", "simsiam=PATH", "random")),
        (["--data-dir", other, "--weights", "nonsense", *ports], 2, ("nonsense", "simsiam=PATH")),
        (["--data-dir", other, "--weights", "random", "--colour", "red"], 2, ("--colour",)),
        (["--data-dir", other, "--weights", "random", "--ingest", "tcp://0.0.0.0:5999"], 2, ("0.0.0.0", "CURVE")),
        (["--data-dir", "/proc/nowhere", "--weights", "random", *ports], 3, ("/proc/nowhere",)),
    ]
    for words, code, told in refused:
        done = run_rjepa("worker", *words)
        assert done.returncode == code, done.stderr
        line = done.stderr.strip().splitlines()[-1]
        assert line.startswith("rjepa worker: "), done.stderr
        assert all(word in line for word in told), line
        assert "Traceback" not in done.stderr
    assert shared.ask("status")["ok"]


def test_many_ask_at_once_while_it_learns(shared: Working) -> None:
    done = threading.Event()
    answers: list[bool] = []

    def ask() -> None:
        while not done.is_set():
            answers.append(shared.ask("status")["ok"] and shared.ask("embed", z=[0.0] * 128)["ok"])

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        shared.stream("many", 0, 40)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert answers
    assert all(answers)
    assert np.isfinite([record.prediction_error for record in shared.records("many")[1:]]).all()


def test_commands(shared: Working) -> None:
    shared.stream("s", 0, 12)
    shared.stream("t", 0, 3)
    assert shared.ask("status")["model"]["learning"]

    paused = shared.command("pause")
    assert (paused["ok"], paused["applied"]) == (True, True)
    assert not shared.ask("status")["model"]["learning"]
    shared.stream("s", 12, 2)
    assert {record.update_norm for record in shared.records("s")[12:]} == {0.0}
    shared.command("resume")
    assert shared.command("rates", rates={"gates": 0.002})["ok"]
    assert shared.ask("status")["model"]["rates"]["gates"] == 0.002
    for wrong in ({"gates": 2.0}, {"gates": None}, {"gates": "x"}, {"nothing": 0.1}, {}, [1]):
        assert shared.command("rates", rates=wrong)["status"] == 422

    taken = shared.command("checkpoint", label="before", pinned=True)["checkpoint"]
    assert (taken["label"], taken["pinned"]) == ("before", True)
    assert (taken["cursors"]["s"], taken["cursors"]["t"]) == (14, 3)
    assert shared.ask("status")["last_checkpoint"] == taken["id"]

    kept = shared.command("keep_checkpoint", checkpoint=taken["id"], pinned=False, label="until later")["checkpoint"]
    assert kept == taken | {"pinned": False, "label": "until later"}
    assert shared.command("keep_checkpoint", checkpoint=taken["id"], pinned=True)["checkpoint"] == kept | {
        "pinned": True
    }

    shared.command("reset", "s")
    shared.stream("s", 14, 3)
    assert [record.position for record in shared.records("s")[-3:]] == [0, 1, 2]

    restored = shared.command("restore", checkpoint=taken["id"])["checkpoint"]
    assert (restored["parent"], restored["timeline"]) == (taken["id"], 1)
    assert (restored["cursors"]["s"], restored["cursors"]["t"]) == (17, 3)
    shared.stream("s", 17, 2)
    records = shared.records("s")
    assert [record.seq for record in records] == [*range(14), 17, 18], (
        "what was learned after it is on the old timeline"
    )
    assert [record.position for record in records[-2:]] == [0, 1]
    assert [record.timeline for record in records[-2:]] == [1, 1]

    assert shared.command("delete", "s")["applied"]
    assert shared.records("s") == []
    assert len(shared.records("t")) == 3
    shared.stream("s", 19, 1)
    assert [record.seq for record in shared.records("s")] == [19], "next_seq stays"

    assert shared.command("delete_checkpoint", checkpoint=taken["id"])["ok"]
    assert shared.command("delete_checkpoint", checkpoint=restored["id"])["code"] == "last_checkpoint"
    for name, stream, arguments, status in [
        ("reset", "nobody", {}, 404),
        ("delete", None, {}, 404),
        ("restore", None, {"checkpoint": "nothing"}, 404),
        ("restore", None, {"checkpoint": "../calibration.safetensors"}, 404),
        ("restore", None, {}, 422),
        ("keep_checkpoint", None, {"checkpoint": "nothing", "pinned": True}, 404),
        ("keep_checkpoint", None, {"checkpoint": restored["id"]}, 422),
        ("keep_checkpoint", None, {"checkpoint": restored["id"], "pinned": True, "label": 7}, 422),
        ("delete_checkpoint", None, {"checkpoint": taken["id"]}, 404),
        ("checkpoint", None, {"label": 7}, 422),
        ("explode", None, {}, 422),
    ]:
        assert shared.ask("command", name=name, stream=stream, arguments=arguments)["status"] == status, name

    z = [0.1] * 128
    embedding = shared.ask("embed", z=z)["embedding"]
    assert len(embedding) == 256
    assert shared.ask("embed", z=z)["embedding"] == embedding, "it changes nothing"
    rgb = base64.b64encode(PATCHES[0].tobytes()).decode()
    patch = {"height": 50, "width": 50, "rgb": rgb}
    assert [len(one) for one in shared.ask("embed", patches=[patch] * 3)["embeddings"]] == [256] * 3
    wrong_patches = ([], [patch] * 65, [patch, {"height": 50, "width": 50}], {}, 7)
    for wrong in (
        *({"z": z} for z in ([0.0], ["a"] * 128, [10**400] * 128)),
        *({"patches": one} for one in wrong_patches),
    ):
        assert shared.ask("embed", **wrong)["status"] == 422
    assert shared.ask("nonsense")["status"] == 422
