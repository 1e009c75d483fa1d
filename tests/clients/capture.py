"""A Pupil Capture for tests: Pupil Remote and the backbone on real sockets, and a viewer whose fixations are planted.

It speaks as Capture does: SUB_PORT is another one after every start, its clock has an epoch of its own, gaze comes in
bursts once a world frame and not in order, a fixation is told again with every frame, and frames of the old format
still come after another was asked for.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import cv2
import msgpack
import numpy as np
import zmq

RATE_HZ, GAZE_HZ = 30, 200
WIDTH, HEIGHT = 320, 240
PERIOD_S, STEP_S, BLINK_S, TAIL_S = 0.4, 0.025, 0.15, 0.5
"""From one fixation to the next; the saccade between them; a blink within, after every seventh; nothing at the end."""
OLD_FRAMES = 3
STEPS, DARKEST, BRIGHTER = 50, 40, 4
"""A frame's brightness tells its index, modulo STEPS."""


@dataclass(frozen=True)
class Planted:
    """A fixation on Capture's clock (s), where it was (fractions from the bottom left)."""

    onset_s: float
    end_s: float
    x: float
    y: float


@dataclass
class Viewer:
    """``count`` fixations from ``epoch_s`` on; a gaze sample is a function of time."""

    count: int
    epoch_s: float
    seed: int = 0
    planted: list[Planted] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = np.random.default_rng(self.seed)
        place = np.array([0.5, 0.5])
        for number in range(self.count):
            here = generator.uniform(0.2, 0.8, 2)
            while np.hypot(*(here - place)) < 0.2:
                here = generator.uniform(0.2, 0.8, 2)
            place = here
            begin_s = self.epoch_s + 0.5 + number * PERIOD_S
            end_s = begin_s + PERIOD_S - STEP_S - (BLINK_S if number % 7 == 6 else 0.0)
            self.planted.append(Planted(begin_s, end_s, float(place[0]), float(place[1])))
        self.length_s = 0.5 + self.count * PERIOD_S + TAIL_S

    def at(self, time_s: float) -> tuple[float, float, float]:
        """x, y and confidence at Capture's ``time_s``."""
        number = int((time_s - self.epoch_s - 0.5) // PERIOD_S)
        if not 0 <= number < self.count:
            return 0.5, 0.5, 0.0
        here = self.planted[number]
        if time_s <= here.end_s:
            return here.x, here.y, 0.95
        if number % 7 == 6 or number + 1 == self.count:
            return here.x, here.y, 0.0
        after, share = self.planted[number + 1], (time_s - here.end_s) / STEP_S
        return here.x + share * (after.x - here.x), here.y + share * (after.y - here.y), 0.95


class Capture:
    """``formats``: what frames are before another format is asked for."""

    def __init__(self, speed: float = 1.0, old_format: str = "gray") -> None:
        self.speed = speed
        self.picture: np.ndarray | None = None
        """uint8 BGR (240, 320, 3), shown instead of brightness that tells the index; bgr and jpeg only."""
        self.asked: list[str] = []
        self.viewers: list[Viewer] = []
        self.more: list[list[bytes]] = []
        """Messages published with the next frame, whatever they are."""
        self.wanted = {b"gaze.", b"frame.world"}
        """The viewer looks from when someone listens to all of these."""
        self._old_format = old_format
        self._context: zmq.Context[Any] = zmq.Context()
        self._remote = self._context.socket(zmq.REP)
        self.port = self._remote.bind_to_random_port("tcp://127.0.0.1")
        self._remote.close()
        self._stop = threading.Event()
        self.done = threading.Event()
        self._thread: threading.Thread | None = None
        self._generator = np.random.default_rng(1)
        self._pictures: dict[tuple[str, int], bytes] = {}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, viewer: Viewer) -> None:
        """Start it (again); the viewer looks from when someone listens."""
        self.viewers.append(viewer)
        self._stop.clear()
        self.done.clear()
        self._thread = threading.Thread(target=self._live, args=(viewer,))
        self._thread.start()

    def stop(self) -> None:
        """It ends, and both sockets with it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def close(self) -> None:
        self.stop()
        self._context.destroy(linger=0)

    def _live(self, viewer: Viewer) -> None:
        remote, backbone = self._context.socket(zmq.REP), self._context.socket(zmq.XPUB)
        remote.linger = backbone.linger = 0
        backbone.sndhwm = 0
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                remote.bind(f"tcp://{self.address}")
                break
            except zmq.ZMQError:
                self._stop.wait(0.05)
        self._sub_port = backbone.bind_to_random_port("tcp://127.0.0.1")
        self._format, self._asked_format, self._since = self._old_format, self._old_format, 0
        self._begin_s, self._epoch_s = time.monotonic(), viewer.epoch_s
        heard, index, last_s, told = set(), 0, 0.0, 0
        while not self._stop.is_set():
            if remote.poll(2):
                remote.send_string(self._answer(remote.recv_multipart()))
            while backbone.poll(0):
                heard.add(backbone.recv()[1:])
            if not self.wanted <= heard:
                self._begin_s = time.monotonic()
                continue
            now_s = (time.monotonic() - self._begin_s) * self.speed
            while index / RATE_HZ <= now_s:
                frame_s = index / RATE_HZ
                self._publish_frame(backbone, index, frame_s)
                self._publish_gaze(backbone, viewer, last_s, frame_s)
                told = self._publish_fixation(backbone, viewer, frame_s, told)
                while self.more:
                    backbone.send_multipart(self.more.pop(0))
                index, last_s = index + 1, frame_s
            if now_s > viewer.length_s:
                self.done.set()
        remote.close()
        backbone.close()

    def _answer(self, parts: list[bytes]) -> str:
        asked = parts[0].decode()
        self.asked.append(asked)
        if asked == "SUB_PORT":
            return str(self._sub_port)
        if asked == "t":
            return repr(self._epoch_s + (time.monotonic() - self._begin_s) * self.speed)
        if len(parts) == 2:
            told = msgpack.unpackb(parts[1])
            if told["subject"] == "frame_publishing.set_format":
                self._asked_format, self._since = told["format"], 0
            return "Notification received."
        return "Unknown command."

    def _publish_frame(self, backbone: zmq.Socket[bytes], index: int, frame_s: float) -> None:
        self._since += 1
        if self._since > OLD_FRAMES:
            self._format = self._asked_format
        told = {
            "topic": "frame.world",
            "width": WIDTH,
            "height": HEIGHT,
            "index": index,
            "timestamp": self._epoch_s + frame_s,
            "format": self._format,
        }
        backbone.send_multipart([b"frame.world", msgpack.packb(told), self._picture(self._format, index % STEPS)])

    def _picture(self, kind: str, step: int) -> bytes:
        kind_step = (kind, step)
        if kind_step not in self._pictures:
            value = DARKEST + BRIGHTER * step
            whole = WIDTH * HEIGHT
            grey = np.full((HEIGHT, WIDTH), value, np.uint8) if self.picture is None else self.picture[..., 0]
            chroma = 128 * np.ones(whole if step % 2 else whole // 2, np.uint8)  # 4:2:2 and 4:2:0 in turn
            self._pictures[kind_step] = {
                "gray": lambda: grey.tobytes(),
                "bgr": lambda: np.repeat(grey[..., None], 3, axis=2).tobytes(),
                "yuv": lambda: grey.tobytes() + chroma.tobytes(),
                "jpeg": lambda: cv2.imencode(".jpg", grey)[1].tobytes(),
            }[kind]()
        return self._pictures[kind_step]

    def _publish_gaze(self, backbone: zmq.Socket[bytes], viewer: Viewer, from_s: float, to_s: float) -> None:
        """Everything since the last frame, in a burst, not in order, with the eyes alone in between."""
        first, last = int(np.ceil(from_s * GAZE_HZ)), int(np.ceil(to_s * GAZE_HZ))
        messages = []
        for number in range(first, last):
            time_s = self._epoch_s + number / GAZE_HZ
            x, y, confidence = viewer.at(time_s)
            x, y = np.array([x, y]) + self._generator.normal(0, 0.0004, 2)
            messages.append(("gaze.3d.01.", time_s, x, y, confidence))
            if number % 5 == 0:  # one eye alone, which sees it a little elsewhere
                messages.append((f"gaze.3d.{number // 5 % 2}.", time_s + 0.001, x + 0.02, y - 0.01, confidence))
        for at in range(0, len(messages) - 3, 4):
            messages[at], messages[at + 3] = messages[at + 3], messages[at]
        for topic, time_s, x, y, confidence in messages:
            told = {"topic": topic, "timestamp": time_s, "norm_pos": [float(x), float(y)], "confidence": confidence}
            backbone.send_multipart([topic.encode(), msgpack.packb(told | {"base_data": []})])

    def _publish_fixation(self, backbone: zmq.Socket[bytes], viewer: Viewer, frame_s: float, told: int) -> int:
        """A sliding window of 100 to 220 ms, told with every frame for as long as it is still."""
        now_s = self._epoch_s + frame_s
        for number, planted in enumerate(viewer.planted):
            if planted.onset_s + 0.1 <= now_s <= planted.end_s:
                begin_s = max(planted.onset_s, now_s - 0.22)
                message = {
                    "topic": "fixations",
                    "id": number + 1,
                    "timestamp": begin_s,
                    "duration": (now_s - begin_s) * 1000,
                    "norm_pos": [planted.x, planted.y],
                    "dispersion": 0.4,
                    "confidence": 0.95,
                    "method": "3d gaze",
                }
                backbone.send_multipart([b"fixations", msgpack.packb(message)])
                return told + 1
        return told
