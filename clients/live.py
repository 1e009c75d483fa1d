"""The live pipeline: gaze and frames as they come -> fixations -> patches -> sender.

    source's threads -> Feed (bounded, never waits) -> this loop: put in order -> online detection
                     -> the frame nearest the onset, decoded now -> patch -> Sender (never waits either)

A fixation waits until a frame at or after its onset is there, at most a second. What is wrong with the source is
counted, said once when it first happens, and survived.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from clients.errors import ClientError, UnitsUnknown
from clients.feed import Feed, Item, Lens, Notice, Renewed, Source
from clients.fixations import Detector, DetectorSettings, Fixation, Sample
from clients.frames import BrokenFrame, FileShown, LiveFrame, Shown
from clients.optics import Optics
from clients.pipeline import Pipeline
from clients.progress import Progress
from clients.sender import Sender
from clients.session import Session
from clients.units import FrameSize
from clients.video import SECOND_NS, Frame

TICK_S = 0.1
FRAME_WAIT_S = 1.0
"""How long a fixation waits for a frame at or after its onset when no frames come at all."""
LATE_FRAME_WAIT_S = 30.0
"""How long while earlier ones still come: they are late, as after a hiccup of the network."""
UNITS_WAIT_S = 5.0
"""How long a source may take to tell its intrinsics after its first frame."""
SHOW_EVERY_S = 0.2
SILENT_AFTER_S = 5.0
GAP_NS = SECOND_NS // 4
"""Time between two samples that is counted as a gap: longer than a blink's loss of samples in most trackers."""

log = logging.getLogger("rjepa.live")


class Reorder:
    """Lets samples out in the order of their times, each ``hold_ns`` (of their own clock) late."""

    def __init__(self, hold_ns: int, jump_ns: int = SECOND_NS) -> None:
        self.late = 0
        """Samples that came after a later one."""
        self._hold_ns = hold_ns
        self._jump_ns = jump_ns
        self._heap: list[tuple[int, int, Sample]] = []
        self._order = count()
        self._newest_ns: int | None = None

    def push(self, sample: Sample) -> list[Sample]:
        """Take a sample; return those that are due."""
        if sample.time_ns is None or self._hold_ns == 0:
            return [sample]
        if self._newest_ns is not None and sample.time_ns < self._newest_ns:
            if self._newest_ns - sample.time_ns >= self._jump_ns:
                return [*self.drain(), *self.push(sample)]  # no disorder: the clock was set back
            self.late += 1
        self._newest_ns = max(sample.time_ns, self._newest_ns or sample.time_ns)
        heappush(self._heap, (sample.time_ns, next(self._order), sample))
        due = []
        while self._heap and self._heap[0][0] <= self._newest_ns - self._hold_ns:
            due.append(heappop(self._heap)[2])
        return due

    def drain(self) -> list[Sample]:
        """Everything, and begin anew."""
        rest = [heappop(self._heap)[2] for _ in range(len(self._heap))]
        self._newest_ns = None
        return rest


@dataclass(frozen=True)
class _Waiting:
    """A fixation whose frame may still be on its way, since ``since_s``."""

    fixation: Fixation
    shown: Shown
    since_s: float


