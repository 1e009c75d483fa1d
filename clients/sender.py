"""Fixations to the worker, none lost and none twice: a queue, a spool on disk, and a thread that talks.

::

    with Sender("tcp://127.0.0.1:5555", stream="s1") as sender:
        sender.offer(onset_s=0.0, duration_s=0.25, gaze=(0.5, 0.5), patch=patch)   # uint8 (50, 50, 3), RGB

``offer`` returns at once: the thread writes the fixation to the spool, numbers it once the worker has said
welcome, sends it, and lets go of it when it is acked. What to say when is in clients/protocol.py; here
are the caller's side and the thread; the socket and the disk are in clients/courier.py.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import zmq
from pydantic import ValidationError

from clients import wire
from clients.actions import Phase
from clients.connection import check_address, read_keys
from clients.courier import Courier
from clients.drops import Drops
from clients.errors import BadFixation, ClientError, OptionError, SenderClosed
from clients.patches import check_patch
from clients.protocol import Protocol
from clients.spool import Spool

if TYPE_CHECKING:
    from typing_extensions import Self

QUEUE = 256
"""Fixations between the caller and the thread, at most."""
CAPACITY = 10_000
"""Fixations in the spool, at most: 80 MB, three quarters of an hour of a live viewer."""
CLOSE_WAIT_S = 10.0

log = logging.getLogger("rjepa.sender")


@dataclass(frozen=True)
class Status:
    """Where a sender stands. Counts are of fixations offered to this sender."""

    phase: str = "idle"
    taken: int = 0
    """In the spool or beyond."""
    sent: int = 0
    acked: int = 0
    learned: int = 0
    held: int = 0
    """Of the acked, those the worker held already."""
    dropped: int = 0
    """Offered in vain: there was no room."""
    waiting: int = 0
    """In the spool, not acked; with what an earlier run left."""
    backlog: int = 0
    """What an earlier run had left in the spool."""
    next_seq: int | None = None
    """The worker's at the first welcome; None before it."""
    epoch: int | None = None
    all_acked: bool = False
    all_learned: bool = False
    trouble: str | None = None
    """Why it does not go on at the moment."""


