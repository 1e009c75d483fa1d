"""Pupil Labs Neon and Invisible: gaze, scene video and the phone's own fixations, as the Companion app streams them.

Each stream is received for itself, item by item, so that nothing is skipped while something else is slow. Times are
the phone's, ns since 1970; positions are px of the scene camera, origin top left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from clients.errors import OptionError, SourceError
from clients.feed import Feed
from clients.fixations import Fixation, Sample
from clients.frames import LiveFrame
from clients.video import SECOND_NS

PORT = 8080
FIND_S = 10.0
AGAIN_S = 2.0
ASK_EVERY_S = 30.0
ANSWER_S = 10.0
SILENT_S = 8.0
"""Nothing at all for so long: the device is gone, though no connection says so, as when its network drops."""
FIXATION, FIXATION_ONSET = 1, 3
"""Kinds of eye events; 0 and 2 are saccades, 4 a blink."""

Receive = Callable[[str], AsyncIterator[Any]]


class Neon:
    """The device at ``address`` (None: the first that is found). ``theirs``: its own fixations are wanted."""

    def __init__(self, address: str | None, *, theirs: bool = False) -> None:
        try:
            import pupil_labs.realtime_api as api
        except ModuleNotFoundError as error:
            raise SourceError(f"Neon needs {error.name}: pip install 'rjepa[neon]'") from None
        for library in ("pupil_labs.realtime_api", "aiortsp"):
            logging.getLogger(library).setLevel(logging.CRITICAL)  # what it would print is said by us
        self._api: Any = api
        self._address = parse_address(address) if address is not None else None
        self._theirs = theirs
        self._name = address or "the first device found"
        self._offset_ms: float | None = None
        self._hinted = False
        self._heard_s = 0.0

    def now_ns(self) -> int | None:
        """See :class:`clients.feed.Source`."""
        return None if self._offset_ms is None else time.time_ns() - round(self._offset_ms * 1e6)

    def words(self) -> str:
        """See :class:`clients.feed.Source`."""
        clock = "clock unknown" if self._offset_ms is None else f"clock {-self._offset_ms:+.0f} ms from ours"
        return f"Neon at {self._name}: {clock}"

    def run(self, feed: Feed, stop: threading.Event) -> None:
        """See :class:`clients.feed.Source`. A device that goes away is looked for until it is back."""
        asyncio.run(self._live(feed, stop))

    async def _live(self, feed: Feed, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                place = self._address or await self._discover(stop)
                if place is not None:
                    async with self._api.Device(*place) as device:
                        await self._receive(device, feed, stop)
            except (OSError, asyncio.TimeoutError, self._api.DeviceError, *_away()) as error:
                feed.count("device_lost")
                if not self._hinted:
                    feed.say(f"no Neon at {self._name} ({_why(error)}): is the Companion app open there? Asking on")
                self._hinted = True
            await _sleep(AGAIN_S, stop)

    async def _discover(self, stop: threading.Event) -> tuple[str, int] | None:
        async with self._api.Network() as network:
            device = await network.wait_for_new_device(timeout_seconds=FIND_S)
        if device is None:
            raise asyncio.TimeoutError("no device told of itself in this network; give its address")
        self._name = f"{device.addresses[0]}:{device.port}"
        return str(device.addresses[0]), int(device.port)

    async def _receive(self, device: Any, feed: Feed, stop: threading.Event) -> None:
        """Ask what the device has, and receive it until the stop or its loss."""
        try:
            status = await asyncio.wait_for(device.get_status(), ANSWER_S)
        except (KeyError, TypeError, ValueError):
            raise OSError("what answers is no Companion app") from None
        if status.phone is None:
            raise OSError("it tells nothing of its phone")
        self._hinted = False
        gaze, world, events = (
            status.direct_gaze_sensor(),
            status.direct_world_sensor(),
            status.direct_eye_events_sensor(),
        )
        if self._theirs and (events is None or not events.connected):
            raise SourceError(f"the device at {self._name} tells no fixations; use --detector auto")
        if not (gaze and gaze.connected and world and world.connected):
            raise OSError("its glasses or their scene camera are not connected")
        with contextlib.suppress(self._api.DeviceError):  # Invisible has none
            calibration = await asyncio.wait_for(device.get_calibration(), ANSWER_S)
            matrix = calibration.scene_camera_matrix
            feed.lens((1600, 1200), (float(matrix[0][0]), float(matrix[1][1])))
        feed.say(f"Neon at {self._name}: gaze, scene camera{' and fixations' if self._theirs else ''}")
        wanted: list[tuple[Receive, str, Callable[[Any, Feed], None]]] = [
            (self._api.receive_gaze_data, gaze.url, take_gaze),
            (self._api.receive_video_frames, world.url, take_frame),
        ]
        if self._theirs:
            wanted.append((self._api.receive_eye_events_data, events.url, take_event))
        await self.follow(wanted, feed, stop, self._follow_clock(device.address, status.phone.time_echo_port))

    async def follow(
        self,
        wanted: list[tuple[Receive, str, Callable[[Any, Feed], None]]],
        feed: Feed,
        stop: threading.Event,
        *besides: Any,
    ) -> None:
        """Receive each stream in a task of its own until the stop; the first that fails ends all and is raised, and so
        does silence."""
        self._heard_s = time.monotonic()
        tasks = [asyncio.ensure_future(self._each(*one, feed)) for one in wanted]
        tasks.append(asyncio.ensure_future(self._watch()))
        tasks += [asyncio.ensure_future(one) for one in besides]
        stopped = asyncio.ensure_future(_sleep(float("inf"), stop))
        try:
            done, _ = await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (*tasks, stopped):
                task.cancel()
            await asyncio.gather(*tasks, stopped, return_exceptions=True)

    async def _each(self, receive: Receive, url: str, take: Callable[[Any, Feed], None], feed: Feed) -> None:
        try:
            async for datum in receive(url):
                self._heard_s = time.monotonic()
                take(datum, feed)
        except _broken() as error:
            raise OSError(f"{url} could not be read: {_why(error)}") from None
        raise OSError(f"{url} ended")

    async def _watch(self) -> None:
        while time.monotonic() - self._heard_s < SILENT_S:
            await asyncio.sleep(min(1.0, SILENT_S))
        raise asyncio.TimeoutError(f"nothing came from it for {SILENT_S:g} s")

    async def _follow_clock(self, address: str, port: int | None) -> None:
        """How far the phone's clock is from ours, by its time echo; where it has none, that stays unknown."""
        from pupil_labs.realtime_api.time_echo import TimeOffsetEstimator

        while port is None:
            await asyncio.sleep(ASK_EVERY_S)
        estimator = TimeOffsetEstimator(address, port)
        while True:
            # Whatever becomes of the echo: fixations do without it, and go on.
            with contextlib.suppress(OSError, asyncio.TimeoutError, ValueError, struct.error):
                estimates = await asyncio.wait_for(estimator.estimate(number_of_measurements=10), ANSWER_S)
                if estimates is not None:
                    self._offset_ms = float(estimates.time_offset_ms.median)
            await asyncio.sleep(ASK_EVERY_S)


