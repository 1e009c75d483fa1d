"""The door with real sockets and a real journal, the learner's part played by the test: it tells what was learned."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zmq

from clients.wire import Learned, ModelOffer
from service import ingest
from service.access import Access, Authenticator, secure_server
from service.alarms import Alarms
from service.dropped import Drops
from service.ingest import Ingest, configure
from service.journal import Admitted, Journal
from tests.helpers import PlainClient, fixation_body, patches, wait_until

PATCHES = patches(20)


@dataclass
class Door:
    ingest: Ingest
    journal: Journal
    address: str
    context: zmq.Context[Any]
    broken: threading.Event
    grown: list[None] = field(default_factory=list)

    def client(self) -> PlainClient:
        return PlainClient(self.address, self.context)

    def held(self, stream: str = "s") -> list[int | None]:
        return [entry.seq for entry in self.journal.entries(0, 10_000) if entry.stream == stream]

    def next_seq(self, stream: str = "s") -> int:
        return next(cursor.next_seq for cursor in self.journal.cursors() if cursor.name == stream)


@pytest.fixture
def open_door(tmp_path: Path) -> Iterator[Callable[[], Door]]:
    """Opens the door on one journal; every call closes the one before, as a restart would."""
    doors: list[Door] = []
    with zmq.Context() as context:

        def close() -> None:
            for door in doors:
                door.ingest.stop()
                door.journal.close()
            doors.clear()

        def make() -> Door:
            close()
            broken, grown = threading.Event(), []  # type: ignore[var-annotated]

            def before_commit(what: str) -> None:
                if broken.is_set():
                    raise OSError(28, f"no room for {what}")

            journal = Journal(tmp_path / "rjepa.db", before_commit=before_commit)
            router = context.socket(zmq.ROUTER)
            configure(router)
            port = router.bind_to_random_port("tcp://127.0.0.1")
            ingest = Ingest(
                router,
                journal,
                Access.load(tmp_path / "access"),
                ModelOffer(name="rjepa", embedding_size=256),
                on_append=lambda: grown.append(None),
                on_dropped=Drops(journal, Alarms(journal)).heard,
                on_end=lambda: None,
            )
            ingest.start()
            doors.append(Door(ingest, journal, f"tcp://127.0.0.1:{port}", context, broken, grown))
            return doors[-1]

        yield make
        close()


@pytest.fixture
def door(open_door: Callable[[], Door]) -> Door:
    return open_door()


def acked(client: PlainClient, seq: int) -> dict[str, Any]:
    """The ack for ``seq``; earlier ones are passed over."""
    while True:
        kind, body = client.receive()
        assert kind == "ack", f"{kind}: {body}"
        if body["seq"] >= seq:
            return body


def test_a_plain_first_hello_gets_a_welcome_and_nothing_else(door: Door) -> None:
    with door.client() as client:
        welcome = client.hello("s")
        assert welcome == {
            "stream": "s",
            "epoch": 1,
            "next_seq": 0,
            "patch": {"height": 50, "width": 50, "channels": 3, "encodings": ["raw", "png", "jpeg"], "degrees": 5.0},
            "model": {"name": "rjepa", "embedding_size": 256},
        }
        client.fixation("s", 0, PATCHES[0])
        assert client.receive() == ("ack", {"stream": "s", "seq": 0, "learned": -1})
        assert door.journal.cursors()[0].epoch == 1
        assert door.grown


def test_fixations_are_durable_when_they_are_acked(door: Door, open_door: Callable[[], Door]) -> None:
    with door.client() as client:
        client.hello("s")
        for seq in range(20):
            client.fixation("s", seq, PATCHES[seq])
            if seq % 5 == 4:
                acked(client, seq)
                assert door.next_seq() == seq + 1
    entry = door.journal.entries(7, 1)[0]
    assert entry.body == fixation_body("s", 7)
    assert door.journal.patch(entry.id) == PATCHES[7].tobytes()
    again = open_door()
    with again.client() as client:
        welcome = client.hello("s", acked=19)
        assert (welcome["epoch"], welcome["next_seq"]) == (2, 20)
        assert client.receive() == ("ack", {"stream": "s", "seq": 19, "learned": -1}), "it asked where we are"
        client.fixation("s", 3, PATCHES[3])
        assert acked(client, 19)["seq"] == 19, "a duplicate of before the restart"
        client.fixation("s", 4, PATCHES[3])
        assert client.receive() == ("conflict", {"stream": "s", "seq": 4, "next_seq": 20})
    assert again.held() == list(range(20))


def test_png_and_jpeg_are_taken(door: Door) -> None:
    with door.client() as client:
        client.hello("s")
        for seq, (encoding, kind) in enumerate([("png", ".png"), ("jpeg", ".jpg")]):
            body = fixation_body("s", seq)
            body["patch"] |= {"encoding": encoding, "padded": 0.25}
            client.send("fixation", body, cv2.imencode(kind, PATCHES[0])[1].tobytes())
        acked(client, 1)


def fixation(**changed: Any) -> dict[str, Any]:
    return fixation_body("s", 1) | changed


def patch(**changed: Any) -> dict[str, Any]:
    return fixation(patch=fixation_body("s", 1)["patch"] | changed)


RAW = PATCHES[1].tobytes()
BAD: list[tuple[str, list[bytes], str]] = [
    ("no frames to speak of", [b""], "bad_version"),
    ("another version", [b"rjepa2", b"hello", b"{}"], "bad_version"),
    ("two frames", [b"rjepa1", b"hello"], "bad_message"),
    ("an unknown kind", [b"rjepa1", b"greeting", b"{}"], "bad_message"),
    ("a kind of the worker's", [b"rjepa1", b"ack", b'{"stream": "s", "seq": 0, "learned": 0}'], "bad_message"),
    ("no JSON", [b"rjepa1", b"hello", b"{"], "bad_message"),
    ("no object", [b"rjepa1", b"hello", b"[]"], "bad_message"),
    ("no UTF-8", [b"rjepa1", b"hello", b'{"stream": "\xff"}'], "bad_message"),
    ("a deep nest", [b"rjepa1", b"hello", b"[" * 100_000], "bad_message"),
    ("a key too many", [b"rjepa1", b"hello", b'{"stream": "s", "notify": "learned", "x": 1}'], "bad_message"),
    ("a bad stream", [b"rjepa1", b"hello", b'{"stream": "../x", "notify": "learned"}'], "bad_stream"),
    ("a frame too many", [b"rjepa1", b"hello", b'{"stream": "s", "notify": "learned"}', b""], "bad_message"),
    ("a huge frame", [b"rjepa1", b"hello", b" " * (2 << 20)], "too_large"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "frames", "code"), BAD)
def test_a_bad_message_is_answered_and_moves_nothing(door: Door, name: str, frames: list[bytes], code: str) -> None:
    with door.client() as client, door.client() as other:
        client.hello("s")
        other.hello("t")
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)
        client.socket.send_multipart(frames)
        kind, body = client.receive()
        assert (kind, body["code"]) == ("error", code), name
        assert "Traceback" not in body["detail"]
        other.fixation("t", 0, PATCHES[0])
        acked(other, 0)
        client.fixation("s", 1, PATCHES[1])
        acked(client, 1)
    assert door.held() == [0, 1]


BAD_FIXATIONS: list[tuple[str, dict[str, Any] | bytes, bytes | None, str]] = [
    ("no patch", fixation(), None, "bad_message"),
    ("NaN in the gaze", b'{"stream":"s","seq":1,"gaze":{"x":NaN,"y":0}}', RAW, "bad_message"),
    ("a gaze beyond the frame", fixation(gaze={"x": 1.1, "y": 0.0}), RAW, "bad_message"),
    ("a gaze of text", fixation(gaze={"x": "0.5", "y": 0.0}), RAW, "bad_message"),
    ("no gaze", {k: v for k, v in fixation().items() if k != "gaze"}, RAW, "bad_message"),
    ("a negative duration", fixation(duration=-0.1), RAW, "bad_message"),
    ("a seq of 1.5", fixation(seq=1.5), RAW, "bad_message"),
    ("a negative seq", fixation(seq=-1), RAW, "bad_message"),
    ("a seq beyond all bounds", fixation(seq=2**60), RAW, "bad_message"),
    ("four channels", patch(channels=4), RAW, "bad_message"),
    ("a frame of no size", fixation(frame_deg={"width": 0.0, "height": 17.0}), RAW, "bad_message"),
    ("too few bytes", fixation(), RAW[:-1], "bad_patch"),
    ("no bytes", fixation(), b"", "bad_patch"),
    ("another size", patch(height=60), bytes(60 * 50 * 3), "bad_patch"),
    ("another angle", patch(degrees=10.0), RAW, "bad_patch"),
    ("bytes that are no PNG", patch(encoding="png"), RAW, "bad_patch"),
    ("a patch that is too large", fixation(), bytes(2 << 20), "too_large"),
]


@pytest.mark.parametrize(("name", "body", "data", "code"), BAD_FIXATIONS)
def test_a_bad_fixation_is_answered_and_moves_nothing(
    door: Door, name: str, body: dict[str, Any] | bytes, data: bytes | None, code: str
) -> None:
    with door.client() as client:
        client.hello("s")
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)
        client.send("fixation", body, data)
        kind, told = client.receive()
        assert (kind, told["code"]) == ("error", code), name
        if code == "bad_patch":
            assert (told["stream"], told["seq"]) == ("s", 1)
        client.fixation("s", 1, PATCHES[1])
        acked(client, 1)
    assert door.held() == [0, 1]


def test_a_message_beyond_16_mb_cuts_that_connection_only(door: Door) -> None:
    with door.client() as client, door.client() as other:
        client.hello("s")
        other.hello("t")
        client.socket.send_multipart([b"rjepa1", b"fixation", b" " * (17 << 20)])
        other.fixation("t", 0, PATCHES[0])
        acked(other, 0)
    with door.client() as client:
        assert client.hello("s")["next_seq"] == 0


def test_a_hole_gets_one_resend(door: Door) -> None:
    with door.client() as client:
        client.hello("s")
        client.fixation("s", 0, PATCHES[0])
        for seq in (2, 3, 4):
            client.fixation("s", seq, PATCHES[seq])
        assert client.expect("resend") == {"stream": "s", "from_seq": 1}
        for seq in (1, 2, 3, 4):
            client.fixation("s", seq, PATCHES[seq])
        acked(client, 4)
    assert door.held() == [0, 1, 2, 3, 4]


def test_hello_is_required_and_a_new_owner_fences_the_old(door: Door) -> None:
    with door.client() as first, door.client() as second:
        first.fixation("s", 0, PATCHES[0])
        assert first.receive()[1]["code"] == "hello_required"
        assert first.hello("s")["epoch"] == 1
        first.fixation("s", 0, PATCHES[0])
        acked(first, 0)
        assert second.hello("s")["epoch"] == 2
        first.fixation("s", 1, PATCHES[1])
        kind, told = first.receive()
        assert (kind, told["code"], told["stream"], told["seq"]) == ("error", "fenced", "s", 1)
        first.send("hello", {"stream": "s", "notify": "durable", "epoch": 1})
        assert first.receive()[1]["code"] == "fenced"
        second.fixation("s", 1, PATCHES[1])
        acked(second, 1)
    assert door.held() == [0, 1]


def test_one_connection_carries_several_streams(door: Door) -> None:
    with door.client() as client:
        for stream in "abc":
            client.hello(stream)
        for seq in range(5):
            for stream in "abc":
                client.fixation(stream, seq, PATCHES[seq])
        done = {"a": -1, "b": -1, "c": -1}
        while min(done.values()) < 4:
            kind, body = client.receive()
            assert kind == "ack"
            done[body["stream"]] = body["seq"]
    assert all(door.held(stream) == list(range(5)) for stream in "abc")


def test_what_nobody_has_is_journalled_as_lost(door: Door) -> None:
    with door.client() as client:
        client.hello("s")
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)
    with door.client() as client:
        assert client.hello("s", epoch=9, acked=6, have_from=7)["next_seq"] == 7
        client.fixation("s", 7, PATCHES[7])
        assert acked(client, 7)["seq"] == 7
    assert [(e.kind, e.seq) for e in door.journal.entries(0, 99)] == [
        ("fixation", 0),
        *(("lost", seq) for seq in range(1, 7)),
        ("fixation", 7),
    ]
    assert door.journal.cursors()[0].epoch == 9


def learned(seq: int) -> Learned:
    return Learned(stream="s", seq=seq, prediction_error=0.5, position=seq, latency_ms=12.0, skipped=None)


def test_learned_goes_to_the_owner_who_asked_and_every_owner_gets_an_ack(door: Door) -> None:
    with door.client() as client, door.client() as quiet:
        client.hello("s")
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)
        door.ingest.tell([learned(0)])
        assert client.receive() == (
            "learned",
            {"stream": "s", "seq": 0, "prediction_error": 0.5, "position": 0, "latency_ms": 12.0, "skipped": None},
        )
        assert client.receive() == ("ack", {"stream": "s", "seq": 0, "learned": 0})
        quiet.hello("s", notify="durable")
        quiet.fixation("s", 1, PATCHES[1])
        acked(quiet, 1)
        door.ingest.tell([learned(1)])
        assert quiet.receive() == ("ack", {"stream": "s", "seq": 1, "learned": 1})
        assert not client.socket.poll(50), "the old owner hears nothing"


def test_a_full_disk_is_said_nothing_is_acked_and_it_goes_on_by_itself(door: Door) -> None:
    with door.client() as client, door.client() as other:
        client.hello("s")
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)
        door.broken.set()
        client.fixation("s", 1, PATCHES[1])
        kind, body = client.receive()
        assert (kind, body["code"], body["stream"], body["seq"]) == ("error", "storage_full", "s", 1)
        client.fixation("s", 2, PATCHES[2])
        assert client.receive() == ("resend", {"stream": "s", "from_seq": 1})
        assert door.next_seq() == 1
        assert door.ingest.storage is not None
        assert "no room" in door.ingest.storage
        other.send("hello", {"stream": "t", "notify": "durable"})
        assert other.receive()[1]["code"] == "storage_full"
        door.broken.clear()
        wait_until(lambda: door.ingest.storage is None, 5.0, "the door to ask the disk again")
        for seq in (1, 2):
            client.fixation("s", seq, PATCHES[seq])
        acked(client, 2)
    assert door.held() == [0, 1, 2]


def test_a_client_that_never_reads_does_not_hold_up_the_others(door: Door) -> None:
    with door.client() as deaf, door.client() as other:
        deaf.hello("s")
        for number in range(3000):
            deaf.socket.send_multipart([b"rjepa1", b"nonsense", b"{}"])
            if number % 1000 == 0:
                other.hello("t")
        other.hello("t")
        other.fixation("t", 0, PATCHES[0])
        acked(other, 0)


def test_two_hundred_connections(door: Door) -> None:
    clients = [door.client() for _ in range(200)]
    try:
        for number, client in enumerate(clients):
            client.send("hello", {"stream": f"s{number}", "notify": "durable"})
        for number, client in enumerate(clients):
            client.expect("welcome")
            client.fixation(f"s{number}", 0, PATCHES[number % 20])
        for client in clients:
            acked(client, 0)
    finally:
        for client in clients:
            client.close()
    assert len(door.journal.cursors()) == 200


def test_a_turn_ends_with_so_many_bytes(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much waits at the door, so much is held for one commit."""
    monkeypatch.setattr(ingest, "DRAIN_BYTES", 2 * PATCHES[0].nbytes)
    sent, sizes, append = threading.Event(), [], door.journal.append

    def slowly(batch: Sequence[Admitted]) -> None:
        assert sent.wait(20.0)
        sizes.append(len(batch))
        append(batch)

    monkeypatch.setattr(door.journal, "append", slowly)
    with door.client() as client:
        client.hello("s")
        for seq in range(9):
            client.fixation("s", seq, PATCHES[seq])
        sent.set()
        wait_until(lambda: door.next_seq() == 9, 20.0, "all to be durable")
    assert sum(sizes) == 9
    assert max(sizes) == 2