class Sender:
    """One stream to one worker; every method may be called from any thread.

    ``recording``: number from 0, in the recording's own order; conflicts are errors, and the spool
    begins empty, or is refused where it holds what a live stream of this name has not sent.
    ``finite``: the stream has an end; closed with everything acked, the spool is emptied and forgets the stream.
    ``hold_back``: how many fixations may be sent ahead of the learner (a live stream: no limit).
    ``on_learned`` is called in the sender's thread with every ``learned`` message.
    """

    def __init__(
        self,
        address: str = "tcp://127.0.0.1:5555",
        stream: str = "",
        *,
        spool_dir: Path | str | None = None,
        key_file: Path | str | None = None,
        recording: bool = False,
        finite: bool = False,
        hold_back: int | None = None,
        capacity: int = CAPACITY,
        on_learned: Callable[[wire.Learned], None] | None = None,
    ) -> None:
        try:
            self.stream = wire.check_stream_name(stream)
        except wire.WireError as error:
            raise OptionError(error.detail) from None
        self.address = check_address(address)
        keys = read_keys(Path(key_file)) if key_file is not None else None
        self._finite = finite
        self._capacity = capacity
        self.spool_dir = Path(spool_dir) if spool_dir is not None else default_spool(address, stream)
        """Where fixations are kept until they are acked."""
        spool = Spool(self.spool_dir, stream)
        try:
            if recording:
                spool.begin_recording()
            else:
                spool.begin_live()
        except BaseException:
            spool.close()
            raise
        entries = spool.entries()
        self._drops = Drops(time.time())
        self._protocol = Protocol(
            stream,
            recording=recording,
            hold_back=hold_back,
            entries=entries,
            epoch=spool.epoch,
            acked=spool.acked,
            held_end=spool.held_end,
            drops=self._drops,
        )
        self._backlog = len(entries)
        self._offers: queue.Queue[tuple[str, bytes]] = queue.Queue(QUEUE)
        self._offered = self._taken = 0
        self._changed = threading.Condition()
        self._status = Status(backlog=self._backlog, waiting=self._backlog, epoch=self._protocol.epoch)
        self._stopping = threading.Event()
        self._closed = False
        self._context: zmq.Context[Any] = zmq.Context()
        self._courier = Courier(self._context, address, keys, spool, self._protocol, on_learned)
        self._listen, self._wake = self._pair()
        self._thread = threading.Thread(target=self._run, name=f"sender-{stream}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._closed:
                self.flush(learned=False, timeout_s=CLOSE_WAIT_S)
        finally:
            self.close()

    @property
    def status(self) -> Status:
        """A snapshot."""
        return self._status

    def offer(
        self,
        *,
        onset_s: float,
        duration_s: float,
        gaze: tuple[float, float],
        patch: Any,
        gaze_deg: tuple[float, float] | None = None,
        frame_deg: tuple[float, float] | None = None,
        padded: float | None = None,
        sequence: str | None = None,
        wait_s: float = 0.0,
    ) -> bool:
        """Hand over a fixation: its times (s, the source's clock), gaze (fractions of the frame, origin top left) and
        patch (uint8 (50, 50, 3), RGB, 5 degrees).

        ``gaze_deg``: the gaze in degrees from the frame's top left; ``frame_deg``: the frame's width and height;
        ``padded``: the fraction of the patch outside the frame; ``sequence``: the name of the new sequence that
        begins with this fixation. Returns False if queue and spool are full, and still are after ``wait_s``: the
        fixation was not taken, gets no seq, and is counted as dropped here and at the worker, which raises the alarm
        ``spool_full``; who would rather try again asks :meth:`wait_room` first. Raises :class:`BadFixation`,
        :class:`SenderClosed`, or the error that ended the sender.
        """
        offered = _body(onset_s, duration_s, gaze, gaze_deg, frame_deg, padded, sequence), check_patch(patch).tobytes()
        with self._changed:
            self._check_open()
            taken = self._room_within(wait_s)
            if taken:
                self._offers.put_nowait(offered)
                self._offered += 1
            else:
                self._drops.count += 1
            self._wake_up()
        return taken

    def wait_room(self, timeout_s: float) -> bool:
        """Wait until there is room for one more fixation; False after ``timeout_s``. Raises as :meth:`offer`."""
        with self._changed:
            self._check_open()
            return self._room_within(timeout_s)

    def wait_welcome(self, timeout_s: float | None = None) -> int | None:
        """Wait until the worker has said welcome; its ``next_seq`` then, None after ``timeout_s``."""
        self._wait(lambda status: status.next_seq is not None, timeout_s)
        return self._status.next_seq

    def flush(self, *, learned: bool = True, timeout_s: float | None = None) -> bool:
        """Wait until everything offered is durable at the worker and (``learned``) learned; False after ``timeout_s``.

        Raises the error that ended the sender.
        """
        self._protocol.want_learned = learned
        with self._changed:
            self._wake_up()

        def done(status: Status) -> bool:
            return status.taken == self._offered and (status.all_learned if learned else status.all_acked)

        return self._wait(done, timeout_s)

    def close(self) -> None:
        """End the thread and give the spool back. What is not acked stays in it, for the next time."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._stopping.set()
            self._wake_up()
        self._thread.join()
        with self._changed:
            self._wake.close()
        self._context.term()

    # --- any thread ----------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._courier.error is not None:
            raise self._courier.error
        if self._closed:
            raise SenderClosed(f"the sender of stream {self.stream} was closed")

    def _room_within(self, timeout_s: float) -> bool:
        """Whether the queue has room, now or within ``timeout_s``. Held by the lock of ``_changed``."""
        end_s = time.monotonic() + timeout_s
        while self._offers.full():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            self._changed.wait(left_s)
            self._check_open()
        return True

    def _wait(self, condition: Callable[[Status], bool], timeout_s: float | None) -> bool:
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not condition(self._status):
                self._check_open()
                left_s = 0.5 if end_s is None else min(0.5, end_s - time.monotonic())
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
            return True

    def _wake_up(self) -> None:
        """Let the thread look. Held by the lock of ``_changed``, as a socket is no matter of two threads."""
        if not self._wake.closed:
            try:
                self._wake.send(b"", zmq.NOBLOCK)
            except zmq.Again:
                return  # it has been woken often enough

    def _pair(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        listen, wake = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        for socket in (listen, wake):
            socket.linger = 0
            socket.sndhwm = socket.rcvhwm = 2
        listen.bind("inproc://wake")
        wake.connect("inproc://wake")
        return listen, wake

    # --- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        courier = self._courier
        try:
            while not self._stopping.is_set() and courier.error is None:
                self._hand_over()
                courier.turn(time.monotonic())
                self._tell()
                if self._offers.empty() or courier.busy or self._room() <= 0:
                    courier.poll(self._listen)
        except ClientError as error:
            courier.error = error
        except Exception as error:  # the thread's boundary: whoever offers or flushes next is told
            log.exception("the sender of stream %s ended", self.stream)
            courier.error = ClientError(f"the sender of stream {self.stream} ended: {error!r}")
        finally:
            try:
                courier.leave(self._rest(), finite=self._finite)
            finally:  # whoever closes waits for this socket
                self._listen.close()
                self._tell()

    def _hand_over(self) -> None:
        """From the queue to the spool, as many as fit."""
        while not self._courier.busy:
            count = min(QUEUE // 4, self._room())
            offers = [offer for _, offer in zip(range(count), self._rest(), strict=False)]
            self._courier.take(offers, time.monotonic())
            self._taken += len(offers)
            if not offers:
                return

    def _room(self) -> int:
        """How many more fixations the spool takes."""
        return self._capacity - self._protocol.waiting

    def _rest(self) -> Iterator[tuple[str, bytes]]:
        """What is in the queue."""
        while True:
            try:
                yield self._offers.get_nowait()
            except queue.Empty:
                return

    def _tell(self) -> None:
        """Publish where it stands, if that changed."""
        protocol, counts, backlog = self._protocol, self._protocol.counts, self._backlog
        status = Status(
            phase=protocol.phase.value if self._courier.error is None else Phase.FAILED.value,
            taken=self._taken,
            sent=max(0, counts.sent - backlog),
            acked=max(0, counts.acked - backlog),
            learned=max(0, counts.learned - backlog),
            held=counts.held,
            dropped=self._drops.count,
            waiting=protocol.waiting,
            backlog=backlog,
            next_seq=protocol.next_seq,
            epoch=protocol.epoch,
            all_acked=protocol.all_acked and not self._courier.busy,
            all_learned=protocol.all_learned and not self._courier.busy,
            trouble=self._courier.trouble or protocol.trouble,
        )
        with self._changed:
            self._status = status
            self._changed.notify_all()


def default_spool(address: str, stream: str) -> Path:
    """Where the fixations of ``stream`` for the worker at ``address`` wait if no folder is named."""
    import platformdirs

    where = "".join(c if c.isalnum() or c in ".-" else "_" for c in address.partition("://")[2])
    return platformdirs.user_state_path("rjepa", appauthor=False) / "spool" / where / stream


def _body(
    onset_s: float,
    duration_s: float,
    gaze: tuple[float, float],
    gaze_deg: tuple[float, float] | None,
    frame_deg: tuple[float, float] | None,
    padded: float | None,
    sequence: str | None,
) -> str:
    """The JSON of a fixation without stream and seq, checked. Raises :class:`BadFixation`."""
    try:
        message = wire.FixationMessage(
            stream="any",
            seq=0,
            onset=float(onset_s),
            duration=float(duration_s),
            gaze=wire.Gaze(x=float(gaze[0]), y=float(gaze[1])),
            gaze_deg=None if gaze_deg is None else wire.GazeDegrees(x=float(gaze_deg[0]), y=float(gaze_deg[1])),
            frame_deg=None
            if frame_deg is None
            else wire.FrameDegrees(width=float(frame_deg[0]), height=float(frame_deg[1])),
            patch=wire.PatchHeader.ours(padded),
            sequence=None if sequence is None else wire.SequenceMark(id=sequence, start=True),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadFixation(f"fixation: {error.title} {where}: {first['msg']} (got {first['input']!r})") from None
    return message.model_dump_json(exclude={"stream", "seq"}, exclude_none=True)
