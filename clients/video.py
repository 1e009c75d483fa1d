"""Frames with their times: a video file or a picture, read forward, by the time they were shown.

Times are integer nanoseconds from the first frame. Fixations come in order of their onsets, so frames are
decoded once and forward; a step back begins the file again, which is slow and right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clients.errors import SourceError

if TYPE_CHECKING:
    from typing_extensions import Self

UInt8 = NDArray[np.uint8]
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Frame:
    """``bgr``: uint8 (height, width, 3); ``time_ns`` from the first frame."""

    time_ns: int
    bgr: UInt8


class Frames(Protocol):
    """What the pipeline asks of a video."""

    width_px: int
    height_px: int

    def nearest(self, time_ns: int) -> Frame | None:
        """The frame shown nearest to ``time_ns``; None before the first and after the last."""

    def close(self) -> None:
        """Let go of the file."""


class Video:
    """A video file, by OpenCV. ``times_ns`` gives each frame's time where the file's own are not to be trusted."""

    def __init__(self, path: Path, times_ns: Sequence[int] | None = None) -> None:
        """Open ``path``; :class:`SourceError` if it is missing, unreadable or has no frame."""
        self.path = path
        self._times_ns = times_ns
        self._capture = self._open()
        self._read = 0
        self._origin_ns = self._last_ns = 0
        self._before: Frame | None = None
        first = self._next()
        if first is None:
            self.close()
            raise SourceError(f"video {path} has no frames that can be decoded; is it complete?")
        self.height_px, self.width_px = first.bgr.shape[:2]
        self._here: Frame = first
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def period_ns(self) -> int:
        """Time from one frame to the next, by the file's own rate."""
        return round(SECOND_NS / self._rate)

    @property
    def last_ns(self) -> int:
        """Time of the last frame read so far; of the video's last once :meth:`nearest` gave None beyond it."""
        return self._last_ns

    def nearest(self, time_ns: int) -> Frame | None:
        """See :class:`Frames`."""
        if time_ns < -(self.period_ns // 2):
            return None
        if time_ns < (self._before or self._here).time_ns - self.period_ns // 2 and self._read > 1:
            self.rewind()
        while self._here.time_ns < time_ns and self._step():
            pass
        if self._ended and time_ns - self._here.time_ns > self.period_ns:
            return None
        before = self._before
        if before is not None and abs(before.time_ns - time_ns) <= abs(self._here.time_ns - time_ns):
            return before
        return self._here

    def frames(self) -> Iterator[Frame]:
        """Every frame once, from the first."""
        self.rewind()
        yield self._here
        while self._step():
            yield self._here

    def rewind(self) -> None:
        """Begin the file again."""
        self._capture.release()
        self._capture = self._open()
        self._read, self._before, self._ended = 0, None, False
        first = self._next()
        if first is None:
            raise SourceError(f"video {self.path} could be read once and has no frames now")
        self._here = first

    def close(self) -> None:
        """See :class:`Frames`."""
        self._capture.release()

    def _open(self) -> Any:
        cv2 = opencv()
        if not self.path.is_file():
            raise SourceError(f"video {self.path} is not there")
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            capture.release()
            raise SourceError(f"video {self.path} can't be read: no video in it that OpenCV knows")
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._rate = rate if 0.0 < rate < 10_000.0 else 25.0
        return capture

    def _step(self) -> bool:
        """On to the next frame; False at the end."""
        following = None if self._ended else self._next()
        if following is None:
            self._ended = True
            return False
        self._before, self._here = self._here, following
        return True

    def _next(self) -> Frame | None:
        cv2 = opencv()
        got, bgr = self._capture.read()
        if not got or bgr is None:
            return None
        index = self._read
        if self._times_ns is not None:
            if index >= len(self._times_ns):
                return None
            time_ns = int(self._times_ns[index])
        else:
            told_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            if index == 0:
                self._origin_ns = told_ns
            time_ns = told_ns - self._origin_ns
            if index and time_ns <= self._last_ns:
                time_ns = self._last_ns + self.period_ns
        self._read += 1
        self._last_ns = time_ns
        return Frame(time_ns, bgr)


class Chain:
    """Videos that follow one another. ``parts``: (time of the first frame, video) each, in order; the times count
    from the first one's."""

    def __init__(self, parts: Sequence[tuple[int, Video]]) -> None:
        self._parts = [(begin_ns - parts[0][0], video) for begin_ns, video in parts]
        first = parts[0][1]
        self.height_px, self.width_px = first.height_px, first.width_px

    def nearest(self, time_ns: int) -> Frame | None:
        """See :class:`Frames`."""
        for begin_ns, video in reversed(self._parts):
            frame = video.nearest(time_ns - begin_ns)
            if frame is not None:
                return Frame(frame.time_ns + begin_ns, frame.bgr)
        return None

    def close(self) -> None:
        """See :class:`Frames`."""
        for _, video in self._parts:
            video.close()


class Looped:
    """A video that begins again at its end."""

    def __init__(self, video: Video) -> None:
        self._video = video
        self._length_ns: int | None = None
        self.height_px, self.width_px = video.height_px, video.width_px

    def nearest(self, time_ns: int) -> Frame | None:
        """See :class:`Frames`."""
        if self._length_ns is None or time_ns < 0:
            frame = self._video.nearest(time_ns)
            if frame is not None or time_ns < 0:
                return frame
            self._length_ns = self._video.last_ns + self._video.period_ns
        passed = time_ns // self._length_ns * self._length_ns
        frame = self._video.nearest(time_ns - passed)
        return None if frame is None else Frame(frame.time_ns + passed, frame.bgr)

    def close(self) -> None:
        """See :class:`Frames`."""
        self._video.close()


class Picture:
    """One picture, shown for as long as anyone looks."""

    def __init__(self, path: Path) -> None:
        """Read ``path``; :class:`SourceError` if that fails."""
        cv2 = opencv()
        if not path.is_file():
            raise SourceError(f"picture {path} is not there")
        bgr = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            raise SourceError(f"picture {path} can't be read: not a picture OpenCV knows")
        self._frame = Frame(0, bgr)
        self.height_px, self.width_px = bgr.shape[:2]

    def nearest(self, time_ns: int) -> Frame | None:
        """See :class:`Frames`."""
        return self._frame

    def close(self) -> None:
        """Nothing is held."""


def open_frames(path: Path) -> Video | Picture:
    """A picture by its suffix, else a video. Raises :class:`SourceError`."""
    return Picture(path) if path.suffix.lower() in PICTURES else Video(path)


def opencv() -> Any:
    """OpenCV, imported when it is first needed, and quiet: what it would print becomes an error of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
