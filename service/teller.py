"""What is asked of the diagnostics over the control socket: copies from the learning thread, told of on another."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.moment import Moment
from service.control import Call
from service.errors import RequestRefused
from service.journal import Journal
from service.watching import Watching, finite

WHAT = ("representation", "gradient")
MOMENT_S = 5.0
"""How long a question waits for the learning thread."""

log = logging.getLogger("rjepa.diagnostics")


@dataclass(frozen=True)
class _Asked:
    call: Call
    given_up_s: float
    what: str
    stream: str | None


class Teller:
    """Takes questions in the control thread; the learning loop gives a moment to each."""

    def __init__(self, journal: Journal, watching: Watching | None, wake: Callable[[], None]) -> None:
        self._journal = journal
        self._watching = watching
        self._wake = wake
        self._line: deque[_Asked] = deque()

    # In the control thread.

    def ask(self, call: Call) -> None:
        """See to it that ``call`` is answered. Raises :class:`RequestRefused` for what can't be told."""
        what, stream = call.request.get("what"), call.request.get("stream")
        if what not in WHAT:
            raise RequestRefused(422, "bad_argument", f"what is one of {', '.join(WHAT)}")
        if stream is not None and not any(cursor.name == stream for cursor in self._journal.cursors()):
            raise RequestRefused(404, "unknown_stream", f"there is no stream {str(stream)[:80]!r}")
        if self._watching is None:
            told = "diagnostics are switched off (--no-diagnostics); start the worker without that"
            raise RequestRefused(409, "diagnostics_off", told)
        self._line.append(_Asked(call, time.monotonic() + MOMENT_S, what, stream))
        self._wake()

    def tick(self) -> None:
        """Refuse what has waited too long."""
        while self._line and self._line[0].given_up_s <= time.monotonic():
            with contextlib.suppress(IndexError):  # taken meanwhile
                self._line.popleft().call.refuse(503, "busy", "the learner had no moment for it; ask again")

    def close(self) -> None:
        """The worker ends."""
        for asked in self._line:
            asked.call.refuse(503, "stopping", "the worker ends")

    # In the learning thread.

    def serve(self) -> None:
        """Give a moment to the first who waits; the others come after the next turn."""
        if not self._line or self._watching is None:
            return
        try:
            asked = self._line.popleft()
        except IndexError:
            return  # given up meanwhile
        moment = self._watching.diagnostics.moment(asked.stream)
        self._watching.helper.submit(_tell, asked, moment)
        if self._line:
            self._wake()


def _tell(asked: _Asked, moment: Moment) -> None:
    try:
        found: dict[str, Any] = moment.representation() if asked.what == "representation" else moment.gradient()
        asked.call.answer({"diagnostics": finite(found)})
    except Exception:  # the thread's boundary: whoever asked must hear of it
        log.exception("%s of %s could not be told", asked.what, asked.stream or "all streams")
        asked.call.refuse(500, "internal", "the worker failed on this request; its log says why")
