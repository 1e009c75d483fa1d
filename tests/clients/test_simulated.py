"""The simulated observer: seeded, plausible, drawn to what stands out."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.patches import cut
from clients.simulated import Observer
from clients.units import FrameSize, from_px_per_degree
from clients.video import Frame, Video
from tests.clients.checkerboard import PX_PER_DEGREE, checkerboard, degrees_covered
from tests.clients.conftest import write_video

SIZE = FrameSize(30.0, 22.5)


def look(video: Path, count: int, seed: int = 0, begin_ns: int = 0) -> list[tuple[Fixation, Frame]]:
    with Video(video) as frames:
        return list(itertools.islice(Observer(frames, SIZE, seed).look(begin_ns, None, loop=True), count))


def test_the_seed_decides(video: Path) -> None:
    one, again, other = ([fixation for fixation, _ in look(video, 30, seed)] for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_durations_and_amplitudes_are_an_eyes(video: Path) -> None:
    fixations = [fixation for fixation, _ in look(video, 600)]
    durations_ms = np.array([fixation.duration_ns for fixation in fixations]) / 1e6
    assert 225 < durations_ms.mean() < 275
    assert durations_ms.min() >= 80
    assert durations_ms.max() <= 1000
    places = np.array([(fixation.x * SIZE.width_deg, fixation.y * SIZE.height_deg) for fixation in fixations])
    amplitudes_deg = np.hypot(*np.diff(places, axis=0).T)
    assert 2.5 < np.median(amplitudes_deg) < 7
    gaps_ms = np.array([b.onset_ns - a.end_ns for a, b in itertools.pairwise(fixations)]) / 1e6
    assert (gaps_ms >= 21).all()
    assert np.quantile(gaps_ms, 0.9) <= 21 + 2.2 * 38, "but for the end of the video, where it begins again"
    assert all(0 <= fixation.x <= 1 and 0 <= fixation.y <= 1 for fixation in fixations)


def test_it_looks_at_what_stands_out(tmp_path: Path) -> None:
    frame = np.full((120, 160, 3), 90, np.uint8)
    frame[20:40, 30:50] = (30, 60, 220)
    frame[80:100, 110:130] = (210, 200, 40)
    fixations = [fixation for fixation, _ in look(write_video(tmp_path / "two.avi", [frame] * 50), 300)]
    near = [
        [np.hypot((fixation.x - x) * 30, (fixation.y - y) * 22.5) < 4 for fixation in fixations]
        for x, y in ((40 / 160, 30 / 120), (120 / 160, 90 / 120))
    ]
    share = np.mean(np.logical_or(*near))
    area = 2 * np.pi * 4**2 / (30 * 22.5)
    assert share > 3 * area
    assert min(np.mean(near[0]), np.mean(near[1])) > 0.1, "both places are visited"


class Forgetful(Observer):
    """Without inhibition of return."""

    def _remember(self, x: float, y: float, seconds: float) -> None:
        self._at = (x, y)


def test_it_does_not_return_at_once(tmp_path: Path) -> None:
    frame = np.full((120, 160, 3), 90, np.uint8)
    frame[20:50, 30:60] = (30, 60, 220)
    path = write_video(tmp_path / "one.avi", [frame] * 50)
    returns = []
    for kind in (Observer, Forgetful):
        with Video(path) as frames:
            seen = [fixation for fixation, _ in itertools.islice(kind(frames, SIZE, 0).look(0, None, loop=True), 400)]
        places = np.array([(fixation.x * SIZE.width_deg, fixation.y * SIZE.height_deg) for fixation in seen])
        two_back = np.hypot(*(places[2:] - places[:-2]).T)
        returns.append(np.mean(two_back < 1.0))
    assert returns[0] < 0.5 * returns[1]


def test_frames_are_those_shown_at_the_onset(video: Path) -> None:
    for fixation, frame in look(video, 40):
        shown_ns = fixation.onset_ns % 4_000_000_000 if fixation.onset_ns < 4_000_000_000 else None
        if shown_ns is not None:
            assert abs(frame.time_ns - shown_ns) <= 20_000_000


def test_a_patch_covers_five_degrees(tmp_path: Path) -> None:
    path = write_video(tmp_path / "board.avi", [checkerboard(480, 360)] * 50)
    size = from_px_per_degree(480, 360, PX_PER_DEGREE, PX_PER_DEGREE)
    with Video(path) as frames:
        seen = list(itertools.islice(Observer(frames, size, 0).look(0, None, loop=True), 12))
    for fixation, frame in seen:
        patch = cut(frame.bgr, fixation.x, fixation.y, size)
        if patch.padded == 0.0:  # the board is mirrored at an edge, and its squares with it
            assert degrees_covered(patch.rgb) == pytest.approx((5.0, 5.0), rel=0.02)


def test_one_pass_ends_and_loops_go_on(video: Path) -> None:
    with Video(video) as frames:
        fixations = [fixation for fixation, _ in Observer(frames, SIZE, 0).look(0, None, loop=False)]
    assert 10 < len(fixations) < 20
    assert fixations[-1].onset_ns < 4_040_000_000
    looped = [fixation for fixation, _ in look(video, 60)]
    assert looped[: len(fixations)] == fixations
    onsets = [fixation.onset_ns for fixation in looped]
    assert onsets == sorted(onsets)
    assert onsets[-1] > 8_000_000_000


def test_part_of_a_video(video: Path) -> None:
    with Video(video) as frames:
        part = list(Observer(frames, SIZE, 0).look(1_000_000_000, 2_000_000_000, loop=False))
    assert all(1_000_000_000 <= fixation.onset_ns <= 2_100_000_000 for fixation, _ in part)
    with pytest.raises(SourceError, match="ends before"):
        look(video, 1, begin_ns=10_000_000_000)
