"""What each entry of the journal does to the learner: the same live, in recovery and in a replay.

:class:`Applier` is all that stands between journal and learner. It keeps what a checkpoint must know beside the
learner: how far each stream was learned, and how its present sequence is marked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from model.errors import ModelError
from model.learner import Learner, Look, Outcome
from model.snapshot import Snapshot
from service.checkpoints import Place, SequenceState
from service.journal import Alarm, Entry, Forget, Result, Turn
from service.records import Record, pack
from service.stepmark import StepMark
from service.watching import Watching

CHANGING = ("pause", "resume", "rates", "reset", "delete")
"""Commands an :class:`Applier` carries out by itself; the others need checkpoints."""

log = logging.getLogger("rjepa.learning")


@dataclass
class Applier:
    """Applies entries in journal order. ``cursor`` is the last one applied."""

    learner: Learner
    mark: StepMark
    quarantined: Collection[int] = frozenset()
    timeline: int = 0
    cursor: int = 0
    cursors: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, SequenceState] = field(default_factory=dict)
    watching: Watching | None = None
    """The diagnostics beside the learner, where they are on."""
    timed: bool = True
    """Whether records say how long their fixation waited; a replay has nothing to say of that."""

    def __post_init__(self) -> None:
        """What a fixation does while it is measured counts as its step."""
        if self.watching is not None:
            self.watching.diagnostics.taking = self.mark.begin

    def apply(self, entry: Entry, turn: Turn) -> None:
        """Apply a fixation, a loss or one of :data:`CHANGING`; what it came to is added to ``turn``.

        A fixation must have its features.
        """
        if entry.kind == "command":
            self._command(entry, turn)
        else:
            assert entry.stream is not None
            assert entry.seq is not None
            record = self._quarantine(entry, turn) if entry.id in self.quarantined else self._learn(entry, turn)
            turn.writes.append(record if self.timed else replace(record, latency_ms=None))
            self.cursors[entry.stream] = entry.seq + 1
        self.passed(entry, turn)

    def catch_up(self) -> None:
        """Let the measures take in what they let wait; each under the mark of its own fixation."""
        if self.watching is not None:
            self.watching.diagnostics.catch_up()

    def passed(self, entry: Entry, turn: Turn) -> None:
        """``entry`` is behind us."""
        self.cursor = turn.learned_id = entry.id

    def place(self, **more: Any) -> Place:
        """Where a snapshot taken now stands."""
        return Place(self.cursor, self.timeline, dict(self.cursors), dict(self.sequences), **more)

    def restore(self, snapshot: Snapshot, timeline: int) -> None:
        """Go back to the parameters of ``snapshot`` on a new timeline; every stream begins a new sequence."""
        self.learner.load(snapshot)
        self.learner.begin_all()
        self.timeline = timeline
        self.sequences = {name: SequenceState(marked=state.marked) for name, state in self.sequences.items()}

    def _learn(self, entry: Entry, turn: Turn) -> Record:
        assert entry.stream is not None
        if entry.kind == "lost":
            self._begin_anew(entry.stream)
            return _record(entry, self.timeline, skipped="lost")
        assert entry.z is not None, "features come before the step"
        mark = entry.body.get("sequence") or {}
        start = bool(mark.get("start"))
        before = self.sequences.get(entry.stream, SequenceState())
        named = mark.get("id") if mark else before.id
        state = self.sequences[entry.stream] = SequenceState(id=named, marked=before.marked or start)
        self.mark.begin(entry.id)
        outcome = self.learner.observe(entry.stream, entry.z, look_of(entry.body), start=start, marked=state.marked)
        if self.watching is not None:
            self.watching.after(entry, outcome)
        self.mark.end()
        if outcome.skipped == "refused":
            turn.alarms.append(Alarm("refused", f"seq {entry.seq}: {outcome.reason}", entry.stream))
        return _record(entry, self.timeline, outcome, sequence_id=state.id)

    def _quarantine(self, entry: Entry, turn: Turn) -> Record:
        assert entry.stream is not None
        turn.alarms.append(Alarm("quarantined", f"seq {entry.seq} ended the process three times", entry.stream))
        self._begin_anew(entry.stream)
        return _record(entry, self.timeline, skipped="quarantined")

    def _begin_anew(self, stream: str) -> None:
        self.learner.reset(stream)
        self.sequences[stream] = SequenceState(marked=self.sequences.get(stream, SequenceState()).marked)

    def _command(self, entry: Entry, turn: Turn) -> None:
        name, arguments = entry.body["name"], entry.body["arguments"]
        value: dict[str, Any] = {"ok": True}
        try:
            if entry.id in self.quarantined:
                raise ModelError("it ended the process three times")
            self.mark.begin(entry.id)
            self._carry_out(name, entry, arguments, turn)
        except ModelError as error:
            value = failure(409, "refused", str(error))
            turn.alarms.append(Alarm("command_failed", f"{name}: {error}", entry.stream))
        self.mark.end()  # not where another exception ends the process: the next one must know
        turn.writes.append(Result(entry.id, value))

    def _carry_out(self, name: str, entry: Entry, arguments: dict[str, Any], turn: Turn) -> None:
        if name == "pause" or name == "resume":
            self.learner.set_learning(name == "resume")
        elif name == "rates":
            self.learner.set_rates(arguments["rates"])
        elif name == "reset" and entry.stream is not None:
            self._begin_anew(entry.stream)
        elif name == "delete" and entry.stream is not None:
            self.learner.forget(entry.stream)
            if self.watching is not None:
                self.watching.forget(entry)
            self.sequences.pop(entry.stream, None)
            turn.writes.append(Forget(entry.id, entry.stream))
        else:
            raise ModelError(f"no command {name!r} is known to this version")


def look_of(body: dict[str, Any]) -> Look:
    """Where the eye was, from a fixation's message."""
    gaze, degrees, frame = body["gaze"], body.get("gaze_deg"), body.get("frame_deg")
    looked = (float(gaze["x"]), float(gaze["y"]))
    gaze_deg = None if degrees is None else (float(degrees["x"]), float(degrees["y"]))
    if frame is None:
        return Look(looked, gaze_deg)
    return Look(looked, gaze_deg, (float(frame["width"]), float(frame["height"])))


