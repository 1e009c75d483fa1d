"""Clients that get in each other's way, or could: two on one stream, one that never reads, two hundred at once."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq

from clients.errors import Fenced
from clients.spool import Spool
from tests.faults import mortal
from tests.faults.lab import FLAT_KB, Lab, interface, lab, open_files, resident_kb
from tests.faults.nursery import Child, Nursery
from tests.faults.story import WAIT_S, body, interleaved, send_all
from tests.helpers import PlainClient, wait_until

pytestmark = pytest.mark.timeout(900)
EACH = 30
WARM = 10
"""After so many fixations a worker has loaded what it loads late."""


@pytest.fixture
def found(connected: tuple[Nursery, Path], tmp_path: Path) -> Iterator[Lab]:
    with lab(connected, tmp_path) as made:
        yield made


class Claims:
    """Two clients in processes of their own, each with its spool, that want the same stream."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.first = {"old": 0, "new": 10_000}
        self.count = {"old": 100_000, "new": 40}

    def start(self, name: str) -> Child:
        place = {"address": self.lab.home.ingest, "folder": str(self.folder(name))}
        return self.lab.home.nursery.start("rival", **place, first=self.first[name], count=self.count[name])

    def folder(self, name: str) -> Path:
        return self.lab.folder / name

    def offered(self, name: str) -> int:
        """How many of its fixations a client has handed over."""
        return int((self.folder(name) / "offered").read_text()) - self.first[name]

    def acked(self, name: str) -> int:
        """The highest count of the stream's fixations a client knows to be durable."""
        return max(json.loads(line)["b"] for line in (self.folder(name) / "acked").read_text().splitlines())

    def spooled(self, name: str) -> list[int]:
        """Which of its fixations a client that has ended still keeps."""
        spool = Spool(self.folder(name) / "spool-b", "b")
        kept = [round(spool.read(entry.row)[0]["onset"] / 0.25) for entry in spool.entries()]
        spool.close()
        return kept

    def held(self) -> list[int]:
        """Which fixations the journal has, in its order."""
        rows = self.lab.rows("SELECT body FROM journal WHERE kind = 'fixation' AND stream = 'b' ORDER BY id")
        return [round(json.loads(row[0])["onset"] / 0.25) for row in rows]


def test_two_clients_on_one_stream(found: Lab) -> None:
    """The newer one takes it, the older one ends and says why; begun again it takes it back, and nothing is lost."""
    claims = Claims(found)
    old = claims.start("old")
    wait_until(lambda: found.learned("b") >= 20, WAIT_S, "the older one to be heard")
    new = claims.start("new")
    assert old.wait(WAIT_S) == Fenced.exit_code
    assert new.wait(WAIT_S) == 0, new.said()
    (line,) = old.log.read_text().splitlines()
    assert line.startswith("rival: stream b: the worker says fenced")
    assert "Another client has claimed it" in line

    held, first = claims.held(), claims.first["new"]
    olds = [number for number in held if number < first]
    assert held == [*range(len(olds)), *range(first, first + claims.count["new"])], "nothing is mixed"
    assert claims.acked("old") <= len(olds)
    kept = claims.spooled("old")
    assert kept == list(range(kept[0], claims.offered("old"))), "what it was given and has no ack for it keeps"
    assert claims.acked("old") == kept[0]

    claims.count["old"] = claims.offered("old") + 10
    again = claims.start("old")
    assert again.wait(WAIT_S) == 0, again.said()
    assert claims.held() == [*held, *range(len(olds), claims.count["old"])], "all of it, each once"
    assert claims.spooled("old") == []
    assert [row[0] for row in found.rows("SELECT epoch FROM streams WHERE name = 'b'")] == [3]
    found.check_bits(found.end())


NONSENSE = ("\U000e0001" * 40).encode()
"""A kind that does not exist and is spelled out in the answer: half a kilobyte each, so that the 6 MB or so that two
systems hold between them are soon full."""


class Deaf:
    """A client that sends and never reads: every answer to it piles up, first in its own system, then at the worker."""

    def __init__(self, lab: Lab) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.client = PlainClient.__new__(PlainClient)
        self.client._own, self.client.context = False, self.context
        self.client.socket = self.context.socket(zmq.DEALER)
        self.client.socket.linger = 0
        self.client.socket.rcvhwm, self.client.socket.rcvbuf = 500, 4096
        self.client.socket.sndtimeo = int(WAIT_S * 1000)
        self.client.socket.connect(lab.home.ingest)

    def send(self, fixations: int, nonsense: int) -> None:
        """Its fixations of stream a, and before each so many messages that are answered with an error."""
        self.client.send("hello", {"stream": "a", "notify": "learned"})
        for number in range(fixations):
            for _ in range(nonsense):
                self.client.socket.send_multipart([b"rjepa1", NONSENSE, b"{}"])
            patch = mortal.patch_of("a", number).tobytes()
            self.client.send("fixation", body("a", number, number), patch)

    def begin_to_read(self) -> int:
        """Read all that was held, then say hello again and send the next fixation; how many errors were held."""
        heard, last = 0, -1
        while last < EACH:
            if not self.client.socket.poll(100):  # dropped like the others as long as there is no room
                self.client.send("hello", {"stream": "a", "notify": "durable"})
                self.client.send("fixation", body("a", EACH, EACH), mortal.patch_of("a", EACH).tobytes())
            while self.client.socket.poll(100):
                kind, told = self.client.receive()
                heard += kind == "error" and told["code"] == "bad_message"
                last = max(last, told["seq"] if kind == "ack" else -1)
        return heard

    def close(self) -> None:
        self.client.socket.close()
        self.context.term()


