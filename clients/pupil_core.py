"""Pupil Core: gaze, fixations and world frames from Pupil Capture's network interface.

Pupil Remote (ZeroMQ REP, tcp 50020) answers ``SUB_PORT``, the port of the backbone, which is another one after
every start of Capture, and ``t``, its time. One thread asks both once a second, so that a restart is noticed and the
clock followed; another reads the backbone and does nothing else, so that nothing makes it miss a message.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import msgpack
import zmq

from clients.clock import WINDOW, ClockOffset, RoundTrip
from clients.errors import OptionError, SourceError
from clients.feed import Feed
from clients.fixations import Sample
from clients.optics import camera_of
from clients.pixels import FrameFormat
from clients.pupil_messages import (
    FIXATIONS,
    FRAME,
    GAZE,
    NOTIFY,
    EyeChoice,
    FixationMerge,
    NotUnderstood,
    eye_of,
    frame_of,
    sample_of,
    unpack,
)
from clients.video import SECOND_NS

PORT = 50020
ANSWER_MS = 1000
ASK_EVERY_S = 1.0
POLL_MS = 50
BURST = 200
"""Messages taken from one socket before the other is looked at."""
GAZE_QUEUE, JPEG_QUEUE, FRAME_QUEUE = 20_000, 300, 30


class NoAnswer(Exception):
    """Pupil Remote did not answer in time."""


def parse_address(text: str) -> str:
    """``HOST``, ``HOST:PORT`` or ``tcp://HOST:PORT`` as ``HOST:PORT``. Raises :class:`OptionError`."""
    bare = text.partition("://")[2] if "://" in text else text
    host, colon, port = bare.rpartition(":")
    host, port = (host, port) if colon else (bare, str(PORT))
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise OptionError(f"{text!r} is no address of Pupil Remote; one looks like 127.0.0.1:{PORT}")
    return f"{host}:{port}"


class Remote:
    """Pupil Remote, for one thread. REQ is lock-step: after a lost answer the socket is made anew."""

    def __init__(self, context: zmq.Context[Any], address: str, answer_ms: int = ANSWER_MS) -> None:
        self._context = context
        self._address = address
        self._answer_ms = answer_ms
        self._socket: zmq.Socket[bytes] | None = None

    def ask(self, *parts: bytes) -> str:
        """Send one request and return its answer. Raises :class:`NoAnswer`."""
        if self._socket is None:
            self._socket = self._context.socket(zmq.REQ)
            self._socket.linger = 0
            self._socket.connect(f"tcp://{self._address}")
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
            if self._socket.poll(self._answer_ms):
                return self._socket.recv().decode(errors="replace")
        except zmq.ZMQError:
            pass  # as if there were no answer: nobody took the request
        self.close()
        raise NoAnswer(self._address)

    def notify(self, subject: str, **more: Any) -> str:
        """Have a notification forwarded to all of Capture."""
        return self.ask(f"notify.{subject}".encode(), msgpack.packb({"subject": subject, **more}))

    def time(self) -> RoundTrip:
        """Capture's time. Raises :class:`NoAnswer` or, where something else answers, :class:`SourceError`."""
        asked_ns = time.monotonic_ns()
        told = self.ask(b"t")
        answered_ns = time.monotonic_ns()
        try:
            return RoundTrip(asked_ns, answered_ns, round(float(told) * SECOND_NS))
        except ValueError:
            raise self._stranger("t", told) from None

    def sub_port(self) -> int:
        """The backbone's port. Raises as :meth:`time` does."""
        told = self.ask(b"SUB_PORT")
        if not told.isdigit() or not 0 < int(told) < 65536:
            raise self._stranger("SUB_PORT", told)
        return int(told)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _stranger(self, asked: str, told: str) -> SourceError:
        return SourceError(f"{self._address} answers {told[:40]!r} to {asked!r}: is that Pupil Remote's port?")


@dataclass(frozen=True)
class _Link:
    """A backbone to listen to; ``number`` counts them."""

    number: int
    endpoint: str


