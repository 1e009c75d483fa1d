"""`rjepa stream neon`: what the device's own data types read from packed bytes becomes fixations on their frames.

There is no device to ask, so the bytes begin where its streams are unpacked: `from_raw` of the real library.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.errors import OptionError
from clients.feed import Feed
from clients.fixations import DetectorSettings
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


def test_addresses_and_refusals(tmp_path: Path) -> None:
    assert parse_address("192.168.1.21") == ("192.168.1.21", 8080)
    assert parse_address("http://neon.local:8081/") == ("neon.local", 8081)
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
