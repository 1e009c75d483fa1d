"""The parts of the live pipeline: order, frames, clock, hand-over, pixels."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.clock import ClockOffset, RoundTrip
from clients.errors import SourceError
from clients.feed import Feed, Notice, Renewed
from clients.fixations import Fixation, Sample
from clients.frames import BrokenFrame, FrameBuffer, LiveFrame
from clients.live import Reorder
from clients.optics import Optics, camera_of, read_intrinsics, read_optics
from clients.pixels import decode
from clients.pupil_messages import EyeChoice, FixationMerge, NotUnderstood

MS = 1_000_000
PERIOD = 33 * MS


def frame(time_ns: int, held_bytes: int = 10, value: int = 0) -> LiveFrame:
    return LiveFrame(time_ns, 4, 3, held_bytes, lambda: np.full((3, 4, 3), value, np.uint8))


def filled(times: list[int], **limits: int) -> FrameBuffer:
    buffer = FrameBuffer(**limits)
    for time_ns in times:
        buffer.push(frame(time_ns))
    return buffer


@given(st.permutations(range(20)), st.integers(-5 * MS, 19 * PERIOD + 5 * MS))
def test_the_nearest_frame_whatever_the_order(order: list[int], wanted_ns: int) -> None:
    buffer = filled([index * PERIOD for index in order])
    found = buffer.nearest(wanted_ns)
    assert found is not None
    assert abs(found.time_ns - wanted_ns) <= PERIOD / 2 + 5 * MS
    assert len(buffer) == 20


def test_no_frame_near_enough_is_none() -> None:
    buffer = filled([0, PERIOD, 40 * PERIOD])
    assert buffer.nearest(20 * PERIOD) is None
    assert buffer.nearest(PERIOD + 40 * MS) is not None
    assert buffer.faults() == {"frames_gap": 1}


def test_what_is_wrong_with_frames_is_counted() -> None:
    buffer = filled([0, PERIOD, 2 * PERIOD, PERIOD // 2, PERIOD, -2_000 * MS])
    assert buffer.faults() == {"frames_late": 1, "frames_repeated": 1, "frames_time_back": 1}
    assert len(buffer) == 1


def test_frames_are_bounded_in_time_and_in_bytes() -> None:
    times = [index * PERIOD for index in range(1000)]
    assert len(filled(times, max_ns=30 * PERIOD)) == 31
    assert len(filled(times, max_bytes=100)) == 10


def test_frames_wait_for_a_pipeline_that_is_late_but_not_for_ever() -> None:
    buffer = FrameBuffer(span_ns=10 * PERIOD, max_ns=300 * PERIOD)
    buffer.passed(100 * PERIOD)
    for index in range(1000):
        buffer.push(frame(index * PERIOD))
        if index == 250:
            assert len(buffer) == 251 - 90
    assert len(buffer) == 301
    buffer.passed(999 * PERIOD)
    buffer.push(frame(1000 * PERIOD))
    assert len(buffer) == 12


def test_the_frame_of_an_onset_is_held_however_long_the_eye_stays() -> None:
    buffer = FrameBuffer(max_ns=10 * PERIOD)
    buffer.push(frame(0))
    buffer.hold(PERIOD + 2 * MS)
    assert not buffer.ready(PERIOD + 2 * MS)
    for index in range(1, 500):
        buffer.push(frame(index * PERIOD))
    assert buffer.ready(PERIOD + 2 * MS)
    held = buffer.nearest(PERIOD + 2 * MS)
    assert held is not None
    assert held.time_ns == PERIOD
    for index in range(100):
        buffer.hold(500 * PERIOD + index)
    assert buffer.nearest(PERIOD + 2 * MS) is None, "holds are bounded too"
    buffer.hold(498 * PERIOD)
    for index in range(500, 600):
        buffer.push(frame(index * PERIOD))
    assert buffer.nearest(498 * PERIOD) is not None
    buffer.release(498 * PERIOD)
    assert buffer.nearest(498 * PERIOD) is None


@given(st.lists(st.integers(0, 400), max_size=60))
def test_samples_within_the_hold_come_out_in_order_and_none_is_lost(jitter: list[int]) -> None:
    reorder = Reorder(40 * MS)
    times = [index * 5 * MS - late % 40 * MS for index, late in enumerate(jitter)]
    out = [one for time_ns in times for one in reorder.push(Sample(time_ns, 0.5, 0.5))] + reorder.drain()
    assert [one.time_ns for one in out] == sorted(times)


def test_a_clock_that_is_set_back_is_no_disorder() -> None:
    reorder = Reorder(40 * MS)
    out = [reorder.push(Sample(time_ns, 0.5, 0.5)) for time_ns in (10_000 * MS, 10_005 * MS, 5 * MS, 50 * MS)]
    assert [[one.time_ns for one in part] for part in out] == [[], [], [10_000 * MS, 10_005 * MS], [5 * MS]]
    assert reorder.late == 0


def test_the_feed_never_waits_and_drops_the_oldest_samples() -> None:
    feed = Feed(capacity=10)
    feed.say("first")
    feed.gaze(Sample(index, 0.5, 0.5) for index in range(1000))
    feed.fixation(Fixation(0, 1, 0.5, 0.5))
    items = list(feed.take(0.0))
    assert len(items) == 10
    assert items[0] == Notice("first")
    assert isinstance(items[-1], Fixation)
    assert [one.time_ns for one in items[1:-1] if isinstance(one, Sample)] == list(range(992, 1000))
    assert feed.faults() == {"gaze_overrun": 992}


def test_a_renewed_feed_has_new_frames_and_leaves_the_old_to_what_waits_for_them() -> None:
    feed = Feed()
    feed.frame(frame(5))
    before = feed.shown
    feed.renew()
    (renewed,) = feed.take(0.0)
    assert isinstance(renewed, Renewed)
    assert renewed.shown is feed.shown is not before
    assert before.nearest(5) is not None
    assert feed.shown.nearest(5) is None


def test_an_error_wakes_the_loop() -> None:
    feed = Feed()
    timer = threading.Timer(0.05, lambda: feed.fail(SourceError("gone")))
    timer.start()
    feed.take(30.0)
    timer.join()
    assert isinstance(feed.error, SourceError)


@given(
    st.integers(-(10**13), 10**13),
    st.lists(st.tuples(st.integers(0, 50 * MS), st.integers(0, 50 * MS)), min_size=10, max_size=30),
)
def test_the_offset_is_right_to_half_the_shortest_round_trip(offset_ns: int, trips: list[tuple[int, int]]) -> None:
    clock = ClockOffset(window=len(trips))
    now_ns = 0
    for there_ns, back_ns in trips:
        clock.add(RoundTrip(now_ns, now_ns + there_ns + back_ns, now_ns + there_ns + offset_ns))
        now_ns += 1_000 * MS
    assert clock.offset_ns is not None
    assert abs(clock.offset_ns - offset_ns) <= clock.error_ns + 1 <= min(sum(trip) for trip in trips) // 2 + 1


def test_drift_is_told_after_a_minute() -> None:
    clock = ClockOffset()
    for second in range(120):
        now_ns = second * 1_000 * MS
        clock.add(RoundTrip(now_ns, now_ns + MS, now_ns + MS // 2 + 7 + second * 50_000))  # 50 us a second
        assert (clock.drift_ppm is None) == (second < 69)
    assert clock.drift_ppm == pytest.approx(50.0, abs=0.1)
    assert "drifting +50 ppm" in clock.words()
    assert not clock.drifts
    clock.reset()
    assert clock.words() == "clock unknown"


def test_pixels_of_every_format() -> None:
    import cv2

    generator = np.random.default_rng(0)
    bgr = cv2.resize(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    ycrcb = cv2.cvtColor(bgr, cv2.COLOR_BGR2YCrCb)
    y, v, u = (np.ascontiguousarray(ycrcb[..., channel]) for channel in range(3))
    for across, down in ((1, 1), (2, 1), (2, 2)):
        coarse = [cv2.resize(p, (64 // across, 48 // down), interpolation=cv2.INTER_AREA) for p in (u, v)]
        found = decode("yuv", b"".join(plane.tobytes() for plane in (y, *coarse)), 64, 48)
        assert np.abs(found.astype(int) - bgr).mean() < (1.0, 2.0, 3.0)[across + down - 2]
    jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    assert np.abs(decode("jpeg", jpeg, 64, 48).astype(int) - bgr).mean() < 4.0
    np.testing.assert_array_equal(decode("bgr", bgr.tobytes(), 64, 48), bgr)
    np.testing.assert_array_equal(decode("gray", y.tobytes(), 64, 48)[..., 2], y)
    for kind, data in (("jpeg", b"no"), ("jpeg", b""), ("bgr", b"12"), ("yuv", y.tobytes()), ("gray", b"")):
        with pytest.raises(BrokenFrame):
            decode(kind, data, 64, 48)  # type: ignore[arg-type]
    with pytest.raises(BrokenFrame, match="64 x 48 where 48 x 64"):
        decode("jpeg", jpeg, 48, 64)


def test_one_eye_at_a_time() -> None:
    eyes = EyeChoice()
    told = [("0", 0), ("1", 5), ("01", 10), ("0", 12), ("01", 15), ("1", 130), ("0", 135), ("1", 140), ("0", 300)]
    assert [eyes.takes(eye, time_ms * MS) for eye, time_ms in told] == [
        True, False, True, False, True, True, False, True, True,
    ]  # fmt: skip


def told(number: int, time_s: float, duration_ms: float) -> dict[str, object]:
    return {"id": number, "timestamp": time_s, "duration": duration_ms, "norm_pos": [0.25, 0.75], "confidence": 1.0}


def test_fixations_told_again_are_one() -> None:
    merge = FixationMerge()
    assert merge.push(told(1, -1.0, 100.0)) == []
    assert merge.push(told(1, -0.95, 150.0)) == []
    (first,) = merge.push(told(2, 0.0, 100.0))
    assert first == Fixation(-1_000 * MS, -800 * MS, 0.25, 0.25)
    assert merge.push(told(1, -0.9, 150.0)) == [], "late, and over already"
    assert merge.pass_time(350 * MS) == []
    (second,) = merge.pass_time(450 * MS)
    assert (second.onset_ns, second.end_ns) == (0, 100 * MS)
    assert merge.push(told(2, 0.4, 100.0)) == []
    assert merge.repeated == 3


def test_a_fixation_detector_that_begins_anew_loses_nothing() -> None:
    """Capture's plugin switched off and on numbers from the beginning; the ids were seen before, the fixations not."""
    merge = FixationMerge()
    assert merge.push(told(1, 0.0, 100.0)) == []
    assert len(merge.push(told(2, 1.0, 100.0))) == 1
    assert merge.push(told(1, 0.2, 100.0)) == [], "late"
    assert len(merge.push(told(1, 9.0, 200.0))) == 1
    (again,) = merge.push(told(2, 10.0, 100.0))
    assert (again.onset_ns, again.duration_ns) == (9_000 * MS, 200 * MS)
    with pytest.raises(NotUnderstood, match="id"):
        merge.push(told(3, 11.0, 100.0) | {"id": None})


