"""Fixations that had no room in queue and spool: counted, and told to the worker with a hello.

A hello carries them only where there are any, so that a worker that knows no such word meets it late or never; where it
refuses one, it is told no more of them.
"""

from __future__ import annotations

import math

from clients import wire

TELL_EVERY_S = 10.0
"""While more and more are dropped the worker is told so often; of the first at once."""


class Drops:
    """``since_s`` (unix s): when the client began. It tells this count from that of an earlier run."""

    def __init__(self, since_s: float = 0.0) -> None:
        self.count = 0
        """Dropped so far. Counted by one thread at a time, read by the one that talks."""
        self._since_s = since_s
        self._said = self._told = 0
        self._refused = False
        self._again_s = -math.inf

    def to_say(self) -> wire.Dropped | None:
        """What the next hello says of them."""
        self._said = 0 if self._refused else self.count
        return wire.Dropped(since=self._since_s, spool_full=self._said) if self._said else None

    def due(self, now_s: float) -> bool:
        """Whether a hello is due for their sake alone; if so, the next one is due in a while."""
        if self._refused or self.count == self._told or now_s < self._again_s:
            return False
        self._again_s = now_s + TELL_EVERY_S
        return True

    def welcomed(self) -> None:
        """The last hello was taken."""
        self._told, self._said = max(self._told, self._said), 0

    def refused(self) -> bool:
        """A message was refused: whether it was a hello, for what it said of them."""
        blamed, self._said = self._said > 0, 0
        self._refused = self._refused or blamed
        return blamed
