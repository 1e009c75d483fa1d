"""The thread that drops old patches, beside learning and never in its way; the rule is :mod:`service.retained`'s."""

from __future__ import annotations

import logging
import time

from service.checkpoints import Checkpoints
from service.errors import CheckpointBad, RequestRefused
from service.journal import Journal
from service.patrol import Patrol
from service.retained import Limits

LOOK_S = 30.0
"""How often it is seen whether anything is to go."""
PAUSE_S = 0.1
"""Between two transactions: fixations and records, which share the one pen, go before."""

log = logging.getLogger("rjepa.retention")


class Retention(Patrol):
    """Keeps patches within ``limits`` until :meth:`stop`."""

    def __init__(self, journal: Journal, checkpoints: Checkpoints, limits: Limits, *, look_s: float = LOOK_S) -> None:
        super().__init__("retention", look_s)
        self._journal = journal
        self._checkpoints = checkpoints
        self._limits = limits
        self._verified: set[str] = set()

    def round(self) -> None:
        """Drop what is over the limits; stopped, it ends after the transaction under way."""
        dropped = self.drop()
        if dropped:
            log.info("%d old patches dropped; their records, features and digests stay", dropped)

    def drop(self) -> int:
        """Drop what is over the limits now; how many. Raises :class:`StorageFailed`."""
        behind, dropped = self.behind(), 0
        while behind and not self.stopping.is_set():
            count = self._journal.drop_patches(self._limits, behind, time.time())
            dropped += count
            if not count:
                break
            self.stopping.wait(PAUSE_S)
        return dropped

    def behind(self) -> int:
        """The journal id that the second newest verified checkpoint had learned; 0 where there are not two."""
        good, every = 0, self._checkpoints.list()
        self._verified &= {manifest.id for manifest in every}
        for manifest in reversed(every):
            if manifest.id not in self._verified:
                try:
                    self._checkpoints.verified(manifest.id)
                except (CheckpointBad, RequestRefused):
                    continue
                self._verified.add(manifest.id)
            good += 1
            if good == 2:
                return manifest.journal
        return 0
