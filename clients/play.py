"""Playing a source: gaze samples or an observer's fixations, at their pace, into the pipeline."""

from __future__ import annotations

import dataclasses
import math

from clients.errors import SourceError
from clients.fixations import Fixation
from clients.opened import OpenedRecording
from clients.pace import Pace, parse_speed
from clients.pipeline import Pipeline
from clients.progress import Progress
from clients.sender import Sender
from clients.session import Session
from clients.simulated import Observer
from clients.video import SECOND_NS

SHOW_EVERY_NS = SECOND_NS // 5
TOO_MANY = 200
"""Fixations of an observer that all show nothing, about a minute."""


class Recording:
    """A recording over its video, once or (``loop``) until stopped."""

    def __init__(self, opened: OpenedRecording, *, loop: bool) -> None:
        self._opened = opened
        self._loop = loop

    def play(self, session: Session, pipeline: Pipeline, sender: Sender, progress: Progress, held: int) -> None:
        """From --start to --end, or until the stop.

        The worker holds the first ``held`` fixations, if this was streamed before: they are passed over without a
        wait, and the pace begins with the first new one. Raises :class:`SourceError` where a loop shows nothing.
        """
        finder, settings = self._opened.finder, session.settings
        zero_ns = finder.first_ns + round(settings.start * SECOND_NS)
        end_ns = math.inf if settings.end is None else finder.first_ns + round(settings.end * SECOND_NS)
        last_ns = finder.first_ns + round(finder.length_s * SECOND_NS)
        pace = Pace(parse_speed(settings.speed), session.stop)
        shown_ns = later_ns = 0
        while not session.stop.is_set():
            before = pipeline.offered
            for moment in finder.moments(zero_ns if settings.start else -math.inf, end_ns):
                if session.stop.is_set():
                    return
                if moment.time_ns is not None:
                    now_ns = moment.time_ns + later_ns
                    if pipeline.offered >= held:
                        pace.wait(now_ns)
                    if now_ns - zero_ns - shown_ns >= SHOW_EVERY_NS:
                        shown_ns = now_ns - zero_ns
                        progress.show(shown_ns / SECOND_NS, session.summary, sender.status)
                for fixation in moment.fixations:
                    pipeline.take(_later(fixation, later_ns), self._opened.shown(fixation))
            if not self._loop:
                break
            if pipeline.offered == before:
                raise SourceError(f"nothing of {self._opened.name} could be sent: a loop of it would show nothing")
            later_ns += round(min(last_ns, end_ns)) - zero_ns + SECOND_NS
            pipeline.begin(self._opened.name)
        self._tell(session, progress)

    def _tell(self, session: Session, progress: Progress) -> None:
        progress.say(self._opened.finder.words())
        if session.summary.found == 0:
            progress.say("no fixation was found: is the gaze's unit, --px-per-degree or --min-confidence wrong?")


def _later(fixation: Fixation, by_ns: int) -> Fixation:
    return dataclasses.replace(fixation, onset_ns=fixation.onset_ns + by_ns, end_ns=fixation.end_ns + by_ns)


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
