"""The client's state machine against a model of the worker, over a network that cuts, delays and crashes.

Whatever happened: once the network is kind again, the worker holds every fixation offered, once and in order.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clients import actions as acts
from clients import wire
from clients.errors import ClientError, Fenced, StreamConflict
from clients.protocol import Protocol
from tests.clients.model_worker import ModelWorker

STREAM = "s1"
HEADER = wire.PatchHeader(encoding="raw", height=50, width=50, channels=3, color="rgb", degrees=5.0)


def fixation(content: int, seq: int) -> wire.FixationMessage:
    return wire.FixationMessage(
        stream=STREAM, seq=seq, onset=float(content), duration=0.2, gaze=wire.Gaze(x=0.5, y=0.5), patch=HEADER
    )


@dataclass
class Disk:
    """What a spool holds through a crash of the client."""

    rows: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    epoch: int | None = None
    acked: int = -1
    held_end: int = 0


@dataclass
class Line:
    """One connection: messages under way in each direction, in order."""

    name: int
    to_worker: deque[wire.Message] = field(default_factory=deque)
    to_client: deque[wire.Message] = field(default_factory=deque)
    up: bool = True


class World:
    """A client, a worker, and the lines between them."""

    def __init__(self, *, recording: bool, hold_back: int | None) -> None:
        self.recording, self.hold_back = recording, hold_back
        self.worker, self.disk = ModelWorker(), Disk()
        self.lines: dict[object, Line] = {}
        self.line: Line | None = None
        self.now_s = 0.0
        self.tell_learned = True
        self.offered: list[int] = []
        self.error: ClientError | None = None
        self.last: wire.Message | None = None
        self.names = 0
        self.start()

    def start(self) -> None:
        """The client begins, with what its disk has; a recording begins again from its first fixation."""
        self.error, self.line, self.last = None, None, None
        if self.recording:
            self.disk = Disk()
        rows = sorted(self.disk.rows)
        self.protocol = Protocol(
            STREAM,
            recording=self.recording,
            hold_back=self.hold_back,
            entries=[acts.Entry(row, self.disk.rows[row][1]) for row in rows],
            epoch=self.disk.epoch,
            acked=self.disk.acked,
            held_end=self.disk.held_end,
        )
        self.next_row = rows[-1] + 1 if rows else 1
        self.do(self.protocol.tick(self.now_s))
        if self.recording:
            self.offered, again = [], self.offered
            for content in again:
                self.offer(content)

    def offer(self, content: int) -> None:
        self.offered.append(content)
        self.disk.rows[self.next_row] = (content, None)
        self.next_row += 1
        self.do(self.protocol.offered(self.next_row - 1, self.now_s))

    def do(self, todo: list[acts.Action]) -> None:
        for action in todo:
            if isinstance(action, acts.Connect):
                self.names += 1
                if self.line is not None:
                    self.line.to_client.clear()  # nobody reads it any more; what was sent is still under way
                self.line = self.lines[self.names] = Line(self.names)
                self.line.to_worker.append(action.hello)
            elif isinstance(action, acts.Greet):
                self.send(action.hello)
            elif isinstance(action, acts.Send):
                content, seq = self.disk.rows[action.row]
                assert seq == action.seq, "a seq must be durable before it is sent"
                self.last = fixation(content, action.seq)
                self.send(self.last)
            elif isinstance(action, acts.SendLast) and self.last is not None:
                self.send(self.last)
            elif isinstance(action, acts.Number):
                for row, seq in action.pairs:
                    self.disk.rows[row] = (self.disk.rows[row][0], seq)
            elif isinstance(action, acts.LetGo):
                for row in action.rows:
                    del self.disk.rows[row]
                self.disk.acked = action.acked
            elif isinstance(action, acts.Remember):
                self.disk.epoch, self.disk.held_end = action.epoch, action.held_end
            elif isinstance(action, acts.Fail):
                self.error = action.error

    def send(self, message: wire.Message) -> None:
        if self.line is not None and self.line.up:
            self.line.to_worker.append(message)

    def deliver_to_worker(self, line: Line) -> None:
        if line.to_worker:
            message = line.to_worker.popleft()
            self.route(self.worker.take(line.name, message, b"" if isinstance(message, wire.FixationMessage) else None))

    def route(self, replies: list[tuple[object, wire.Message]]) -> None:
        for name, message in replies:
            line = self.lines.get(name)
            if line is not None and line.up and line is self.line:
                line.to_client.append(message)

    def deliver_to_client(self) -> None:
        if self.line is not None and self.line.to_client and self.error is None:
            self.do(self.protocol.received(self.line.to_client.popleft(), self.now_s))

    def cut(self, line: Line) -> None:
        line.up = False
        line.to_worker.clear()
        line.to_client.clear()

    def crash_worker(self) -> None:
        for line in self.lines.values():
            self.cut(line)
        self.worker.crash()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        if self.error is None:
            self.do(self.protocol.tick(self.now_s))

    def settle(self) -> None:
        """A kind network: everything arrives, the disk has room, the learner learns, the client is started again."""
        self.worker.full = False
        self.protocol.want_learned = True
        for _ in range(400):
            if isinstance(self.error, Fenced):
                self.start()
                self.protocol.want_learned = True
            for line in list(self.lines.values()):
                while line.to_worker:
                    self.deliver_to_worker(line)
            self.route(self.worker.commit())
            told = self.worker.learn(STREAM, 1000)
            if self.tell_learned:
                self.route(told)
            while self.line is not None and self.line.to_client and self.error is None:
                self.deliver_to_client()
            quiet = not any(line.to_worker for line in self.lines.values())
            if quiet and (self.protocol.all_learned or isinstance(self.error, StreamConflict)):
                return
            self.pass_time(1.0)
        raise AssertionError(f"never settled: {vars(self.protocol)} {self.error}")

    def held(self) -> list[float]:
        """The contents the worker holds, in its order; what it recorded as lost is left out."""
        found = self.worker.streams[STREAM].messages if STREAM in self.worker.streams else []
        return [message.onset for message in found if message is not None]


class Network(RuleBasedStateMachine):
    """The rules every kind of stream has to live with."""

    recording = False
    hold_back: int | None = None
    tell_learned = True

    @initialize()
    def begin(self) -> None:
        self.world = World(recording=self.recording, hold_back=self.hold_back)
        self.next_content = 0

    @rule(count=st.integers(1, 50))
    def offer(self, count: int) -> None:
        for _ in range(count):
            self.world.offer(self.next_content)
            self.next_content += 1

    @rule(count=st.integers(1, 60), which=st.integers(0, 3))
    def to_worker(self, count: int, which: int) -> None:
        """Also an old connection's messages may arrive late."""
        lines = [line for line in self.world.lines.values() if line.to_worker]
        for _ in range(count):
            if lines:
                self.world.deliver_to_worker(lines[-1 - which % len(lines)])

    @rule(count=st.integers(1, 60))
    def to_client(self, count: int) -> None:
        for _ in range(count):
            self.world.deliver_to_client()

    @rule()
    def commit(self) -> None:
        self.world.route(self.world.worker.commit())

    @rule(count=st.integers(1, 40))
    def learn(self, count: int) -> None:
        self.world.route(self.world.worker.learn(STREAM, count))

    @rule()
    def cut(self) -> None:
        if self.world.line is not None:
            self.world.cut(self.world.line)

    @rule()
    def crash_worker(self) -> None:
        self.world.crash_worker()

    @rule()
    def crash_client(self) -> None:
        self.world.start()

    @rule(seconds=st.sampled_from([0.1, 1.1, 2.1, 6.0]))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(count=st.integers(1, 5))
    def no_room(self, count: int) -> None:
        """Some are dropped before they are offered: a hello tells it, in the midst of everything else."""
        self.world.protocol.drops.count += count
        self.world.pass_time(0.1)

    @rule(full=st.booleans())
    def disk_full(self, full: bool) -> None:
        self.world.worker.full = full

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.tell_learned = self.tell_learned
            self.world.settle()
            self.judge()

    def judge(self) -> None:
        assert self.world.error is None
        assert self.world.held() == self.world.offered
        assert not self.world.disk.rows


