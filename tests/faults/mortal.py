"""A real worker and a real client, small and quick to start, that die by SIGKILL where they are told to.

The worker is all of ``rjepa worker`` behind its options: the door, the journal, the retina (a whole ResNet-50), the
learner, its diagnostics, checkpoints. Smaller than in use are the learner (16 units), what the retina is calibrated on
(64 patches), SQLite's log and the time between checkpoints. The client is two :class:`~clients.sender.Sender` with
their spools.
"""

from __future__ import annotations

import functools
import gc
import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import clients.protocol
import clients.sender
from clients.errors import ClientError
from clients.sender import Sender
from model.calibration import calibrate
from model.config import ModelConfig
from model.deadleaves import dead_leaves
from service import identity, log, write_ahead
from service.errors import ServiceError
from service.life import Life
from service.mailbox import Mailbox, Stop
from service.outside import opened
from service.settings import Settings

CONFIG = ModelConfig.preset("default", retina={"features": 16}, units=16, embedding_size=32, learning={"warmup": 5})
FITTED_ON = 64
LOG_PAGES = 200
"""SQLite's log is copied and begun again after so many, instead of 1,000: several times in a few hundred fixations."""
STREAMS = ("a", "b")
HOLD_BACK = 24
"""How far ahead of the learner each stream is sent: what waits at the worker, all the time."""
CAPACITY = 12
"""Fixations a stream's spool takes; the caller waits for room, all the time."""
PATCHES = dead_leaves(64, seed=1)
"""Such as the retina was calibrated on, so that none is taken for a repeat of another."""


@dataclass
class Fate:
    """Where a process ends itself: at the ``count``-th time it comes to ``point``, ``delay_s`` later."""

    point: str | None = None
    count: int = 1
    delay_s: float = 0.0

    def __call__(self, point: str) -> None:
        if point != self.point:
            return
        self.count -= 1
        if self.count == 0 and self.delay_s:
            threading.Timer(self.delay_s, end).start()
        elif self.count == 0:
            end()


def end() -> None:
    """SIGKILL to this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def patch_of(stream: str, number: int) -> Any:
    """The patch of a stream's fixation ``number``, uint8 (50, 50, 3)."""
    return PATCHES[(number * 5 + 17 * STREAMS.index(stream)) % len(PATCHES)]


def settings_of(data_dir: str, ingest: str, publish: str, checkpoint_every_s: float) -> Settings:
    """As ``rjepa worker`` would be given them, but for checkpoints more often than it lets anybody have them."""
    settings = Settings(data_dir=Path(data_dir), ingest=ingest, publish=publish, weights="random", threads=1)
    return settings.model_copy(update={"checkpoint_every": checkpoint_every_s, "keep_checkpoints": 2})