def test_degrees_from_every_option() -> None:
    def size(**options: object) -> tuple[float, float]:
        base = {"px_per_degree": None, "fov": None, "intrinsics": None}
        found = read_optics(**(base | options)).size((1280, 720))  # type: ignore[arg-type]
        return found.width_deg, found.height_deg

    assert size(px_per_degree="16x12") == pytest.approx((80.0, 60.0))
    focal = 640 / np.tan(np.radians(30.0))
    assert size(fov="60") == pytest.approx((1280 / (focal * 0.0174537), 720 / (focal * 0.0174537)), rel=1e-4)
    assert size(fov="60", px_per_degree="16") == pytest.approx((80.0, 45.0)), "what is measured goes first"
    assert size(screen_mm="380x300", distance_mm=670.0) == pytest.approx((32.5, 25.65), abs=0.01)


def test_what_the_tracker_tells_goes_last() -> None:
    optics = Optics()
    optics.learn((640, 480), (800.0, 800.0))
    optics.learn((640, 480), (1.0, 1.0))
    assert optics.size((640, 480)).width_deg == pytest.approx(640 / (800 * 0.0174537), rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [None, {}, {"resolution": [1, 2]}, {"resolution": [0, 2], "camera_matrix": [[1, 0], [0, 1]]}]
)
def test_what_is_no_camera(wrong: object) -> None:
    assert camera_of(wrong) is None


def test_a_file_without_intrinsics(tmp_path: Path) -> None:
    for content in (b"", b"\xc1", b"\x80", b"text"):
        path = tmp_path / "world.intrinsics"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"world\.intrinsics"):
            read_intrinsics(path)
