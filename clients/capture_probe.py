"""What Pupil Capture says over its network API: version, clock, gaze, frames. Nothing is set or changed in it.

Asked and read by what the stream itself uses (clients/pupil_remote.py, clients/pupil_messages.py).
"""

from __future__ import annotations

import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq

from clients.clock import ClockOffset
from clients.doctor_finding import Finding, State
from clients.errors import OptionError, SourceError
from clients.fixations import Sample
from clients.frames import BrokenFrame, LiveFrame
from clients.glimpse import MEASURE, Glimpse, Scale
from clients.pupil_messages import FIXATIONS, FRAME, GAZE, NotUnderstood, frame_of, sample_of, unpack
from clients.pupil_remote import NoAnswer, Remote, parse_address, subscriber
from clients.video import SECOND_NS

LISTEN_S = 1.5
"""How long gaze and frames are listened to."""
KEPT = 10
"""Frames that are kept, to find the one nearest to a gaze."""
QUEUE = 1000
SURE = 0.6
"""A gaze less confident than this is not taken for the picture."""
CORE_PX_PER_DEGREE = {(1280, 720): 13.9, (640, 480): 6.9}
"""At the centre of Pupil Core's world camera with its wide lens."""
WHAT, CLOCK, GAZE_LINE, WORLD = "pupil capture", "  its clock", "  its gaze", "  its frames"
START_IT = "start Pupil Capture (its menu Network API shows the port), or name it with --capture HOST:PORT"
PUBLISHER = "in Capture, turn on the plugin Frame Publisher, with format JPEG or BGR"


@dataclass(frozen=True)
class CaptureSeen:
    """What was found, and its last sure gaze on the frame nearest in time; None where there was none."""

    findings: list[Finding]
    glimpse: Glimpse | None = None


