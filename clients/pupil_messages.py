"""What Pupil Capture publishes, as samples, frames and fixations.

A message is: topic (UTF-8), a msgpack map, and raw bytes where there are any. Times are seconds on Capture's own
clock, positions fractions of the world frame from its bottom left.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import msgpack

from clients.fixations import Fixation, Sample
from clients.frames import LiveFrame
from clients.pixels import FORMATS, FrameFormat, decode
from clients.video import SECOND_NS

GAZE, FIXATIONS, FRAME, NOTIFY = "gaze.", "fixations", "frame.world", "notify."
SILENCE_NS = 300_000_000
"""A fixation told no more for so long is over: it is told with every world frame while it goes on."""
OTHER_EYE_NS = 100_000_000
"""So long after the last sample of the eye that is listened to, another one is."""
REMEMBERED = 64
ANEW_NS = SECOND_NS
"""An id told again so long after its fixation's end is another fixation's: the detector's plugin began anew."""


class NotUnderstood(Exception):
    """A message that is not what its topic says."""


def unpack(parts: list[bytes]) -> tuple[str, Mapping[str, Any]]:
    """Topic and map of a message. Raises :class:`NotUnderstood`."""
    try:
        topic = parts[0].decode()
        told = msgpack.unpackb(parts[1], raw=False, strict_map_key=False)
    except (IndexError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise NotUnderstood(f"no topic and msgpack: {error}") from None
    if not isinstance(told, Mapping):
        raise NotUnderstood(f"{topic} carries no map")
    return topic, told


def time_ns(told: Mapping[str, Any], name: str = "timestamp") -> int:
    """A time of Capture's clock, which may be negative. Raises :class:`NotUnderstood`."""
    return round(_number(told, name) * SECOND_NS)


def sample_of(told: Mapping[str, Any]) -> Sample:
    """A gaze message as a sample. Raises :class:`NotUnderstood`."""
    x, y = _norm_pos(told)
    return Sample(time_ns(told), x, 1.0 - y, _number(told, "confidence"))


def frame_of(told: Mapping[str, Any], raw: list[bytes]) -> tuple[LiveFrame, FrameFormat]:
    """A ``frame.world`` message, undecoded, and its format. Raises :class:`NotUnderstood`."""
    kind = told.get("format")
    width_px, height_px = int(_number(told, "width")), int(_number(told, "height"))
    if kind not in FORMATS or len(raw) != 1 or width_px < 1 or height_px < 1:
        raise NotUnderstood(f"a frame of format {kind!r}, {width_px} x {height_px} px, in {len(raw)} parts")
    known = cast(FrameFormat, kind)
    pixels = partial(decode, known, raw[0], width_px, height_px)
    return LiveFrame(time_ns(told), width_px, height_px, len(raw[0]), pixels), known


def eye_of(topic: str) -> str:
    """``01``, ``0`` or ``1`` of ``gaze.3d.01.`` and the like."""
    return topic.rstrip(".").rpartition(".")[2]


class EyeChoice:
    """One eye at a time: both together while they are told, else the one that is, without jumping between the two.

    The eyes differ by their errors of calibration; samples of both in turn would look like saccades.
    """

    def __init__(self) -> None:
        self._eye: str | None = None
        self._last_ns = 0

    def takes(self, eye: str, now_ns: int) -> bool:
        """Whether this sample is one to listen to."""
        silent = abs(now_ns - self._last_ns) > OTHER_EYE_NS
        if eye != self._eye and not silent and len(eye) <= len(self._eye or ""):
            return False
        self._last_ns = now_ns if silent or eye != self._eye else max(now_ns, self._last_ns)
        self._eye = eye
        return True


class FixationMerge:
    """Capture's fixations: the same id is told again with every frame, and there is no message that it is over.

    A fixation runs from its first timestamp to its last timestamp + duration; the gaze point is the first one told.
    """

    def __init__(self) -> None:
        self.repeated = 0
        """Messages that told a fixation again."""
        self._id: float | None = None
        self._open: Fixation | None = None
        self._told_ns = 0
        self._over: OrderedDict[float, int] = OrderedDict()
        """When each one ended, by its id."""

    @property
    def onset_ns(self) -> int | None:
        """Onset of the one that goes on."""
        return self._open.onset_ns if self._open is not None else None

    def push(self, told: Mapping[str, Any]) -> list[Fixation]:
        """Take a message; return the fixation it shows to be over. Raises :class:`NotUnderstood`."""
        begin_ns, (x, y) = time_ns(told), _norm_pos(told)
        end_ns = begin_ns + round(_number(told, "duration") * 1_000_000)
        number = _number(told, "id")
        if number in self._over and begin_ns - self._over[number] < ANEW_NS:
            self._over[number] = max(self._over[number], end_ns)
            self.repeated += 1
            return []
        if self._open is not None and number == self._id:
            self.repeated += 1
            self._told_ns = max(self._told_ns, end_ns)
            onset_ns, last_ns = min(self._open.onset_ns, begin_ns), max(self._open.end_ns, end_ns)
            self._open = Fixation(onset_ns, last_ns, self._open.x, self._open.y)
            return []
        done = self.finish()
        self._id, self._told_ns = number, end_ns
        self._open = Fixation(begin_ns, max(begin_ns, end_ns), x, 1.0 - y)
        return done

    def pass_time(self, now_ns: int) -> list[Fixation]:
        """At ``now_ns`` one that fell silent is over."""
        return self.finish() if self._open is not None and now_ns - self._told_ns > SILENCE_NS else []

    def finish(self) -> list[Fixation]:
        """The open one is over."""
        if self._open is None:
            return []
        done, self._open = self._open, None
        assert self._id is not None
        self._over[self._id] = done.end_ns
        self._over.move_to_end(self._id)
        while len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        return [done]

    def reset(self) -> list[Fixation]:
        """Capture began anew, and its ids with it."""
        done = self.finish()
        self._over.clear()
        return done


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NotUnderstood(f"{name} is {value!r}")
    return float(value)


def _norm_pos(told: Mapping[str, Any]) -> tuple[float, float]:
    pair = told.get("norm_pos")
    if not isinstance(pair, list | tuple) or len(pair) < 2:
        raise NotUnderstood(f"norm_pos is {pair!r}")
    x, y = pair[0], pair[1]
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        raise NotUnderstood(f"norm_pos is {pair!r}")
    return float(x), float(y)
