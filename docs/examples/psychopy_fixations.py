"""Fixations of a PsychoPy experiment to the worker: ioHub's fixation-end events over the window's own picture.

Untested on hardware: its logic is tested with a device that speaks as ioHub does, and no eye tracker was at hand.

    from psychopy import core, visual
    from psychopy.iohub import launchHubServer
    from psychopy_fixations import FixationFeed

    win = visual.Window(monitor="lab", units="pix", fullscr=True)
    io = launchHubServer(window=win, **{"eyetracker.hw.sr_research.eyelink.EyeTracker": {"name": "tracker"}})
    with FixationFeed(win, io.devices.tracker, stream="anna-1") as feed:
        for picture in pictures:
            feed.sequence(picture.name)       # a trial begins: the context starts anew
            picture.draw()
            feed.flip(changed=True)           # instead of win.flip(); changed: the screen shows something new
            while not answered():
                picture.draw()
                feed.flip(changed=False)

Whose fixations end in events: the ioHub interfaces of EyeLink and Gazepoint, and MouseGaze for trying out. Tobii's
gives samples alone: stream those with ``rjepa stream lsl``, or detect fixations yourself and call ``Sender.offer``.

Pixels per degree come from the window's monitor (Monitor Center: width, distance, size in pixels).
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from rjepa import NoPatch, Sender, cut, from_screen

KEEP_S = 3.0
"""How long pictures are kept: longer than any fixation, as a fixation is told at its end and seen from its onset."""


class FixationFeed:
    """Keeps what ``window`` showed and sends a patch for each fixation that ``tracker`` (an ioHub device) ends."""

    def __init__(
        self, window: Any, tracker: Any, *, stream: str, ingest: str = "tcp://127.0.0.1:5555", **options: Any
    ) -> None:
        """``options`` are the Sender's: ``key_file`` for a worker with keys, ``spool_dir``, ..."""
        if window.units != "pix":
            raise ValueError(f"the window's units are {window.units!r}; ioHub reports gaze in them: use units='pix'")
        monitor, (width_px, height_px) = window.monitor, window.size
        width_cm, distance_cm, monitor_px = monitor.getWidth(), monitor.getDistance(), monitor.getSizePix()
        if not (width_cm and distance_cm and monitor_px):
            raise ValueError("the monitor has no width, distance or size in pixels: measure them, see Monitor Center")
        cm_per_px = width_cm / monitor_px[0]  # square pixels
        self._size = from_screen(width_px * cm_per_px / 100, height_px * cm_per_px / 100, distance_cm / 100)
        self._window, self._tracker = window, tracker
        self._shown: deque[tuple[float, np.ndarray]] = deque()
        self._sequence: str | None = None
        self._eye: int | None = None
        self.sent = 0
        self.dropped: dict[str, int] = {}
        """Fixations without a patch, or without room in the spool, by reason."""
        self.sender = Sender(ingest, stream, **options)
        tracker.setRecordingState(True)

    def __enter__(self) -> FixationFeed:
        return self

    def __exit__(self, *error: object) -> None:
        self.pump()
        self._tracker.setRecordingState(False)
        self.sender.__exit__(*error)

    def sequence(self, name: str) -> None:
        """The next fixation begins a new sequence: a trial, a scene."""
        self._sequence = name

    def flip(self, *, changed: bool) -> None:
        """Flip the window; keep what it shows from now on, where that ``changed``; send what ended meanwhile."""
        self._window.flip()
        if changed or not self._shown:
            picture = self._window.getMovieFrame(buffer="front")
            self._window.movieFrames.clear()
            self._shown.append((now_s(), np.asarray(picture.convert("RGB"))))
        self.pump()

    def pump(self) -> None:
        """Send every fixation that has ended."""
        for event in self._tracker.getEvents():
            if event_name(event) == "FIXATION_END":
                self._take(event)

    def _take(self, event: Any) -> None:
        """``event.time`` is the fixation's end on ioHub's clock; gaze is in pixels from the centre, y up."""
        self._eye = event.eye if self._eye is None else self._eye
        if event.eye != self._eye:
            return  # both eyes are told: the first one that was speaks for them
        onset_s = event.time - event.duration
        width_px, height_px = self._window.size
        x, y = 0.5 + event.average_gaze_x / width_px, 0.5 - event.average_gaze_y / height_px
        rgb = self._seen(onset_s)
        if rgb is None:
            return self._drop("no_frame")
        try:
            patch = cut(rgb[..., ::-1], x, y, self._size)
        except NoPatch as none:
            return self._drop(none.reason)
        taken = self.sender.offer(
            onset_s=onset_s,
            duration_s=event.duration,
            gaze=(x, y),
            gaze_deg=(x * self._size.width_deg, y * self._size.height_deg),
            frame_deg=(self._size.width_deg, self._size.height_deg),
            patch=patch.rgb,
            padded=patch.padded or None,
            sequence=self._sequence,
        )
        if not taken:
            return self._drop("spool_full")
        self._sequence = None
        self.sent += 1

    def _seen(self, onset_s: float) -> np.ndarray | None:
        """What the window showed at ``onset_s``: the last picture from before it."""
        while len(self._shown) > 1 and self._shown[1][0] < now_s() - KEEP_S:
            self._shown.popleft()
        found = None
        for since_s, rgb in self._shown:
            if since_s <= onset_s:
                found = rgb
        return found

    def _drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


def now_s() -> float:
    """ioHub's clock and PsychoPy's, which are one."""
    from psychopy import core

    return float(core.getTime())


def event_name(event: Any) -> str:
    """The kind of an ioHub event, by its name."""
    from psychopy.iohub.constants import EventConstants

    return str(EventConstants.getName(event.type))
