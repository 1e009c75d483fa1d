"""A camera of this computer, or one in the network, as the video of a tracker that has none.

Its frames get the time at which they arrived, in the gaze's clock, less the delay that was said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from clients.errors import SourceError
from clients.feed import Feed
from clients.frames import LiveFrame
from clients.video import opencv

AGAIN_S = 1.0


class Camera:
    """``what``: a number, or an address that OpenCV opens. ``now_ns``: the gaze's clock; None while it is unknown."""

    def __init__(self, what: str, now_ns: Callable[[], int | None], delay_ns: int = 0) -> None:
        self._what = what
        self._now_ns = now_ns
        self._delay_ns = delay_ns
        self._frames = 0

    def now_ns(self) -> int | None:
        """See :class:`clients.feed.Source`."""
        return self._now_ns()

    def words(self) -> str:
        """See :class:`clients.feed.Source`."""
        return f"camera {self._what}: {self._frames} frames"

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """See :class:`clients.feed.Source`. A camera that goes away is opened again until it is back."""
        capture = self._open()
        if capture is None:
            raise SourceError(
                f"camera {self._what} can't be opened: is it plugged in, free, and allowed to this user? Others are "
                "camera:1, camera:2 and so on"
            )
        while not stop.is_set():
            if capture is None:
                stop.wait(AGAIN_S)
                capture = self._open()
                continue
            if not self._grab(capture, feed):
                capture.release()
                capture = None
                feed.count("camera_lost")
                feed.say(f"camera {self._what} gives no more pictures; opening it again")
        if capture is not None:
            capture.release()

    def _grab(self, capture: Any, feed: Feed) -> bool:
        got, bgr = capture.read()
        now_ns = self._now_ns()
        if not got or bgr is None:
            return False
        if now_ns is None:
            return True
        self._frames += 1
        height_px, width_px = bgr.shape[:2]
        feed.frame(LiveFrame(now_ns - self._delay_ns, width_px, height_px, bgr.nbytes, lambda: bgr))
        return True

    def _open(self) -> Any | None:
        cv2 = opencv()
        capture = cv2.VideoCapture(int(self._what) if self._what.isdigit() else self._what)
        if not capture.isOpened():
            capture.release()
            return None
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest picture, not one that waited
        return capture
