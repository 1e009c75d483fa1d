"""Those who ask for much and take nothing: a listener to the records, readers of a long history over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.faults import mortal
from tests.faults.lab import FLAT_KB, Lab, interface, lab, open_files, resident_kb
from tests.faults.nursery import Nursery
from tests.faults.story import WAIT_S, interleaved, send_all
from tests.helpers import PlainClient, wait_until

pytestmark = pytest.mark.timeout(900)
EACH = 20
LONG = 20_000
"""Records of a stream of which its client has lost everything: 0.4 kB each, and there at once."""


@pytest.fixture
def found(connected: tuple[Nursery, Path], tmp_path: Path) -> Iterator[Lab]:
    with lab(connected, tmp_path) as made:
        yield made


def lose(found: Lab, count: int) -> None:
    """So many fixations of stream ``long`` are recorded as lost."""
    with PlainClient(found.home.ingest) as client:
        client.send("hello", {"stream": "long", "notify": "durable", "acked": count - 1, "have_from": count})
        assert client.expect("welcome", WAIT_S)["next_seq"] == count
    wait_until(lambda: found.learned("long") == count, WAIT_S, "the records of what is lost")


class Listener(threading.Thread):
    """Hears every record and notes the seqs of each stream, until it is told to end."""

    def __init__(self, address: str) -> None:
        super().__init__(daemon=True)
        self.heard: defaultdict[str, list[int]] = defaultdict(list)
        self._ended = threading.Event()
        self._address = address

    def run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.SUB) as socket_:
            socket_.connect(self._address)
            socket_.subscribe(b"record/")
            while not self._ended.is_set():
                while socket_.poll(50):
                    stream, seq = _told(socket_.recv_multipart())
                    self.heard[stream].append(seq)

    def end(self) -> None:
        self._ended.set()
        self.join(WAIT_S)


def _told(frames: list[bytes]) -> tuple[str, int]:
    record = json.loads(frames[1])
    assert frames[0] == f"record/{record['stream']}/".encode()
    return str(record["stream"]), int(record["seq"])


def _one_more(found: Lab, stream: str) -> None:
    """The next fixation of a stream, until it is learned."""
    with PlainClient(found.home.ingest) as client:
        seq = client.hello(stream)["next_seq"]
        client.fixation(stream, seq, mortal.PATCHES[seq % len(mortal.PATCHES)])
        client.until_learned(seq, WAIT_S)


def _held_for(found: Lab, deaf: zmq.Socket[Any]) -> int:
    """How many records of the flood a listener hears that begins to read: it has them all once it hears a newer one."""
    count = 0
    while True:
        _one_more(found, "last")  # dropped like the others as long as there is no room
        while deaf.poll(200):
            stream, _ = _told(deaf.recv_multipart())
            if stream == "last":
                return count
            count += stream != "first"


def test_a_listener_that_never_reads(found: Lab) -> None:
    """What is held for it is bounded; the worker goes on; another listener hears everything, each record once."""
    listener = Listener(found.home.publish)
    listener.start()
    with zmq.Context() as context, context.socket(zmq.SUB) as deaf:
        deaf.rcvhwm, deaf.rcvbuf = 500, 4096
        deaf.connect(found.home.publish)
        deaf.subscribe(b"record/")

        def heard() -> bool:
            _one_more(found, "first")
            return bool(deaf.poll(100)) and bool(listener.heard)

        wait_until(heard, WAIT_S, "two listeners")
        lose(found, LONG)
        send_all(found.home.ingest, interleaved(EACH))
        sent = {"long": LONG, **dict.fromkeys(mortal.STREAMS, EACH)}
        whole = sum(sent.values())
        wait_until(
            lambda: all(len(listener.heard[name]) >= count for name, count in sent.items()), WAIT_S, "all to be heard"
        )
        held = _held_for(found, deaf)
    listener.end()
    print(f"{whole} records: {held} were held for one that never reads")
    assert 0 < held < whole, "the rest was dropped"
    for name, count in sent.items():
        assert listener.heard[name] == list(range(count)), name
    assert found.worker.terminate(WAIT_S) == 0, found.worker.said()


READERS = 30
PAGE = 10_000
TAKEN_S = 3.0


def test_readers_that_do_not_take_their_answers(found: Lab) -> None:
    """Some stop, some take a byte at a time: they are cut off; others are answered and learning goes on meanwhile."""
    lose(found, PAGE)
    with interface(found, taken_s=TAKEN_S) as (process, http), ExitStack() as stack:
        whole = _page(http)
        checkpoint = http.post("/v1/checkpoints", json={"pinned": True}).json()
        before_kb, files = resident_kb(process.pid), open_files(process.pid)
        paths = (f"/v1/streams/long/records?limit={PAGE}", f"/v1/checkpoints/{checkpoint['id']}/download")
        port = int(http.base_url.port or 0)
        readers = [stack.enter_context(closing(_asks(port, paths[number % 2]))) for number in range(READERS)]
        sipping = threading.Event()
        sipper = threading.Thread(target=_sip, args=(readers[::3], sipping))
        sipper.start()
        try:
            send_all(found.home.ingest, interleaved(EACH))
            assert http.get("/v1/streams/a").json()["learned"] == EACH
            assert _page(http) == whole
            wait_until(lambda: open_files(process.pid) <= files, WAIT_S, "all of them to be cut off")
            grown_kb = resident_kb(process.pid, "VmHWM") - before_kb
        finally:
            sipping.set()
            sipper.join(WAIT_S)
        got = [_rest(reader) for reader in readers]
        size = len(json.dumps(whole, separators=(",", ":")))
        sizes = f"{size} or {checkpoint['size_bytes']} bytes"
        print(f"{READERS} answers of {sizes}: taken in the end were {sorted(got)}; the interface grew by {grown_kb} kB")
        assert all(bytes_ < size for bytes_ in got[::2])
        assert all(bytes_ < checkpoint["size_bytes"] for bytes_ in got[1::2])
        assert grown_kb < FLAT_KB
        assert _page(http) == whole
    assert [row[0] for row in found.rows("SELECT count(*) FROM records WHERE stream != 'long'")] == [2 * EACH]


def _page(http: Any) -> Any:
    """The whole history of stream ``long``, in one page."""
    got = http.get("/v1/streams/long/records", params={"limit": PAGE})
    assert got.status_code == 200, got.text
    told = got.json()
    assert [record["seq"] for record in told["records"]] == list(range(PAGE))
    assert told["next"] is None
    return told


def _asks(port: int, path: str) -> socket.socket:
    """A connection that has asked and takes nothing yet; its system holds little for it."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(WAIT_S)
    reader.connect(("127.0.0.1", port))
    reader.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader


def _sip(readers: list[socket.socket], ended: threading.Event) -> None:
    """A byte from each, again and again."""
    while not ended.wait(0.02):
        for reader in readers:
            _take(reader, 1)


def _take(reader: socket.socket, limit: int) -> int:
    try:
        return len(reader.recv(limit))
    except ConnectionResetError:
        return 0


def _rest(reader: socket.socket) -> int:
    """How many bytes come until the other side has closed."""
    received = 0
    while count := _take(reader, 65536):
        received += count
    return received