def test_random_bytes_move_nothing(door: Door) -> None:
    generator = np.random.default_rng(1)
    with door.client() as client:
        client.hello("s")
        good = [b"rjepa1", b"fixation", b'{"stream": "s", "seq": 0}', RAW]
        for _ in range(500):
            frames = [bytearray(frame) for frame in good[: generator.integers(1, 5)]]
            for frame in frames:
                for at in generator.integers(0, len(frame), generator.integers(0, 4)):
                    frame[at] = generator.integers(256)
            client.socket.send_multipart([bytes(frame) for frame in frames])
            assert client.receive()[0] == "error"
        assert door.next_seq() == 0
        client.fixation("s", 0, PATCHES[0])
        acked(client, 0)


def test_a_key_writes_its_own_streams_only(tmp_path: Path) -> None:
    """With CURVE on: no key and an unlisted one get nothing in; a listed one is held to its streams."""
    server, listed, stranger = (zmq.curve_keypair() for _ in range(3))
    folder = tmp_path / "access"
    (folder / "clients").mkdir(parents=True)
    (folder / "server.json").write_text(json.dumps({"public": server[0].decode(), "secret": server[1].decode()}))
    (folder / "server.json").chmod(0o600)
    entry = {"public": listed[0].decode(), "streams": ["mine-*"]}
    (folder / "clients" / "lab.json").write_text(json.dumps(entry))
    access = Access.load(folder)
    journal = Journal(tmp_path / "rjepa.db")
    with zmq.Context() as context, zmq.Context() as outside, Authenticator(context, access):
        router = context.socket(zmq.ROUTER)
        configure(router)
        secure_server(router, access)
        address = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
        offer = ModelOffer(name="rjepa", embedding_size=256)
        ingest = Ingest(
            router, journal, access, offer,
            on_append=lambda: None, on_dropped=lambda stream, dropped: None, on_end=lambda: None,
        )  # fmt: skip
        ingest.start()

        def client(pair: tuple[bytes, bytes] | None) -> PlainClient:
            made = PlainClient.__new__(PlainClient)
            made._own, made.context = False, outside
            made.socket = outside.socket(zmq.DEALER)
            made.socket.linger = 0
            if pair is not None:
                made.socket.curve_publickey, made.socket.curve_secretkey = pair
                made.socket.curve_serverkey = server[0]
            made.socket.connect(address)
            return made

        try:
            with client(listed) as good, client(None) as open_one, client(stranger) as unlisted:
                assert good.hello("mine-1")["epoch"] == 1
                good.fixation("mine-1", 0, PATCHES[0])
                assert acked(good, 0)["stream"] == "mine-1"
                strange = {"stream": "other", "notify": "durable"}
                for kind, body, data in (("hello", strange, None), ("fixation", fixation_body("other", 0), RAW)):
                    good.send(kind, body, data)
                    told = good.receive()
                    assert (told[0], told[1]["code"], told[1]["stream"]) == ("error", "unauthorized", "other")
                for other in (open_one, unlisted):
                    other.send("hello", {"stream": "mine-2", "notify": "durable"})
                assert not open_one.socket.poll(300)
                assert not unlisted.socket.poll(300)
        finally:
            ingest.stop()
        assert [cursor.name for cursor in journal.cursors()] == ["mine-1"]
        journal.close()


def test_a_message_of_many_frames_is_refused_whole(door: Door) -> None:
    with door.client() as client:
        client.hello("s")
        for count in (2, 5_000):
            client.socket.send_multipart([b"rjepa1", b"fixation", b"{}", *[b"x"] * count])
            told = client.expect("error")
            assert (told["code"], told["detail"][:18]) == ("bad_message", "more than 4 frames")
        client.fixation("s", 0, PATCHES[0])
        assert acked(client, 0)["seq"] == 0
