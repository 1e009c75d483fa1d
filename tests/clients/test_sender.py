"""The sender over real sockets: crashes, silence, a full disk, other owners; none lost, none twice, in order."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from clients import wire
from clients.errors import (
    BadFixation,
    Fenced,
    KeyRefused,
    OptionError,
    SenderClosed,
    SpoolInUse,
    SpoolRefused,
    StreamConflict,
    WorkerUnreachable,
)
from clients.sender import QUEUE, Sender, default_spool
from clients.spool import Spool
from tests.clients.peer import Peer
from tests.helpers import free_port, patches, wait_until

PATCHES = patches(8)


def offer(sender: Sender, number: int, **more: Any) -> bool:
    """Fixation ``number``, which can be told from every other."""
    return sender.offer(onset_s=number * 0.25, duration_s=0.2, gaze=(0.25, 0.75), patch=PATCHES[number % 8], **more)


@contextmanager
def sending(peer: Peer, tmp_path: Path, **options: Any) -> Iterator[Sender]:
    sender = Sender(peer.address, "s1", spool_dir=tmp_path / "spool", **options)
    try:
        yield sender
    finally:
        sender.close()


def onsets(peer: Peer, stream: str = "s1") -> list[float]:
    return [message.onset for message in peer.messages(stream)]


def expected(*numbers: int) -> list[float]:
    return [number * 0.25 for number in numbers]


def test_as_a_script_uses_it(peer: Peer, tmp_path: Path) -> None:
    learned: list[wire.Learned] = []
    with Sender(peer.address, stream="s1", spool_dir=tmp_path, on_learned=learned.append) as sender:
        assert sender.offer(
            onset_s=1.5,
            duration_s=0.25,
            gaze=(0.5, 0.25),
            patch=PATCHES[0],
            gaze_deg=(15.0, 5.0),
            frame_deg=(30.0, 20.0),
            padded=0.125,
            sequence="trial 1",
        )
        assert sender.flush(timeout_s=20)
        status = sender.status
        assert (status.sent, status.acked, status.learned, status.waiting) == (1, 1, 1, 0)
        assert (status.epoch, status.next_seq, status.all_learned) == (1, 0, True)
    (message,) = peer.messages("s1")
    assert message == wire.FixationMessage(
        stream="s1",
        seq=0,
        onset=1.5,
        duration=0.25,
        gaze=wire.Gaze(x=0.5, y=0.25),
        gaze_deg=wire.GazeDegrees(x=15.0, y=5.0),
        frame_deg=wire.FrameDegrees(width=30.0, height=20.0),
        patch=wire.PatchHeader(encoding="raw", height=50, width=50, channels=3, color="rgb", degrees=5.0, padded=0.125),
        sequence=wire.SequenceMark(id="trial 1", start=True),
    )
    held = peer.held("s1").items[0]
    assert held == wire.digest(1.5, 0.25, wire.Gaze(x=0.5, y=0.25), PATCHES[0].tobytes())
    assert [told.seq for told in learned] == [0]


def test_leaving_the_block_waits_until_it_is_durable(peer: Peer, tmp_path: Path) -> None:
    with Sender(peer.address, stream="s1", spool_dir=tmp_path) as sender:
        for number in range(300):
            while not offer(sender, number, wait_s=1.0):
                assert sender.status.phase != "failed"
    assert onsets(peer) == expected(*range(300))


def test_a_worker_killed_again_and_again(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        for crash in range(3):
            for number in range(crash * 100, crash * 100 + 100):
                offer(sender, number, wait_s=10.0)
            wait_until(lambda: sender.status.acked > 10 + crash * 100, 20, "some acks")  # noqa: B023
            peer.crash()
            offer(sender, 1000 + crash, wait_s=10.0)
            peer.start()
        assert sender.flush(timeout_s=30)
    assert onsets(peer) == expected(*range(100), 1000, *range(100, 200), 1001, *range(200, 300), 1002)
    assert {hello.epoch for hello in peer.hellos[1:]} == {1}


def test_silence_is_answered_with_a_fresh_hello(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        sender.wait_welcome(20)
        peer.answering = False
        offer(sender, 0)
        wait_until(lambda: sender.status.phase == "greeting", 20, "the sender to begin again")
        peer.answering = True
        assert sender.flush(timeout_s=20)
    assert peer.hellos[0].epoch is None
    assert (peer.hellos[-1].epoch, peer.hellos[-1].acked, peer.hellos[-1].have_from) == (1, -1, 0)
    assert onsets(peer) == expected(0)


def test_offered_before_there_is_a_worker(tmp_path: Path) -> None:
    port = free_port()
    sender = Sender(f"tcp://127.0.0.1:{port}", "s1", spool_dir=tmp_path)
    try:
        for number in range(5):
            assert offer(sender, number)
        assert sender.wait_welcome(0.1) is None
        assert not sender.flush(timeout_s=0.1)
        assert sender.status.waiting == 5
    finally:
        sender.close()
    spool = Spool(tmp_path, "s1")
    assert [entry.seq for entry in spool.entries()] == [None] * 5, "a seq only after welcome"
    spool.close()


def test_a_spool_is_sent_by_the_next_run(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        offer(sender, 0)
        sender.flush(timeout_s=20)
        peer.crash()
        offer(sender, 1)
        offer(sender, 2)
        wait_until(lambda: sender.status.taken == 3, 20, "the spool")
    peer.start()
    with sending(peer, tmp_path) as sender:
        assert sender.status.backlog == 2
        offer(sender, 3)
        assert sender.flush(timeout_s=20)
        status = sender.status
        assert (status.sent, status.acked, status.learned) == (1, 1, 1), "its own, not the backlog's"
    assert onsets(peer) == expected(0, 1, 2, 3)
    assert peer.hellos[-1].epoch == 1, "the same owner"


def test_what_is_in_the_queue_at_the_end_is_spooled(tmp_path: Path) -> None:
    sender = Sender(f"tcp://127.0.0.1:{free_port()}", "s1", spool_dir=tmp_path)
    for number in range(200):
        assert offer(sender, number)
    sender.close()
    spool = Spool(tmp_path, "s1")
    assert len(spool.entries()) == 200
    spool.close()


def test_queue_and_spool_are_bounded(peer: Peer, tmp_path: Path) -> None:
    peer.answering = False
    with sending(peer, tmp_path, capacity=20) as sender:
        taken = 20 + QUEUE
        assert all(offer(sender, number, wait_s=20) for number in range(taken))
        wait_until(lambda: sender.status.waiting == 20, 20, "the spool to be full")
        assert not any(offer(sender, taken) for _ in range(2))
        assert not sender.wait_room(0.0)
        peer.answering = True
        assert sender.flush(timeout_s=20)
        assert sender.wait_room(20)
        assert offer(sender, taken)
        assert sender.flush(timeout_s=20)
        assert sender.status.dropped == 2, "asking for room drops nothing"
        wait_until(lambda: peer.hellos[-1].dropped is not None, 20, "the worker to be told")
        dropped = peer.hellos[-1].dropped
        assert dropped is not None
        assert dropped.spool_full == 2
        assert abs(dropped.since - time.time()) < 600
    assert onsets(peer) == expected(*range(taken + 1)), "what was refused left no hole"


def test_a_full_disk_at_the_worker(peer: Peer, tmp_path: Path) -> None:
    peer.worker.full = True
    with sending(peer, tmp_path) as sender:
        for number in range(10):
            offer(sender, number)
        wait_until(lambda: "can't store" in (sender.status.trouble or ""), 20, "the trouble to be told")
        assert sender.status.waiting == 10
        peer.worker.full = False
        assert sender.flush(timeout_s=20)
        assert sender.status.trouble is None
    assert onsets(peer) == expected(*range(10))


def test_a_full_disk_here(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Event()
    commit = Spool.commit

    def failing(spool: Spool) -> None:
        if full.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        commit(spool)

    monkeypatch.setattr(Spool, "commit", failing)
    with sending(peer, tmp_path) as sender:
        offer(sender, 0)
        assert sender.flush(timeout_s=20)
        full.set()
        offer(sender, 1)
        offer(sender, 2)
        wait_until(lambda: "disk is full" in (sender.status.trouble or ""), 20, "the trouble to be told")
        assert onsets(peer) == expected(0)
        full.clear()
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(0, 1, 2)


def test_a_spool_that_breaks_at_the_end_does_not_hold_up_its_closing(
    peer: Peer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sender = Sender(peer.address, "s1", spool_dir=tmp_path / "spool", finite=True)
    offer(sender, 0)
    assert sender.flush(timeout_s=20)
    sender._courier._spool._database.execute("DROP TABLE meta")
    closing = threading.Thread(target=sender.close, daemon=True)
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert "no such table: meta" in caplog.text


def test_a_disk_that_takes_its_time_holds_up_nobody(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool's disk stands still in the middle of a write: offering goes on, up to the queue, and then drops."""
    stuck, reached = threading.Event(), threading.Event()
    commit = Spool.commit

    def slow(spool: Spool) -> None:
        if stuck.is_set():
            reached.set()
            while stuck.is_set():
                time.sleep(0.01)
        commit(spool)

    with sending(peer, tmp_path) as sender:
        monkeypatch.setattr(Spool, "commit", slow)
        stuck.set()
        offer(sender, 0)
        assert reached.wait(20)
        longest_s = 0.0
        for number in range(1, QUEUE + 11):
            begun_s = time.perf_counter()
            assert offer(sender, number) == (number <= QUEUE)
            longest_s = max(longest_s, time.perf_counter() - begun_s)
        print(f"the longest of {QUEUE + 10} offers at a disk that stood still: {1e3 * longest_s:.1f} ms")
        assert stuck.is_set(), "the disk stood still all the while"
        assert sender.status.dropped == 0, "the thread that would tell it waits for the disk"
        stuck.clear()
        assert sender.flush(timeout_s=20)
        assert sender.status.dropped == 10
    assert onsets(peer) == expected(*range(QUEUE + 1))


