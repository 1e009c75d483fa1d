"""What is watched beside learning: how much waits, how much room the disk has, which streams fell silent, which drop.

Each alarm goes on at its limit and off well on the other side of it, so that none flutters. A stream is watched from
the first fixation it brings in this process's life on; after an hour of silence it counts as ended.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.alarms import Alarms
from service.dropped import Drops
from service.journal import Journal
from service.patrol import Patrol

LOOK_S = 1.0
ENDED_S = 3600.0
"""A stream that was silent for so long has ended: its alarm goes off."""
CLEAR_LAG = 0.5
"""The alarm ``lag`` goes off at this part of its limit."""
CLEAR_ROOM = 1.1
"""The alarm ``disk_low`` goes off at so many times its limit."""


@dataclass(frozen=True)
class Bounds:
    """Where each alarm goes on."""

    waiting: int
    room_bytes: float
    idle_s: float


class Vigil(Patrol):
    """Looks once a second until :meth:`stop`. ``room`` gives the free bytes on the disk of a folder."""

    def __init__(
        self,
        journal: Journal,
        alarms: Alarms,
        drops: Drops,
        folder: Path,
        bounds: Bounds,
        *,
        room: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        look_s: float = LOOK_S,
    ) -> None:
        super().__init__("vigil", look_s)
        self._journal = journal
        self._alarms = alarms
        self._drops = drops
        self._folder = folder
        self._bounds = bounds
        self._room = room
        self._cursors: dict[str, int] | None = None
        self._moved_s: dict[str, float] = {}
        """When a stream that was fed in this life was last seen to move."""

    def round(self) -> None:
        """Look once, now."""
        self.look(time.monotonic())

    def look(self, now_s: float) -> None:
        """Look once; ``now_s`` is a clock that does not step. Raises StorageFailed, OSError."""
        self._lag()
        self._disk()
        self._idle(now_s)
        self._drops.look(now_s)

    def _lag(self) -> None:
        waiting, limit = self._journal.waiting()[0], self._bounds.waiting
        if waiting > limit:
            self._alarms.stand("lag", f"{waiting} fixations wait to be learned, the limit is {limit}")
        elif waiting <= limit * CLEAR_LAG:
            self._alarms.clear("lag", f"{waiting} fixations wait")

    def _disk(self) -> None:
        room, limit = self._room(self._folder), self._bounds.room_bytes
        if room < limit:
            self._alarms.stand("disk_low", f"{room / 1e9:.2f} GB are free for {self._folder}; make room")
        elif room >= limit * CLEAR_ROOM:
            self._alarms.clear("disk_low", f"{room / 1e9:.2f} GB are free")

    def _idle(self, now_s: float) -> None:
        cursors = {cursor.name: cursor.next_seq for cursor in self._journal.cursors()}
        before = cursors if self._cursors is None else self._cursors
        if self._cursors is None:  # what the process before us told of stays on, for an hour at most
            self._moved_s = {str(name): now_s for name in self._alarms.standing("stream_idle")}
        self._cursors = cursors
        for name, next_seq in cursors.items():
            if next_seq != before.get(name, 0):
                self._moved_s[name] = now_s
                self._alarms.clear("stream_idle", "fixations come again", name)
                continue
            silent_s = now_s - self._moved_s.get(name, now_s)
            if silent_s >= ENDED_S:
                self._alarms.clear("stream_idle", f"silent for {ENDED_S:.0f} s: taken to have ended", name)
                del self._moved_s[name]
            elif silent_s >= self._bounds.idle_s:
                told = f"nothing came for {self._bounds.idle_s:g} s; the last was seq {next_seq - 1}"
                self._alarms.stand("stream_idle", told, name)
