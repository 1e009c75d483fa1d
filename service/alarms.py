"""What the operator should know about: one list of kinds, kept in the database and told in the log."""

from __future__ import annotations

import logging
import time

from service.errors import StorageFailed
from service.journal import Alarm, Journal

KINDS = {
    "data_lost": "A client reported fixations gone that the worker had acked, or nobody has them any more.",
    "refused": "A step was left out: something in it was no finite number (the state is reset), or far too strong.",
    "quarantined": "An entry of the journal ended the process three times; it was skipped.",
    "command_failed": "A command could not be carried out when its turn came.",
    "checkpoint_bad": "A checkpoint is damaged or of another configuration; the one before it is used.",
    "checkpoint_failed": "A checkpoint could not be written.",
    "diagnostics_lost": "The diagnostics kept with a checkpoint are damaged; they begin anew, the learner is unharmed.",
    "skill_negative": "The upper end of the skill's interval is under 0: worse than the best trivial predictor.",
    "skill_fell": "Skill was there in the older half of the window and is under 0 in the newer.",
    "rank_low": "The rank is under 0.8 of the frozen network's, and the probe under the untrained twin's.",
    "rank_lost": "The rank is under a quarter of the frozen network's: the embedding has collapsed.",
    "rank_high": "The rank is over 1.4 of the frozen network's while skill falls: chaos.",
    "gradient_doubtful": "An approximate gradient's cosine with back-propagation through time is under 0.9.",
    "gradient_lost": "The gradient's cosine with back-propagation through time is under 0.5.",
    "cleared": "One of the alarms about learning is over; its detail names it.",
}
"""Every kind of alarm, with its meaning."""

log = logging.getLogger("rjepa.alarms")


class Alarms:
    """Raises alarms that belong to no turn of the learning loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def raise_alarm(self, kind: str, detail: str, stream: str | None = None) -> None:
        """Tell it in the log and keep it; a disk that refuses the row is told in the log too."""
        alarm = checked(Alarm(kind, detail, stream))
        try:
            self._journal.put_alarm(alarm, time.time())
        except StorageFailed as error:
            log.warning("the alarm %s could not be kept: %s", kind, error)


def checked(alarm: Alarm) -> Alarm:
    """``alarm``, told in the log; raises KeyError where its kind is not in :data:`KINDS`."""
    KINDS[alarm.kind]
    log.warning("alarm %s%s: %s", alarm.kind, f" (stream {alarm.stream})" if alarm.stream else "", alarm.detail)
    return alarm
