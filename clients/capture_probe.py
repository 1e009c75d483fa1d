"""What Pupil Capture says over its network API: version, clock, gaze, frames. Nothing is set or changed in it.

Pupil Remote is a REP socket (``v``, ``t``, ``SUB_PORT``); gaze and frames are published on the port it names: topic,
msgpack, raw bytes. Its clock is in monotonic seconds from an arbitrary moment.
"""

from __future__ import annotations

import importlib
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq

from clients.doctor_finding import Finding, State
from clients.errors import SourceError
from clients.glimpse import MEASURE, Glimpse, Scale, UInt8
from clients.video import opencv

ROUND_TRIPS = 10
LISTEN_S = 1.5
"""How long gaze and frames are listened to."""
KEPT = 10
"""Frames that are kept, to find the one nearest to a gaze."""
SURE = 0.6
"""A gaze less confident than this is not taken for the picture."""
CORE_PX_PER_DEGREE = {(1280, 720): 13.9, (640, 480): 6.9}
"""At the centre of Pupil Core's world camera with its wide lens."""
WHAT, CLOCK, GAZE, WORLD = "pupil capture", "  its clock", "  its gaze", "  its frames"
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
    last_gaze: tuple[float, float, float] | None = None
    """Time (s), x and y as fractions from the top left."""
    frames: deque[tuple[dict[str, Any], bytes]] = field(default_factory=lambda: deque(maxlen=KEPT))
    fixations: set[int] = field(default_factory=set)


