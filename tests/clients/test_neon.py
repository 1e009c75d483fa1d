"""`rjepa stream neon`: what the device's own data types read from packed bytes becomes fixations on their frames.

There is no device to ask, so the bytes begin where its streams are unpacked: `from_raw` of the real library.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.errors import OptionError
from clients.feed import Feed, Lens
from clients.fixations import DetectorSettings, Sample
from clients.frames import LiveFrame
from clients.live import Live
from clients.live_settings import NeonSettings
from clients.main import main
from clients.optics import Optics
from clients.progress import Progress
from clients.session import Session
from tests.clients.capture import Viewer
from tests.clients.checkerboard import checkerboard, degrees_covered
from tests.clients.peer import Peer
from tests.helpers import free_port, wait_until

pytest.importorskip("pupil_labs.realtime_api", reason="not installed: pip install 'rjepa[neon]'")

import av
import pupil_labs.realtime_api as api
from aiohttp import web
from pupil_labs.neon_recording.calib import Calibration
from pupil_labs.realtime_api.discovery import DiscoveredDeviceInfo
from pupil_labs.realtime_api.streaming.base import RTSPData
from pupil_labs.realtime_api.streaming.eye_events import FixationEventData, FixationOnsetEventData
from pupil_labs.realtime_api.streaming.gaze import DualMonocularGazeData, EyestateGazeData, GazeData
from pupil_labs.realtime_api.streaming.video import VideoFrame

from clients.neon import Neon, parse_address, take_event, take_frame, take_gaze

WIDTH, HEIGHT = 640, 480
EPOCH_S = 1_700_000_000.0
FOCAL_PX = 16.0 / (2 * np.tan(np.radians(0.5)))


def gaze_of(viewer: Viewer, rate_hz: int = 200) -> Iterator[Any]:
    for number in range(int(viewer.length_s * rate_hz)):
        time_s = viewer.epoch_s + number / rate_hz
        x, y, confidence = viewer.at(time_s)
        raw = struct.pack("!ffB", x * WIDTH, (1 - y) * HEIGHT, 255 if confidence > 0.5 else 0)
        yield GazeData.from_raw(RTSPData(raw, time_s))


def frames_of(viewer: Viewer) -> Iterator[Any]:
    picture = av.VideoFrame.from_ndarray(checkerboard(WIDTH, HEIGHT), format="bgr24").reformat(format="yuv420p")
    for number in range(int(viewer.length_s * 30)):
        yield VideoFrame(picture, viewer.epoch_s + number / 30)


def events_of(viewer: Viewer) -> Iterator[Any]:
    for one in viewer.planted:
        begin_ns, end_ns = round(one.onset_s * 1e9), round(one.end_s * 1e9)
        yield FixationOnsetEventData.from_raw(RTSPData(struct.pack("!iq", 3, begin_ns), one.onset_s))
        place = (one.x * WIDTH, (1 - one.y) * HEIGHT)
        fields = (1, begin_ns, end_ns, *place, *place, *place, 1.0, 0.1, 2.0, 3.0)
        yield FixationEventData.from_raw(RTSPData(struct.pack("!iqqffffffffff", *fields), one.end_s))
        saccade = (0, end_ns, end_ns + 20_000_000, *place, *place, *place, 9.0, 1.0, 2.0, 3.0)
        yield FixationEventData.from_raw(RTSPData(struct.pack("!iqqffffffffff", *saccade), one.end_s))


@pytest.mark.parametrize("theirs", [False, True])
def test_bytes_of_the_device_become_fixations_on_their_frames(peer: Peer, tmp_path: Path, theirs: bool) -> None:
    viewer = Viewer(8, epoch_s=EPOCH_S)
    settings = NeonSettings(ingest=peer.address, spool=tmp_path / "spool")
    session, feed, stop = Session(settings, "neon", finite=False), Feed(), threading.Event()
    feed.lens((WIDTH, HEIGHT), (FOCAL_PX, FOCAL_PX))

    source = Neon("127.0.0.1", theirs=theirs)
    begun_s = time.monotonic()

    async def played(url: str) -> AsyncIterator[Any]:
        """At four times the pace."""
        items = {"frames": frames_of, "gaze": gaze_of, "events": events_of}[url](viewer)
        for item in items:
            told_s = item.rtp_ts_unix_seconds if url == "events" else item.timestamp_unix_seconds
            await asyncio.sleep(max(0.0, begun_s + (told_s - EPOCH_S) / 4 - time.monotonic()))
            yield item
        while True:
            await asyncio.sleep(0.05)

    wanted = [(played, "frames", take_frame), (played, "gaze", take_gaze)]
    wanted += [(played, "events", take_event)] if theirs else []
    receiving = threading.Thread(target=lambda: asyncio.run(source.follow(wanted, feed, stop)))
    with session.sender(recording=False) as sender, Progress("neon", None) as progress:
        live = Live(session, sender, progress, feed, Optics(), DetectorSettings(), theirs=theirs)
        looking = threading.Thread(target=live.run)
        receiving.start()
        looking.start()
        try:
            wait_until(lambda: len(peer.messages("neon")) == 8, 60, "eight fixations")
        finally:
            session.stop.set()
            stop.set()
            looking.join()
            receiving.join()
        assert session.finish(sender, progress) == 0
    for message, one in zip(peer.messages("neon"), viewer.planted, strict=True):
        assert message.onset == pytest.approx(one.onset_s, abs=0.015)
        assert (message.gaze.x, 1 - message.gaze.y) == pytest.approx((one.x, one.y), abs=0.005)
        assert degrees_covered(peer.patches["neon", message.seq]) == pytest.approx((5.0, 5.0), rel=0.02)
    assert session.summary.dropped == {}


def test_every_kind_of_gaze_datum() -> None:
    feed = Feed()
    take_gaze(GazeData.from_raw(RTSPData(struct.pack("!ffB", 1.0, 2.0, 255), 1.0)), feed)
    assert feed.faults() == {"gaze_before_video": 1}
    feed.frame(LiveFrame(0, 1600, 1200, 1, lambda: np.zeros((1200, 1600, 3), np.uint8)))
    take_gaze(DualMonocularGazeData.from_raw(RTSPData(struct.pack("!ffBff", 400, 300, 255, 1200, 900), 1.5)), feed)
    take_gaze(EyestateGazeData.from_raw(RTSPData(struct.pack("!ffB14f", 160, 120, 0, *[0.0] * 14), 2.5)), feed)
    both, eyestate = feed.take(0.0)
    assert (both.time_ns, both.x, both.y, both.confidence) == (1_500_000_000, 0.5, 0.5, 1.0)  # type: ignore[union-attr]
    assert (eyestate.x, eyestate.y, eyestate.confidence) == (0.1, 0.1, 0.0)  # type: ignore[union-attr]


class Phone:
    """A Companion app: its HTTP interface and time echo by real sockets, its streams by generators of real data.

    ``port`` is another one after every :meth:`start`. ``ended``: its streams end, ``silent``: they bring no more,
    ``broken``: what comes next is cut short. ``echoes``: it tells its time.
    """

    AHEAD_S = 5.0

    def __init__(self) -> None:
        self.port = 0
        self.ended = self.silent = self.broken = False
        self.echoes = True
        self.served: list[int] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._runner: web.AppRunner | None = None

    def start(self) -> None:
        self.ended = self.silent = self.broken = False
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)

    def stop(self) -> None:
        self.ended = True
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(20)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._echo = await asyncio.start_server(self._tell_time, "127.0.0.1", 0)
        app = web.Application()
        app.router.add_get("/api/status", self._status)
        app.router.add_get("/calibration.bin", self._calibration)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.served.append(self.port)

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._echo.close()
            self._runner = None

    async def _status(self, request: web.Request) -> web.Response:
        port = self._echo.sockets[0].getsockname()[1]
        phone = {"battery_level": 90, "battery_state": "OK", "device_id": "1", "device_name": "Neon", "ip": "127.0.0.1"}
        told = [{"model": "Phone", "data": phone | {"memory": 1, "memory_state": "OK", "time_echo_port": port}}]
        for name in ("gaze", "world", "eye_events"):
            place = {
                "ip": "127.0.0.1",
                "port": 1,
                "params": f"camera={name}",
                "protocol": "rtsp",
                "stream_error": False,
            }
            sensor = {"sensor": name, "conn_type": "DIRECT", "connected": True}
            told.append({"model": "Sensor", "data": sensor | place})
        return web.json_response({"message": "Success", "result": told})

    async def _calibration(self, request: web.Request) -> web.Response:
        made = np.zeros(1, Calibration.dtype)
        made["scene_camera_matrix"] = [[890.0, 0.0, 800.0], [0.0, 891.0, 600.0], [0.0, 0.0, 1.0]]
        return web.Response(body=made.tobytes())

    async def _tell_time(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.echoes:
                asked = await reader.readexactly(8)
                writer.write(asked + struct.pack("!Q", round((time.time() + self.AHEAD_S) * 1000)))
        writer.close()

    async def _beat(self) -> AsyncIterator[float]:
        while not self.ended:
            await asyncio.sleep(0.005)
            if not self.silent:
                yield time.time()

    async def gaze(self, url: str) -> AsyncIterator[Any]:
        async for now_s in self._beat():
            raw = struct.pack("!ffB", 800.0, 600.0, 255)
            yield GazeData.from_raw(RTSPData(raw[: 5 if self.broken else None], now_s))

    async def frames(self, url: str) -> AsyncIterator[Any]:
        picture = av.VideoFrame(1600, 1200, "yuv420p")
        async for now_s in self._beat():
            yield VideoFrame(picture, now_s)


class Found:
    """The library's look into the network: it finds the phone where that is now."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone

    def __call__(self) -> Found:
        return self

    async def __aenter__(self) -> Found:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def wait_for_new_device(self, timeout_seconds: float) -> DiscoveredDeviceInfo:
        return DiscoveredDeviceInfo("PI monitor:Neon:1", "neon.local", self._phone.port, ["127.0.0.1"])


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    phone = Phone()
    monkeypatch.setattr(api, "Network", Found(phone))
    monkeypatch.setattr(api, "receive_gaze_data", phone.gaze)
    monkeypatch.setattr(api, "receive_video_frames", phone.frames)
    monkeypatch.setattr("clients.neon.AGAIN_S", 0.05)
    monkeypatch.setattr("clients.neon.SILENT_S", 0.5)
    phone.start()
    yield phone
    phone.close()