class PupilCore:
    """Capture at ``address``. ``video``: world frames are wanted, in ``frame_format``; ``theirs``: fixations are."""

    def __init__(self, address: str, frame_format: FrameFormat, *, video: bool = True, theirs: bool = False) -> None:
        self.clock = ClockOffset()
        self._address = parse_address(address)
        self._format = frame_format
        self._video = video
        self._theirs = theirs
        self._link: _Link | None = None
        self._eyes = EyeChoice()
        self._merge = FixationMerge()

    def now_ns(self) -> int | None:
        """See :class:`clients.feed.Source`."""
        offset_ns = self.clock.offset_ns
        return None if offset_ns is None else time.monotonic_ns() + offset_ns

    def words(self) -> str:
        """See :class:`clients.feed.Source`."""
        return f"Pupil Capture at {self._address}: {self.clock.words()}"

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """See :class:`clients.feed.Source`."""
        context: zmq.Context[Any] = zmq.Context()
        watch = threading.Thread(target=self._guard, args=(context, feed, stop), name="pupil-remote")
        watch.start()
        try:
            self._read(context, feed, stop)
        finally:
            stop.set()
            watch.join()
            context.destroy(linger=0)

    # --- the thread that asks --------------------------------------------------------------------------------------

    def _guard(self, context: zmq.Context[Any], feed: Feed, stop: threading.Event) -> None:
        try:
            self._watch(Remote(context, self._address), feed, stop)
        except SourceError as error:
            feed.fail(error)
        except zmq.ZMQError as error:
            feed.fail(SourceError(f"Pupil Remote at {self._address} can't be asked: {error.strerror}"))

    def _watch(self, remote: Remote, feed: Feed, stop: threading.Event) -> None:
        """Find the backbone, and again whenever it is another one; follow the clock."""
        port, last_ns, away, drifting = None, None, False, False
        while not stop.is_set():
            try:
                found, trip = remote.sub_port(), remote.time()
                if found != port or (last_ns is not None and trip.told_ns < last_ns):
                    self._meet(remote, feed, found)
                port, last_ns = found, trip.told_ns
                self.clock.add(trip)
                if self.clock.drifts and not drifting:
                    feed.count("clock_drift")
                    feed.say(
                        f"{self.words()}: fixations have Capture's time, so only a camera of ours is matched worse"
                    )
                drifting = self.clock.drifts
                if away:
                    feed.say(f"Pupil Capture at {self._address} is there")
                away = False
            except NoAnswer:
                if not away:
                    feed.say(
                        f"no answer from Pupil Remote at {self._address}: is Pupil Capture running there, with its "
                        "Network API plugin on? Asking on"
                    )
                    feed.count("capture_away")
                away = True
            stop.wait(ASK_EVERY_S)
        remote.close()

    def _meet(self, remote: Remote, feed: Feed, port: int) -> None:
        """A Capture that was not known: its clock, the frames' format, its backbone. Raises :class:`NoAnswer`."""
        self.clock.reset()
        for _ in range(WINDOW):
            self.clock.add(remote.time())
        if self._video:
            remote.notify("frame_publishing.set_format", format=self._format)
        number = 1 if self._link is None else self._link.number + 1
        self._link = _Link(number, f"tcp://{self._address.rpartition(':')[0]}:{port}")
        feed.say(f"{self.words()}; listening on port {port}")

    # --- the thread that reads -------------------------------------------------------------------------------------

    def _read(self, context: zmq.Context[Any], feed: Feed, stop: threading.Event) -> None:
        number = 0
        gaze: zmq.Socket[bytes] | None = None
        frames: zmq.Socket[bytes] | None = None
        while not stop.is_set():
            link = self._link
            if link is not None and link.number != number:
                for socket in (gaze, frames):
                    if socket is not None:
                        socket.close()
                if number:
                    self._renew(feed)
                number = link.number
                gaze = _subscriber(context, link, [GAZE, NOTIFY, *([FIXATIONS] if self._theirs else [])], GAZE_QUEUE)
                queue = JPEG_QUEUE if self._format == "jpeg" else FRAME_QUEUE
                frames = _subscriber(context, link, [FRAME] if self._video else [], queue)
            if gaze is None or frames is None:
                stop.wait(0.02)
                continue
            poller = zmq.Poller()
            poller.register(gaze, zmq.POLLIN)
            poller.register(frames, zmq.POLLIN)
            if poller.poll(POLL_MS):
                self._frames(frames, feed)
                self._gaze(gaze, feed)
        for socket in (gaze, frames):
            if socket is not None:
                socket.close()

    def _renew(self, feed: Feed) -> None:
        for fixation in self._merge.reset():
            feed.fixation(fixation)
        self._eyes = EyeChoice()
        feed.renew()

    def _gaze(self, socket: zmq.Socket[bytes], feed: Feed) -> None:
        """Everything that waits: a burst goes on as one."""
        samples: list[Sample] = []
        for parts in _waiting(socket):
            try:
                topic, told = unpack(parts)
                if topic.startswith(GAZE):
                    samples += self._sample(topic, told, feed)
                elif topic == FIXATIONS:
                    self._fixation(told, feed)
                elif (lens := camera_of(told) or camera_of(told.get("intrinsics"))) is not None:
                    feed.lens(*lens)
            except NotUnderstood:
                feed.count("message_not_understood")
        feed.gaze(samples)
        # By gaze, which comes through the same socket: frames may be far ahead of fixations that wait in it.
        if samples and samples[-1].time_ns is not None:
            for fixation in self._merge.pass_time(samples[-1].time_ns):
                feed.fixation(fixation)

    def _sample(self, topic: str, told: Any, feed: Feed) -> list[Sample]:
        sample = sample_of(told)
        if sample.time_ns is not None and self._eyes.takes(eye_of(topic), sample.time_ns):
            return [sample]
        feed.count("gaze_other_eye")
        return []

    def _fixation(self, told: Any, feed: Feed) -> None:
        for fixation in self._merge.push(told):
            feed.fixation(fixation)
        if self._merge.onset_ns is not None:
            feed.hold(self._merge.onset_ns)

    def _frames(self, socket: zmq.Socket[bytes], feed: Feed) -> None:
        for parts in _waiting(socket):
            try:
                _, told = unpack(parts)
                frame, kind = frame_of(told, parts[2:])
            except NotUnderstood:
                feed.count("message_not_understood")
                continue
            if kind != self._format:
                feed.count("frames_other_format")
            feed.frame(frame)


def _subscriber(context: zmq.Context[Any], link: _Link, topics: list[str], queue: int) -> zmq.Socket[bytes]:
    """A SUB of its own for frames, so that a queue full of them never costs gaze."""
    socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
    socket.linger = 0
    socket.rcvhwm = queue
    for topic in topics:
        socket.subscribe(topic)
    socket.connect(link.endpoint)
    return socket


def _waiting(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """What has come, at most :data:`BURST` messages."""
    messages: list[list[bytes]] = []
    while len(messages) < BURST:
        try:
            messages.append(socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            break
    return messages
