"""The thread that writes checkpoints, so that learning does not wait for the disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from model.helper import stand_back
from model.snapshot import Snapshot
from service.alarms import Alarms
from service.checkpoints import HOURS_KEPT, Checkpoints, Manifest, Place
from service.errors import ServiceError, StorageFailed

MOST_WAITING = 1
"""Checkpoints that wait to be written at most: each is a copy of all the learner and its diagnostics hold."""

Done = Callable[[Manifest | StorageFailed], None]

log = logging.getLogger("rjepa.checkpoints")


@dataclass(frozen=True)
class _Job:
    snapshot: Snapshot
    place: Place
    done: Done
    diagnostics: Snapshot | None


class CheckpointWriter(threading.Thread):
    """Writes what is handed to it, one after the other, and removes what retention no longer keeps."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        alarms: Alarms,
        identity: dict[str, Any],
        device: str,
        *,
        keep: int,
        hours: int = HOURS_KEPT,
        needed: Callable[[], Collection[str]] = tuple,
        tell: Callable[[list[dict[str, Any]]], None] = lambda told: None,
    ) -> None:
        """``needed`` names the checkpoints that retention must leave beside those it keeps by itself; ``tell`` makes
        the event of new ones durable, a restore's excepted: that is one with the restore."""
        super().__init__(name="checkpoints", daemon=True)
        self._checkpoints = checkpoints
        self._alarms = alarms
        self._identity = identity
        self._device = device
        self._keep = keep
        self._hours = hours
        self._needed = needed
        self._tell = tell
        self._untold: list[dict[str, Any]] = []
        self._jobs: queue.Queue[_Job | None] = queue.Queue(MOST_WAITING)
        self.last: str | None = None
        """The id of the newest checkpoint written or loaded."""

    @property
    def busy(self) -> bool:
        """Whether something is waiting to be written."""
        return self._jobs.unfinished_tasks > 0

    def submit(
        self,
        snapshot: Snapshot,
        place: Place,
        done: Done = lambda outcome: None,
        *,
        diagnostics: Snapshot | None = None,
    ) -> None:
        """Write it soon; ``done`` is called in this thread with what came of it. Waits where one waits already."""
        self._jobs.put(_Job(snapshot, place, done, diagnostics))

    def write_and_wait(
        self, snapshot: Snapshot, place: Place, *, diagnostics: Snapshot | None = None
    ) -> Manifest | StorageFailed:
        """Write it, after what was submitted before, and wait for it."""
        answer: queue.Queue[Manifest | StorageFailed] = queue.Queue()
        self.submit(snapshot, place, answer.put, diagnostics=diagnostics)
        return answer.get()

    def stop(self) -> None:
        """End once everything submitted is written."""
        if self.is_alive():
            self._jobs.put(None)
            self.join()

    def run(self) -> None:
        """Write until :meth:`stop`."""
        stand_back()
        while self._next():
            pass

    def _next(self) -> bool:
        """Write what comes next, and hold nothing of it when that is done; False at the end."""
        job = self._jobs.get()
        try:
            if job is not None:
                job.done(self._write(job))
        except Exception:  # the thread's boundary: the next checkpoint must be written all the same
            log.exception("a checkpoint's end could not be told")
        finally:
            self._jobs.task_done()
        return job is not None

    def _write(self, job: _Job) -> Manifest | StorageFailed:
        try:
            manifest = self._checkpoints.write(job.snapshot, job.place, self._identity, self._device, job.diagnostics)
        except StorageFailed as error:
            self._alarms.stand("checkpoint_failed", str(error))
            return error
        except Exception as error:
            log.exception("a checkpoint could not be written")
            self._alarms.stand("checkpoint_failed", f"{type(error).__name__}: {error}")
            return StorageFailed(f"a checkpoint could not be written: {error}")
        self.last = manifest.id
        self._alarms.clear("checkpoint_failed", f"{manifest.id} is written")
        if manifest.parent is None:
            self._untold.append(manifest.json_object())
        log.info("checkpoint %s: journal id %d, %d bytes", manifest.id, manifest.journal, manifest.size_bytes)
        try:
            if self._untold:
                self._tell(self._untold)
                self._untold = []
        except StorageFailed as error:
            log.warning("the event of a checkpoint could not be kept, it is told with the next: %s", error)
        try:
            needed = self._needed()
            prune, timeline = self._checkpoints.prune, manifest.timeline
            for gone in prune(self._keep, timeline, hours=self._hours, needed=needed, good=manifest.id):
                log.info("checkpoint %s removed by retention", gone)
        except ServiceError as error:
            log.warning("old checkpoints could not be removed: %s", error)
        return manifest
