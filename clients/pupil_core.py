"""Pupil Core: gaze, fixations and world frames from Pupil Capture's network interface.

One thread asks Pupil Remote (clients/pupil_remote.py) for its port and time once a second, so that a restart is noticed
and the clock followed; another reads the backbone and does nothing else, so that nothing makes it miss a message.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq

from clients.clock import ClockOffset
from clients.errors import SourceError
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
from clients.pupil_remote import NoAnswer, Remote, parse_address, subscriber

ASK_EVERY_S = 1.0
POLL_MS = 50
BURST = 200
"""Messages taken from one socket before the other is looked at."""
GAZE_QUEUE, JPEG_QUEUE, FRAME_QUEUE = 20_000, 300, 30


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
        remote.meet(self.clock)
        if self._video:
            remote.notify("frame_publishing.set_format", format=self._format)
        number = 1 if self._link is None else self._link.number + 1
        self._link = _Link(number, remote.backbone(port))
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
                topics = [GAZE, NOTIFY, *([FIXATIONS] if self._theirs else [])]
                gaze = subscriber(context, link.endpoint, topics, GAZE_QUEUE)
                # A socket of their own, so that a queue full of frames never costs gaze.
                queue = JPEG_QUEUE if self._format == "jpeg" else FRAME_QUEUE
                frames = subscriber(context, link.endpoint, [FRAME] if self._video else [], queue)
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


def _waiting(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """What has come, at most :data:`BURST` messages."""
    messages: list[list[bytes]] = []
    while len(messages) < BURST:
        try:
            messages.append(socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            break
    return messages