class Live:
    """One live stream. ``theirs``: the tracker's own fixations are taken, and no gaze is looked at.

    ``reorder_ns``: how far samples may be out of order in time, as a rule.
    """

    def __init__(
        self,
        session: Session,
        sender: Sender,
        progress: Progress,
        feed: Feed,
        optics: Optics,
        detection: DetectorSettings,
        *,
        theirs: bool = False,
        reorder_ns: int = 0,
    ) -> None:
        self._session = session
        self._sender = sender
        self._progress = progress
        self._feed = feed
        self._optics = optics
        self._detection = detection
        self._theirs = theirs
        self._reorder = Reorder(reorder_ns)
        self._shown = feed.shown
        self._size: FrameSize | None = None
        self._size_px: tuple[int, int] | None = None
        self._pipeline: Pipeline | None = None
        self._detector: Detector | None = None
        self._waiting: deque[_Waiting] = deque()
        self._counts: Counter[str] = Counter()
        self._past: Counter[str] = Counter()
        self._said: set[str] = set()
        self._first_ns: int | None = None
        self._before_ns = 0
        self._last_ns: int | None = None
        self._asked_units_s: float | None = None
        self._heard_s = self._born_s = time.monotonic()
        self._shown_s = 0.0
        self._silent = self._full = False
        self._told_full = self._taken = 0
        self._over = False

    def run(self) -> None:
        """Until the stop, --end, or the source's end. Raises what ended the source."""
        while not self._session.stop.is_set() and not self._over:
            for item in self._feed.take(TICK_S):
                self._take(item)
            if self._feed.error is not None:
                self._close()
                raise self._feed.error
            self._send_ready(time.monotonic())
            self._watch(time.monotonic())
        self._close()

    def faults(self) -> dict[str, int]:
        """Everything that was wrong with the source, by name."""
        counts = self._counts + self._past + Counter(self._shown.faults()) + Counter(self._feed.faults())
        if self._detector is not None:
            counts += Counter(self._detector.counts.faults())
        counts["gaze_out_of_order"] += self._reorder.late
        return {name: n for name, n in sorted(counts.items()) if n}

    # --- what comes ------------------------------------------------------------------------------------------------

    def _take(self, item: Item) -> None:
        if isinstance(item, Sample):
            self._heard_s = time.monotonic()
            if not self._theirs:
                for sample in self._reorder.push(item):
                    self._see(sample)
            elif item.time_ns is not None:
                self._pass(item.time_ns)
        elif isinstance(item, Fixation):
            self._heard_s = time.monotonic()
            if self._begun(item.onset_ns):
                if self._measured():
                    self._wait_for_frame(item)
                else:
                    self._counts["fixation_before_video"] += 1
        elif isinstance(item, Renewed):
            self._renew(item)
        elif isinstance(item, Lens):
            self._optics.learn(item.size_px, item.focal_px)
        elif isinstance(item, Notice):
            self._progress.say(item.text)

    def _see(self, sample: Sample) -> None:
        """One sample, in order."""
        if sample.time_ns is not None:
            self._pass(sample.time_ns)
            if not self._begun(sample.time_ns):
                return
        if not self._measured():
            self._counts["gaze_before_video"] += 1
            return
        assert self._size is not None
        if self._detector is None:
            self._detector = Detector(self._size, self._detection)
        for fixation in self._detector.feed(sample):
            self._wait_for_frame(fixation)
        ongoing = self._detector.ongoing
        if ongoing is not None:
            self._shown.hold(ongoing.onset_ns)

    def _pass(self, time_ns: int) -> None:
        """The source's time is ``time_ns``: gaps, --end, and the beginning of a video file."""
        if self._first_ns is None:
            self._first_ns = time_ns
            if isinstance(self._shown, FileShown):
                self._shown.begin(time_ns)
        if self._last_ns is not None:
            step_ns = time_ns - self._last_ns
            self._counts["gaze_gap"] += step_ns > GAP_NS
            if step_ns <= -SECOND_NS:  # the clock was set back: --start and --end go on from where they were
                self._before_ns, self._first_ns = self._position_ns(self._last_ns), time_ns
        self._last_ns = time_ns
        self._shown.passed(time_ns)
        end = self._session.settings.end
        if end is not None and self._position_ns(time_ns) >= end * SECOND_NS:
            self._over = True

    def _begun(self, time_ns: int) -> bool:
        """Whether --start has come and --end has not."""
        return not self._over and max(0, self._position_ns(time_ns)) >= self._session.settings.start * SECOND_NS

    def _position_ns(self, time_ns: int) -> int:
        """How far the source is, over all its restarts."""
        if self._first_ns is None:
            self._first_ns = time_ns
        return self._before_ns + time_ns - self._first_ns

    def _renew(self, renewed: Renewed) -> None:
        """Another clock: finish what was open on the old one."""
        for sample in self._reorder.drain():
            self._see(sample)
        self._finish_detection()
        self._past += Counter(self._shown.faults())
        self._shown = renewed.shown
        if self._last_ns is not None:
            self._before_ns = self._position_ns(self._last_ns)
        self._first_ns = self._last_ns = None

    def _finish_detection(self) -> None:
        if self._detector is not None:
            for fixation in self._detector.finish():
                self._wait_for_frame(fixation)
            self._past += Counter(self._detector.counts.faults())
            self._detector = None

    def _measured(self) -> bool:
        """Whether the frame's size in pixels and degrees is known. Raises :class:`UnitsUnknown` in the end."""
        if self._size is not None:
            return True
        size_px = self._shown.size_px()
        if size_px is None:
            return False
        try:
            self._size, self._size_px = self._optics.size(size_px), size_px
        except UnitsUnknown:
            now_s = time.monotonic()
            self._asked_units_s = self._asked_units_s or now_s
            if now_s - self._asked_units_s > UNITS_WAIT_S:
                raise
            return False
        across, down = self._size.px_per_degree(*size_px)
        self._progress.say(
            f"video of {size_px[0]} x {size_px[1]} px, {self._size.width_deg:.1f} x {self._size.height_deg:.1f} "
            f"degrees ({across:.1f} x {down:.1f} px/deg)"
        )
        self._pipeline = Pipeline(
            self._sender, self._size, self._session.summary, self._session.stop, sequence=None, patient=False
        )
        return True

    # --- what goes -------------------------------------------------------------------------------------------------

    def _wait_for_frame(self, fixation: Fixation) -> None:
        self._shown.hold(fixation.onset_ns)
        self._waiting.append(_Waiting(fixation, self._shown, time.monotonic()))

    def _send_ready(self, now_s: float) -> None:
        """Send, in order, what has its frame or has waited for it long enough."""
        while self._waiting:
            first = self._waiting[0]
            onset_ns, shown = first.fixation.onset_ns, first.shown
            silent_s = now_s - max(first.since_s, shown.heard_s())
            worth_it = silent_s < FRAME_WAIT_S and now_s - first.since_s < LATE_FRAME_WAIT_S
            if worth_it and not shown.ready(onset_ns):
                return
            self._waiting.popleft()
            self._send(first.fixation, shown.nearest(onset_ns))
            shown.release(onset_ns)

    def _send(self, fixation: Fixation, live: LiveFrame | None) -> None:
        assert self._pipeline is not None
        if live is None:
            self._pipeline.take(fixation, None)
            return
        try:
            size = self._size_of(live)
            frame = Frame(live.time_ns, live.decode())
        except (UnitsUnknown, BrokenFrame) as error:
            self._session.summary.found += 1
            self._pipeline.drop("frame_size" if isinstance(error, UnitsUnknown) else "frame_broken")
            self._say_once(str(error))
            return
        self._pipeline.take(fixation, frame, size)

    def _size_of(self, live: LiveFrame) -> FrameSize | None:
        """The degrees of a frame that is not of the first one's size."""
        size_px = live.width_px, live.height_px
        return None if size_px == self._size_px else self._optics.size(size_px)

    def _close(self) -> None:
        """What is open is cut off and not sent: its end is not known. What is over waits for its frame no longer."""
        self._send_ready(float("inf"))
        self._session.summary.source = self.faults()

    # --- what people see -------------------------------------------------------------------------------------------

    def _watch(self, now_s: float) -> None:
        if now_s - self._shown_s < SHOW_EVERY_S:
            return
        self._shown_s = now_s
        position_s = None
        if self._first_ns is not None and self._last_ns is not None:
            position_s = self._position_ns(self._last_ns) / SECOND_NS
        summary = self._session.summary
        before = summary.dropped["spool_full"]
        self._progress.show(position_s, summary, self._sender.status)
        self._tell_spool(before)
        self._tell_silence(now_s)
        for name, number in self.faults().items():
            self._say_once(f"source: {name.replace('_', ' ')}", f" ({number}; counted from here on)")
        if self._asked_units_s is not None and self._size is None:
            self._measured()

    def _tell_spool(self, dropped: int) -> None:
        status = self._sender.status
        taken = 0 if self._pipeline is None else self._pipeline.offered
        # Where neither happened since the last look, it is as it was.
        full = dropped > self._told_full or (self._full and taken == self._taken)
        if full and not self._full:
            why = f" ({status.trouble})" if status.trouble else ""
            self._progress.say(
                f"ALARM spool_full: {status.waiting} fixations wait for {self._sender.address} and there is no room "
                f"for more; new ones are dropped and counted until there is{why}"
            )
        elif self._full and not full:
            self._progress.say(f"spool_full is over: {dropped} fixations were dropped")
        self._full = full
        self._told_full, self._taken = dropped, taken

    def _tell_silence(self, now_s: float) -> None:
        silent = now_s - self._heard_s > SILENT_AFTER_S
        if silent and not self._silent:
            self._counts["silences"] += 1
            self._progress.say(f"no gaze for {SILENT_AFTER_S:.0f} s; waiting for it")
        elif self._silent and not silent:
            self._progress.say("gaze again")
        self._silent = silent
        if not silent and self._shown.size_px() is None and now_s - self._born_s > SILENT_AFTER_S:
            self._say_once(f"gaze comes, and no video after {SILENT_AFTER_S:.0f} s; without it there are no patches")
        if not silent and 0.0 < self._shown.heard_s() < now_s - SILENT_AFTER_S:
            self._say_once(f"gaze comes, and no more frames for {SILENT_AFTER_S:.0f} s; its fixations are dropped")

    def _say_once(self, text: str, more: str = "") -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.say(text + more)


@contextmanager
def running(sources: list[Source], feed: Feed) -> Iterator[None]:
    """Each source in a thread of its own; all are ended and waited for in the end."""
    stop = threading.Event()

    def run(source: Source) -> None:
        try:
            source.run(feed, stop)
        except ClientError as error:
            feed.fail(error)
        except Exception as error:  # the thread's boundary: the loop ends with it
            log.exception("a live source ended")
            feed.fail(ClientError(f"{type(source).__name__} ended: {error!r}"))

    threads = [threading.Thread(target=run, args=(source,), name=type(source).__name__) for source in sources]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
