"""A data directory with a history, made by the journal itself, and the interface on it."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
import zmq

from clients.wire import Gaze, digest
from service.access import Access
from service.api.app import create_app
from service.api.main import server_config
from service.control import Call, ControlServer
from service.errors import RequestRefused
from service.journal import Admitted, Journal, Timeline, Turn
from service.listening import bind
from service.records import Record, pack
from service.schema import TRIVIAL_ERRORS
from service.settings import Settings
from tests.helpers import fixation_body, patches, wait_until

MODEL = {
    "gates": "two-point",
    "retention": "tanh",
    "distance": "half_mse",
    "rfp_exact": True,
    "embedding_size": 4,
    "units": 2,
    "parameters": {"total": 12},
    "device": "cpu",
    "weights": {"name": "random", "digest": "0" * 64},
    "learning": True,
    "rates": {"gates": 1e-4},
}
STATUS = {
    "recovering": False,
    "recovered": 0,
    "to_recover": 0,
    "waiting": 0,
    "oldest_wait_s": None,
    "storage": None,
    "last_checkpoint": None,
    "owners": {"s1": {"connected": True, "epoch": 1}},
    "model": MODEL,
}


class Lab:
    """A data directory and the pen to write in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / "rjepa.db")
        self.journal.put_meta("model", json.dumps(MODEL))
        self._next: dict[str, int] = {}
        self._epoch = 0
        self._timelines = 0

    def claim(self, stream: str, lost: range = range(0)) -> None:
        self._epoch += 1
        self.journal.claim(stream, self._epoch, 1.0, lost=lost)
        self._next[stream] = max(self._next.get(stream, 0), lost.stop)

    def arrive(self, stream: str, count: int, time_s: float = 1000.0, encoding: str = "raw") -> None:
        """``count`` fixations are journalled, 0.25 s apart."""
        first = self._next[stream]
        self.journal.append(
            [_admitted(stream, seq, time_s + 0.25 * (seq - first), encoding) for seq in range(first, first + count)]
        )
        self._next[stream] = first + count

    def learn(self, errors: Sequence[float | None], stream: str = "s1", **more: Any) -> list[Record]:
        """As many fixations arrive and are learned, with these errors; ``more`` are values of all their records."""
        if stream not in self._next:
            self.claim(stream)
        first = self._next[stream]
        self.arrive(stream, len(errors))
        return self.record(stream, range(first, first + len(errors)), errors, **more)

    def record(self, stream: str, seqs: range, errors: Sequence[float | None], **more: Any) -> list[Record]:
        ids = {entry.seq: entry for entry in self.journal.entries(0, 10**6) if entry.stream == stream}
        records = [
            Record(
                **{
                    "id": ids[seq].id,
                    "stream": stream,
                    "seq": seq,
                    "time": ids[seq].time_s,
                    "timeline": self.journal.timeline(),
                    "onset": 0.25 * seq,
                    "duration": 0.2,
                    "gaze": (0.5, 0.25),
                    "position": seq % 5,
                    "prediction_error": error,
                    "trivial_error": {
                        name: None if error is None or name == "carry_scene" else error + 0.1 * (1 + i)
                        for i, name in enumerate(TRIVIAL_ERRORS)
                    },
                    "effective_rank": 2.0,
                    "update_norm": 0.01,
                    "latency_ms": 12.5,
                    "embedding": pack(np.full(4, seq, np.float32)),
                }
                | more
            )
            for seq, error in zip(seqs, errors, strict=True)
        ]
        self.journal.put_turn(Turn(records[-1].id, list(records)), records[-1].time)
        return records

    def restore(self, fork: int) -> int:
        """A restore of a checkpoint of the present timeline that had learned up to journal id ``fork``."""
        start = self.journal.append_command("restore", None, {"checkpoint": "c1"}, 1.0)
        parent = self.journal.timeline()
        self._timelines += 1
        new = self._timelines
        self.journal.put_turn(Turn(start, [Timeline(new, 1.0, parent, "c1", fork, start)]), 1.0)
        return new


class Desk:
    """What a worker answers, scripted; the socket and its server are the real ones."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status
        self.asked: list[dict[str, Any]] = []
        self.result: dict[str, Any] = {}
        self.refusal: RequestRefused | None = None

    def handle(self, call: Call) -> None:
        self.asked.append(call.request)
        if call.request["op"] == "status":
            call.answer(self.status)
        elif self.refusal is not None:
            raise self.refusal
        elif call.request["op"] == "embed":
            call.answer({"embeddings": [[float(i), 1.0] for i, _ in enumerate(call.request["patches"])]})
        else:
            call.answer(self.result)

    def tick(self) -> None:
        return

    def commands(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        return [(one["name"], one["stream"], one["arguments"]) for one in self.asked if one["op"] == "command"]


@contextmanager
def working(folder: Path, **changed: Any) -> Iterator[Desk]:
    """A worker's control socket that answers with :data:`STATUS` and what is ``changed`` in it."""
    desk = Desk(STATUS | changed)
    with zmq.Context() as context:
        server = ControlServer(context, folder, desk)
        server.start()
        try:
            yield desk
        finally:
            server.stop()


class Declared:
    """Holds every answer of a call in the OpenAPI document against it: status, content type and the refusal's code."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._calls = [
            (method.upper(), re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)) + "$"), call)
            for path, methods in document["paths"].items()
            for method, call in methods.items()
        ]

    def __call__(self, response: httpx.Response) -> None:
        method, path = response.request.method, response.request.url.path
        for known, pattern, call in self._calls:
            if known == method and pattern.match(path):
                self._hold(f"{method} {path}", call["responses"], response)

    def _hold(self, name: str, declared: dict[str, Any], response: httpx.Response) -> None:
        status = str(response.status_code)
        assert status in declared, f"{name} answered {status}, which it does not declare"
        media_type = response.headers["content-type"].partition(";")[0]
        content = declared[status]["content"]
        assert media_type in content, f"{name} answered {status} as {media_type}; it declares {set(content)}"
        if status[0] not in "23":
            code = json.loads(response.read())["code"]
            assert code in content[media_type]["examples"], f"{name} refused with {code}, which it does not declare"


@contextmanager
def interface(folder: Path, **settings: Any) -> Iterator[httpx.Client]:
    """The HTTP interface on ``folder``, served as it ships but in a thread, and a client of it."""
    made = Settings(data_dir=folder, http="127.0.0.1:0", **settings)
    access = Access.load(made.access_folder)
    app = create_app(made, access)
    listening = bind(made, access)
    server = uvicorn.Server(server_config(app, made))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        wait_until(lambda: server.started, 10.0, "the interface")
        held = {"response": [Declared(app.openapi())]}
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30.0, event_hooks=held) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10.0)
        listening.close()


def _admitted(stream: str, seq: int, time_s: float, encoding: str) -> Admitted:
    import cv2

    picture = patches(1, seed=seq)[0]
    body = fixation_body(stream, seq)
    data = picture.tobytes()
    if encoding != "raw":
        body["patch"]["encoding"] = encoding
        data = cv2.imencode(".jpg" if encoding == "jpeg" else ".png", picture[:, :, ::-1])[1].tobytes()
    gaze = Gaze(**body["gaze"])
    return Admitted(
        stream, seq, time_s, json.dumps(body), digest(body["onset"], body["duration"], gaze, data), data, False, True
    )


__all__ = ["MODEL", "STATUS", "Desk", "Lab", "interface", "working"]
