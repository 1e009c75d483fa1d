"""Fixations found sample by sample: against an expert's labels, and in gaze whose events are known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from clients.agreement import Agreement, expert_events
from clients.andersson import read_andersson, read_labels
from clients.detectors import DispersionClassifier, Point, VelocityClassifier
from clients.fixations import Detector, DetectorSettings, Fixation, Sample
from tests.clients.detection import FRAME, MS, Gaze, detect, feed


def agreement(recordings: Path, *, every: int = 1, method: str = "auto") -> tuple[Agreement, set[str], list[float]]:
    """Over all labelled recordings: agreement, the detectors used, and the delays of being online in ms."""
    total, used, delays_ms = Agreement(), set(), []
    paths = sorted((recordings / "andersson2017").rglob("*_labelled_RA.mat"))
    assert len(paths) == 13
    for path in paths:
        track = read_andersson(path)
        assert track.frame is not None
        samples = list(track.samples())[::every]
        kept = [at for at, sample in enumerate(samples) if sample.time_ns is not None]
        times_ns = np.array([samples[at].time_ns for at in kept])
        detector = Detector(track.frame, DetectorSettings(method=method))  # type: ignore[arg-type]
        found = feed(detector, samples)
        total.add(
            expert_events(times_ns, read_labels(path)[::every][kept]),
            [(fixation.onset_ns, fixation.end_ns) for _, fixation in found],
            times_ns,
        )
        used.add(detector.method)
        for at, fixation in found:
            if at < len(samples) and samples[at].time_ns is not None and at > detector._settings.warm_up:
                delays_ms.append((samples[at].time_ns - fixation.end_ns) / MS)
    return total, used, delays_ms


def test_against_the_expert_at_full_rate(recordings: Path) -> None:
    total, used, delays_ms = agreement(recordings)
    assert used == {"ivt"}
    assert total.expert == 275
    assert total.f1 > 0.95
    assert total.f1_half > 0.93
    assert total.kappa > 0.80
    assert np.mean(total.onset_errors_ms) < 20
    assert max(delays_ms) < 100


def test_against_the_expert_at_a_slow_trackers_rate(recordings: Path) -> None:
    """62.5 Hz: the dispersion detector is chosen, and is the better one there."""
    total, used, _ = agreement(recordings, every=8)
    assert used == {"idt"}
    assert total.f1 > 0.92
    assert total.f1_half > 0.86
    by_velocity, _, _ = agreement(recordings, every=8, method="ivt")
    assert total.f1 > by_velocity.f1


@pytest.fixture(params=["ivt", "idt"])
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rate(method: str) -> float:
    return 500.0 if method == "ivt" else 60.0


def check(found: list[Fixation], gaze: Gaze, tolerance_ms: float) -> None:
    assert len(found) == len(gaze.events)
    for fixation, (begin, end) in zip(found, gaze.events, strict=True):
        assert abs(fixation.onset_ns - begin) <= tolerance_ms * MS
        assert abs(fixation.end_ns - end) <= tolerance_ms * MS


def test_known_fixations(method: str) -> None:
    gaze = Gaze(rate(method)).fixate(300).jump(5, 3).fixate(200).jump(-8, 0).fixate(400).jump(2, -4).fixate(150)
    found = detect(gaze.samples, method=method)
    check(found, gaze, 12 if method == "ivt" else 40)
    places = [(15, 10), (20, 13), (12, 13), (14, 9)]
    for fixation, (x_deg, y_deg) in zip(found, places, strict=True):
        assert fixation.x * FRAME.width_deg == pytest.approx(x_deg, abs=0.3)
        assert fixation.y * FRAME.height_deg == pytest.approx(y_deg, abs=0.3)


def test_pursuit_is_one_fixation_taken_where_it_began(method: str) -> None:
    gaze = Gaze(rate(method)).fixate(300).jump(-10, 0).fixate(1500, drift_deg_per_s=8).jump(4, 4).fixate(300)
    found = detect(gaze.samples, method=method)
    check(found, gaze, 15 if method == "ivt" else 50)
    assert found[1].x * FRAME.width_deg == pytest.approx(5.0, abs=0.5), "not the middle of its way, 11 degrees"


@pytest.mark.parametrize("sample", [(0.0, 0.0), (math.nan, math.nan), (math.nan, 0.5), (math.inf, 0.5)])
def test_a_blink_ends_a_fixation(method: str, sample: tuple[float, float]) -> None:
    gaze = Gaze(rate(method)).fixate(400).lose(200, sample).fixate(400)
    detector = Detector(FRAME, DetectorSettings(method=method))  # type: ignore[arg-type]
    check([fixation for _, fixation in feed(detector, gaze.samples)], gaze, 20)
    assert detector.counts.faults() == {"lost": round(200 * MS / gaze.step_ns)}


def test_low_confidence_is_lost(method: str) -> None:
    gaze = Gaze(rate(method)).fixate(400)
    gaze.lose(300, (0.9, 0.9), confidence=0.3).fixate(400)
    gaze.lose(200, (0.1, 0.1), confidence=math.nan).fixate(400)
    detector = Detector(FRAME, DetectorSettings(method=method))  # type: ignore[arg-type]
    check([fixation for _, fixation in feed(detector, gaze.samples)], gaze, 20)
    assert set(detector.counts.faults()) == {"low_confidence"}


def test_a_short_loss_is_bridged() -> None:
    gaze = Gaze().fixate(300).lose(30).fixate(300)
    (found,) = detect(gaze.samples)
    assert (found.onset_ns, found.end_ns) == (gaze.events[0][0], gaze.events[1][1])


def test_a_short_loss_with_a_move_is_not() -> None:
    gaze = Gaze().fixate(300).lose(30)
    gaze.at_deg = (20.0, 10.0)
    gaze.fixate(300)
    check(detect(gaze.samples), gaze, 12)


def test_too_short_is_none() -> None:
    gaze = Gaze().fixate(300).jump(6, 0).fixate(30).jump(5, 0).fixate(300)
    del gaze.events[1]
    check(detect(gaze.samples), gaze, 20)


def test_noise_raises_the_threshold() -> None:
    """A noisy tracker does not shatter its fixations."""
    gaze = Gaze(noise_deg=0.2).fixate(500).jump(8, 0).fixate(500).jump(-8, 5).fixate(500)
    check(detect(gaze.samples), gaze, 40)


def test_a_clock_set_back_and_times_that_are_none() -> None:
    gaze = Gaze().fixate(400)
    second = Gaze(begin_ns=5_000_000).fixate(400)
    nothing = [Sample(None, 0.5, 0.5)] * 7
    detector = Detector(FRAME)
    found = [fixation for _, fixation in feed(detector, gaze.samples + nothing + second.samples)]
    assert [(f.onset_ns, f.end_ns) for f in found] == [gaze.events[0], second.events[0]]
    assert detector.counts.faults() == {"time_missing": 7, "time_back": 1}


def test_late_and_repeated_samples_are_left_out() -> None:
    gaze = Gaze().fixate(600)
    samples = list(gaze.samples)
    samples[200:200] = [dataclasses.replace(samples[180], x=0.9), dataclasses.replace(samples[199], x=0.9)]
    detector = Detector(FRAME)
    (found,) = [fixation for _, fixation in feed(detector, samples)]
    assert (found.onset_ns, found.end_ns) == gaze.events[0]
    assert detector.counts.faults() == {"time_back": 1, "time_repeated": 1}


def test_a_gap_without_samples_ends_a_fixation(method: str) -> None:
    gaze = Gaze(rate(method)).fixate(400)
    gaze.now_ns += 500 * MS
    gaze.fixate(400)
    check(detect(gaze.samples, method=method), gaze, 20)


def test_the_detector_suits_the_rate() -> None:
    for rate_hz, expected in ((500.0, "ivt"), (120.0, "ivt"), (60.0, "idt"), (30.0, "idt")):
        detector = Detector(FRAME)
        feed(detector, Gaze(rate_hz).fixate(2000).samples)
        assert detector.method == expected
        assert detector.sampling_hz == pytest.approx(rate_hz, rel=0.01)


def test_a_recording_shorter_than_the_warm_up() -> None:
    gaze = Gaze(100.0).fixate(200)
    check(detect(gaze.samples), gaze, 5)
    assert detect([]) == []
    assert detect([Sample(1, 0.5, 0.5)]) == []


def test_ongoing_tells_before_the_end() -> None:
    detector = Detector(FRAME)
    gaze = Gaze().fixate(400)
    assert detector.ongoing is None
    assert [fixation for sample in gaze.samples for fixation in detector.feed(sample)] == []
    ongoing = detector.ongoing
    assert ongoing is not None
    assert ongoing.onset_ns == gaze.events[0][0]
    (finished,) = detector.finish()
    assert (finished.x, finished.y) == (ongoing.x, ongoing.y)


@pytest.mark.parametrize("classifier", [VelocityClassifier, DispersionClassifier])
def test_classifiers_give_every_point_back_once_and_in_order(
    classifier: type[VelocityClassifier] | type[DispersionClassifier],
) -> None:
    generator = np.random.default_rng(3)
    points = [Point(at * 5 * MS, *generator.uniform(0, 30, 2).tolist()) for at in range(100)]
    points += [Point((100 + at) * 5 * MS, 3.0, 4.0) for at in range(100)]
    judge = classifier()
    given = [verdict for point in points for verdict in judge.push(point)] + judge.drain()
    assert [verdict.point for verdict in given] == points
    assert judge.drain() == []


def test_an_hour_long_fixation_takes_no_memory() -> None:
    detector = Detector(FRAME)
    for at in range(20_000):
        assert detector.feed(Sample(at * 2 * MS, 0.5 + 1e-4 * (at % 3), 0.5)) == []
    kept = detector._grouper._open
    assert kept is not None
    assert len(kept.head) + len(kept.tail) < 100
    assert isinstance(detector._classifier, VelocityClassifier)
    assert len(detector._classifier._points) < 30
    (found,) = detector.finish()
    assert found.duration_ns == 19_999 * 2 * MS
