"""The client's half of the wire, as a state machine without sockets, clock or disk.

Events go in (a fixation was spooled, a message came, time passed), actions come out, to be done in order: by
clients/courier.py, or by a test against a model of the worker that loses, repeats and delays messages.

======== ============================ ==========================================================
phase    event                        what happens
======== ============================ ==========================================================
idle     tick                         fresh socket, ``hello``: greeting
greeting ``welcome``                  open: what it acks is let go, the rest is sent from the lowest seq
greeting no answer in time            fresh socket, ``hello`` again, each time after a longer wait
open     spooled                      numbered (durably), then sent
open     ``ack``                      let go up to its seq
open     ``resend``                   sent again from its seq, everything after it too
open     fixations were dropped       ``hello`` again on the same socket, telling how many
open     2 s of silence, owed an ack  fresh socket, ``hello``: greeting
open     ``hello_required``           fresh socket, ``hello``: greeting
open     ``storage_full``, ``_failed`` kept; sent again from the lowest seq after a while
greeting ``storage_full``, ``_failed`` idle for a while
any      ``fenced``, other errors     failed, with the reason
======== ============================ ==========================================================

**Numbers.** A live stream numbers its fixations from the worker's ``next_seq``. A recording numbers its own from
0 and so meets what an earlier run has sent.

**Held seqs.** Below the ``next_seq`` of a claim (a ``hello`` without epoch) the worker holds fixations that may
be ours or another's. An ack says nothing about them, being cumulative. So they are *verified*: sent, a batch at
a time, each batch followed by a ``hello`` on the same connection. Its ``welcome`` comes after every answer to the
batch: a seq without a ``conflict`` by then is held with our content. In a recording a conflict is an error; in
a live stream the fixation is numbered anew after everything held was verified, so none is lost or learned twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clients import actions as acts
from clients import wire
from clients.actions import Action, Connect, Counts, Entry, Fail, Greet, LetGo, Number, Phase, Remember, Send
from clients.drops import Drops
from clients.errors import ClientError, Fenced, KeyRefused, Refused, StreamConflict
from clients.wire import ErrorCode

SILENCE_S = 2.0
LONGEST_WAIT_S = 5.0
WINDOW = 128
"""Fixations sent and not acked, at most."""
VERIFY_BATCH = 32
STORAGE_WAIT_S = (1.0, 2.0, 4.0, 8.0)
"""How long to wait after each refusal by a full disk; the last one repeats."""


class Protocol:
    """One stream's conversation with the worker.

    ``entries``, ``epoch``, ``acked`` and ``held_end`` are what the spool remembers (a recording begins with none).
    ``hold_back``: how far a seq may be ahead of what is learned, None for no limit. Times are seconds of any
    clock that does not step back.
    """

    def __init__(
        self,
        stream: str,
        *,
        notify_learned: bool = True,
        recording: bool = False,
        hold_back: int | None = None,
        entries: Sequence[Entry] = (),
        epoch: int | None = None,
        acked: int = -1,
        held_end: int = 0,
        drops: Drops | None = None,
    ) -> None:
        self.stream = stream
        self.drops = drops or Drops()
        self.phase = Phase.IDLE
        self.epoch = epoch
        self.acked = acked
        self.learned = -1
        self.next_seq: int | None = None
        """The worker's, at the first welcome of this session."""
        self.counts = Counts()
        self.trouble: str | None = None
        """Why it does not go on at the moment, in words; None while it does."""
        self.want_learned = False
        """Whether someone waits for ``learned``, so that silence about it is worth asking."""
        self._notify_learned = notify_learned
        self._recording = recording
        self._hold_back = hold_back
        self._entries = list(entries)
        self._conflicted: list[Entry] = []
        self._held_end = held_end
        self._verify_below = 0
        self._held_next = 0
        self._numbered = sum(entry.seq is not None for entry in self._entries)
        self._next_number = 0
        self._assumed_learned = -1
        self._sent = 0
        self._furthest_row = -1
        self._learned_told = self._barrier = self._claiming = False
        self._conflicts: set[int] = set()
        self._attempts = self._refusals = self._ghosts = 0
        self._greet_at_s = -math.inf
        self._paused_until_s: float | None = None
        self._owed_since_s: float | None = None

    @property
    def waiting(self) -> int:
        """Fixations that are not acked."""
        return len(self._entries) + len(self._conflicted)

    @property
    def all_acked(self) -> bool:
        """Whether everything offered is durable at the worker."""
        return not self.waiting and not self._barrier and self.next_seq is not None

    @property
    def all_learned(self) -> bool:
        """Whether everything offered is durable and learned."""
        return self.all_acked and (self.counts.acked == 0 or self.learned >= self.acked)

    def offered(self, row: int, now_s: float) -> list[Action]:
        """A fixation was spooled as ``row``."""
        self._entries.append(Entry(row, None))
        return self._noted(self._pump(), now_s)

    def tick(self, now_s: float) -> list[Action]:
        """Time has passed."""
        if self.phase is Phase.FAILED:
            return []
        if self.phase is not Phase.OPEN:
            return self._connect(now_s) if now_s >= self._greet_at_s else []
        actions: list[Action] = []
        if self._paused_until_s is not None and now_s >= self._paused_until_s:
            self._paused_until_s, self._sent = None, 0
            actions = self._pump()
        elif self._owed_since_s is not None and now_s >= self._owed_since_s + SILENCE_S:
            return self._connect(now_s)
        elif self._paused_until_s is None and not self._barrier and self._next_number >= self._verify_below:
            actions += [Greet(self._hello())] if self.drops.due(now_s) else []  # else its welcome were a batch's
        return self._noted(actions, now_s)

    def deadline_s(self) -> float | None:
        """When :meth:`tick` has to be called next, at the latest; None: when something happens."""
        if self.phase is not Phase.OPEN:
            return None if self.phase is Phase.FAILED else self._greet_at_s
        if self._paused_until_s is not None:
            return self._paused_until_s
        return None if self._owed_since_s is None else self._owed_since_s + SILENCE_S

    def received(self, message: wire.Message, now_s: float) -> list[Action]:
        """A message came from the present socket. Messages about other streams are not for us."""
        talking = self.phase in (Phase.GREETING, Phase.OPEN)
        if not talking or getattr(message, "stream", None) not in (None, self.stream):
            return []
        self._owed_since_s = None
        return self._noted(self._answered(message, now_s), now_s)

    def _answered(self, message: wire.Message, now_s: float) -> list[Action]:
        if isinstance(message, wire.Error):
            return self._error(message, now_s)
        if isinstance(message, wire.Welcome):
            self.drops.welcomed()
            return self._verified(message) if self._barrier else self._welcome(message)
        if self.phase is not Phase.OPEN:
            return []
        if isinstance(message, wire.Ack):
            self._hear_learned(message.learned)
            return self._let_go(self._verify_below, message.seq) + self._pump()
        if isinstance(message, wire.Learned):
            self._hear_learned(message.seq)
            return self._pump()
        if isinstance(message, wire.Resend):
            return self._resend(message.from_seq, now_s)
        return self._conflict(message, now_s) if isinstance(message, wire.Conflict) else []

    # --- beginning -----------------------------------------------------------------------------------------------

    def _connect(self, now_s: float) -> list[Action]:
        self._ghosts += self.phase is Phase.GREETING and self._claiming
        self.phase = Phase.GREETING
        self._barrier = False
        self._paused_until_s = self._owed_since_s = None
        self._claiming = self.epoch is None
        self._greet_at_s = now_s + min(SILENCE_S * 1.5**self._attempts, LONGEST_WAIT_S)
        self._attempts += 1
        if self._attempts > 2:
            self.trouble = "no answer from the worker; trying again"
        return [Connect(self._hello())]

    def _hello(self) -> wire.Hello:
        return wire.Hello(
            stream=self.stream,
            notify="learned" if self._notify_learned else "durable",
            epoch=self.epoch,
            acked=self.acked if self.epoch is not None or self.acked >= 0 else None,
            have_from=self._entries[0].seq if self._entries else None,
            dropped=self.drops.to_say(),
        )

    def _welcome(self, welcome: wire.Welcome) -> list[Action]:
        if self.phase is not Phase.GREETING:
            return []
        unfit = acts.why_unfit(welcome, self._entries[0].seq if self._entries else None)
        if unfit:
            return self._fail(Refused(f"stream {self.stream}: {unfit}"))
        self.phase = Phase.OPEN
        self._attempts = self._sent = 0
        self.trouble = None
        self._conflicts.clear()
        self.next_seq = welcome.next_seq if self.next_seq is None else self.next_seq
        if self._claiming:
            self._held_end = welcome.next_seq
        if not self._learned_told:
            # Unless nothing is held, it is not known what is learned: one fixation's ack will tell.
            self._assumed_learned = welcome.next_seq - (self._hold_back or 0) if welcome.next_seq else -1
        self.epoch = welcome.epoch
        self._verify_below = min(self._held_end, welcome.next_seq)
        actions: list[Action] = [Remember(self.epoch, self._held_end)]
        actions += self._let_go(self._verify_below, welcome.next_seq - 1)
        if not self._recording:
            last = self._entries[self._numbered - 1].seq if self._numbered else None
            self._next_number = max(welcome.next_seq, -1 if last is None else last + 1)
        actions += self._pump()
        if not self._sent and self.counts.sent and self.learned < self.acked:
            actions.append(acts.SendLast())
        return actions

    # --- sending -------------------------------------------------------------------------------------------------

    def _pump(self) -> list[Action]:
        """Number and send what may be sent now."""
        if self.phase is not Phase.OPEN or self._barrier or self._paused_until_s is not None:
            return []
        actions = self._number() if self._recording else []
        if self._entries and self._is_held(self._entries[0]):
            while self._sent < min(len(self._entries), VERIFY_BATCH) and self._is_held(self._entries[self._sent]):
                actions.append(self._send_next())
            self._barrier = True
            return [*actions, Greet(self._hello())]
        actions += self._renumber() if self._conflicted else self._number()
        while self._sent < min(self._numbered, WINDOW) and self._may_send(self._entries[self._sent]):
            actions.append(self._send_next())
        return actions

    def _is_held(self, entry: Entry) -> bool:
        return entry.seq is not None and entry.seq < self._verify_below

    def _may_send(self, entry: Entry) -> bool:
        assert entry.seq is not None
        learned = self.learned if self._learned_told else self._assumed_learned
        return self._hold_back is None or entry.seq <= learned + self._hold_back

    def _send_next(self) -> Action:
        entry = self._entries[self._sent]
        assert entry.seq is not None
        self._sent += 1
        if entry.row > self._furthest_row:
            self._furthest_row = entry.row
            self.counts.sent += 1
        return Send(entry.row, entry.seq)

    def _number(self) -> list[Action]:
        fresh = self._entries[self._numbered :]
        for entry in fresh:
            entry.seq = self._next_number
            self._next_number += 1
        self._numbered = len(self._entries)
        return [Number(tuple((entry.row, entry.seq) for entry in fresh if entry.seq is not None))] if fresh else []

    def _renumber(self) -> list[Action]:
        """Everything held was verified: what was in conflict comes next, then the rest, all numbered anew.

        Safe because none of it was sent under this epoch with a seq that is not held.
        """
        self._entries = self._conflicted + self._entries
        self._conflicted = []
        self._numbered, self._next_number = 0, self._held_next
        self._held_end = self._verify_below = 0
        return [*self._number(), Remember(self.epoch, self._held_end)]

    # --- answers -------------------------------------------------------------------------------------------------

    def _let_go(self, lowest: int, highest: int) -> list[Action]:
        """Drop the entries with ``lowest`` <= seq <= ``highest``: they are durable and ours."""
        begin = next((i for i, e in enumerate(self._entries) if e.seq is None or e.seq >= lowest), len(self._entries))
        end = begin
        while end < self._numbered and (self._entries[end].seq or 0) <= highest:
            end += 1
        return self._drop(begin, end, self._entries[begin:end])

    def _drop(self, begin: int, end: int, durable: list[Entry]) -> list[Action]:
        if begin == end:
            return []
        del self._entries[begin:end]
        self._numbered -= end - begin
        self._sent -= max(0, min(self._sent, end) - begin)
        if not durable:
            return []
        assert durable[-1].seq is not None
        self._furthest_row = max(self._furthest_row, durable[-1].row)
        self.acked = max(self.acked, durable[-1].seq)
        self.counts.acked += len(durable)
        self.counts.sent = max(self.counts.sent, self.counts.acked)
        self._refusals, self._ghosts, self.trouble = 0, 0, None
        self._count_learned()
        return [LetGo(tuple(entry.row for entry in durable), self.acked)]

    def _verified(self, welcome: wire.Welcome) -> list[Action]:
        """The answer to a batch's ``hello``: every conflict in the batch has been told."""
        self._barrier = False
        batch = self._entries[: self._sent]
        ours = [entry for entry in batch if entry.seq not in self._conflicts]
        self._conflicted += [entry for entry in batch if entry.seq in self._conflicts]
        self._conflicts.clear()
        self.counts.held += len(ours)
        self._held_next = welcome.next_seq
        return self._drop(0, len(batch), ours) + self._pump()

    def _resend(self, from_seq: int, now_s: float) -> list[Action]:
        if self._barrier:
            return []
        if from_seq <= self.acked:
            return self._connect(now_s)  # it lost what it had acked: hello tells it what is still there
        while self._sent > 0 and (self._entries[self._sent - 1].seq or 0) >= from_seq:
            self._sent -= 1
        return self._pump()

    def _conflict(self, conflict: wire.Conflict, now_s: float) -> list[Action]:
        if not any(entry.seq == conflict.seq for entry in self._entries[: self._sent]):
            return []
        if self._recording:
            return self._fail(
                StreamConflict(
                    f"stream {self.stream} holds other fixations than this recording gives (its number {conflict.seq} "
                    "differs): name a new one with --stream"
                )
            )
        if conflict.seq < self._verify_below:
            self._conflicts.add(conflict.seq)
            return []
        # Not ours, though it was sent under our epoch: claim anew, which shuts out whatever is still under way.
        self.epoch = None
        return [Remember(None, 0), *self._connect(now_s)]

    def _error(self, error: wire.Error, now_s: float) -> list[Action]:
        said = f"stream {self.stream}: the worker says {error.code}: {error.detail}"
        if error.code == ErrorCode.HELLO_REQUIRED.value:
            return self._connect(now_s) if self.phase is Phase.OPEN else []
        if error.code in (ErrorCode.STORAGE_FULL.value, ErrorCode.STORAGE_FAILED.value):
            return self._storage(error.detail, now_s)
        if error.code == ErrorCode.FENCED.value:
            self.epoch = None
            if self._ghosts:  # a claim of our own that was given up, and heard after the present one
                self._ghosts = 0
                return [Remember(None, 0), *self._connect(now_s)]
            what_now = "Another client has claimed it; starting this one again claims it back"
            return [Remember(None, 0), *self._fail(Fenced(f"{said}. {what_now}"))]
        if error.code == ErrorCode.BAD_MESSAGE.value and self.drops.refused():
            return self._connect(now_s)  # a worker that knows no ``dropped``
        return self._fail((KeyRefused if error.code == ErrorCode.UNAUTHORIZED.value else Refused)(said))

    def _storage(self, detail: str, now_s: float) -> list[Action]:
        """The worker can't write: ask again later. Many answers to one burst count once."""
        if self._paused_until_s is not None:
            return []
        again_s = now_s + STORAGE_WAIT_S[min(self._refusals, len(STORAGE_WAIT_S) - 1)]
        self._refusals += 1
        self.trouble = f"the worker can't store: {detail}; trying again"
        if self.phase is Phase.OPEN and not self._barrier:
            self._paused_until_s = again_s
        else:
            self.phase, self._barrier, self._greet_at_s = Phase.IDLE, False, again_s
        return []

    def _fail(self, error: ClientError) -> list[Action]:
        self.phase = Phase.FAILED
        return [Fail(error)]

    # --- what is owed and learned --------------------------------------------------------------------------------

    def _hear_learned(self, seq: int) -> None:
        self.learned = max(self.learned, seq)
        self._learned_told = True
        self._count_learned()

    def _count_learned(self) -> None:
        self.counts.learned = max(self.counts.learned, self.counts.acked - max(0, self.acked - self.learned))

    def _noted(self, actions: list[Action], now_s: float) -> list[Action]:
        """Start or stop the clock of the silence."""
        held_back = self._hold_back is not None and self._sent < self._numbered
        asks = (self.want_learned or held_back) and self.learned < self.acked
        owed = self.phase is Phase.OPEN and self._paused_until_s is None and (self._barrier or self._sent > 0 or asks)
        if not owed:
            self._owed_since_s = None
        elif self._owed_since_s is None:
            self._owed_since_s = now_s
        return actions
