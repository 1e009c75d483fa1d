"""Pupil Capture's network side, by the facts: Pupil Remote and its backbone on real sockets, gaze in bursts, frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import msgpack
import numpy as np
import zmq

CLOCK_S = -1000.0
"""What its clock shows when it starts: an arbitrary epoch, and negative."""


class FakeCapture:
    """30 world frames a second of ``width`` x ``height`` as ``coded``; with each a burst of gaze of both eyes.

    ``norm_pos`` is where both eyes look, from the bottom left. ``gaze``, ``frames`` and ``answering`` switch off what
    a lab may have off.
    """

    def __init__(
        self,
        *,
        width: int = 1280,
        height: int = 720,
        coded: str = "jpeg",
        norm_pos: tuple[float, float] = (0.25, 0.75),
        confidence: float = 0.95,
        gaze: bool = True,
        frames: bool = True,
    ) -> None:
        self.world = world(width, height)
        self.coded = coded
        self.norm_pos = norm_pos
        self.confidence = confidence
        self.gaze, self.frames = gaze, frames
        self.asked: list[str] = []
        """Every word Pupil Remote was asked."""
        self._zero_s = time.perf_counter()
        self._stop = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._remote = self._context.socket(zmq.REP)
        self._backbone = self._context.socket(zmq.PUB)
        for socket in (self._remote, self._backbone):
            socket.linger = 0
        self.port = self._remote.bind_to_random_port("tcp://127.0.0.1")
        self.sub_port = self._backbone.bind_to_random_port("tcp://127.0.0.1")
        self._raw = self._coded()
        self._threads = [threading.Thread(target=run) for run in (self._answer, self._publish)]
        for thread in self._threads:
            thread.start()

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def clock_s(self) -> float:
        return CLOCK_S + time.perf_counter() - self._zero_s

    @property
    def offset_s(self) -> float:
        """Its clock minus this computer's."""
        return CLOCK_S - self._zero_s

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._context.term()

    def _answer(self) -> None:
        while not self._stop.is_set():
            if self._remote.poll(20):
                word = self._remote.recv_string()
                self.asked.append(word)
                answers = {"v": "3.5.1", "t": repr(self.clock_s), "SUB_PORT": str(self.sub_port)}
                self._remote.send_string(answers.get(word, "Unknown command."))
        self._remote.close()

    def _publish(self) -> None:
        number = 0
        while not self._stop.wait(1 / 30):
            at_s = self.clock_s
            for burst in range(7) if self.gaze else ():
                for eye in (1, 0):  # both eyes, out of order
                    body = {
                        "topic": f"gaze.2d.{eye}.",
                        "norm_pos": list(self.norm_pos),
                        "confidence": self.confidence,
                        "timestamp": at_s - 0.033 + 0.0047 * burst - 0.002 * eye,
                        "base_data": [],
                    }
                    self._send(body)
            if self.frames:
                height, width = self.world.shape[:2]
                body = {"topic": "frame.world", "width": width, "height": height, "index": number}
                self._send(body | {"timestamp": at_s, "format": self.coded}, self._raw)
                number += 1
        self._backbone.close()

    def _send(self, body: dict[str, Any], *raw: bytes) -> None:
        self._backbone.send_multipart([body["topic"].encode(), msgpack.packb(body), *raw])

    def _coded(self) -> bytes:
        if self.coded == "jpeg":
            return bytes(cv2.imencode(".jpg", self.world, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        if self.coded == "gray":
            return cv2.cvtColor(self.world, cv2.COLOR_BGR2GRAY).tobytes()
        if self.coded == "yuv":
            planes = cv2.cvtColor(self.world, cv2.COLOR_BGR2YCrCb)
            return b"".join(planes[:, :, plane].tobytes() for plane in (0, 2, 1))  # 4:4:4: Y, U, V
        return self.world.tobytes()


def world(width: int, height: int) -> np.ndarray:
    """Another colour in each quarter: blue top left, green top right, red bottom left, white bottom right."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = (220, 40, 40)
    frame[: height // 2, width // 2 :] = (40, 220, 40)
    frame[height // 2 :, : width // 2] = (40, 40, 220)
    frame[height // 2 :, width // 2 :] = (230, 230, 230)
    return frame


@contextmanager
def capturing(**options: Any) -> Iterator[FakeCapture]:
    capture = FakeCapture(**options)
    try:
        yield capture
    finally:
        capture.close()
