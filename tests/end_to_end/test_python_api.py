"""``rjepa.Api`` and the events it follows, at a real worker and a real interface, both killed meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

import rjepa
from clients.api_events import Event
from service.access_cli import make_token
from tests.end_to_end.workers import Working, working
from tests.helpers import ROOT, PlainClient, Running, free_port, patches, start_rjepa, wait_until
from tests.service.events_support import Cutter, kept

PATCHES = patches(16)
END = "the end"


class Mortal:
    """A worker and an interface on one directory, tokens on, each of which can be killed and started again."""

    def __init__(self, data_dir: Path, folder: Path, stack: ExitStack) -> None:
        self.data_dir = data_dir
        self.database = data_dir / "rjepa.db"
        self._folder = folder
        self._stack = stack
        self._ingest = f"tcp://127.0.0.1:{free_port()}"
        self._port = free_port()
        self.token = make_token(data_dir / "access", "lab", "admin")
        self.url = f"http://127.0.0.1:{self._port}"
        self.address = ("127.0.0.1", self._port)
        self.start_worker()
        self.start_interface()

    def start_worker(self) -> None:
        self.worker: Working = self._stack.enter_context(working(self.data_dir, self._folder / "worker", self._ingest))

    def start_interface(self) -> None:
        words = ("--data-dir", self.data_dir, "--http", f"127.0.0.1:{self._port}")
        self.interface: Running = self._stack.enter_context(start_rjepa("api", *words, logs=self._folder / "api"))
        wait_until(self._answers, 60.0, "the interface")

    def send(self, stream: str, count: int) -> None:
        """So many fixations more, until they are learned."""
        with PlainClient(self._ingest) as client:
            first = int(client.hello(stream)["next_seq"])
            for seq in range(first, first + count):
                client.fixation(stream, seq, PATCHES[seq % len(PATCHES)])
            client.until_learned(first + count - 1)

    def _answers(self) -> bool:
        assert self.interface.alive(), self.interface.stderr()[-3000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10.0).status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def mortal(made_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("api")
    shutil.copytree(made_directory, folder / "data")
    with ExitStack() as stack:
        yield Mortal(folder / "data", folder, stack)


@pytest.fixture
def api(mortal: Mortal) -> Iterator[rjepa.Api]:
    with rjepa.Api(mortal.url, token=mortal.token) as made:
        yield made


def test_events_are_followed_through_kills_and_a_restore(mortal: Mortal, api: rjepa.Api) -> None:
    heard: list[Event] = []

    def follow() -> None:
        for event in api.events(after=0):
            heard.append(event)
            if event.kind == "checkpoint" and event.checkpoint.label == END:
                return

    goal: list[int] = []
    follower = threading.Thread(target=follow, daemon=True)
    cutter = Cutter(mortal.address, 0, lambda: goal[0] if goal else None, 7, Authorization=f"Bearer {mortal.token}")
    follower.start()
    cutter.start()
    mortal.send("s1", 12)
    before = api.take_checkpoint("before")
    mortal.send("s2", 6)
    mortal.worker.process.kill()
    mortal.start_worker()
    mortal.send("s1", 6)
    mortal.interface.kill()
    mortal.start_interface()
    mortal.send("s2", 6)
    new = api.restore(before.id)
    mortal.send("s1", 6)
    api.take_checkpoint(END)
    follower.join(60.0)
    assert not follower.is_alive()
    goal.append(heard[-1].id)
    cutter.join(60.0)
    assert not cutter.is_alive()

    told = [each for each in kept(mortal.database) if each[0] <= goal[0]]
    assert [(event.id, event.kind) for event in heard] == [(number, kind) for number, kind, _ in told]
    assert cutter.events == told
    records = [event.record for event in heard if event.kind == "record"]
    assert [(record.stream, record.seq) for record in records if record.stream == "s1"] == [
        ("s1", n) for n in range(24)
    ]
    assert {record.timeline for record in records[-6:]} == {new.timeline}
    assert [record.model_dump(exclude={"embedding"}) for record in records] == [
        json.loads(data) for _, kind, data in told if kind == "record"
    ]
    checkpoints = [event.checkpoint for event in heard if event.kind == "checkpoint"]
    assert before in checkpoints
    assert new in checkpoints
    assert [each.id for each in checkpoints] == list(dict.fromkeys(each.id for each in checkpoints)), "each once"
    print(f"{len(heard)} events, {cutter.cuts} cuts")


def test_every_call_is_a_method(mortal: Mortal, api: rjepa.Api, tmp_path: Path) -> None:
    """All of them at the real worker; what was asked is held against the interface's own list of calls."""
    asked: set[tuple[str, str]] = set()
    api._calls._client.event_hooks["request"].append(
        lambda request: asked.add((request.method.lower(), request.url.path))
    )
    mortal.send("calls", 8)
    assert api.live()
    assert api.ready().ready
    assert "rjepa_worker_up 1.0" in api.metrics()
    model = api.model()
    assert api.change_model(learning=False).learning is False
    assert api.change_model(learning=True).learning is True
    assert {"calls"} <= {each.stream for each in api.streams()}
    assert api.alarms().alarms_on == []
    assert api.stream("calls").next_seq == 8
    embedding = api.embedding("calls")
    assert (embedding.seq, len(embedding.embedding)) == (7, model.embedding_size)
    rows = api.records("calls", as_="rows")
    assert [row["seq"] for row in rows] == list(range(8))
    errors = [row["prediction_error"] for row in rows if row["prediction_error"] is not None]
    assert [point.error for point in api.loss("calls").points] == errors
    assert sum(each.count for each in api.loss_by_position("calls")) == len(errors)
    path = api.trajectory("calls", points=5)
    assert [point.seq for point in path.points] == [3, 4, 5, 6, 7]
    assert path.points[-1].error == rows[-1]["prediction_error"]
    assert np.array_equal(api.patch("calls", 3), PATCHES[3])
    png = cv2.imencode(".png", PATCHES[0][:, :, ::-1])[1].tobytes()
    assert np.array_equal(api.embed(PATCHES[0]), api.embed(png))
    many = api.embed(np.concatenate([PATCHES] * 5))
    assert many.shape == (80, model.embedding_size)
    assert np.array_equal(many[64], api.embed(PATCHES[0]))
    told = api.representation("calls")
    assert (told.verdict, told.count) == ("not learning yet", len(errors))
    assert api.gradient("calls").stream == "calls"
    taken = api.take_checkpoint("mine", pinned=True)
    assert api.checkpoint(taken.id) == taken == api.checkpoints()[0]
    file = api.download(taken.id, tmp_path / "mine.safetensors")
    assert file.stat().st_size == taken.size_bytes
    assert list(tmp_path.iterdir()) == [file], "nothing else is left"
    assert api.keep_checkpoint(taken.id, pinned=False).pinned is False
    named = api.keep_checkpoint(taken.id, pinned=True, label="ours")
    assert named == api.checkpoint(taken.id) == taken.model_copy(update={"label": "ours"})
    assert api.restore(taken.id).parent == taken.id
    api.delete_checkpoint(taken.id)
    assert api.reset("calls").done == "reset"
    assert next(iter(api.events(after=0))).id > 0
    assert api.delete("calls").done == "deleted"
    document = api._calls.json("GET", "/openapi.json")
    for path, methods in document["paths"].items():
        pattern = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
        for method in methods:
            assert any(each == method and pattern.fullmatch(where) for each, where in asked), f"{method} {path}"