def failure(status: int, code: str, detail: str) -> dict[str, Any]:
    """The result of a command that could not be carried out."""
    return {"ok": False, "status": status, "code": code, "detail": detail}


def _record(
    entry: Entry,
    timeline: int,
    outcome: Outcome | None = None,
    *,
    skipped: str | None = None,
    sequence_id: str | None = None,
) -> Record:
    assert entry.stream is not None
    assert entry.seq is not None
    gaze = entry.body.get("gaze")
    common: dict[str, Any] = {
        "id": entry.id,
        "stream": entry.stream,
        "seq": entry.seq,
        "time": entry.time_s,
        "timeline": timeline,
        "onset": entry.body.get("onset"),
        "duration": entry.body.get("duration"),
        "gaze": None if gaze is None else (gaze["x"], gaze["y"]),
        "sequence_id": sequence_id,
        "latency_ms": max(0.0, (time.time() - entry.time_s) * 1000.0),
    }
    if outcome is None:
        return Record(**common, skipped=skipped)
    embedding = pack(outcome.embedding) if _told(outcome) else None
    return Record(
        **common,
        position=outcome.position,
        prediction_error=outcome.prediction_error,
        trivial_error=outcome.trivial,
        effective_rank=outcome.effective_rank,
        update_norm=outcome.update_norm,
        skipped=outcome.skipped,
        embedding=embedding,
    )


def _told(outcome: Outcome) -> bool:
    """Whether the embedding is one to show: a refused step has none."""
    return outcome.skipped != "refused" and bool(np.isfinite(outcome.embedding).all())
