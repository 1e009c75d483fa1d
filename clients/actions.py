"""What the client's half of the wire wants done, and what it keeps count of (see clients/protocol.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from clients import wire
from clients.errors import ClientError


@dataclass(frozen=True)
class Connect:
    """Throw the socket away, open a fresh one and send ``hello`` on it."""

    hello: wire.Hello


@dataclass(frozen=True)
class Greet:
    """Send ``hello`` on the present socket."""

    hello: wire.Hello


@dataclass(frozen=True)
class Send:
    """Send the spooled fixation ``row`` as ``seq``."""

    row: int
    seq: int


@dataclass(frozen=True)
class SendLast:
    """Send the last sent fixation once more: as a duplicate it moves nothing, and its ack tells what is learned."""


@dataclass(frozen=True)
class Number:
    """Give spooled fixations their seq: (row, seq) each. Durable before any of them is sent."""

    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class LetGo:
    """These rows are durable at the worker. ``acked`` is the highest seq there is an ack for."""

    rows: tuple[int, ...]
    acked: int


@dataclass(frozen=True)
class Remember:
    """Keep the epoch (None: claim the stream anew) and the seq below which held fixations are not known to be ours."""

    epoch: int | None
    held_end: int


@dataclass(frozen=True)
class Fail:
    """It is over; the spool stays."""

    error: ClientError


Action = Connect | Greet | Send | SendLast | Number | LetGo | Remember | Fail


@dataclass
class Entry:
    """A spooled fixation and its seq, once it has one."""

    row: int
    seq: int | None


class Phase(Enum):
    """Where the conversation stands."""

    IDLE = "idle"
    GREETING = "greeting"
    OPEN = "open"
    FAILED = "failed"


@dataclass
class Counts:
    """Of this session, in fixations. ``held`` are those the worker held already."""

    sent: int = 0
    acked: int = 0
    learned: int = 0
    held: int = 0


def why_unfit(welcome: wire.Welcome, lowest: int | None) -> str | None:
    """Why we can't go on with this worker, though it welcomes us; None if we can. ``lowest`` seq in the spool."""
    offer, ours = welcome.patch, (wire.PATCH_HEIGHT_PX, wire.PATCH_WIDTH_PX, 3)
    if lowest is not None and welcome.next_seq < lowest:
        return f"the worker waits for fixation {welcome.next_seq}, the spool begins at {lowest}"
    if (offer.height, offer.width, offer.channels) != ours or "raw" not in offer.encodings:
        taken = f"{offer.height} x {offer.width} x {offer.channels}, {'/'.join(offer.encodings)}"
        return f"the worker takes patches of {taken}; this client sends 50 x 50 x 3, raw"
    return None