class Clock:
    """The wall clock, wrong by what a test has written into a mapped file (s). What does not step goes on as it did."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_SECONDS.size)
            self._map = mmap.mmap(file.fileno(), _SECONDS.size)
        self._true = time.time

    def __call__(self) -> float:
        return self._true() + float(_SECONDS.unpack_from(self._map)[0])

    def step(self, by_s: float) -> None:
        """From now on it is wrong by so much."""
        _SECONDS.pack_into(self._map, 0, by_s)


def worker(
    data_dir: str,
    ingest: str,
    publish: str,
    checkpoint_every_s: float = 0.1,
    fate: dict[str, Any] | None = None,
    clock: str | None = None,
) -> int:
    """:func:`service.worker.main` with a small model and a fate; its wall clock that of ``clock``, if named."""
    if clock is not None:
        time.time = Clock(Path(clock))
    try:
        return _live(data_dir, ingest, publish, checkpoint_every_s, Fate(**(fate or {})))
    except ServiceError as error:  # as the console script ends with it
        print(f"rjepa worker: {error}", file=sys.stderr)
        return error.exit_code


def _live(data_dir: str, ingest: str, publish: str, checkpoint_every_s: float, doom: Fate) -> int:
    write_ahead.COPY_PAGES = LOG_PAGES
    identity.calibrate = functools.partial(calibrate, synthetic=FITTED_ON)
    log.set_up(as_json=False)
    wake: Mailbox[None] = Mailbox()
    stop = Stop(wake)

    def asked(number: int, frame: FrameType | None) -> None:
        stop.ask()

    signal.signal(signal.SIGTERM, asked)
    settings = settings_of(data_dir, ingest, publish, checkpoint_every_s)

    def fault(point: str) -> None:
        if point == "taking":
            assert gc.isenabled()
            assert gc.get_freeze_count() > 10_000, "the collector would stop the door"
        doom(point)

    with opened(settings) as outside:
        doom("bound")
        return Life(settings, outside, wake, stop, config=CONFIG, fault=fault).run()


def client(address: str, folder: str, count: int, fate: dict[str, Any] | None = None) -> int:
    """Offer ``count`` fixations of each stream, by turns, as fast as they are taken; wait until all is learned.

    ``a`` is a recording: after a crash its caller begins again, at the beginning. ``b`` is live: what was offered once
    is not there to be offered again, and the number of the next one is in ``FOLDER/offered``. What is known to be
    acked is noted in ``FOLDER/acked``, a JSON object a line.
    """
    doom = Fate(**(fate or {}))
    clients.protocol.SILENCE_S = 0.3  # so that a dead worker is noticed soon
    clients.sender.QUEUE = 8  # so that it is full, all the time
    place = Path(folder)
    place.mkdir(exist_ok=True)
    offered = place / "offered"
    begin = {"a": 0, "b": int(offered.read_text()) if offered.exists() else 0}
    senders = {
        name: Sender(
            address, name, spool_dir=place / f"spool-{name}", recording=name == "a", hold_back=HOLD_BACK,
            capacity=CAPACITY, on_learned=lambda learned: doom(f"learned {learned.stream}"),
        )
        for name in STREAMS
    }  # fmt: skip
    done = threading.Event()
    watch = threading.Thread(target=_note_acks, args=(senders, place / "acked", done), daemon=True)
    watch.start()
    for number in range(count):
        for name, sender in senders.items():
            if number < begin[name]:
                continue
            if name == "b":
                _replace(offered, str(number + 1))
            patch = patch_of(name, number)
            while not sender.offer(**said(number), patch=patch, wait_s=60.0):
                continue
            doom(f"offered {name}")
    for sender in senders.values():
        sender.flush(learned=True)
    done.set()
    watch.join()
    for sender in senders.values():
        sender.close()
    return 0


def rival(address: str, folder: str, first: int, count: int) -> int:
    """One of several that want the live stream ``b``: offer ``count`` of its fixations from ``first`` on, as fast as
    they are taken, and wait until all is learned. Begun again it goes on after what it has offered before.

    What is known to be acked is noted as by :func:`client`. Ended by the sender's error, it says that in a line and
    returns its exit code, as ``rjepa stream`` does.
    """
    clients.sender.QUEUE = 8
    place = Path(folder)
    place.mkdir(exist_ok=True)
    offered = place / "offered"
    begin = int(offered.read_text()) if offered.exists() else first
    sender = Sender(address, "b", spool_dir=place / "spool-b", hold_back=HOLD_BACK, capacity=CAPACITY)
    done = threading.Event()
    watch = threading.Thread(target=_note_acks, args=({"b": sender}, place / "acked", done), daemon=True)
    watch.start()
    code = 0
    try:
        for number in range(begin, first + count):
            while not sender.offer(**said(number), patch=patch_of("b", number), wait_s=60.0):
                continue
            _replace(offered, str(number + 1))
        sender.flush(learned=True)
    except ClientError as error:
        print(f"rival: {error}", flush=True)
        code = error.exit_code
    done.set()
    watch.join()
    sender.close()
    return code


def interface(data_dir: str, http: str, http_connections: int, taken_s: float) -> int:
    """``rjepa api``, less patient with those who don't take their answers."""
    from service.api import connections, main

    connections.TAKEN_S = taken_s
    return main.main([f"--data-dir={data_dir}", f"--http={http}", f"--http-connections={http_connections}"])


def said(number: int) -> dict[str, Any]:
    """What is offered with a fixation's patch."""
    return {"onset_s": number * 0.25, "duration_s": 0.2, "gaze": ((number * 7 % 11) / 11, (number * 5 % 7) / 7)}


def _note_acks(senders: dict[str, Sender], path: Path, done: threading.Event) -> None:
    """Write down up to which seq each stream is acked, as far as this process knows, whenever that changes."""
    told: dict[str, int] = {}
    with path.open("a", buffering=1) as file:
        last = False
        while not last:
            last = done.wait(0.005)
            acked = {name: sender._protocol.acked + 1 for name, sender in senders.items()}
            if acked != told:
                told = acked
                file.write(json.dumps({"pid": os.getpid(), "time": time.time()} | acked) + "\n")


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


_SECONDS = struct.Struct("<d")
ROLES = {"worker": worker, "client": client, "rival": rival, "interface": interface}

if __name__ == "__main__":
    sys.exit(ROLES[sys.argv[1]](**json.loads(sys.argv[2])))