class Live(Network):
    """A live stream with one owner."""


class Held(Network):
    """A recording that holds back: at most 32 between acked and learned."""

    recording = True
    hold_back = 32
    tell_learned = False  # word of it is best effort: acks have to do

    @rule(count=st.integers(1, 40))
    def learn_and_lose_the_word_of_it(self, count: int) -> None:
        self.world.worker.learn(STREAM, count)

    @invariant()
    def never_too_far_ahead(self) -> None:
        held = self.world.worker.streams.get(STREAM) if hasattr(self, "world") else None
        if held is not None:
            assert held.durable - 1 - held.learned <= 32 or held.durable <= held.claimed_at + 1


class Patient(Network):
    """A live stream that holds back as a recording does: an observer that is played faster than it looks."""

    hold_back = 32
    tell_learned = False

    @rule(count=st.integers(1, 40))
    def learn_and_lose_the_word_of_it(self, count: int) -> None:
        self.world.worker.learn(STREAM, count)


class Contested(Network):
    """A live stream that another client claims now and then, adding fixations of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.theirs: list[float] = []

    @rule(count=st.integers(0, 40))
    def another_claims(self, count: int) -> None:
        worker = self.world.worker
        self.world.names += 1
        other = -self.world.names
        worker.full = False
        self.world.route(worker.take(other, wire.Hello(stream=STREAM, notify="durable")))
        begin = worker.streams[STREAM].next_seq
        for seq in range(begin, begin + count):
            content = 1_000_000 + len(self.theirs)
            worker.take(other, fixation(content, seq), b"")
            self.theirs.append(float(content))
        self.world.route(worker.commit())

    @rule(arrived=st.integers(0, 60), acked=st.booleans(), crash=st.booleans())
    def another_claims_in_the_middle(self, arrived: int, acked: bool, crash: bool) -> None:
        """Some of what is under way arrives, word of it does not; then another claims, and this one comes back."""
        for _ in range(arrived):
            if self.world.line is not None:
                self.world.deliver_to_worker(self.world.line)
        if acked:
            self.world.worker.commit()
        if crash:
            self.world.crash_worker()
        self.another_claims(arrived // 3)
        self.world.start()

    @rule()
    def restart_in_the_middle(self) -> None:
        """The client hears the welcome of its claim, and crashes before it has verified anything."""
        self.world.start()
        if self.world.line is not None:
            self.world.deliver_to_worker(self.world.line)
            self.world.deliver_to_client()
        self.world.start()

    @precondition(lambda self: isinstance(self.world.error, Fenced))
    @rule()
    def start_again(self) -> None:
        self.world.start()

    def judge(self) -> None:
        held = self.world.held()
        ours = [content for content in held if content < 1_000_000]
        assert [content for content in held if content >= 1_000_000] == self.theirs
        assert sorted(ours) == sorted(self.world.offered), "none lost, none twice"
        assert not self.world.disk.rows


class Lossy(Network):
    """A worker restored from an older backup: what it lost is recorded as lost, nothing else is."""

    def __init__(self) -> None:
        super().__init__()
        self.may_lack: set[float] = set()

    @rule(count=st.integers(1, 20))
    def restore_backup(self, count: int) -> None:
        if STREAM not in self.world.worker.streams:
            return
        for line in self.world.lines.values():
            self.world.cut(line)
        before = set(self.world.held())
        self.world.worker.lose(STREAM, count)
        self.may_lack |= before - set(self.world.held())

    def judge(self) -> None:
        held = self.world.held()
        assert held == sorted(set(held)), "none twice, in order"
        assert set(map(float, self.world.offered)) - set(held) <= self.may_lack
        assert not self.world.disk.rows


COMMON = settings(
    max_examples=50, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("machine", [Live, Held, Patient, Contested, Lossy], ids=lambda machine: machine.__name__)
def test_none_lost_none_twice_in_order(machine: type[Network]) -> None:
    run_state_machine_as_test(machine, settings=COMMON)
