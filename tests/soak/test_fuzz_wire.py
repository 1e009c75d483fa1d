"""A live worker and everything that could be said to it: damaged messages by the thousand, and nothing moves."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import pytest
import zmq

from clients import wire
from clients.sender import Sender
from clients.wire import ErrorCode, WireError
from service.patches import decode_patch
from service.storage import open_reader
from tests.end_to_end.workers import working
from tests.helpers import PlainClient, Running, fixation_body, patches
from tests.soak.mutations import Frames, Mutator, png_bomb

SEED = 20_260_105
BATCH = 100
FLAT_KB = 48_000
"""Growth of resident memory of the allocator and the threads; a leak of 1 kB a message shows in the soak."""
PATCHES = patches(20)


def tapped(address: str, folder: Path) -> list[Frames]:
    """What a real client says to the worker at ``address``: its own hello and fixations, as they pass by."""
    said: list[Frames] = []
    stop = threading.Event()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as front, context.socket(zmq.DEALER) as back:
        port = front.bind_to_random_port("tcp://127.0.0.1")
        back.connect(address)

        def relay() -> None:
            poller, client = zmq.Poller(), b""
            poller.register(front, zmq.POLLIN)
            poller.register(back, zmq.POLLIN)
            while not stop.is_set():
                ready = dict(poller.poll(50))
                if front in ready:
                    client, *frames = front.recv_multipart()
                    said.append(frames)
                    back.send_multipart(frames)
                if back in ready:
                    front.send_multipart([client, *back.recv_multipart()])

        thread = threading.Thread(target=relay)
        thread.start()
        try:
            with Sender(f"tcp://127.0.0.1:{port}", "kept", spool_dir=folder / "spool") as sender:
                for n, patch in enumerate(PATCHES):
                    sequence = "first" if n == 0 else None
                    where = {"gaze_deg": (3.0, 4.0), "frame_deg": (30.0, 17.0), "padded": 0.1}
                    sender.offer(
                        onset_s=n / 4, duration_s=0.2, gaze=(0.5, 0.5), patch=patch, sequence=sequence, **where
                    )
                assert sender.flush(learned=True, timeout_s=120.0)
        finally:
            stop.set()
            thread.join()
    return said


def pictures() -> list[Frames]:
    """Fixations whose patch is a PNG or a JPEG, which our own client does not send."""
    found = []
    for kind, extension in (("png", ".png"), ("jpeg", ".jpg")):
        body = fixation_body("kept", 3)
        body["patch"]["encoding"] = kind
        data = cv2.imencode(extension, PATCHES[3][:, :, ::-1])[1].tobytes()
        found.append([b"rjepa1", b"fixation", json.dumps(body).encode(), data])
    return found


def is_valid(frames: Frames) -> str | None:
    """The kind of a message the wire takes, None of one with an error in it."""
    try:
        message, patch = wire.decode(frames, wire.FROM_CLIENT)
        if isinstance(message, wire.FixationMessage):
            decode_patch(message.patch, patch or b"")
    except WireError:
        return None
    return message.kind


class Live:
    """A worker under fire."""

    def __init__(self, process: Running, address: str, data_dir: Path) -> None:
        self.process = process
        self.address = address
        self.data_dir = data_dir

    def place(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything a message could have moved: each stream's cursors and epoch, and what the journal holds."""
        with closing(open_reader(self.data_dir / "rjepa.db")) as reader:
            told = {
                "streams": "SELECT name, epoch, next_seq, learned_seq, learned, padded FROM streams ORDER BY name",
                "journal": "SELECT count(*), max(id), sum(length(body)) FROM journal",
                "alarms": "SELECT count(*) FROM alarms",
            }
            return {name: [tuple(row) for row in reader.execute(query)] for name, query in told.items()}

    def resident_kb(self, line: str = "VmRSS") -> int:
        """Resident memory now (VmRSS) or at its highest (VmHWM), as the kernel tells it."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(one.split()[1]) for one in text.splitlines() if one.startswith(line))


@contextmanager
def live(data_dir: Path, logs: Path) -> Iterator[Live]:
    with working(data_dir, logs, options=("--checkpoint-every", "3600")) as worker:
        yield Live(worker.process, worker.ingest, data_dir)


class Attacker:
    """One connection; every answer is looked at."""

    def __init__(self, address: str, told: Counter[str]) -> None:
        self.client = PlainClient(address)
        self._told = told
        self.sent = 0
        self.answered = 0

    def say(self, frames: Frames) -> None:
        self.client.socket.send_multipart(frames)
        self.sent += 1

    def hear(self, limit_s: float = 0.0) -> bool:
        """One answer, if there is one within the limit."""
        if not self.client.socket.poll(int(limit_s * 1000)):
            return False
        frames = self.client.socket.recv_multipart()
        message, _ = wire.decode(frames)
        assert b"Traceback" not in frames[2]
        assert b'File \\"' not in frames[2]
        if isinstance(message, wire.Error):
            assert message.code in {code.value for code in ErrorCode}
            assert len(message.detail) < 400
        self._told[message.code if isinstance(message, wire.Error) else message.kind] += 1
        self.answered += 1
        return True


def fuzz(live: Live, seeds: list[Frames], count: int) -> tuple[Counter[str], list[int]]:
    """Send ``count`` damaged messages, half of them by the stream's owner: what was answered, and memory in kB at
    10 %, 50 % and 100 %. A message that is valid after all is not sent where it might be taken."""
    mutator, told, memory = Mutator(SEED, seeds), Counter[str](), []
    stranger, owner = Attacker(live.address, told), Attacker(live.address, told)
    epoch = dict((row[0], row[1]) for row in live.place()["streams"])["kept"]
    owner.client.hello("kept", epoch=epoch)
    marks = {count // 10, count // 2, count}
    try:
        sent = 0
        while sent < count:
            for _ in range(min(BATCH, count - sent)):
                frames = mutator.message()
                while is_valid(frames) is not None and (is_valid(frames) == "hello" or sent % 2):
                    frames = mutator.message()
                (owner if sent % 2 else stranger).say(frames)
                sent += 1
                if sent in marks:
                    memory.append(live.resident_kb())
            while stranger.answered < stranger.sent or owner.answered < owner.sent + 1:
                attacker = stranger if stranger.answered < stranger.sent else owner
                assert attacker.hear(60.0), f"no answer to a message of the {BATCH} up to {sent}"
        assert (stranger.answered, owner.answered) == (stranger.sent, owner.sent + 1), "one answer to each"
    finally:
        stranger.client.close()
        owner.client.close()
    return told, memory


def shaken(data_dir: Path, tmp_path: Path, count: int) -> None:
    """Fuzz a live worker and look at everything afterwards."""
    with live(data_dir, tmp_path / "logs") as worker:
        seeds = tapped(worker.address, tmp_path)
        assert {frames[1] for frames in seeds} == {b"hello", b"fixation"}
        seeds += pictures()
        before, highest_kb = worker.place(), worker.resident_kb("VmHWM")
        assert [row[2:4] for row in before["streams"]] == [(len(PATCHES), len(PATCHES) - 1)]
        told, memory = fuzz(worker, seeds, count)
        print(f"seed {SEED}: {count} messages; answers {dict(told)}; kB at 10, 50, 100 %: {memory}")
        assert worker.process.alive(), worker.process.stderr()[-3000:]
        assert worker.place() == before
        assert max(memory) - memory[0] < FLAT_KB, memory
        assert worker.resident_kb("VmHWM") - highest_kb < FLAT_KB, "a bomb was unfolded"
        assert not {"welcome", "learned", "resend", "conflict"} & set(told)
        assert {"bad_version", "bad_message", "bad_stream", "bad_patch", "hello_required"} <= set(told)
        assert "Traceback" not in worker.process.stderr()
        with Sender(worker.address, "kept", spool_dir=tmp_path / "spool") as sender:
            sender.offer(onset_s=99.0, duration_s=0.2, gaze=(0.5, 0.5), patch=PATCHES[0])
            assert sender.flush(learned=True, timeout_s=60.0), "a real client goes on"
        assert worker.place()["streams"][0][2] == len(PATCHES) + 1
        assert worker.process.terminate(60.0) == 0, worker.process.stderr()[-3000:]


def test_two_thousand_damaged_messages_move_nothing(data_dir: Path, tmp_path: Path) -> None:
    shaken(data_dir, tmp_path, 2_000)


@pytest.mark.soak
def test_a_hundred_thousand_damaged_messages_move_nothing(data_dir: Path, tmp_path: Path) -> None:
    shaken(data_dir, tmp_path, 100_000)


def test_a_bomb_is_refused_and_what_is_far_too_large_cuts_only_its_own_connection(
    data_dir: Path, tmp_path: Path
) -> None:
    bomb = png_bomb(30_000, 30_000)
    assert len(bomb) < 20_000
    with live(data_dir, tmp_path / "logs") as worker, PlainClient(worker.address) as client:
        client.hello("s")
        highest_kb = worker.resident_kb("VmHWM")
        body = fixation_body("s", 0)
        body["patch"]["encoding"] = "png"
        for _ in range(50):
            client.send("fixation", body, bomb)
            assert "30000 x 30000" in client.expect("error")["detail"]
        assert worker.resident_kb("VmHWM") - highest_kb < FLAT_KB, "2.7 GB would be seen"
        with PlainClient(worker.address) as large:
            large.socket.send_multipart([b"rjepa1", b"hello", bytes(wire.MAX_MESSAGE_BYTES + 1)])
            with PlainClient(worker.address) as many:
                many.socket.send_multipart([b"rjepa1", b"hello", *[b""] * 100_000])
                assert "more than 4 frames" in many.expect("error", 60.0)["detail"]
            assert not large.socket.poll(500), "no answer: the connection was cut"
        client.fixation("s", 0, PATCHES[0])
        assert client.until_learned(0)[-1]["seq"] == 0
