"""Events of the HTTP interface as they come: an iterator that outlives cuts and restarts, without loss or double."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from clients.api_answers import Alarm, Checkpoint, Record
from clients.api_calls import Calls
from clients.errors import ApiError

SILENT_S = 30.0
"""A server says something every 10 s; one that is silent for so long is gone."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True)
class RecordEvent:
    """A fixation was learned, or skipped."""

    id: int
    record: Record
    kind: Literal["record"] = "record"


@dataclass(frozen=True)
class CheckpointEvent:
    """A checkpoint was written."""

    id: int
    checkpoint: Checkpoint
    kind: Literal["checkpoint"] = "checkpoint"


@dataclass(frozen=True)
class AlarmEvent:
    """An alarm was raised, or is over (its kind is cleared)."""

    id: int
    alarm: Alarm
    kind: Literal["alarm"] = "alarm"


Event = RecordEvent | CheckpointEvent | AlarmEvent


@dataclass
class Block:
    """What stands between two empty lines of an event stream."""

    id: int | None = None
    event: str = ""
    data: str = ""


@dataclass
class Blocks:
    """Whole blocks from pieces cut anywhere; the beginning of a block that never ended is told to nobody."""

    _left: bytes = field(default=b"")

    def feed(self, piece: bytes) -> Iterator[Block]:
        """The blocks that end with ``piece``."""
        *whole, self._left = (self._left + piece).split(b"\n\n")
        for text in whole:
            block = Block()
            for line in text.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    block.id = int(value)
                elif name == "event":
                    block.event = value
                elif name == "data":
                    block.data = value
            yield block


def follow(calls: Calls, stream: str | None, after: int | None, patience_s: float) -> Iterator[Event]:
    """Events after the id ``after``, or from now on. See :meth:`clients.api.Api.events`."""
    reached = after
    begun = False
    pause_s = FIRST_PAUSE_S
    away_since_s: float | None = None
    while True:
        try:
            for block in _blocks(calls, stream, reached):
                reached = reached if block.id is None else block.id
                begun, pause_s, away_since_s = True, FIRST_PAUSE_S, None
                event = _typed(block)
                if event is not None:
                    yield event
            why = ApiError(None, "unreachable", f"{calls.url} ended the event stream")
        except ApiError as error:
            if not (begun and _may_pass(error)):
                raise
            why = error
        away_since_s = time.monotonic() if away_since_s is None else away_since_s
        if time.monotonic() - away_since_s >= patience_s:
            raise why
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _blocks(calls: Calls, stream: str | None, after: int | None) -> Iterator[Block]:
    headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
    blocks = Blocks()
    with calls.opened("/v1/events", headers=headers, read_s=SILENT_S, params={"stream": stream}) as response:
        for piece in response.iter_bytes():
            yield from blocks.feed(piece)


def _may_pass(error: ApiError) -> bool:
    """Whether coming again may help."""
    return error.status is None or error.status == 429 or error.status >= 500


def _typed(block: Block) -> Event | None:
    """The event in a block; None for a beginning, a heartbeat, an end, and kinds of a newer version."""
    if block.id is None or not block.data:
        return None
    told: dict[str, Any] = json.loads(block.data)
    if block.event == "record":
        return RecordEvent(block.id, Record.model_validate(told))
    if block.event == "checkpoint":
        return CheckpointEvent(block.id, Checkpoint.model_validate(told))
    if block.event == "alarm":
        return AlarmEvent(block.id, Alarm.model_validate(told))
    return None


__all__ = ["AlarmEvent", "Blocks", "CheckpointEvent", "Event", "RecordEvent", "follow"]
