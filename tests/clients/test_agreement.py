"""Agreement with an expert, and settings that are never judged on what they were chosen on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clients.agreement import Agreement, expert_events, together
from clients.detection_table import (
    CRITERIA,
    SET_ON_ALL,
    Judged,
    Viewing,
    as_markdown,
    candidates,
    judge_all,
    judged_by_others,
    read_viewings,
    rows,
)
from clients.units import FrameSize

TIMES = np.arange(100, dtype=np.int64) * 2_000_000


def at(first: int, last: int) -> tuple[int, int]:
    return int(TIMES[first]), int(TIMES[last])


def test_agreement_by_hand() -> None:
    total = Agreement()
    total.add([at(0, 39), at(50, 89)], [at(5, 39), at(80, 99), at(45, 47)], TIMES)
    assert (total.expert, total.found, total.matched, total.matched_half) == (2, 3, 2, 1)
    assert total.f1 == pytest.approx(4 / 5)
    assert total.f1_half == pytest.approx(2 / 5)
    assert total.onset_error_ms == pytest.approx((10 + 60) / 2)
    # 100 samples: both 35 + 10, the expert alone 5 + 30, the other alone 3 + 10, neither 7
    agreed, chance = 0.52, 0.80 * 0.58 + 0.20 * 0.42
    assert total.kappa == pytest.approx((agreed - chance) / (1 - chance))
    twice = together([total, total])
    assert (twice.matched, twice.f1, twice.kappa) == (4, total.f1, pytest.approx(total.kappa))


def test_an_experts_fixations_and_pursuits_are_one() -> None:
    labels = np.array([2, 1, 1, 4, 4, 3, 1, 6, 4])
    assert expert_events(TIMES[:9], labels) == [at(1, 4), at(6, 6), at(8, 8)]


def viewing(viewer: str) -> Viewing:
    return Viewing(viewer, FrameSize(30.0, 20.0), [], TIMES, np.zeros((100, 2)), [at(0, 39)])


def judged(good: bool) -> Judged:
    agreement = Agreement()
    agreement.add([at(0, 39)], [at(0, 39)] if good else [at(60, 90)], TIMES)
    return Judged(agreement)


def test_settings_are_chosen_on_the_other_viewers() -> None:
    """A shines on the viewer that is left out and on no other: it must not be the one that judges it."""
    viewings = [viewing(name) for name in ("anna", "anna", "ben", "cleo")]
    tried = {
        "A": [judged(True), judged(True), judged(False), judged(False)],
        "B": [judged(False), judged(False), judged(True), judged(True)],
    }
    held_out, chosen = judged_by_others(viewings, tried, next(iter(CRITERIA.values())))
    assert together(part.agreement for part in held_out[:2]).f1 == 0.0, "both of anna's by B"
    assert chosen["B"] >= 2


def test_the_detectors_of_the_table_on_one_recording(recordings: Path) -> None:
    pytest.importorskip("pymovements", reason="pymovements is not installed")
    viewings = read_viewings(recordings / "andersson2017")
    assert len(viewings) == 13
    assert len({v.viewer for v in viewings}) == 11
    assert sum(len(v.expert) for v in viewings) == 275
    by_detector: dict[str, float] = {}
    for candidate in candidates():
        if candidate.detector not in by_detector or candidate.words.startswith(("50 deg/s", "1 deg", "3 deg")):
            f1 = candidate.judge(viewings[-1]).agreement.f1
            by_detector[candidate.detector] = max(f1, by_detector.get(candidate.detector, 0.0))
    assert len(by_detector) == 5
    assert all(f1 > 0.5 for f1 in by_detector.values()), by_detector


@pytest.mark.soak
def test_ours_are_at_least_as_good(recordings: Path) -> None:
    """As the better of theirs in each measure: on viewers left out, and with what is best on all of them."""
    pytest.importorskip("pymovements", reason="pymovements is not installed")
    viewings = read_viewings(recordings / "andersson2017")
    tried = judge_all(viewings, show=False)
    for at, criterion in enumerate(CRITERIA.values()):
        table = list(rows(viewings, tried, criterion))
        assert len(as_markdown(table).splitlines()) == 2 + 4 + 5
        for on_all in (False, True):
            told = {row[0]: row for row in table if row[0].endswith(SET_ON_ALL) == on_all}
            ours = [row for name, row in told.items() if name.startswith("our")]
            theirs = [row for name, row in told.items() if name.startswith("pymovements")]
            for column in (1, 3):
                best = max(float(row[column]) for row in theirs)
                assert max(float(row[column]) for row in ours) >= best, (at, on_all, column)
            if at == 0 or on_all:  # by F1 alone another threshold is chosen for every other viewer
                best = min(float(row[4]) for row in theirs)
                assert min(float(row[4]) for row in ours) <= best, (at, on_all)
