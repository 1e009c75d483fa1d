"""One stream from its welcome to its end: what every ``rjepa stream`` command does around its source."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from clients.errors import WorkerUnreachable
from clients.pairing import read_pairing
from clients.progress import Progress
from clients.sender import Sender
from clients.settings import StreamSettings
from clients.summary import Summary

HINT_AFTER_S = 3.0
TICK_S = 0.2
LEAVE_S = 3.0
"""How long a stream that was stopped waits for what is under way."""
INTERRUPTED = 130


HOLD_BACK = 8
"""How many fixations a recording may be before the learner: one pass of the retina; a live one waits for no more."""


@dataclass
class Session:
    """What a running command has: options, counts, the stop that Ctrl-C asks for."""

    settings: StreamSettings
    name: str
    finite: bool
    summary: Summary = field(default_factory=Summary)
    stop: threading.Event = field(default_factory=threading.Event)

    def sender(self, *, recording: bool) -> Sender:
        """The stream's sender. What was recorded, or has its end before it begins, holds back for the live ones."""
        return Sender(
            self.settings.ingest,
            self.name,
            spool_dir=self.settings.spool,
            key_file=self.settings.key,
            recording=recording,
            finite=self.finite,
            hold_back=HOLD_BACK if self.finite or recording else None,
        )

    def meet(self, sender: Sender, progress: Progress) -> int:
        """Wait for the worker's welcome; its next seq, or 0 if the stop was asked for.

        Raises :class:`WorkerUnreachable` after the time the options give.
        """
        begin_s, hinted = time.monotonic(), False
        while not self.stop.is_set():
            next_seq = sender.wait_welcome(TICK_S)
            waited_s = time.monotonic() - begin_s
            if next_seq is not None:
                return next_seq
            if waited_s > HINT_AFTER_S and not hinted:
                hinted = True
                progress.say(f"no answer from {sender.address} yet: is `rjepa serve` running there? Still trying")
            if waited_s > self.settings.connect_within and self.finite:
                raise WorkerUnreachable(
                    f"no worker answered at {sender.address} in {waited_s:.0f} s: start one there (rjepa serve), or "
                    "name another with --ingest; a worker that asks for keys answers none but --pair FILE or --key "
                    f"FILE. rjepa doctor --ingest {sender.address} tells which it is"
                )
        return 0

    def finish(self, sender: Sender, progress: Progress) -> int:
        """Wait until everything is acked and, unless told not to, learned; say what became of it. The exit code."""
        learned = self.settings.wait and self.finite
        while not self.stop.is_set() and not sender.flush(learned=learned, timeout_s=TICK_S):
            progress.show(None, self.summary, sender.status)
        if self.stop.is_set():
            sender.flush(learned=False, timeout_s=LEAVE_S)
        sender.close()
        progress.show(None, self.summary, sender.status)
        return self._tell(sender, progress)

    def _tell(self, sender: Sender, progress: Progress) -> int:
        status = sender.status
        if self.settings.summary is not None:
            self.summary.write(self.settings.summary)
        progress.say(f"stream {self.name}: {self.summary.words()}")
        if status.waiting:
            progress.say(f"{status.waiting} fixations are not durable yet; they wait in {sender.spool_dir}")
        if self.stop.is_set() and self.finite:
            progress.say("stopped before its end; the same command goes on from here, and learns nothing twice")
            return INTERRUPTED
        if status.acked and status.held >= status.acked:
            progress.say(
                f"already learned: stream {self.name} held all {status.acked} fixations before. "
                "To learn them again, name a new stream with --stream NAME"
            )
        elif status.held:
            progress.say(f"{status.held} of them were already there from an earlier run")
        return 0

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for a clean end; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(number: int, frame: FrameType | None) -> None:
            if self.stop.is_set():
                raise KeyboardInterrupt
            self.stop.set()

        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def stream_name(source: str, settings: StreamSettings) -> str:
    """The name given, else one made from the source: its letters, and the part if it is not the whole.

    Raises :class:`~clients.errors.OptionError` for one that this computer's pairing may not write.
    """
    name = settings.stream if settings.stream is not None else _made_from(source, settings)
    return name if settings.pair is None else read_pairing(settings.pair).check(name)


def _made_from(source: str, settings: StreamSettings) -> str:
    end = "end" if settings.end is None else f"{settings.end:g}"
    part = "" if settings.end is None and not settings.start else f"-{settings.start:g}-{end}"
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", source).strip("-.") or "stream"
    return name[: 64 - len(part)] + part
