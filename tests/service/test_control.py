from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from service.control import SOCKET_NAME, Call, ControlClient, ControlServer
from service.errors import RequestRefused, StorageFull, WorkerUnreachable


class Echo:
    """Answers by the request's op; ``later`` is answered by another thread."""

    def handle(self, call: Call) -> None:
        op = call.request.get("op")
        if op == "refuse":
            raise RequestRefused(404, "unknown_stream", "there is no stream x")
        if op == "full":
            raise StorageFull("no room")
        if op == "break":
            raise ZeroDivisionError
        if op == "later":
            threading.Thread(target=call.answer, args=({"number": call.request["number"]},)).start()
        elif op != "never":
            call.answer({"echo": call.request})
            call.refuse(500, "twice", "dropped")

    def tick(self) -> None:
        return


@contextmanager
def serving(folder: Path) -> Iterator[ControlClient]:
    with zmq.Context() as context:
        server = ControlServer(context, folder, Echo())
        server.start()
        try:
            yield ControlClient(folder)
        finally:
            server.stop()


@pytest.mark.parametrize("name", ["short", "long" * 40])
def test_a_request_is_answered_whatever_the_length_of_the_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with serving(folder) as client:
        assert client.ask({"op": "x", "a": [1, 2]}) == {"ok": True, "echo": {"op": "x", "a": [1, 2]}}
    assert not (folder / SOCKET_NAME).exists()


def test_refusals_and_failures_are_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        assert client.ask({"op": "refuse"}) == {
            "ok": False,
            "status": 404,
            "code": "unknown_stream",
            "detail": "there is no stream x",
        }
        full = client.ask({"op": "full"})
        assert (full["ok"], full["status"], full["code"]) == (False, 503, "storage_full")
        assert client.ask({"op": "break"})["status"] == 500
        assert client.ask({"op": "x"})["ok"], "one bad request does not end the others"


def test_many_threads_get_their_own_answers(tmp_path: Path) -> None:
    with serving(tmp_path) as client, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda number: client.ask({"op": "later", "number": number})["number"], range(50))
        assert list(answers) == list(range(50))


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(WorkerUnreachable, match="no worker runs"):
        ControlClient(tmp_path).ask({"op": "status"})
    with pytest.raises(WorkerUnreachable, match="no worker runs"):
        ControlClient(tmp_path / "nothing").ask({"op": "status"})
    with serving(tmp_path) as client, pytest.raises(WorkerUnreachable, match="did not answer"):
        client.ask({"op": "never"}, timeout_s=0.1)


def test_a_request_that_is_no_json_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path), zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.connect(f"ipc://{tmp_path / SOCKET_NAME}")
        for frames in ([b"", b"{"], [b"", b"[1]"], [b"\xff"], [b"", b"[" * 100_000]):
            dealer.send_multipart(frames)
            assert dealer.poll(5000)
            assert b'"echo": {}' in dealer.recv_multipart()[-1]