def test_another_owner_ends_it_and_it_can_come_back(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        offer(sender, 0)
        sender.flush(timeout_s=20)
        with Sender(peer.address, "s1", spool_dir=tmp_path / "other") as other:
            offer(other, 100)
            assert other.flush(timeout_s=20)
            offer(sender, 1)
            with pytest.raises(Fenced, match="claims it back"):
                sender.flush(timeout_s=20)
            with pytest.raises(Fenced):
                offer(sender, 2)
            offer(other, 101)
    with sending(peer, tmp_path) as sender:
        assert sender.status.backlog == 1
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(0, 100, 101, 1)


def test_a_recording_again_is_recognised(peer: Peer, tmp_path: Path) -> None:
    for run in range(2):
        with sending(peer, tmp_path, recording=True, finite=True, hold_back=32) as sender:
            for number in range(90):
                offer(sender, number, wait_s=10.0)
            assert sender.flush(timeout_s=30)
            assert (sender.status.acked, sender.status.learned) == (90, 90)
            assert sender.status.held == (90 if run else 0)
    assert onsets(peer) == expected(*range(90))


def test_a_longer_recording_goes_on(peer: Peer, tmp_path: Path) -> None:
    for count in (40, 70):
        with sending(peer, tmp_path, recording=True, finite=True, hold_back=32) as sender:
            for number in range(count):
                offer(sender, number, wait_s=10.0)
            assert sender.flush(timeout_s=30)
    assert sender.status.held == 40
    assert onsets(peer) == expected(*range(70))


def test_another_recording_in_the_same_stream(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path, recording=True, finite=True) as sender:
        for number in range(50):
            offer(sender, number)
        sender.flush(timeout_s=20)
    with sending(peer, tmp_path, recording=True, finite=True) as sender:
        for number in [*range(40), 777]:  # the same up to number 40
            offer(sender, number)
        with pytest.raises(StreamConflict, match="number 40"):
            sender.flush(timeout_s=20)
    assert onsets(peer) == expected(*range(50))
    with Sender(peer.address, "s2", spool_dir=tmp_path / "spool") as sender:
        offer(sender, 1)  # what conflicted is no one's backlog


def test_a_recording_does_not_empty_the_spool_of_a_live_stream(peer: Peer, tmp_path: Path) -> None:
    peer.answering = False
    with sending(peer, tmp_path) as sender:
        offer(sender, 7)
        wait_until(lambda: sender.status.waiting == 1, 20, "it to be spooled")
    with pytest.raises(SpoolRefused, match="1 fixations of a live stream s1"), sending(peer, tmp_path, recording=True):
        pass
    peer.answering = True
    with sending(peer, tmp_path) as sender:
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(7)
    with sending(peer, tmp_path / "other", recording=True) as sender:
        peer.answering = False
        offer(sender, 7)
        wait_until(lambda: sender.status.waiting == 1, 20, "it to be spooled")
    with sending(peer, tmp_path / "other", recording=True) as sender:
        assert sender.status.waiting == 0, "its own it has still, and offers again"


def test_a_recording_holds_back(peer: Peer, tmp_path: Path) -> None:
    peer.learning = False
    with sending(peer, tmp_path, recording=True, hold_back=32) as sender:
        for number in range(100):
            offer(sender, number, wait_s=10.0)
        wait_until(lambda: peer.held("s1").durable == 32, 20, "the first 32")
        peer.worker.learn("s1", 10)  # nobody tells the client; it asks
        wait_until(lambda: peer.held("s1").durable == 42, 20, "10 more")
        peer.learning = True
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(*range(100))


def test_a_finite_stream_forgets_at_its_end(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path, finite=True) as sender:
        offer(sender, 0)
        sender.flush(timeout_s=20)
    spool = Spool(tmp_path / "spool", "s1")
    assert (spool.epoch, spool.acked, spool.entries()) == (None, -1, [])
    spool.close()
    with sending(peer, tmp_path) as sender:
        offer(sender, 1)
        sender.flush(timeout_s=20)
    spool = Spool(tmp_path / "spool", "s1")
    assert (spool.epoch, spool.acked, spool.entries()) == (2, 1, []), "a live one knows where it was"
    spool.close()


def test_a_worker_that_lost_what_it_acked(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        for number in range(20):
            offer(sender, number)
        sender.flush(timeout_s=20)
        peer.crash()
        peer.worker.lose("s1", 5)
        offer(sender, 20)
        peer.start()
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(*range(15), 20)
    assert peer.held("s1").items[15:20] == [None] * 5


def test_bad_fixations_are_refused_where_they_are_offered(peer: Peer, tmp_path: Path) -> None:
    good: dict[str, Any] = {"onset_s": 0.0, "duration_s": 0.2, "gaze": (0.5, 0.5), "patch": PATCHES[0]}
    with sending(peer, tmp_path) as sender:
        for wrong in (
            {"gaze": (1.2, 0.5)},
            {"gaze": (float("nan"), 0.5)},
            {"onset_s": float("inf")},
            {"duration_s": -0.1},
            {"padded": 1.5},
            {"frame_deg": (0.0, 10.0)},
            {"patch": PATCHES[0][:49]},
            {"sequence": ""},
        ):
            with pytest.raises(BadFixation):
                sender.offer(**good | wrong)
        offer(sender, 3)
        assert sender.flush(timeout_s=20)
    assert onsets(peer) == expected(3)


def test_closed_means_closed(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        sender.close()
        with pytest.raises(SenderClosed):
            offer(sender, 0)
        with pytest.raises(SenderClosed):
            sender.flush()


def test_one_client_a_spool(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path), pytest.raises(SpoolInUse):
        Sender(peer.address, "s1", spool_dir=tmp_path / "spool")


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:5555", "tcp://127.0.0.1", "tcp://:5555", "tcp://a:0", "tcp://a:70000"]
)
def test_addresses_that_are_none(tmp_path: Path, address: str) -> None:
    with pytest.raises(WorkerUnreachable, match=r"tcp://127\.0\.0\.1:5555"):
        Sender(address, "s1", spool_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stream", ["", "a b", ".hidden", "ü", "x" * 65])
def test_streams_that_are_none(tmp_path: Path, stream: str) -> None:
    with pytest.raises(OptionError):
        Sender("tcp://127.0.0.1:1", stream, spool_dir=tmp_path)


def test_the_default_spool_is_of_worker_and_stream() -> None:
    one = default_spool("tcp://127.0.0.1:5555", "s1")
    assert one.parts[-2:] == ("127.0.0.1_5555", "s1")
    assert len({one, default_spool("tcp://127.0.0.1:5556", "s1"), default_spool("tcp://127.0.0.1:5555", "s2")}) == 3


def test_curve_by_key_file(tmp_path: Path) -> None:
    """A worker with keys: the right key is heard, no key is not."""
    server_public, server_secret = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    key = tmp_path / "client.json"
    key.write_text(json.dumps({"public": public.decode(), "secret": secret.decode(), "server": server_public.decode()}))
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    router.curve_server = True
    router.curve_secretkey = server_secret
    port = router.bind_to_random_port("tcp://127.0.0.1")
    address = f"tcp://127.0.0.1:{port}"
    bare = Sender(address, "s1", spool_dir=tmp_path / "a")
    keyed = Sender(address, "s1", spool_dir=tmp_path / "b", key_file=key)
    try:
        assert router.poll(20_000)
        _, *frames = router.recv_multipart()
        message, _ = wire.decode(frames)
        assert isinstance(message, wire.Hello)
        assert not router.poll(300), "only one of them is heard"
    finally:
        bare.close()
        keyed.close()
        router.close()
        context.term()


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"public": "a"}', '{"public": "a", "secret": "b", "server": "c"}']
)
def test_key_files_that_are_none(tmp_path: Path, content: str | None) -> None:
    key = tmp_path / "key.json"
    if content is not None:
        key.write_text(content)
    with pytest.raises(KeyRefused, match=r"key\.json"):
        Sender("tcp://127.0.0.1:1", "s1", spool_dir=tmp_path / "spool", key_file=key)


def test_numpy_scalars_are_numbers(peer: Peer, tmp_path: Path) -> None:
    with sending(peer, tmp_path) as sender:
        sender.offer(
            onset_s=np.float64(1.0), duration_s=np.float32(0.25), gaze=tuple(np.array([0.5, 0.5])), patch=PATCHES[0]
        )
        assert sender.flush(timeout_s=20)
