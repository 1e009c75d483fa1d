"""The worker's door with keys on, as a process: who gets something in, and what its log says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import zmq

from clients.connection import dealer, read_keys
from clients.sender import Sender
from clients.settings import SimulatedSettings, load
from service.access_cli import main, make_token
from service.api.sessions import COOKIE
from service.control import ControlClient
from service.errors import WorkerUnreachable
from service.storage import open_reader
from tests.helpers import PlainClient, Running, fixation_body, free_port, patches, run_rjepa, start_rjepa, wait_until

PATCHES = patches(4)
SHUT_MS = 700
"""How long a door is watched that must stay shut."""


@dataclass
class Locked:
    """A worker that asks for keys, and the interface that asks for tokens, both logging JSON."""

    worker: Running
    api: Running
    data_dir: Path
    ingest: str
    publish: str
    http: str
    keys: Path
    tokens: dict[str, str]

    def streams(self) -> dict[str, tuple[int, int]]:
        """Of each stream its epoch and next seq."""
        with closing(open_reader(self.data_dir / "rjepa.db")) as reader:
            return {row[0]: (row[1], row[2]) for row in reader.execute("SELECT name, epoch, next_seq FROM streams")}


@pytest.fixture(scope="module")
def locked(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Locked]:
    folder = tmp_path_factory.mktemp("locked")
    data, access = folder / "data", folder / "data" / "access"
    shutil.copytree(made_directory, data)
    ingest, publish = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    http = f"127.0.0.1:{free_port()}"
    for name, pattern in (("anna", "anna*"), ("bob", "bob")):
        words = [name, "--streams", pattern, "--ingest", ingest, "--out", str(folder / f"{name}.json")]
        assert main(["pair", *words, "--access-dir", str(access)]) == 0
    tokens = {role: make_token(access, role, role) for role in ("read", "admin")}
    common = [f"--data-dir={data}", f"--ingest={ingest}", f"--publish={publish}", f"--http={http}", "--log-json"]
    with (
        start_rjepa("worker", "--weights=random", *common, logs=folder / "worker") as worker,
        start_rjepa("api", *common, logs=folder / "api") as api,
    ):

        def ready() -> bool:
            assert worker.alive(), worker.stderr()[-3000:]
            assert api.alive(), api.stderr()[-3000:]
            try:
                status = ControlClient(data).ask({"op": "status"}, timeout_s=30.0)
                return not status["recovering"] and httpx.get(f"http://{http}/readyz", timeout=30.0).status_code == 200
            except (WorkerUnreachable, httpx.TransportError):
                return False

        wait_until(ready, 170.0, "worker and interface")
        yield Locked(worker, api, data, ingest, publish, http, folder, tokens)


def say_everything(socket: zmq.Socket[Any], stream: str) -> None:
    """A hello and a fixation, as one who expects to be heard."""
    hello = json.dumps({"stream": stream, "notify": "learned"}).encode()
    socket.send_multipart([b"rjepa1", b"hello", hello])
    socket.send_multipart([b"rjepa1", b"fixation", json.dumps(fixation_body(stream, 0)).encode(), PATCHES[0].tobytes()])


def test_with_keys_on_only_the_right_key_gets_anything_in_and_to_its_own_streams(locked: Locked) -> None:
    with zmq.Context() as context:
        bob = json.loads((locked.keys / "bob.json").read_text())
        stranger = locked.keys / "stranger.json"
        public, secret = (key.decode() for key in zmq.curve_keypair())
        stranger.write_text(json.dumps(bob | {"public": public, "secret": secret}))
        wrong_server = locked.keys / "wrong-server.json"
        wrong_server.write_text(json.dumps(bob | {"server": public}))
        for path in (None, stranger, wrong_server):
            with dealer(context, locked.ingest, None if path is None else read_keys(path)) as socket:
                say_everything(socket, "anna")
                assert not socket.poll(SHUT_MS), f"{path} was answered"
        assert locked.streams() == {}
        with dealer(context, locked.ingest, read_keys(locked.keys / "bob.json")) as socket:
            say_everything(socket, "anna")
            for _ in range(2):
                assert socket.poll(20_000)
                told = json.loads(socket.recv_multipart()[2])
                assert (told["code"], told["stream"]) == ("unauthorized", "anna")
        assert locked.streams() == {}
        with context.socket(zmq.SUB) as listener:
            listener.linger = 0
            listener.connect(locked.publish)
            listener.subscribe(b"")
            settings = load(SimulatedSettings, ["--pair", str(locked.keys / "anna.json")], "prog", "about")
            with Sender(settings.ingest, "anna-1", spool_dir=locked.keys / "spool", key_file=settings.key) as sender:
                for seq, patch in enumerate(PATCHES):
                    sender.offer(onset_s=seq / 4, duration_s=0.2, gaze=(0.5, 0.5), patch=patch)
                assert sender.flush(learned=True, timeout_s=60.0)
            assert not listener.poll(SHUT_MS), "records are for keys on the list too"
        assert locked.streams() == {"anna-1": (1, len(PATCHES))}
    assert locked.worker.alive()


def test_a_paired_client_is_refused_early_and_in_one_line(locked: Locked) -> None:
    pair = ["--pair", locked.keys / "bob.json"]
    done = run_rjepa("stream", "simulated", "sample", *pair, "--stream=anna", "--fixations=1")
    assert done.returncode == 2
    assert "is for streams bob, not anna" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_key_and_no_token_is_ever_in_a_log(locked: Locked) -> None:
    base, shown = f"http://{locked.http}", locked.tokens["admin"]
    with httpx.Client(base_url=base, timeout=60.0) as client:
        assert client.get("/v1/streams", headers={"Authorization": f"Bearer {shown}"}).status_code == 200
        assert client.get("/v1/streams", headers={"Authorization": f"Basic {shown}"}).status_code == 401
        assert client.get("/v1/streams", params={"token": shown}).status_code == 401
        assert client.get(f"/{shown}", headers={"Authorization": f"Bearer {shown}"}).status_code == 404
        assert client.post("/login", data={"token": shown}, headers={"Origin": base}).status_code == 303
        cookie = client.cookies[COOKIE]
        assert client.get("/v1/streams").status_code == 200
        assert client.get(f"/v1/streams/{shown}/embedding").status_code in (404, 422)
        bad = {"Authorization": f"Bearer {shown}", "Content-Type": "application/json", "X-Bad": shown}
        assert client.patch("/v1/model", content=b'{"%s": 1}' % shown.encode(), headers=bad).status_code == 422
    secrets = [*locked.tokens.values(), cookie]
    for path in (locked.keys / "anna.json", locked.keys / "bob.json", locked.data_dir / "access" / "server.json"):
        secrets.append(json.loads(path.read_text())["secret"])
    with PlainClient(locked.ingest) as nobody:
        nobody.send("hello", {"stream": "s", "notify": "learned"})
        assert not nobody.socket.poll(SHUT_MS)
    for process in (locked.worker, locked.api):
        told = process.stdout() + process.stderr()
        assert told
        assert not [secret for secret in secrets if secret in told]


def test_every_line_of_the_log_is_an_object(locked: Locked) -> None:
    for process in (locked.worker, locked.api):
        lines = process.stderr().splitlines()
        assert lines
        for line in lines:
            told = json.loads(line)
            assert {"time", "level", "logger", "thread", "message"} <= set(told)
            assert told["level"] in ("info", "warning", "error")
