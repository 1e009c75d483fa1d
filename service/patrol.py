"""A thread that goes its round at regular intervals until stopped; one that fails is told, and the next one comes."""

from __future__ import annotations

import logging
import threading

from service.errors import StorageFailed

log = logging.getLogger("rjepa.patrol")


class Patrol(threading.Thread):
    """Calls :meth:`round` every ``every_s`` seconds, never in learning's way: what it raises ends nothing."""

    def __init__(self, name: str, every_s: float) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self.stopping = threading.Event()
        """Set when the round under way should come to its end."""

    def round(self) -> None:
        """One round. StorageFailed and OSError are expected of it: the disk does not answer at the moment."""
        raise NotImplementedError

    def stop(self) -> None:
        """Go no more rounds; back when the one under way has ended."""
        self.stopping.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Round after round."""
        while not self.stopping.wait(self._every_s):
            try:
                self.round()
            except (StorageFailed, OSError) as error:
                log.warning("%s: not possible at the moment: %s", self.name, error)
            except Exception:  # the thread's boundary: it goes on, learning is not concerned
                log.exception("%s failed once", self.name)
