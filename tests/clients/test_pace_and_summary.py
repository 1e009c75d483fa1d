"""Real pace, N times it, and no pace; what is counted and how it is written."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path

import pytest

from clients.errors import OptionError
from clients.pace import Pace, parse_speed
from clients.sender import Status
from clients.summary import Summary


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("speed", "took_s"), [(1.0, 2.0), (10.0, 0.2), (0.5, 4.0), (math.inf, 0.0)])
def test_pace(speed: float, took_s: float) -> None:
    clock = Clock()
    pace = Pace(speed, threading.Event(), clock=clock, sleep=clock.sleep)
    for time_ns in range(7_000_000_000, 9_000_000_001, 4_000_000):
        pace.wait(time_ns)
    assert clock.now_s - 50.0 == pytest.approx(took_s, abs=0.003)


def test_pace_catches_up_instead_of_drifting() -> None:
    clock = Clock()
    pace = Pace(1.0, threading.Event(), clock=clock, sleep=clock.sleep)
    pace.wait(0)
    clock.now_s += 1.0  # something was slow
    pace.wait(500_000_000)
    assert clock.now_s == 51.0
    pace.wait(1_500_000_000)
    assert clock.now_s == 51.5


def test_pace_begins_anew_after_a_step_back() -> None:
    clock = Clock()
    pace = Pace(1.0, threading.Event(), clock=clock, sleep=clock.sleep)
    pace.wait(10_000_000_000)
    pace.wait(0)
    pace.wait(1_000_000_000)
    assert clock.now_s == 51.0


def test_pace_stops() -> None:
    stop = threading.Event()
    stop.set()
    pace = Pace(1.0, stop)
    pace.wait(0)
    pace.wait(1_000_000_000_000)


@pytest.mark.parametrize(("text", "speed"), [("1", 1.0), ("0.5", 0.5), ("max", math.inf), (" MAX ", math.inf)])
def test_speeds(text: str, speed: float) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "nan", "inf"])
def test_speeds_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--speed"):
        parse_speed(text)


def test_summary(tmp_path: Path) -> None:
    summary = Summary(found=9, padded=2)
    summary.dropped["off_frame"] += 2
    summary.dropped["black"] += 1
    summary.hear(Status(sent=6, acked=5, learned=4))
    path = tmp_path / "summary.json"
    summary.write(path)
    assert json.loads(path.read_text()) == {
        "found": 9,
        "sent": 6,
        "acked": 5,
        "learned": 4,
        "padded": 2,
        "dropped": {"black": 1, "off_frame": 2},
    }
    assert summary.words() == "found 9, sent 6, acked 5, learned 4, padded 2, dropped 1 black, 2 off_frame"
    with pytest.raises(OptionError, match="--summary"):
        summary.write(tmp_path / "gone" / "summary.json")