def parse_address(text: str) -> tuple[str, int]:
    """``HOST`` or ``HOST:PORT``. Raises :class:`OptionError`."""
    bare = text.partition("://")[2] if "://" in text else text
    host, colon, port = bare.rstrip("/").rpartition(":")
    host, port = (host, port) if colon else (bare.rstrip("/"), str(PORT))
    if not host or any(map(str.isspace, host)) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OptionError(f"{text!r} is no address of a phone; one looks like 192.168.1.21:{PORT}")
    return host, int(port)


def take_gaze(datum: Any, feed: Feed) -> None:
    """One gaze datum of any of the kinds the device sends; not worn counts as lost."""
    size_px = feed.shown.size_px()
    if size_px is None:
        feed.count("gaze_before_video")
        return
    if hasattr(datum, "left"):  # both eyes apart: the middle
        x, y = (datum.left.x + datum.right.x) / 2, (datum.left.y + datum.right.y) / 2
    else:
        x, y = datum.x, datum.y
    feed.gaze([Sample(_ns(datum), x / size_px[0], y / size_px[1], 1.0 if datum.worn else 0.0)])


def take_frame(datum: Any, feed: Feed) -> None:
    """One frame, decoded by the device's library, and made BGR only if it is wanted."""
    frame = datum.av_frame
    feed.frame(LiveFrame(_ns(datum), frame.width, frame.height, frame.width * frame.height * 3 // 2, datum.bgr_buffer))


def take_event(datum: Any, feed: Feed) -> None:
    """One eye event: of a fixation its onset is held, and its end makes it one. Its gaze is where it began."""
    if datum.event_type == FIXATION_ONSET:
        feed.hold(datum.start_time_ns)
    elif datum.event_type == FIXATION:
        size_px = feed.shown.size_px()
        if size_px is None:
            feed.count("fixation_before_video")
            return
        x, y = datum.start_gaze_x / size_px[0], datum.start_gaze_y / size_px[1]
        feed.fixation(Fixation(datum.start_time_ns, datum.end_time_ns, x, y))


def _ns(datum: Any) -> int:
    """The library gives seconds; at this size a float holds them to a quarter of a microsecond."""
    return round(float(datum.timestamp_unix_seconds) * SECOND_NS)


async def _sleep(seconds: float, stop: threading.Event) -> None:
    """Sleep, or until the stop."""
    end_s = time.monotonic() + seconds
    while not stop.is_set() and time.monotonic() < end_s:
        await asyncio.sleep(min(0.1, max(0.0, end_s - time.monotonic())))


def _away() -> tuple[type[Exception], ...]:
    """What the libraries below raise when a device is not there."""
    import aiohttp
    from aiortsp.rtsp.errors import RTSPError

    return aiohttp.ClientError, RTSPError


def _broken() -> tuple[type[Exception], ...]:
    """What they raise for bytes that are not what they should be, as after a lost packet."""
    from av.error import FFmpegError

    return ValueError, struct.error, FFmpegError


def _why(error: BaseException) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
