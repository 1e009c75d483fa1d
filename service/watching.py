"""The diagnostics as a worker keeps them: fed beside the learner, packed with checkpoints, looked at now and then.

A look (:meth:`model.moment.Moment.look`) is due at certain fixations of a stream. It is made on another thread from
copies, so learning goes on, and what it found becomes durable with the alarms that begin or end by it in one
commit. It carries the journal id of its fixation: a recovery that learns that fixation again does not look again, so
an alarm is raised once. Where recovery had to do without, the look is made anew, with the same numbers.
"""

from __future__ import annotations

import json
import logging
import math
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from model.diagnostics import Diagnostics
from model.errors import ModelError
from model.helper import helper
from model.learner import Outcome
from model.moment import Moment
from model.snapshot import Snapshot
from service.alarms import Alarms
from service.checkpoints import Checkpoints
from service.errors import CheckpointBad
from service.journal import Alarm, Entry, Turn
from service.schema import LOOK

MOST_LOOKS = 16
"""Looks that may wait to be made, the next one waits for the first: one of each stream that has windows, for streams
that began together are looked at together. Each holds its own copies, some 5 MB."""

log = logging.getLogger("rjepa.diagnostics")


@dataclass(frozen=True)
class _Pending:
    """A look being made, of the fixation ``entry``."""

    entry: Entry
    made: Future[dict[str, Any] | None]


class Watching:
    """Belongs in the thread that owns the learner. ``known``: of each stream the last look, as it is durable."""

    def __init__(self, diagnostics: Diagnostics, alarms: Alarms, known: dict[str, dict[str, Any]]) -> None:
        self.diagnostics = diagnostics
        self.helper = helper("diagnostics")
        """Where looks are made, and what is asked over the control socket."""
        self._alarms = alarms
        self._known = dict(known)
        self._pending: list[_Pending] = []

    def after(self, entry: Entry, outcome: Outcome) -> None:
        """The learner has observed the fixation ``entry``."""
        assert entry.stream is not None
        self.diagnostics.after(entry.stream, outcome, entry.id)
        known = self._known.get(entry.stream)
        if self.diagnostics.due(entry.stream) and (known is None or entry.id > known["entry"]):
            waiting = [look for look in self._pending if not look.made.done()]
            if len(waiting) >= MOST_LOOKS:
                waiting[0].made.result()
            moment = self.diagnostics.moment(entry.stream)
            self._pending.append(_Pending(entry, self.helper.submit(_looked, moment)))

    def forget(self, entry: Entry) -> None:
        """The command ``entry`` deletes its stream."""
        assert entry.stream is not None
        self.diagnostics.forget(entry.stream)
        self._pending = [look for look in self._pending if look.entry.stream != entry.stream]
        if entry.stream in self._known and self._known[entry.stream]["entry"] < entry.id:
            del self._known[entry.stream]

    def went_back(self, entry: int) -> list[Alarm]:
        """The command ``entry`` has restored a checkpoint: looks before it are void; the alarms that end by that."""
        self._pending = []
        void = {stream: look for stream, look in self._known.items() if look["entry"] < entry}
        for stream in void:
            del self._known[stream]
        why = "the learner went back to a checkpoint"
        return [_cleared(warned["kind"], why, stream) for stream, look in void.items() for warned in look["alarms"]]

    @property
    def looking(self) -> bool:
        """Whether looks are still being made."""
        return any(not look.made.done() for look in self._pending)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint would have to wait."""
        return self.diagnostics.busy or bool(self._pending)

    def collect(self, turn: Turn, *, wait: bool = False) -> bool:
        """Put what the looks found since into ``turn``, which must become durable; False where there is none.

        ``wait``: for those still being made.
        """
        found = False
        while self._pending and (wait or self._pending[0].made.done()):
            first = self._pending.pop(0)
            looked = first.made.result()
            if looked is None:
                turn.alarms.append(
                    Alarm("diagnostics_lost", f"seq {first.entry.seq}: the look failed", first.entry.stream)
                )
            else:
                self._take(first.entry, finite(looked), turn)
            found = True
        return found

    def _take(self, entry: Entry, found: dict[str, Any], turn: Turn) -> None:
        stream, seq = entry.stream, entry.seq
        assert stream is not None
        warned = {each["kind"]: each["detail"] for each in found.pop("warned")}
        before = {each["kind"]: each for each in self._known.get(stream, {}).get("alarms", [])}
        for kind, detail in warned.items():
            if kind not in before:
                turn.alarms.append(Alarm(kind, f"seq {seq}: {detail}", stream))
        for kind in before.keys() - warned.keys():
            turn.alarms.append(_cleared(kind, f"at seq {seq} it is no longer so", stream))
        now = [
            {"kind": kind, "detail": detail, "since": before[kind]["since"] if kind in before else entry.time_s}
            for kind, detail in warned.items()
        ]
        look = {"entry": entry.id, "seq": seq, "time": entry.time_s, **found, "alarms": now}
        self._known[stream] = look
        turn.meta[LOOK + stream] = json.dumps(look)

    def pack(self) -> Snapshot:
        """What a checkpoint keeps."""
        return self.diagnostics.pack()

    def put_back(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`pack` gave."""
        self.diagnostics.unpack(snapshot)

    def begin(self, checkpoints: Checkpoints, checkpoint: str) -> None:
        """Go on from what ``checkpoint`` keeps; anew where it keeps none, with an alarm where that is damaged."""
        try:
            kept = checkpoints.diagnostics(checkpoint)
            if kept is not None:
                self.diagnostics.unpack(kept)
                return
        except (CheckpointBad, ModelError) as error:
            detail = f"checkpoint {checkpoint}: {error}; the learner is as it was, its diagnostics begin anew"
            self._alarms.raise_alarm("diagnostics_lost", detail)
        else:
            log.warning("checkpoint %s keeps no diagnostics: they begin anew", checkpoint)
        self.diagnostics.clear()

    def close(self) -> None:
        """Make no more looks."""
        self.helper.shutdown(cancel_futures=True)
        self.diagnostics.close()


def _looked(moment: Moment) -> dict[str, Any] | None:
    """What the look found; None where it failed, which must not end the learner that waits for it."""
    try:
        return moment.look()
    except Exception:  # the helper's boundary: learning is not concerned
        log.exception("a look at whether learning is real failed")
        return None


def finite(value: Any) -> Any:
    """``value``, JSON-able, with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cleared(kind: str, why: str, stream: str) -> Alarm:
    return Alarm("cleared", f"{kind}: {why}", stream)
