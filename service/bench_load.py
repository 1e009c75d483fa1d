"""An open-loop load: fixations come when they are due, whatever has become of those before.

Each stream is a viewer with a socket of its own. From one fixation to the next it is half to one and a half times the
mean, drawn anew each time, so that viewers meet by chance as they would. A latency is told from the moment a fixation
was due, so nothing is hidden by a sender that had to wait.
"""

from __future__ import annotations

import heapq
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq

from clients.wire import VERSION
from model.deadleaves import dead_leaves
from service.errors import BenchRefused

PATCHES = 512
STRIDE = 199
"""From one patch of a stream to its next, of the 512."""
SILENCE_S = 2.0
"""As every client: with something unacked and so long nothing heard, hello again on a new socket."""
GIVE_UP_S = 180.0
LEAST = 400
"""Fixations of a line at least: of fewer, a p99 is hardly more than the worst."""
_HEADER = {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0}


@dataclass(frozen=True)
class Took:
    """One fixation: when it was due, and how many ms it took from there; on the clock of ``time.perf_counter``."""

    due_s: float
    durable_ms: float
    learned_ms: float
    late_ms: float
    """Until it was sent: the load's own delay, in both others."""


@dataclass
class _Fixation:
    due_s: float
    looked_s: float
    frames: list[bytes]
    durable_s: float | None = None


@dataclass
class Viewer:
    """One stream. ``ahead``: send at once, but only so many more than are learned (an import); None: when due."""

    name: str
    number: int
    rate_hz: float
    ahead: int | None = None
    socket: zmq.Socket[Any] | None = None
    epoch: int | None = None
    next_seq: int = 0
    durable: int = -1
    learned: int = -1
    heard_s: float = 0.0
    welcome: bool = False
    held: dict[int, _Fixation] = field(default_factory=dict)
    took: list[Took] = field(default_factory=list)