def test_what_is_refused_is_raised(mortal: Mortal, api: rjepa.Api) -> None:
    with rjepa.Api(mortal.url, token="wrong") as stranger, rjepa.Api(mortal.url) as nobody:
        for call, status, code in (
            (lambda: api.stream("nobody"), 404, "unknown_stream"),
            (lambda: api.stream("no/body"), 404, "not_found"),
            (lambda: api.restore("none"), 404, "unknown_checkpoint"),
            (lambda: api.change_model(), 422, "invalid"),
            (lambda: next(api.events(after=10**9)), 404, "unknown_event"),
            (lambda: next(stranger.events()), 401, "unauthorized"),
            (lambda: nobody.model(), 401, "unauthorized"),
        ):
            with pytest.raises(rjepa.ApiError) as caught:
                call()
            assert (caught.value.status, caught.value.code) == (status, code)
            assert caught.value.detail
            assert str(status) in str(caught.value)


def test_the_ten_lines_of_the_docs_run(mortal: Mortal, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "http.md").read_text()
    (lines,) = re.findall(r"## From Python\n.*?```python\n(.*?)```", text, re.DOTALL)
    where = f'"{mortal.url}", token="{mortal.token}"'
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            mortal.send("s1", 1)

    viewer = threading.Thread(target=look)
    viewer.start()
    try:
        names: dict[str, Any] = {}
        exec(lines.replace('"http://127.0.0.1:8000"', where), names)
    finally:
        stop.set()
        viewer.join(60.0)
    assert names["event"].record.stream == "s1"
    said = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ fixations, newest error [0-9.e-]+", said[0])
    assert said[1].startswith("not learning yet - too few fixations")