def ask_capture(where: str, scale: Scale | None, limit_s: float) -> CaptureSeen:
    """Ask the Capture at ``where`` (HOST:PORT). ``scale``: px/deg of its frame, where an option gives them."""
    host, _, port_text = where.rpartition(":")
    if not host or not port_text.isdigit():
        return CaptureSeen([Finding(WHAT, State.TROUBLE, f"{where!r} is no address", "give it as HOST:PORT")])
    try:
        msgpack: Any = importlib.import_module("msgpack")
    except ModuleNotFoundError:
        return CaptureSeen([Finding(WHAT, State.TROUBLE, "msgpack is not installed", "pip install rjepa")])
    if not _listens(host.strip("[]"), int(port_text), limit_s):
        return CaptureSeen([Finding(WHAT, State.ABSENT, f"nothing listens at {where}", START_IT)])
    with zmq.Context() as context, context.socket(zmq.REQ) as remote:
        remote.linger = 0
        try:
            remote.connect(f"tcp://{where}")
            version = _request(remote, "v", limit_s)
            offset_s, trip_s = _clock(remote, limit_s)
            port = int(_request(remote, "SUB_PORT", limit_s))
        except (zmq.ZMQError, ValueError) as error:
            return CaptureSeen([Finding(WHAT, State.TROUBLE, f"{where}: {error}", "is that its address? HOST:PORT")])
        except TimeoutError:
            return CaptureSeen([Finding(WHAT, State.ABSENT, f"no Pupil Remote answers at {where}", START_IT)])
        with context.socket(zmq.SUB) as backbone:
            backbone.linger = 0
            backbone.connect(f"tcp://{host}:{port}")
            heard = _listen(backbone, msgpack, min(LISTEN_S, limit_s))
    clock = f"{offset_s:+.4f} s from this computer's, to {trip_s / 2 * 1e3:.2f} ms (shortest of {ROUND_TRIPS} trips)"
    return CaptureSeen(
        [
            Finding(WHAT, State.OK, f"{where}, version {version}, publishes on port {port}"),
            Finding(CLOCK, State.OK, clock),
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


def _request(remote: zmq.Socket[bytes], word: str, limit_s: float) -> str:
    remote.send_string(word)
    if not remote.poll(int(limit_s * 1000)):
        raise TimeoutError(word)
    return remote.recv_string()


def _clock(remote: zmq.Socket[bytes], limit_s: float) -> tuple[float, float]:
    """Capture's clock minus this computer's (monotonic), and the shortest round trip it was told in, in seconds."""
    trips = []
    for _ in range(ROUND_TRIPS):
        begin_s = time.perf_counter()
        told_s = float(_request(remote, "t", limit_s))
        trip_s = time.perf_counter() - begin_s
        trips.append((trip_s, told_s - (begin_s + trip_s / 2)))
    trip_s, offset_s = min(trips)
    return offset_s, trip_s


def _listen(backbone: zmq.Socket[bytes], msgpack: Any, listen_s: float) -> _Heard:
    """Everything of gaze, fixations and world frames that comes within ``listen_s``."""
    heard = _Heard()
    for prefix in ("gaze.", "fixations", "frame.world"):
        backbone.subscribe(prefix)
    end_s = time.monotonic() + listen_s
    while (left_s := end_s - time.monotonic()) > 0:
        if backbone.poll(int(left_s * 1000) + 1):
            topic, body, *raw = backbone.recv_multipart()
            _take(heard, topic, msgpack.unpackb(body), raw)
    return heard


def _take(heard: _Heard, topic: bytes, body: dict[str, Any], raw: list[bytes]) -> None:
    if topic.startswith(b"frame.world") and raw:
        heard.frame_s.append(float(body["timestamp"]))
        heard.frames.append((body, raw[0]))
    elif topic.startswith(b"gaze."):
        heard.gaze_s.append(float(body["timestamp"]))
        heard.confidence.append(float(body["confidence"]))
        x, y = body["norm_pos"]
        if heard.confidence[-1] >= SURE and 0.0 <= x <= 1.0 and 0.0 <= y <= 1.0:
            heard.last_gaze = heard.gaze_s[-1], float(x), 1.0 - float(y)
    elif topic.startswith(b"fixations"):
        heard.fixations.add(int(body["id"]))


def _of_gaze(heard: _Heard) -> Finding:
    if not heard.gaze_s:
        return Finding(GAZE, State.TROUBLE, "none comes", "in Capture: are the eye cameras on, and is it calibrated?")
    sure = float(np.mean(np.array(heard.confidence) >= SURE))
    detector = (
        f"its own fixation detector is on ({len(heard.fixations)} seen)"
        if heard.fixations
        else ("its own fixation detector tells nothing")
    )
    told = f"{_rate_hz(heard.gaze_s):.0f} Hz, {sure:.0%} with confidence of {SURE} or more; {detector}"
    if heard.last_gaze is None:
        return Finding(GAZE, State.TROUBLE, told, "look at the eye cameras' pictures in Capture, then calibrate again")
    return Finding(GAZE, State.OK, told)


def _of_frames(heard: _Heard, scale: Scale | None) -> Finding:
    if not heard.frames:
        return Finding(WORLD, State.TROUBLE, "none comes", PUBLISHER)
    body, _ = heard.frames[-1]
    shown_px = int(body["width"]), int(body["height"])
    told = f"{shown_px[0]} x {shown_px[1]} px, {_rate_hz(heard.frame_s):.1f} frames/s, {body['format']}"
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
    if heard.last_gaze is None or not heard.frames:
        return None
    at_s, x, y = heard.last_gaze
    body, raw = min(heard.frames, key=lambda frame: abs(float(frame[0]["timestamp"]) - at_s))
    bgr = _decoded(body, raw)
    height_px, width_px = bgr.shape[:2]
    core = CORE_PX_PER_DEGREE.get((width_px, height_px))
    known = scale or (None if core is None else (core, core))
    return Glimpse("Pupil Capture", bgr, x, y, known)


def _decoded(body: dict[str, Any], raw: bytes) -> UInt8:
    """A frame as uint8 BGR (height, width, 3). Raises :class:`SourceError` for a format it does not know."""
    cv2 = opencv()
    shape, coded = (int(body["height"]), int(body["width"])), body["format"]
    values = np.frombuffer(raw, np.uint8)
    bgr: UInt8 | None = None
    if coded == "jpeg":
        bgr = cv2.imdecode(values, cv2.IMREAD_COLOR)
    elif coded == "bgr" and values.size == shape[0] * shape[1] * 3:
        bgr = values.reshape(*shape, 3)
    elif coded == "gray" and values.size == shape[0] * shape[1]:
        bgr = cv2.cvtColor(values.reshape(shape), cv2.COLOR_GRAY2BGR)
    if bgr is None:
        raise SourceError(f"Pupil Capture's frames come as {coded}, which is not understood here: {PUBLISHER}")
    return bgr
