"""The door for fixations: one ROUTER in one thread.

A turn of the loop takes what has come (up to a few hundred messages), lets :mod:`service.admission` judge it,
journals what was accepted in one commit and only then acks: :meth:`Ingest._commit` is the one place
that sends an ``ack``. Bad messages are answered and dropped; they move nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from clients import wire
from clients.wire import ErrorCode, FixationMessage, Hello, WireError
from service.access import Access, user_id
from service.admission import Accept, Admission, Answer
from service.alarms import checked
from service.errors import StorageFailed
from service.journal import Admitted, Alarm, Journal
from service.mailbox import Mailbox
from service.patches import check_patch

DRAIN = 512
"""Messages of one turn, hence at most so many fixations in one commit."""
DRAIN_BYTES = 16 << 20
"""Of the patches of one turn, after which it ends: they are held in memory until they are committed."""
RECEIVE_QUEUE = 128
"""Messages ZeroMQ holds for one connection before the network pushes back."""
SEND_QUEUE = 2048
"""Messages ZeroMQ holds for a client that does not read; then they are dropped."""
HANDSHAKE_MS = 10_000
"""How long a connection may take to say what it is; then it is cut."""
PROBE_S = 1.0
"""How often a disk that refused a write is asked again while nothing comes."""

log = logging.getLogger("rjepa.ingest")


def configure(socket: zmq.Socket[Any]) -> None:
    """The options of the ROUTER, before it is bound."""
    socket.linger = 0
    socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
    socket.rcvhwm = RECEIVE_QUEUE
    socket.sndhwm = SEND_QUEUE
    socket.heartbeat_ivl = 5_000
    socket.heartbeat_timeout = 20_000
    socket.handshake_ivl = HANDSHAKE_MS


class Ingest(threading.Thread):
    """Owns ``socket``, a bound ROUTER, from :meth:`start` on.

    ``on_append`` is called when the journal has grown, ``on_dropped`` with what a client dropped of a stream, before it
    is welcomed, ``on_end`` when the thread ends, whatever the reason.
    """

    def __init__(
        self,
        socket: zmq.Socket[Any],
        journal: Journal,
        access: Access,
        model: wire.ModelOffer,
        *,
        on_append: Callable[[], None],
        on_dropped: Callable[[str, wire.Dropped], None],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name="ingest", daemon=True)
        self._socket = socket
        self._journal = journal
        self._access = access
        self._model = model
        self._on_append = on_append
        self._on_dropped = on_dropped
        self._on_end = on_end
        self._admission = Admission(journal.cursors(), journal.digest)
        self._mail: Mailbox[list[wire.Learned]] = Mailbox()
        self._stopping = threading.Event()
        self._batch: list[Admitted] = []
        self._batch_bytes = 0
        self._senders: dict[tuple[bytes, str], int] = {}
        self._news: dict[tuple[bytes, str], None] = {}
        self._probe_at_s = 0.0
        self.storage: str | None = None
        """Why the journal can't be written at the moment; None while it can."""

    def tell(self, learned: list[wire.Learned]) -> None:
        """These were learned and their records are durable. From any thread."""
        self._mail.put(learned)

    def owners(self) -> dict[str, dict[str, Any]]:
        """Of each stream the present epoch and whether a client has claimed it since the start. From any thread."""
        return {
            name: {"connected": claimed, "epoch": epoch} for name, (epoch, claimed) in self._admission.epochs().items()
        }

    def stop(self) -> None:
        """Take nothing more; what was accepted is durable when this returns."""
        self._stopping.set()
        if self.is_alive():
            self._mail.put([])
            self.join()

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._mail.fileno(), zmq.POLLIN)
        try:
            while not self._stopping.is_set():
                poller.poll(int(PROBE_S * 1000))
                self._turn()
        except Exception:  # the thread's boundary: the worker ends with it, and says why
            log.exception("ingest ended by an error of its own")
        finally:
            self._socket.close()
            self._mail.close()
            self._on_end()

    def _turn(self) -> None:
        for _ in range(DRAIN):
            if self._batch_bytes >= DRAIN_BYTES:
                break
            try:
                identity, user, frames = self._receive()
            except zmq.Again:
                break
            try:
                self._take(identity, user, frames)
            except WireError as error:
                self._refuse(identity, error)
            except StorageFailed as error:
                self._refuse(identity, WireError(error.wire_code, str(error)))
        self._hear()
        self._commit()
        self._probe()

    def _receive(self) -> tuple[bytes, str | None, list[bytes]]:
        """A message's sender, its key, its frames; of a message with too many frames the first, and one too many."""
        # As frames, which know whether more come: asking the socket costs more than the frame does.
        part = self._socket.recv(zmq.NOBLOCK, copy=False)
        user = None if self._access.curve is None else user_id(part)
        identity, frames = part.bytes, list[bytes]()
        while part.more:
            part = self._socket.recv(copy=False)
            if len(frames) <= wire.MAX_FRAMES:
                frames.append(part.bytes)
        return identity, user, frames

    def _take(self, identity: bytes, user: str | None, frames: list[bytes]) -> None:
        message, patch = wire.decode(frames, wire.FROM_CLIENT)
        assert isinstance(message, Hello | FixationMessage)
        if not self._access.may_write(user, message.stream):
            raise WireError(ErrorCode.UNAUTHORIZED, f"this key may not write stream {message.stream}", message.stream)
        if isinstance(message, Hello):
            self._commit()
            self._hello(identity, message)
        else:
            assert patch is not None
            self._fixation(identity, message, patch)

    def _hello(self, identity: bytes, hello: Hello) -> None:
        claim = self._admission.hello(identity, hello)
        now_s = time.time()
        if claim.fresh or claim.lost:
            alarm = None
            if claim.lost:
                told = f"seq {claim.lost.start} to {claim.lost.stop - 1} are held neither by client nor journal"
                alarm = checked(Alarm("data_lost", told, hello.stream))
            with self._stored(hello.stream):
                self._journal.claim(hello.stream, claim.epoch, now_s, lost=claim.lost, alarm=alarm)
        if hello.dropped is not None:
            with self._stored(hello.stream):
                self._on_dropped(hello.stream, hello.dropped)
        next_seq = self._admission.granted(identity, hello, claim)
        if claim.lost:
            self._on_append()
        offer = wire.PatchOffer(
            height=wire.PATCH_HEIGHT_PX,
            width=wire.PATCH_WIDTH_PX,
            channels=3,
            encodings=list(wire.ENCODINGS),
            degrees=wire.PATCH_DEGREES,
        )
        self._send(
            identity,
            wire.Welcome(stream=hello.stream, epoch=claim.epoch, next_seq=next_seq, patch=offer, model=self._model),
        )
        if next_seq > 0 and (hello.epoch is not None or hello.acked is not None):
            self._news[identity, hello.stream] = None

    @contextmanager
    def _stored(self, stream: str) -> Iterator[None]:
        """What a hello of ``stream`` makes durable; where the disk refuses, the hello is refused."""
        try:
            yield
        except StorageFailed as error:
            self._trouble(error)
            raise WireError(error.wire_code, str(error), stream) from error

    def _fixation(self, identity: bytes, message: FixationMessage, patch: bytes) -> None:
        stream = self._admission.check_owner(identity, message.stream, message.seq)
        try:
            check_patch(message.patch, patch)
        except WireError as error:
            raise WireError(error.code, error.detail, message.stream, message.seq) from None
        digest = wire.digest(message.onset, message.duration, message.gaze, patch)
        outcome = self._admission.judge(stream, message, digest, time.monotonic())
        if isinstance(outcome, Answer):
            if outcome.message is not None:
                self._send(identity, outcome.message)
            return
        if isinstance(outcome, Accept):
            self._batch.append(_admitted(message, digest, patch))
            self._batch_bytes += len(patch)
        self._senders.setdefault((identity, message.stream), message.seq)

    def _hear(self) -> None:
        """What the learning loop has told: ``learned`` to the owners who asked, an ack to every owner."""
        for learned in self._mail.take():
            for message in learned:
                self._admission.learned(message.stream, message.seq)
                owner, wanted = self._admission.owner(message.stream)
                if owner is not None:
                    self._news[owner, message.stream] = None
                    if wanted:
                        self._send(owner, message)

    def _commit(self) -> None:
        """Journal what was accepted, then ack. The only place that acks, and only after the commit returned.

        1. the batch is journalled in one commit; 2. the cursors move; 3. each sender gets one cumulative ack, up
        to its stream's cursor; so does each owner whose stream was learned further. If 1 fails, the cursors go
        back, the senders get the error and nothing of theirs is acked.
        """
        senders, self._senders = self._senders, {}
        news, self._news = self._news, {}
        batch, self._batch = self._batch, []
        self._batch_bytes = 0
        if batch:
            try:
                self._journal.append(batch)
            except StorageFailed as error:
                self._admission.rolled_back()
                self._trouble(error)
                for (identity, stream), seq in senders.items():
                    self._refuse(identity, WireError(error.wire_code, str(error), stream, seq))
                senders = {}
            else:
                self._admission.committed()
                self.storage = None
                self._on_append()
        for identity, stream in senders | news:
            durable, learned = self._admission.cursor(stream)
            self._send(identity, wire.Ack(stream=stream, seq=durable, learned=learned))

    def _trouble(self, error: StorageFailed) -> None:
        if self.storage is None:
            log.error("%s", error)
        self.storage = str(error)
        self._probe_at_s = time.monotonic() + PROBE_S

    def _probe(self) -> None:
        """Ask a disk that refused a write whether it takes one now, so that readiness comes back by itself."""
        if self.storage is None or time.monotonic() < self._probe_at_s:
            return
        try:
            self._journal.put_meta("probe", str(time.time()))
        except StorageFailed as error:
            self._trouble(error)
        else:
            self.storage = None
            log.warning("the journal takes writes again")

    def _refuse(self, identity: bytes, error: WireError) -> None:
        self._send(identity, wire.Error(code=error.code.value, detail=error.detail, stream=error.stream, seq=error.seq))

    def _send(self, identity: bytes, message: wire.Message) -> None:
        # A ROUTER drops what is for a connection that is gone, or that does not read.
        self._socket.send_multipart([identity, *wire.encode(message)], zmq.NOBLOCK)


def _admitted(message: FixationMessage, digest: bytes, patch: bytes) -> Admitted:
    return Admitted(
        message.stream,
        message.seq,
        time.time(),
        message.model_dump_json(exclude_none=True),
        digest,
        patch,
        padded=bool(message.patch.padded),
        frame_deg_assumed=message.frame_deg is None,
    )
