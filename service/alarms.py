"""What the operator should know about: one list of kinds, kept in the database and told in the log."""

from __future__ import annotations

import json
import logging
import threading
import time

from service.errors import StorageFailed
from service.journal import Alarm, Journal
from service.schema import STANDING

KINDS = {
    "data_lost": "A client reported fixations gone that the worker had acked, or nobody has them any more.",
    "refused": "A step was left out: something in it was no finite number (the state is reset), or far too strong.",
    "quarantined": "An entry of the journal ended the process three times; it was skipped.",
    "command_failed": "A command could not be carried out when its turn came.",
    "checkpoint_bad": "A checkpoint is damaged or of another configuration; the one before it is used.",
    "checkpoint_failed": "A checkpoint could not be written.",
    "diagnostics_lost": "Diagnostics kept with a checkpoint are damaged, or a look failed; the learner is unharmed.",
    "skill_negative": "The upper end of the skill's interval is under 0: worse than the best trivial predictor.",
    "skill_fell": "Skill was there in the older half of the window and is under 0 in the newer.",
    "rank_low": "The rank is under 0.8 of the frozen network's and the probe under the untrained twin's, or under "
    "0.6 and the probe not above it.",
    "rank_lost": "The rank is under a quarter of the frozen network's: the embedding has collapsed.",
    "rank_high": "The rank is over 1.4 of the frozen network's while skill falls: chaos.",
    "gradient_doubtful": "An approximate gradient's cosine with back-propagation through time is under 0.9.",
    "gradient_lost": "The gradient's cosine with back-propagation through time is under 0.5.",
    "lag": "More fixations wait to be learned than --lag-limit allows.",
    "disk_low": "The disk of the data directory has less room than --disk-low-gb.",
    "stream_idle": "A stream that was fed since the worker started has brought nothing for --idle-after seconds.",
    "spool_full": "A client found fixations and had no room for them: they are dropped and can't be had again.",
    "cleared": "An alarm that was on is over; its detail names it.",
}
"""Every kind of alarm, with its meaning."""
STANDING_KINDS = ("checkpoint_failed", "lag", "disk_low", "stream_idle", "spool_full")
"""Kinds that are on until they are cleared, besides those about learning, which stand with a stream's last look."""

log = logging.getLogger("rjepa.alarms")


class Alarms:
    """Raises alarms that belong to no turn of the learning loop. Safe from any thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = threading.Lock()
        self._on = journal.told(STANDING)

    def raise_alarm(self, kind: str, detail: str, stream: str | None = None) -> None:
        """Tell it in the log and keep it; a disk that refuses the row is told in the log too."""
        alarm = checked(Alarm(kind, detail, stream))
        try:
            self._journal.put_alarm(alarm, time.time())
        except StorageFailed as error:
            log.warning("the alarm %s could not be kept: %s", kind, error)

    def stand(self, kind: str, detail: str, stream: str | None = None) -> None:
        """``kind``, one of :data:`STANDING_KINDS`, is on from now, unless it is already."""
        assert kind in STANDING_KINDS, kind
        with self._lock:
            key = f"{kind}/{stream or ''}"
            if key in self._on:
                return
            now_s = time.time()
            told = {"kind": kind, "stream": stream, "since": now_s, "detail": detail}
            if self._kept(Alarm(kind, detail, stream), now_s, {STANDING + key: json.dumps(told)}):
                self._on[key] = told

    def clear(self, kind: str, why: str, stream: str | None = None) -> None:
        """``kind`` is over, if it was on."""
        with self._lock:
            key = f"{kind}/{stream or ''}"
            over = Alarm("cleared", f"{kind}: {why}", stream)
            if key in self._on and self._kept(over, time.time(), {STANDING + key: None}):
                del self._on[key]

    def standing(self, kind: str) -> set[str | None]:
        """The streams ``kind`` is on for; None stands for the whole."""
        with self._lock:
            return {told["stream"] for told in self._on.values() if told["kind"] == kind}

    def _kept(self, alarm: Alarm, now_s: float, standing: dict[str, str | None]) -> bool:
        """Make it durable, then tell it; False where the disk refuses: whoever watches will come again."""
        try:
            self._journal.put_alarm(alarm, now_s, standing)
        except StorageFailed as error:
            log.warning("the alarm %s (%s) could not be kept: %s", alarm.kind, alarm.detail, error)
            return False
        checked(alarm)
        return True


def checked(alarm: Alarm) -> Alarm:
    """``alarm``, told in the log; raises KeyError where its kind is not in :data:`KINDS`."""
    KINDS[alarm.kind]
    log.warning("alarm %s%s: %s", alarm.kind, f" (stream {alarm.stream})" if alarm.stream else "", alarm.detail)
    return alarm
