"""The examples do what they say: PsychoPy's events become fixations, the README's ten lines send one."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clients.patches import cut
from clients.units import from_screen
from tests.clients.peer import Peer
from tests.helpers import ROOT, wait_until

EXAMPLES = ROOT / "docs" / "examples"
FIXATION_END, SAMPLE, LEFT, RIGHT = 56, 52, 21, 22
WIDTH, HEIGHT = 960, 540
"""Of the window, in pixels; the monitor is 1920 px and 52 cm wide, seen from 60 cm."""


@dataclass
class Clock:
    now_s: float = 100.0


@dataclass
class FakeMonitor:
    width_cm: float | None = 52.0

    def getWidth(self) -> float | None:
        return self.width_cm

    def getDistance(self) -> float:
        return 60.0

    def getSizePix(self) -> list[int]:
        return [1920, 1080]


@dataclass
class FakeWindow:
    """What the example asks of a visual.Window: it shows ``next_rgb`` after a flip, upright, as a PIL picture."""

    next_rgb: np.ndarray
    monitor: FakeMonitor = field(default_factory=FakeMonitor)
    units: str = "pix"
    size: tuple[int, int] = (WIDTH, HEIGHT)
    movieFrames: list[Any] = field(default_factory=list)
    shown: np.ndarray | None = None

    def flip(self) -> None:
        self.shown = self.next_rgb

    def getMovieFrame(self, buffer: str) -> Any:
        assert buffer == "front"
        assert self.shown is not None
        self.movieFrames.append(Image.fromarray(self.shown).convert("RGBA"))
        return self.movieFrames[-1]


@dataclass
class FakeTracker:
    """An ioHub eye tracker: events are handed over once, recording is switched."""

    events: list[Any] = field(default_factory=list)
    recording: list[bool] = field(default_factory=list)

    def setRecordingState(self, on: bool) -> None:
        self.recording.append(on)

    def getEvents(self) -> list[Any]:
        events, self.events = self.events, []
        return events

    def fixated(self, end_s: float, duration_s: float, x: float, y: float, eye: int = RIGHT) -> None:
        """As ioHub tells it: the time of the event is its end; pixels from the centre, y up."""
        self.events.append(
            types.SimpleNamespace(
                type=FIXATION_END, time=end_s, duration=duration_s, eye=eye, average_gaze_x=x, average_gaze_y=y
            )
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """PsychoPy's modules as far as the example imports them, with a clock the test moves."""
    clock = Clock()
    core = types.ModuleType("psychopy.core")
    core.getTime = lambda: clock.now_s  # type: ignore[attr-defined]
    psychopy = types.ModuleType("psychopy")
    psychopy.core = core  # type: ignore[attr-defined]
    constants = types.ModuleType("psychopy.iohub.constants")
    names = {FIXATION_END: "FIXATION_END", SAMPLE: "BINOCULAR_EYE_SAMPLE"}
    constants.EventConstants = types.SimpleNamespace(getName=names.get)  # type: ignore[attr-defined]
    iohub = types.ModuleType("psychopy.iohub")
    for module in (psychopy, core, iohub, constants):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return clock


@pytest.fixture
def feed_of() -> Iterator[Callable[..., Any]]:
    """The example's class."""
    path = EXAMPLES / "psychopy_fixations.py"
    spec = importlib.util.spec_from_file_location("psychopy_fixations", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["psychopy_fixations"] = module
    spec.loader.exec_module(module)
    yield module.FixationFeed
    del sys.modules["psychopy_fixations"]


def picture(seed: int) -> np.ndarray:
    """Large tiles of random colours, none black."""
    tiles = np.random.default_rng(seed).integers(40, 255, (9, 16, 3), dtype=np.uint8)
    return tiles.repeat(HEIGHT // 9, axis=0).repeat(WIDTH // 16, axis=1)


def test_psychopy_fixations(peer: Peer, clock: Clock, feed_of: Callable[..., Any], tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    window, tracker = FakeWindow(first), FakeTracker()
    size = from_screen(WIDTH * 0.52 / 1920, HEIGHT * 0.52 / 1920, 0.6)
    with feed_of(window, tracker, stream="p1", ingest=peer.address, spool_dir=tmp_path) as feed:
        feed.sequence("street.jpg")
        feed.flip(changed=True)  # at 100 s
        tracker.events.append(types.SimpleNamespace(type=SAMPLE, time=100.1))
        clock.now_s = 100.5
        tracker.fixated(100.45, 0.25, 240.0, 135.0)
        tracker.fixated(100.45, 0.25, 238.0, 137.0, eye=LEFT)
        feed.flip(changed=False)
        window.next_rgb, clock.now_s = second, 101.0
        feed.sequence("beach.jpg")
        feed.flip(changed=True)
        tracker.fixated(101.2, 0.3, -100.0, 50.0)  # began at 100.9: the first picture was still there
        tracker.fixated(101.4, 0.1, -100.0, 50.0)
        tracker.fixated(101.6, 0.1, 5000.0, 0.0)
        tracker.fixated(90.0, 0.1, 0.0, 0.0)
        clock.now_s = 101.7
        feed.flip(changed=False)
        assert feed.sender.flush(timeout_s=20)
        assert (feed.sent, feed.dropped) == (3, {"off_frame": 1, "no_frame": 1})
        assert not window.movieFrames, "PsychoPy keeps no copies"
    assert tracker.recording == [True, False]
    messages = peer.messages("p1")
    assert [round(message.onset, 6) for message in messages] == [100.2, 100.9, 101.3]
    assert [message.duration for message in messages] == [0.25, 0.3, 0.1]
    where = [(message.gaze.x, message.gaze.y) for message in messages]
    left = 0.5 - 100 / WIDTH, 0.5 - 50 / HEIGHT
    assert where == [(0.75, 0.25), left, left], "a quarter right and up of the centre, counted from the top left"
    assert [message.sequence and message.sequence.id for message in messages] == ["street.jpg", "beach.jpg", None]
    frame = messages[0].frame_deg
    assert frame is not None
    assert frame.width == pytest.approx(size.width_deg)
    for seq, (rgb, (x, y)) in enumerate(zip((first, first, second), where, strict=True)):
        assert np.array_equal(peer.patches["p1", seq], cut(rgb[..., ::-1], x, y, size).rgb)


@pytest.mark.parametrize(
    ("change", "told"), [({"units": "norm"}, "units='pix'"), ({"monitor": FakeMonitor(None)}, "width")]
)
def test_psychopy_without_what_it_takes(change: dict[str, Any], told: str, feed_of: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=told):
        feed_of(FakeWindow(picture(1), **change), FakeTracker(), stream="p1")


def test_the_readme_sends_a_fixation(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "from rjepa import Sender" in script
    assert len(script.splitlines()) <= 10
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code = script.replace("tcp://127.0.0.1:5555", peer.address).replace("np.zeros(", "np.ones(")
    exec(compile(code, "README.md", "exec"), {})
    assert wait_until(lambda: peer.messages("anna-1"), 20, "the fixation")