class Load:
    """Streams at a worker's ``address``. Use as a context."""

    def __init__(self, address: str, *, seed: int = 0) -> None:
        self._address = address
        self._context: zmq.Context[Any] = zmq.Context()
        self._poller = zmq.Poller()
        self._owner: dict[Any, Viewer] = {}
        self._random = np.random.default_rng(seed)
        self._patches = [patch.tobytes() for patch in dead_leaves(PATCHES, seed=4)]
        self.viewers: list[Viewer] = []
        self.skipped = 0
        """Of how many the worker said that nothing was learned."""
        self._due: list[tuple[float, int]] = []

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        for viewer in self.viewers:
            if viewer.socket is not None:
                viewer.socket.close(0)
        self._context.term()

    def add(self, count: int, rate_hz: float) -> list[Viewer]:
        """``count`` viewers more, each with ``rate_hz`` fixations a second from now on."""
        added = [self._join(f"viewer{len(self.viewers)}", rate_hz, None) for _ in range(count)]
        self.pace(added, rate_hz)
        return added

    def add_import(self, ahead: int) -> Viewer:
        """A recording that is sent as fast as it may, never more than ``ahead`` fixations before the learner."""
        return self._join(f"import{len(self.viewers)}", 0.0, ahead)

    def pace(self, viewers: list[Viewer], rate_hz: float) -> None:
        """From now on these look so often; 0 is not at all."""
        numbers = {viewer.number for viewer in viewers}
        self._due = [(due, number) for due, number in self._due if number not in numbers]
        heapq.heapify(self._due)
        now = time.perf_counter()
        for viewer in viewers:
            viewer.rate_hz = rate_hz
            if rate_hz > 0.0:
                heapq.heappush(self._due, (now + float(self._random.uniform(0.0, 1.0 / rate_hz)), viewer.number))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> tuple[float, float]:
        """Go on for ``seconds``, or ``until``; the span on the clock."""
        begun = time.perf_counter()
        while (now := time.perf_counter()) < begun + seconds and not until():
            self._turn(now, min(begun + seconds, self._due[0][0] if self._due else now + 0.05))
        return begun, time.perf_counter()

    def settle(self) -> None:
        """Send nothing new until all is learned. Raises :class:`BenchRefused` where that does not happen."""
        ahead = [(viewer, viewer.ahead) for viewer in self.viewers]
        due, self._due = self._due, []
        for viewer in self.viewers:
            viewer.ahead = None
        ends = time.perf_counter() + GIVE_UP_S
        while any(viewer.held for viewer in self.viewers):
            now = time.perf_counter()
            if now > ends:
                raise BenchRefused(f"the worker has not learned what it was sent within {GIVE_UP_S:g} s")
            self._turn(now, now + 0.05)
        for viewer, before in ahead:
            viewer.ahead = before
        now = time.perf_counter()
        self._due = [(max(at, now), number) for at, number in due]
        heapq.heapify(self._due)

    def took(self, viewers: list[Viewer], span: tuple[float, float]) -> list[Took]:
        """Of all fixations that were due in ``span``; those that wait still are waited for first."""
        while any(fixation.due_s < span[1] for viewer in viewers for fixation in viewer.held.values()):
            now = time.perf_counter()
            if now > span[1] + GIVE_UP_S:
                raise BenchRefused(f"the worker has not learned what it was sent within {GIVE_UP_S:g} s")
            self._turn(now, self._due[0][0] if self._due else now + 0.05)
        return [took for viewer in viewers for took in viewer.took if span[0] <= took.due_s < span[1]]

    def _join(self, name: str, rate_hz: float, ahead: int | None) -> Viewer:
        viewer = Viewer(name, len(self.viewers), rate_hz, ahead)
        self.viewers.append(viewer)
        self._greet(viewer)
        return viewer

    def _greet(self, viewer: Viewer) -> None:
        """Say hello on a new socket."""
        if viewer.socket is not None:
            self._poller.unregister(viewer.socket)
            del self._owner[viewer.socket]
            viewer.socket.close(0)
        viewer.socket = self._context.socket(zmq.DEALER)
        viewer.socket.linger = 0
        viewer.socket.sndhwm = 0  # it must not wait
        viewer.socket.connect(self._address)
        self._poller.register(viewer.socket, zmq.POLLIN)
        self._owner[viewer.socket] = viewer
        hello: dict[str, Any] = {"stream": viewer.name, "notify": "learned"}
        if viewer.epoch is not None:
            hello |= {"epoch": viewer.epoch, "acked": viewer.durable}
        viewer.welcome, viewer.heard_s = False, time.perf_counter()
        viewer.socket.send_multipart([VERSION, b"hello", json.dumps(hello).encode()])

    def _turn(self, now: float, until: float) -> None:
        while self._due and self._due[0][0] <= now:
            due, number = heapq.heappop(self._due)
            viewer = self.viewers[number]
            self._look(viewer, due)
            heapq.heappush(self._due, (due + float(self._random.uniform(0.5, 1.5)) / viewer.rate_hz, number))
        for viewer in self.viewers:
            if viewer.ahead is not None and viewer.welcome:
                while viewer.next_seq <= viewer.learned + viewer.ahead:
                    self._look(viewer, now)
            if viewer.held and now - viewer.heard_s > SILENCE_S:
                self._greet(viewer)
        wait_ms = max(0, int(1000.0 * (min(until, now + SILENCE_S) - time.perf_counter())))
        for socket, _ in self._poller.poll(wait_ms):
            self._hear(self._owner[socket])

    def _look(self, viewer: Viewer, due: float) -> None:
        seq = viewer.next_seq
        viewer.next_seq += 1
        body = {
            "stream": viewer.name, "seq": seq, "onset": 0.25 * seq, "duration": 0.2,
            "gaze": {"x": float(self._random.random()), "y": float(self._random.random())}, "patch": _HEADER,
        }  # fmt: skip
        patch = self._patches[(seq * STRIDE + 31 * viewer.number) % PATCHES]
        if not viewer.held:
            viewer.heard_s = time.perf_counter()
        viewer.held[seq] = _Fixation(due, time.perf_counter(), [VERSION, b"fixation", json.dumps(body).encode(), patch])
        if viewer.welcome and viewer.socket is not None:
            viewer.socket.send_multipart(viewer.held[seq].frames)

    def _hear(self, viewer: Viewer) -> None:
        assert viewer.socket is not None
        while True:
            try:
                frames = viewer.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            now, kind, told = time.perf_counter(), frames[1], json.loads(frames[2])
            viewer.heard_s = now
            if kind == b"ack":
                self._acked(viewer, told["seq"], told["learned"], now)
            elif kind == b"learned":
                self.skipped += told["skipped"] is not None
                self._acked(viewer, viewer.durable, told["seq"], now)
            elif kind == b"welcome":
                viewer.welcome, viewer.epoch = True, told["epoch"]
                self._acked(viewer, told["next_seq"] - 1, viewer.learned, now)
                self._send_again(viewer, told["next_seq"])
            elif kind == b"resend":
                self._send_again(viewer, told["from_seq"])
            elif told.get("code") == "hello_required":
                self._greet(viewer)
                return
            else:
                raise BenchRefused(f"the worker answered {kind.decode()}: {told}")

    def _send_again(self, viewer: Viewer, first: int) -> None:
        assert viewer.socket is not None
        for seq in sorted(viewer.held):
            if seq >= first:
                viewer.socket.send_multipart(viewer.held[seq].frames)

    def _acked(self, viewer: Viewer, durable: int, learned: int, now: float) -> None:
        for seq in range(viewer.durable + 1, durable + 1):
            viewer.held[seq].durable_s = now
        viewer.durable = max(viewer.durable, durable)
        for seq in range(viewer.learned + 1, min(learned, viewer.durable) + 1):
            fixation = viewer.held.pop(seq)
            assert fixation.durable_s is not None
            due_s = fixation.due_s
            durable_ms, learned_ms, late_ms = (
                1000 * (at - due_s) for at in (fixation.durable_s, now, fixation.looked_s)
            )
            viewer.took.append(Took(due_s, durable_ms, learned_ms, late_ms))
        viewer.learned = max(viewer.learned, min(learned, viewer.durable))


def percentiles(took: Sequence[Took]) -> dict[str, Any]:
    """How many, and the median, p99 and worst of both waits and of the load's own delay, ms.

    Raises :class:`BenchRefused` where there are none.
    """
    if not took:
        raise BenchRefused("no fixation was due in a line: give it more --seconds")
    row: dict[str, Any] = {"count": len(took)}
    for name in ("durable_ms", "learned_ms", "late_ms"):
        every = np.array([getattr(each, name) for each in took])
        p50, p99 = np.percentile(every, (50, 99))
        row[name] = {"p50": float(p50), "p99": float(p99), "worst": float(every.max())}
    return row