@dataclass
class _Heard:
    """What came over the backbone."""

    gaze_s: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    frame_s: list[float] = field(default_factory=list)
    last_gaze: Sample | None = None
    frames: deque[tuple[LiveFrame, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    """With their formats."""
    fixations: set[Any] = field(default_factory=set)
    strange: int = 0


def ask_capture(where: str, scale: Scale | None, limit_s: float) -> CaptureSeen:
    """Ask the Capture at ``where`` (HOST:PORT). ``scale``: px/deg of its frame, where an option gives them."""
    try:
        address = parse_address(where)
    except OptionError as error:
        return CaptureSeen([Finding(WHAT, State.TROUBLE, str(error), "give it as HOST:PORT")])
    host, _, port = address.rpartition(":")
    if not _listens(host.strip("[]"), int(port), limit_s):
        return CaptureSeen([Finding(WHAT, State.ABSENT, f"nothing listens at {address}", START_IT)])
    with zmq.Context() as context:
        remote, clock = Remote(context, address, round(limit_s * 1000)), ClockOffset()
        try:
            version = remote.version()
            remote.meet(clock)
            sub_port = remote.sub_port()
        except NoAnswer:
            return CaptureSeen([Finding(WHAT, State.ABSENT, f"no Pupil Remote answers at {address}", START_IT)])
        except (SourceError, zmq.ZMQError) as error:
            return CaptureSeen([Finding(WHAT, State.TROUBLE, f"{address}: {error}", "is that its address? HOST:PORT")])
        finally:
            remote.close()
        with subscriber(context, remote.backbone(sub_port), (GAZE, FIXATIONS, FRAME), QUEUE) as backbone:
            heard = _listen(backbone, min(LISTEN_S, limit_s))
    return CaptureSeen(
        [
            Finding(WHAT, State.OK, f"{address}, version {version}, publishes on port {sub_port}"),
            Finding(CLOCK, State.OK, clock.words()),
            _of_gaze(heard),
            _of_frames(heard, scale),
        ],
        _glimpse(heard, scale),
    )


def _listens(host: str, port: int, limit_s: float) -> bool:
    """Whether there is anything at all: ZeroMQ would go on trying until the time is over."""
    try:
        socket.create_connection((host, port), limit_s).close()
    except (OSError, OverflowError):
        return False
    return True


def _listen(backbone: zmq.Socket[bytes], listen_s: float) -> _Heard:
    """Everything of gaze, fixations and world frames that comes within ``listen_s``."""
    heard = _Heard()
    end_s = time.monotonic() + listen_s
    while (left_s := end_s - time.monotonic()) > 0:
        if backbone.poll(int(left_s * 1000) + 1):
            try:
                _take(heard, backbone.recv_multipart())
            except NotUnderstood:
                heard.strange += 1
    return heard


def _take(heard: _Heard, parts: list[bytes]) -> None:
    """One message. Raises :class:`NotUnderstood`."""
    topic, told = unpack(parts)
    if topic.startswith(FRAME):
        frame, coded = frame_of(told, parts[2:])
        heard.frame_s.append(frame.time_ns / SECOND_NS)
        heard.frames.append((frame, coded))
    elif topic.startswith(GAZE):
        sample = sample_of(told)
        assert sample.time_ns is not None
        heard.gaze_s.append(sample.time_ns / SECOND_NS)
        heard.confidence.append(sample.confidence)
        if sample.confidence >= SURE and 0.0 <= sample.x <= 1.0 and 0.0 <= sample.y <= 1.0:
            heard.last_gaze = sample
    elif topic.startswith(FIXATIONS):
        heard.fixations.add(told.get("id"))


def _of_gaze(heard: _Heard) -> Finding:
    if not heard.gaze_s:
        return Finding(
            GAZE_LINE, State.TROUBLE, "none comes", "in Capture: are the eye cameras on, and is it calibrated?"
        )
    sure = float(np.mean(np.array(heard.confidence) >= SURE))
    detector = (
        f"its own fixation detector is on ({len(heard.fixations)} seen)"
        if heard.fixations
        else ("its own fixation detector tells nothing")
    )
    told = f"{_rate_hz(heard.gaze_s):.0f} Hz, {sure:.0%} with confidence of {SURE} or more; {detector}"
    if heard.last_gaze is None:
        return Finding(
            GAZE_LINE, State.TROUBLE, told, "look at the eye cameras' pictures in Capture, then calibrate again"
        )
    return Finding(GAZE_LINE, State.OK, told)


def _of_frames(heard: _Heard, scale: Scale | None) -> Finding:
    if not heard.frames:
        strange = f"; {heard.strange} messages were not understood" if heard.strange else ""
        return Finding(WORLD, State.TROUBLE, f"none comes{strange}", PUBLISHER)
    frame, coded = heard.frames[-1]
    shown_px = frame.width_px, frame.height_px
    told = f"{shown_px[0]} x {shown_px[1]} px, {_rate_hz(heard.frame_s):.1f} frames/s, {coded}"
    try:
        frame.decode()
    except BrokenFrame as error:
        return Finding(WORLD, State.TROUBLE, f"{told}: {error}", PUBLISHER)
    if scale is not None:
        return Finding(WORLD, State.OK, f"{told}; {scale[0]:g} x {scale[1]:g} px/deg, as told")
    core = CORE_PX_PER_DEGREE.get(shown_px)
    if core is None:
        return Finding(WORLD, State.TROUBLE, f"{told}; px/deg unknown", MEASURE)
    return Finding(WORLD, State.OK, f"{told}; {core} px/deg, if this is Pupil Core's wide lens (else --px-per-degree)")


def _rate_hz(times_s: list[float]) -> float:
    """Events a second by their own times, which need not come in order."""
    length_s = max(times_s) - min(times_s)
    return (len(times_s) - 1) / length_s if length_s > 0 else 0.0


def _glimpse(heard: _Heard, scale: Scale | None) -> Glimpse | None:
    gaze = heard.last_gaze
    if gaze is None or gaze.time_ns is None or not heard.frames:
        return None
    at_ns = gaze.time_ns
    frame, _ = min(heard.frames, key=lambda kept: abs(kept[0].time_ns - at_ns))
    try:
        bgr = frame.decode()
    except BrokenFrame:
        return None  # said of the frames
    core = CORE_PX_PER_DEGREE.get((frame.width_px, frame.height_px))
    return Glimpse("Pupil Capture", bgr, gaze.x, gaze.y, scale or (None if core is None else (core, core)))