def test_a_phone_that_goes_away_is_found_again(phone: Phone, capfd: pytest.CaptureFixture[str]) -> None:
    """Its streams end, its network drops without a word, it comes back at another port: each time gaze goes on."""
    feed, stop, heard = Feed(), threading.Event(), []

    def gaze_comes() -> bool:
        heard.extend(feed.take(0.05))
        return any(isinstance(item, Sample) for item in heard)

    source = Neon(None)
    running = threading.Thread(target=source.run, args=(feed, stop))
    running.start()
    try:
        wait_until(gaze_comes, 30, "gaze")
        wait_until(lambda: source.now_ns() is not None, 30, "its clock")
        ahead_s = ((source.now_ns() or 0) - time.time_ns()) * 1e-9
        assert ahead_s == pytest.approx(phone.AHEAD_S, abs=0.5)
        for losses, lose in enumerate((phone.stop, lambda: setattr(phone, "silent", True)), 1):
            lose()
            wait_until(lambda losses=losses: feed.faults().get("device_lost", 0) >= losses, 30, "its loss")
            phone.stop()
            phone.start()
            feed.take(0.0)
            heard.clear()
            wait_until(gaze_comes, 30, "gaze again")
    finally:
        stop.set()
        running.join()
    assert len(set(phone.served)) == 3
    assert source.words().startswith(f"Neon at 127.0.0.1:{phone.port}: clock +5")
    lenses = [item for item in heard if isinstance(item, Lens)]
    assert lenses == [Lens((1600, 1200), (890.0, 891.0))]
    assert feed.shown.size_px() == (1600, 1200)
    assert "Traceback" not in capfd.readouterr().err