def unread(found: Lab, nonsense: int) -> None:
    """A client sends its fixations, before each ``nonsense`` messages, and reads nothing; another goes on meanwhile."""
    deaf = Deaf(found)
    sending = threading.Thread(target=deaf.send, args=(EACH, nonsense))
    try:
        with PlainClient(found.home.ingest) as other:
            other.hello("b")
            for number in range(EACH):
                if number == WARM:
                    before_kb = resident_kb(found.worker.pid)
                    sending.start()
                other.send("fixation", body("b", number, number), mortal.patch_of("b", number).tobytes())
                other.until_learned(number, WAIT_S)
        sending.join(WAIT_S)
        wait_until(lambda: found.learned("a") == EACH, WAIT_S, "what the deaf one has sent")
        grown_kb = resident_kb(found.worker.pid) - before_kb  # what is held for it is there now
        heard = deaf.begin_to_read()
    finally:
        if sending.is_alive():
            sending.join(WAIT_S)
        deaf.close()
    sent = EACH * nonsense
    print(f"{sent} errors for one that never reads: {heard} were held, the worker grew by {grown_kb} kB")
    assert 0 < heard < sent, "the rest was dropped"
    assert grown_kb < FLAT_KB, "what was dropped is not kept"
    wait_until(lambda: found.learned("a") == EACH + 1, WAIT_S, "its last")
    end = found.end()
    assert end.next_seq == {"a": EACH + 1, "b": EACH}
    found.check_bits(end)


def test_a_client_that_never_reads(found: Lab) -> None:
    """Its answers are held up to a number, then dropped; it and the others are learned; reading again it goes on."""
    unread(found, 1_300)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_client_that_never_reads_for_long(found: Lab) -> None:
    """450,000 answers: held, they would be 150 MB at least."""
    unread(found, 15_000)


COUNT, ALLOWED = 200, 150
FEW = 12
"""Files a process opens once, at its first need."""


def test_two_hundred_connections(found: Lab) -> None:
    """Each to the worker is welcomed; of those to the interface, all but as many as are allowed are told so."""
    with interface(found, http_connections=ALLOWED) as (process, http):
        assert http.get("/readyz").status_code == 200
        http.close()
        before = {pid: open_files(pid) for pid in (found.worker.pid, process.pid)}
        learning = threading.Thread(target=send_all, args=(found.home.ingest, interleaved(EACH)))
        with zmq.Context() as context, ExitStack() as stack:
            context.set(zmq.MAX_SOCKETS, 2 * COUNT)
            clients = [stack.enter_context(PlainClient(found.home.ingest, context)) for _ in range(COUNT)]
            for number, client in enumerate(clients):
                client.send("hello", {"stream": f"n{number}", "notify": "learned"})
            for client in clients:
                client.expect("welcome", WAIT_S)
            learning.start()
            _fill_up(int(http.base_url.port or 0), stack)
            learning.join(WAIT_S)
            held = open_files(found.worker.pid) - before[found.worker.pid]
            assert held >= COUNT
        wait_until(lambda: _kept(before) < FEW, WAIT_S, "their files to be given back")
        print(f"{COUNT} connections: {held} more open files meanwhile, {_kept(before)} afterwards")
    end = found.end()
    assert {name: count for name, count in end.next_seq.items() if count} == dict.fromkeys(mortal.STREAMS, EACH)
    assert len(end.next_seq) == COUNT + len(mortal.STREAMS)
    found.check_bits(end)


def _kept(before: dict[int, int]) -> int:
    """How many more files are open, of the process that has more."""
    return max(open_files(pid) - count for pid, count in before.items())


def _fill_up(port: int, stack: ExitStack) -> None:
    """So many connections to the interface, half a request each; then the other half."""
    held = [stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S)) for _ in range(COUNT)]
    for connection in held[:ALLOWED]:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: loc")
    for connection in held[ALLOWED:]:
        told = _everything(connection)
        assert told.startswith(b"HTTP/1.1 503 "), told
        assert b'"code":"too_many_connections"' in told.replace(b'": "', b'":"')
    for connection in held[:ALLOWED]:
        connection.sendall(b"alhost\r\nConnection: close\r\n\r\n")
    for connection in held[:ALLOWED]:
        assert _everything(connection).startswith(b"HTTP/1.1 200 ")


def _everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received
