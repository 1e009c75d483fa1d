"""Who may append what to which stream: the rules of the wire, without sockets, clock or disk.

A batch of messages goes through :meth:`Admission.hello` and :meth:`Admission.fixation`, which say what to do and
move nothing durable. ``accepted`` fixations are pending until :meth:`committed`; :meth:`rolled_back` forgets
them, as if they had never come.

=====================  =============================================================================
a fixation is          when
=====================  =============================================================================
``hello_required``     its connection has not said hello for the stream
``fenced``             another owner has said hello since
accepted               its seq is the next one
a duplicate            its seq is held, with the same content: acked again
a ``conflict``         its seq is held, with other content
a hole                 its seq is above the next one: ``resend``, once per hole, again after 1 s
=====================  =============================================================================
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from clients.wire import MAX_SEQ, Conflict, ErrorCode, FixationMessage, Hello, Resend, WireError
from service.journal import StreamCursor

MAX_CONNECTIONS = 10_000
"""Connections remembered; the one silent for longest has to say hello again."""
MAX_STREAMS_PER_CONNECTION = 1_000
MAX_STREAMS = 10_000
"""Streams of one data directory, forgotten ones too: their numbering stays."""
MAX_GAP = 500_000
"""Fixations that one hello may report lost."""
MAX_EPOCH_LEAP = 1_000_000
RESEND_AGAIN_S = 1.0


@dataclass(frozen=True)
class Accept:
    """The fixation is the next of its stream; to be journalled."""


_ACCEPT = Accept()


@dataclass(frozen=True)
class Duplicate:
    """The fixation is held already; to be acked again (once what is pending of its stream is durable)."""


@dataclass(frozen=True)
class Answer:
    """To be answered so, and dropped; nothing to answer where ``message`` is None."""

    message: Conflict | Resend | None


@dataclass(frozen=True)
class Claim:
    """A hello that is granted, once ``epoch`` is durable. ``lost`` are seqs nobody has any more."""

    stream: str
    epoch: int
    lost: range
    fresh: bool
    """Whether the epoch differs from the durable one (or the stream is new)."""


@dataclass
class _Stream:
    epoch: int = 0
    next_seq: int = 0
    durable_seq: int = 0
    learned_seq: int = -1
    owner: bytes | None = None
    notify_learned: bool = False
    pending: dict[int, bytes] = field(default_factory=dict)
    hole: tuple[int, float] | None = None


class Admission:
    """The table of connections and streams.

    ``held`` gives the digest of a durable fixation, or None where the seq holds none (it was reported lost).
    """

    def __init__(self, cursors: Iterable[StreamCursor], held: Callable[[str, int], bytes | None]) -> None:
        self._held = held
        self._connections: OrderedDict[bytes, dict[str, int]] = OrderedDict()
        self._moved: list[_Stream] = []
        self._streams: dict[str, _Stream] = {
            c.name: _Stream(c.epoch, c.next_seq, c.next_seq, c.learned_seq) for c in cursors
        }

    def hello(self, connection: bytes, hello: Hello) -> Claim:
        """What a hello asks for; to be made durable and then :meth:`granted`.

        Nothing may be pending for the stream. Raises :class:`WireError` (too_many, fenced, bad_message).
        """
        stream = self._streams.get(hello.stream)
        now = stream or _Stream()
        spoken = self._connections.get(connection, {})
        if hello.stream not in spoken and len(spoken) >= MAX_STREAMS_PER_CONNECTION:
            raise WireError(
                ErrorCode.TOO_MANY, f"at most {MAX_STREAMS_PER_CONNECTION} streams on one connection", hello.stream
            )
        if stream is None and len(self._streams) >= MAX_STREAMS:
            raise WireError(
                ErrorCode.TOO_MANY,
                f"{MAX_STREAMS} streams are held already; go on with one of them or make a new data directory",
                hello.stream,
            )
        epoch = now.epoch + 1 if hello.epoch is None else hello.epoch
        if epoch < now.epoch:
            raise self._fenced(hello.stream, epoch, now.epoch)
        if epoch > now.epoch + MAX_EPOCH_LEAP or epoch > MAX_SEQ:
            raise WireError(
                ErrorCode.BAD_MESSAGE, f"epoch {epoch} was never given; this stream's is {now.epoch}", hello.stream
            )
        acked = -1 if hello.acked is None else hello.acked
        begin = acked + 1 if hello.have_from is None else hello.have_from
        lost = range(now.next_seq, max(begin, now.next_seq))
        if len(lost) > MAX_GAP:
            raise WireError(
                ErrorCode.BAD_MESSAGE,
                f"seq {begin} is {len(lost)} above the next one, {now.next_seq}; at most {MAX_GAP} can be reported "
                "lost: use another stream name",
                hello.stream,
            )
        return Claim(hello.stream, epoch, lost, fresh=stream is None or epoch != now.epoch)

    def granted(self, connection: bytes, hello: Hello, claim: Claim) -> int:
        """The claim is durable: the connection owns the stream. Returns the stream's next seq."""
        stream = self._streams.setdefault(claim.stream, _Stream())
        stream.epoch = claim.epoch
        stream.next_seq = stream.durable_seq = max(stream.next_seq, claim.lost.stop)
        stream.owner = connection
        stream.notify_learned = hello.notify == "learned"
        stream.hole = None
        self._connections.setdefault(connection, {})[claim.stream] = claim.epoch
        self._connections.move_to_end(connection)
        while len(self._connections) > MAX_CONNECTIONS:
            self._connections.popitem(last=False)
        return stream.next_seq

    def fixation(
        self, connection: bytes, message: FixationMessage, digest: bytes, now_s: float
    ) -> Accept | Duplicate | Answer:
        """What to do with a fixation; ``now_s`` is any clock that does not step back. Raises :class:`WireError`."""
        return self.judge(self.check_owner(connection, message.stream, message.seq), message, digest, now_s)

    def judge(
        self, stream: _Stream, message: FixationMessage, digest: bytes, now_s: float
    ) -> Accept | Duplicate | Answer:
        """What to do with a fixation of which :meth:`check_owner` has given the stream."""
        if message.seq == stream.next_seq:
            if not stream.pending:
                self._moved.append(stream)
            stream.pending[message.seq] = digest
            stream.next_seq += 1
            stream.hole = None
            return _ACCEPT
        if message.seq > stream.next_seq:
            return self._hole(message.stream, stream, now_s)
        held = stream.pending.get(message.seq) or self._held(message.stream, message.seq)
        if held == digest:
            return Duplicate()
        return Answer(Conflict(stream=message.stream, seq=message.seq, next_seq=stream.next_seq))

    def check_owner(self, connection: bytes, name: str, seq: int | None) -> _Stream:
        """The stream, if ``connection`` may write it: WireError hello_required or fenced otherwise."""
        epoch = self._connections.get(connection, {}).get(name)
        stream = self._streams.get(name)
        if epoch is None or stream is None:
            raise WireError(ErrorCode.HELLO_REQUIRED, f"say hello for stream {name} first", name, seq)
        if epoch < stream.epoch:
            raise self._fenced(name, epoch, stream.epoch, seq)
        self._connections.move_to_end(connection)
        return stream

    def committed(self) -> None:
        """What was accepted is durable."""
        for stream in self._moved:
            stream.pending.clear()
            stream.durable_seq = stream.next_seq
        self._moved.clear()

    def rolled_back(self) -> None:
        """What was accepted is not durable and never was."""
        for stream in self._moved:
            stream.pending.clear()
            stream.next_seq = stream.durable_seq
        self._moved.clear()

    def learned(self, name: str, seq: int) -> None:
        """The learner has come as far as ``seq``."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.learned_seq = max(stream.learned_seq, seq)

    def cursor(self, name: str) -> tuple[int, int]:
        """The highest durable and the highest learned seq of a stream, -1 where there is none."""
        stream = self._streams[name]
        return stream.durable_seq - 1, stream.learned_seq

    def owner(self, name: str) -> tuple[bytes | None, bool]:
        """The connection that said hello last, and whether it wants ``learned``."""
        stream = self._streams.get(name)
        return (None, False) if stream is None else (stream.owner, stream.notify_learned)

    def epochs(self) -> dict[str, tuple[int, bool]]:
        """Of each stream the present epoch, and whether a connection has claimed it since the start."""
        return {name: (stream.epoch, stream.owner is not None) for name, stream in list(self._streams.items())}

    def _hole(self, name: str, stream: _Stream, now_s: float) -> Answer:
        if stream.hole is not None:
            start, told_s = stream.hole
            if start == stream.next_seq and now_s - told_s < RESEND_AGAIN_S:
                return Answer(None)
        stream.hole = (stream.next_seq, now_s)
        return Answer(Resend(stream=name, from_seq=stream.next_seq))

    def _fenced(self, name: str, epoch: int, present: int, seq: int | None = None) -> WireError:
        return WireError(
            ErrorCode.FENCED, f"stream {name} has another owner: epoch {epoch} is over, {present} is present", name, seq
        )