def test_a_packet_cut_short_and_a_dead_time_echo_end_nothing(phone: Phone) -> None:
    """Bytes that can't be unpacked are a loss like any other, and without the phone's clock gaze comes all the same."""
    phone.echoes = False
    feed, stop, heard = Feed(), threading.Event(), []

    def gaze_comes() -> bool:
        heard.extend(item for item in feed.take(0.05) if isinstance(item, Sample))
        return len(heard) > 100

    source = Neon(f"127.0.0.1:{phone.port}")
    running_source = threading.Thread(target=source.run, args=(feed, stop))
    running_source.start()
    try:
        wait_until(gaze_comes, 30, "gaze")
        assert source.words().endswith("clock unknown")
        assert "device_lost" not in feed.faults()
        phone.broken = True
        wait_until(lambda: feed.faults().get("device_lost", 0) >= 1, 30, "its loss")
        phone.broken = False
        heard.clear()
        wait_until(gaze_comes, 30, "gaze again")
    finally:
        stop.set()
        running_source.join()
    assert feed.error is None


def test_addresses_and_refusals(tmp_path: Path) -> None:
    assert parse_address("192.168.1.21") == ("192.168.1.21", 8080)
    assert parse_address("http://neon.local:8081/") == ("neon.local", 8081)
    for address in ("x:y", "a b c", "x:0", "x:99999", "x:²"):
        with pytest.raises(OptionError, match="no address of a phone"):
            parse_address(address)
    with pytest.raises(OptionError, match="no address of a phone"):
        main(["neon", "x:y", f"--spool={tmp_path / 's'}"])
    with pytest.raises(OptionError, match="own scene camera"):
        main(["neon", "--video=camera:0", f"--spool={tmp_path / 's'}"])


def test_a_phone_that_does_not_answer_is_said_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.neon.AGAIN_S", 0.05)
    feed, stop = Feed(), threading.Event()
    source = Neon(f"127.0.0.1:{free_port()}")
    asking = threading.Thread(target=source.run, args=(feed, stop))
    asking.start()
    try:
        wait_until(lambda: feed.faults().get("device_lost", 0) >= 3, 30, "it to be asked again")
    finally:
        stop.set()
        asking.join()
    (said,) = feed.take(0.0)
    assert "is the Companion app open there" in str(said)
    assert source.words().endswith("clock unknown")
