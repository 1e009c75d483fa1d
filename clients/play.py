"""Playing a source: gaze samples or an observer's fixations, at their pace, into the pipeline."""

from __future__ import annotations

import math

from clients.errors import SourceError
from clients.fixations import Detector, Fixation
from clients.gaze import GazeTrack
from clients.pace import Pace, parse_speed
from clients.pipeline import Pipeline
from clients.progress import Progress
from clients.sender import Sender
from clients.session import Session
from clients.simulated import Observer
from clients.video import SECOND_NS, Frames

SHOW_EVERY_NS = SECOND_NS // 5
TOO_MANY = 200
"""Fixations of an observer that all show nothing, about a minute."""


class Recording:
    """A gaze track over its video. ``video_start_ns``: time of the first frame in the gaze's clock."""

    def __init__(self, track: GazeTrack, frames: Frames, detector: Detector, video_start_ns: int) -> None:
        self._track = track
        self._frames = frames
        self._detector = detector
        self._video_start_ns = video_start_ns

    def play(self, session: Session, pipeline: Pipeline, sender: Sender, progress: Progress, held: int) -> None:
        """From --start to --end, or until the stop.

        The worker holds the first ``held`` fixations, if this was streamed before: they are passed over without a
        wait, and the pace begins with the first new one.
        """
        settings, first_ns = session.settings, self._track.first_ns
        begin_ns = first_ns + round(settings.start * SECOND_NS) if settings.start else -math.inf
        end_ns = math.inf if settings.end is None else first_ns + round(settings.end * SECOND_NS)
        pace = Pace(parse_speed(settings.speed), session.stop)
        shown_ns, zero_ns = first_ns, first_ns + round(settings.start * SECOND_NS)
        for sample in self._track.samples():
            if session.stop.is_set():
                return
            now_ns = sample.time_ns
            if now_ns is not None:
                if now_ns < begin_ns:
                    continue
                if now_ns >= end_ns:
                    break
                if pipeline.offered >= held:
                    pace.wait(now_ns)
                if now_ns - shown_ns >= SHOW_EVERY_NS:
                    shown_ns = now_ns
                    progress.show((now_ns - zero_ns) / SECOND_NS, session.summary, sender.status)
            for fixation in self._detector.feed(sample):
                self._take(fixation, pipeline)
        else:  # where --end cuts it, the last fixation is not over, and its end not known
            for fixation in self._detector.finish():
                self._take(fixation, pipeline)
        self._tell(session, progress)

    def _take(self, fixation: Fixation, pipeline: Pipeline) -> None:
        pipeline.take(fixation, self._frames.nearest(fixation.onset_ns - self._video_start_ns))

    def _tell(self, session: Session, progress: Progress) -> None:
        detector = self._detector
        faults = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in detector.counts.faults().items())
        rate = f"{detector.sampling_hz:.0f} Hz" if detector.sampling_hz else "unknown rate"
        progress.say(
            f"gaze: {detector.counts.samples} samples at {rate}, detector {detector.method}; "
            f"not used: {faults or 'none'}"
        )
        if session.summary.found == 0:
            progress.say("no fixation was found: is the gaze's unit, --px-per-degree or --min-confidence wrong?")


class Simulation:
    """An observer of a video, for ``fixations`` fixations, one pass, or without an end."""

    def __init__(self, observer: Observer, *, fixations: int | None, loop: bool) -> None:
        self._observer = observer
        self._fixations = fixations
        self._loop = loop

    def play(self, session: Session, pipeline: Pipeline, sender: Sender, progress: Progress) -> None:
        """Until the end, or the stop. Raises :class:`SourceError` if there is nothing to look at."""
        settings = session.settings
        begin_ns = round(settings.start * SECOND_NS)
        end_ns = None if settings.end is None else round(settings.end * SECOND_NS)
        pace = Pace(parse_speed(settings.speed), session.stop)
        again = self._loop or self._fixations is not None
        in_vain = 0
        for fixation, frame in self._observer.look(begin_ns, end_ns, loop=again):
            # A tracker tells a fixation when it is over.
            pace.wait(fixation.end_ns)
            if session.stop.is_set():
                return
            in_vain = 0 if pipeline.take(fixation, frame) else in_vain + 1
            if in_vain >= TOO_MANY:
                raise SourceError(f"{TOO_MANY} fixations in a row showed nothing but black: is this the right video?")
            progress.show((fixation.end_ns - begin_ns) / SECOND_NS, session.summary, sender.status)
            if self._fixations is not None and pipeline.offered >= self._fixations:
                return
