"""What a live source can do wrong, through the whole pipeline: counted, said, and survived."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from clients.errors import SourceError, UnitsUnknown
from clients.feed import Feed
from clients.fixations import DetectorSettings, Sample
from clients.frames import BrokenFrame, LiveFrame
from clients.live import SHOW_EVERY_S, Live, running
from clients.optics import Optics
from clients.progress import Progress
from clients.sender import Sender
from clients.session import Session
from clients.settings import StreamSettings
from tests.clients.peer import Peer
from tests.helpers import wait_until

MS = 1_000_000
S = 1000 * MS
PERIOD = 33 * MS


class Bench:
    """A feed, and the pipeline that looks at it, in a thread."""

    def __init__(self, peer: Peer, folder: Path, optics: Optics) -> None:
        settings = StreamSettings(ingest=peer.address, spool=folder / "spool")
        self.feed = Feed()
        self.peer = peer
        self.session = Session(settings, "live", finite=False)
        self.sender = self.session.sender(recording=False)
        self.progress = Progress("live", None)
        self.live = Live(self.session, self.sender, self.progress, self.feed, optics, DetectorSettings())
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.live.run()
        except Exception as error:  # noqa: BLE001  told to the test
            self.error = error

    def frames(self, from_ns: int, to_ns: int, value: int = 120, size_px: tuple[int, int] = (320, 240)) -> None:
        for time_ns in range(from_ns, to_ns, PERIOD):
            self.feed.frame(picture(time_ns, value, size_px))

    def begin(self) -> None:
        """Let the pipeline know where the time is, as it would by and by: what lies ahead of it is kept."""
        self.lose(-8 * MS, 0)
        wait_until(lambda: self.feed.shown._passed_ns is not None, 30, "the loop to begin")

    def look(self, from_ns: int, to_ns: int, x: float, y: float) -> None:
        self.feed.gaze(Sample(time_ns, x, y) for time_ns in range(from_ns, to_ns, 4 * MS))

    def lose(self, from_ns: int, to_ns: int) -> None:
        self.look(from_ns, to_ns, float("nan"), float("nan"))

    def found(self, count: int) -> None:
        wait_until(lambda: self.session.summary.found == count, 30, f"{count} fixations")

    def end(self) -> dict[str, int]:
        self.session.stop.set()
        self._thread.join()
        self.session.finish(self.sender, self.progress)
        return dict(self.session.summary.source or {})


def picture(time_ns: int, value: int, size_px: tuple[int, int]) -> LiveFrame:
    width, height = size_px
    return LiveFrame(time_ns, width, height, 1000, lambda: np.full((height, width, 3), value, np.uint8))


@contextmanager
def bench(peer: Peer, folder: Path, optics: Optics | None = None) -> Iterator[Bench]:
    made = Bench(peer, folder, optics or Optics(px_per_degree=(8.0, None)))
    try:
        yield made
    finally:
        made.end()


def test_gaze_off_the_frame_gaps_black_and_missing_frames(peer: Peer, tmp_path: Path) -> None:
    with bench(peer, tmp_path) as live:
        live.begin()
        live.frames(0, 3 * S)
        live.frames(3 * S, 4 * S, value=3)
        live.look(0, 400 * MS, 0.3, 0.3)
        live.look(400 * MS, 800 * MS, 1.4, 0.5)  # beyond the edge
        live.look(800 * MS, 1200 * MS, 0.5, 0.5)
        live.lose(1200 * MS, 1600 * MS)
        live.look(2 * S, 2400 * MS, 0.3, 0.6)  # after 0.4 s without any sample
        live.look(3200 * MS, 3600 * MS, 0.6, 0.6)  # on black
        live.look(5 * S, 5400 * MS, 0.6, 0.3)  # on nothing
        live.lose(5400 * MS, 5600 * MS)
        live.found(6)
        wait_until(lambda: len(peer.messages("live")) == 3, 30, "what can be sent")
        source = live.end()
        assert live.session.summary.dropped == {"off_frame": 1, "black": 1, "no_frame": 1}
        assert source["gaze_gap"] == 3
        assert source["lost"] == 150
        assert [round(message.onset, 1) for message in peer.messages("live")] == [0.0, 0.8, 2.0]


def test_a_clock_that_jumps_back_and_goes_on(peer: Peer, tmp_path: Path) -> None:
    with bench(peer, tmp_path) as live:
        live.frames(100 * S, 101 * S)
        live.look(100 * S, 100 * S + 400 * MS, 0.3, 0.3)
        live.lose(100 * S + 400 * MS, 100 * S + 600 * MS)
        live.found(1)
        wait_until(lambda: len(peer.messages("live")) == 1, 30, "the first")
        live.frames(7 * S, 8 * S)
        live.look(7 * S, 7 * S + 400 * MS, 0.7, 0.7)
        live.lose(7 * S + 400 * MS, 7 * S + 600 * MS)
        live.found(2)
        wait_until(lambda: len(peer.messages("live")) == 2, 30, "the second")
        source = live.end()
        assert source["time_back"] == 1
        assert source["frames_time_back"] == 1
        assert [round(message.onset) for message in peer.messages("live")] == [100, 7]


def test_a_long_look_keeps_the_frame_of_its_onset(peer: Peer, tmp_path: Path) -> None:
    """A minute at one place, while frames are kept for five seconds; the shade tells which frame it was."""
    with bench(peer, tmp_path) as live:
        for second in range(60):
            live.frames(second * S, (second + 1) * S, value=60 + 3 * second)
            live.look(second * S, (second + 1) * S, 0.5, 0.5)
            wait_until(lambda: not live.feed._items, 30, "the loop to keep up")
        live.lose(60 * S, 61 * S)
        live.found(1)
        wait_until(lambda: len(peer.messages("live")) == 1, 30, "it")
        assert peer.messages("live")[0].duration == pytest.approx(60.0, abs=0.1)
        assert peer.patches["live", 0].mean() == pytest.approx(60.0, abs=1.0)


def test_a_frame_that_comes_after_the_fixation_is_waited_for_and_a_broken_one_is_dropped(
    peer: Peer, tmp_path: Path
) -> None:
    def broken() -> np.ndarray:
        raise BrokenFrame("no JPEG where 320 x 240 was announced")

    with bench(peer, tmp_path) as live:
        live.feed.frame(picture(-S, 100, (320, 240)))
        live.look(0, 300 * MS, 0.5, 0.5)
        live.lose(300 * MS, 500 * MS)
        wait_until(lambda: live.live._waiting, 30, "the fixation to wait")
        live.frames(0, S, value=77)
        wait_until(lambda: len(peer.messages("live")) == 1, 30, "it")
        assert peer.patches["live", 0].mean() == 77
        live.feed.frame(LiveFrame(2 * S, 320, 240, 10, broken))
        live.look(2 * S, 2300 * MS, 0.5, 0.5)
        live.lose(2300 * MS, 2600 * MS)
        live.found(2)
        live.end()
        assert live.session.summary.dropped == {"frame_broken": 1}


def test_a_video_that_changes_its_size(peer: Peer, tmp_path: Path) -> None:
    """By pixels per degree the new size is unknown; by focal lengths it is known where they were told."""
    known = Optics(focal_px={(320, 240): (400.0, 400.0), (640, 480): (800.0, 800.0)})
    for name, optics, dropped in (("by-px", None, {"frame_size": 1}), ("by-focal", known, {})):
        with bench(peer, tmp_path / name, optics) as live:
            live.frames(0, S)
            live.look(0, 400 * MS, 0.5, 0.5)
            live.lose(400 * MS, S)
            live.found(1)
            live.frames(S, 2 * S, size_px=(640, 480))
            live.look(S, 1400 * MS, 0.5, 0.5)
            live.lose(1400 * MS, 1600 * MS)
            live.found(2)
            live.end()
            assert live.session.summary.dropped == dropped


def test_a_source_that_fails_ends_the_stream_with_its_error(peer: Peer, tmp_path: Path) -> None:
    class Failing:
        def run(self, feed: Feed, stop: threading.Event) -> None:
            raise SourceError("the plug is out")

        def now_ns(self) -> int | None:
            return None

        def words(self) -> str:
            return "failing"

    with bench(peer, tmp_path) as live, running([Failing()], live.feed):
        wait_until(lambda: live.error is not None, 30, "the error")
        assert str(live.error) == "the plug is out"


def test_no_units_is_an_error_only_after_the_source_had_its_time(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clients.live.UNITS_WAIT_S", 0.2)
    with bench(peer, tmp_path, Optics()) as live:
        live.frames(0, S)
        live.look(0, 400 * MS, 0.5, 0.5)
        wait_until(lambda: live.error is not None, 30, "the error")
        assert isinstance(live.error, UnitsUnknown)


def test_a_spool_that_stays_full_is_said_once(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between two fixations nothing is dropped, and it is as full as before; it is over when one is taken again."""
    monkeypatch.setattr("clients.sender.QUEUE", 4)
    monkeypatch.setattr("clients.session.Sender", partial(Sender, capacity=1))
    peer.answering = False
    with bench(peer, tmp_path) as made:

        def looked() -> None:
            """It has looked twice what became of them."""
            begun_s = made.live._shown_s
            wait_until(lambda: made.live._shown_s > begun_s + 1.1 * SHOW_EVERY_S, 30, "a second look")

        def fixate(number: int) -> None:
            from_ns = number * S
            made.frames(from_ns, from_ns + S)
            made.look(from_ns + 100 * MS, from_ns + 400 * MS, 0.3 + 0.1 * (number % 2), 0.5)
            made.lose(from_ns + 400 * MS, from_ns + 600 * MS)
            made.found(number + 1)

        made.begin()
        for number in range(8):
            fixate(number)
            if number >= 5:
                looked()
        dropped = made.session.summary.dropped["spool_full"]
        assert dropped == 3
        said = capsys.readouterr().err
        assert (said.count("ALARM spool_full"), said.count("is over")) == (1, 0)
        peer.answering = True
        wait_until(lambda: made.sender.status.waiting == 0, 30, "room")
        fixate(8)
        looked()
        assert f"spool_full is over: {dropped} fixations were dropped" in capsys.readouterr().err


def test_a_video_that_stops_under_gaze_that_goes_on_is_said(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clients.live.SILENT_AFTER_S", 0.5)
    told = ""

    def said() -> bool:
        nonlocal told
        told += capsys.readouterr().err
        return "gaze comes, and no more frames for" in told

    with bench(peer, tmp_path) as made:
        made.frames(0, S)
        made.look(0, 4 * MS, 0.5, 0.5)
        assert not said()
        at_ns = iter(range(4 * MS, 1000 * S, 4 * MS))
        wait_until(lambda: (made.feed.gaze([Sample(next(at_ns), 0.5, 0.5)]), said())[1], 30, "it to be said")
    assert told.count("no more frames") == 1
