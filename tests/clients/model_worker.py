"""The worker's half of the wire, by the contract alone, as plain data: what a client is held against."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from clients import wire

OFFER = wire.PatchOffer(height=50, width=50, channels=3, encodings=["raw", "png", "jpeg"], degrees=5.0)
MODEL = wire.ModelOffer(name="none", embedding_size=256)

Reply = tuple[Hashable, wire.Message]


@dataclass
class Held:
    """One stream as the worker has it. ``items[seq]`` is the content of a fixation, None where it was lost."""

    epoch: int = 0
    items: list[bytes | None] = field(default_factory=list)
    messages: list[wire.FixationMessage | None] = field(default_factory=list)
    durable: int = 0
    learned: int = -1
    owner: Hashable = None
    hole_told: int = -1
    claimed_at: int = 0

    @property
    def next_seq(self) -> int:
        return len(self.items)


class ModelWorker:
    """``take`` what comes on a connection, ``commit`` to ack, ``learn``, ``crash``."""

    def __init__(self) -> None:
        self.streams: dict[str, Held] = {}
        self.connections: dict[Hashable, dict[str, int]] = {}
        self.full = False
        self._answered: dict[tuple[Hashable, str], None] = {}

    def take(self, connection: Hashable, message: wire.Message, patch: bytes | None = None) -> list[Reply]:
        if isinstance(message, wire.Hello):
            return [*self.commit(), (connection, self._hello(connection, message))]
        assert isinstance(message, wire.FixationMessage)
        assert patch is not None
        return [(connection, reply) for reply in self._fixation(connection, message, patch)]

    def commit(self) -> list[Reply]:
        """What was taken becomes durable and is acked; with a full disk it is refused and forgotten."""
        replies: list[Reply] = []
        refused = {name for name, held in self.streams.items() if self.full and held.next_seq > held.durable}
        for name, held in self.streams.items():
            if name in refused:
                del held.items[held.durable :], held.messages[held.durable :]
            held.durable = held.next_seq
        for connection, name in self._answered:
            held = self.streams[name]
            if name in refused:
                reply: wire.Message = wire.Error(code="storage_full", detail="no space left", stream=name)
            else:
                reply = wire.Ack(stream=name, seq=held.durable - 1, learned=held.learned)
            replies.append((connection, reply))
        self._answered.clear()
        return replies

    def learn(self, name: str, count: int = 1) -> list[Reply]:
        """The learner takes ``count`` durable fixations of a stream."""
        held = self.streams.get(name)
        replies: list[Reply] = []
        while held is not None and count > 0 and held.learned < held.durable - 1:
            held.learned += 1
            count -= 1
            told = wire.Learned(
                stream=name, seq=held.learned, prediction_error=0.5, position=held.learned, latency_ms=1.0, skipped=None
            )
            replies.append((held.owner, told))
        return replies

    def crash(self) -> None:
        """kill -9: what was not durable is gone, and so is every connection."""
        self.connections.clear()
        self._answered.clear()
        for held in self.streams.values():
            del held.items[held.durable :], held.messages[held.durable :]
            held.owner, held.hole_told = None, -1

    def lose(self, name: str, count: int) -> None:
        """Restored from a backup that lacks the last ``count`` fixations."""
        self.crash()
        held = self.streams[name]
        held.durable = max(0, held.durable - count)
        del held.items[held.durable :], held.messages[held.durable :]
        held.learned = min(held.learned, held.durable - 1)

    def _hello(self, connection: Hashable, hello: wire.Hello) -> wire.Message:
        held = self.streams.setdefault(hello.stream, Held())
        epoch = held.epoch + 1 if hello.epoch is None else hello.epoch
        if epoch < held.epoch:
            return wire.Error(code="fenced", detail=f"epoch {held.epoch} is present", stream=hello.stream)
        held.epoch, held.owner, held.hole_told = epoch, connection, -1
        self.connections.setdefault(connection, {})[hello.stream] = epoch
        begin = hello.have_from if hello.have_from is not None else (-1 if hello.acked is None else hello.acked) + 1
        while held.next_seq < begin:
            held.items.append(None)
            held.messages.append(None)
        held.durable = held.next_seq
        if hello.epoch is None:
            held.claimed_at = held.next_seq
        return wire.Welcome(stream=hello.stream, epoch=epoch, next_seq=held.next_seq, patch=OFFER, model=MODEL)

    def _fixation(self, connection: Hashable, message: wire.FixationMessage, patch: bytes) -> list[wire.Message]:
        name, held = message.stream, self.streams.get(message.stream)
        epoch = self.connections.get(connection, {}).get(name)
        if epoch is None or held is None:
            return [wire.Error(code="hello_required", detail="hello first", stream=name, seq=message.seq)]
        if epoch < held.epoch:
            return [wire.Error(code="fenced", detail="superseded", stream=name, seq=message.seq)]
        digest = wire.digest(message.onset, message.duration, message.gaze, patch)
        if message.seq > held.next_seq:
            if held.hole_told == held.next_seq:
                return []
            held.hole_told = held.next_seq
            return [wire.Resend(stream=name, from_seq=held.next_seq)]
        if message.seq < held.next_seq and held.items[message.seq] != digest:
            return [wire.Conflict(stream=name, seq=message.seq, next_seq=held.next_seq)]
        if message.seq == held.next_seq:
            held.items.append(digest)
            held.messages.append(message)
            held.hole_told = -1
        self._answered[connection, name] = None
        return []
