from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.wire import Conflict, ErrorCode, FixationMessage, Gaze, Hello, PatchHeader, Resend, WireError
from service import admission
from service.admission import MAX_CONNECTIONS, MAX_GAP, Accept, Admission, Answer, Claim, Duplicate
from service.journal import StreamCursor

PATCH = PatchHeader(encoding="raw", height=50, width=50, channels=3, color="rgb", degrees=5.0)


def hello(stream: str = "s", **more: object) -> Hello:
    return Hello(stream=stream, notify="durable", **more)  # type: ignore[arg-type]


def fixation(seq: int, stream: str = "s") -> FixationMessage:
    return FixationMessage(stream=stream, seq=seq, onset=0.0, duration=0.0, gaze=Gaze(x=0.0, y=0.0), patch=PATCH)


class Desk:
    """An admission with a dictionary for a disk."""

    def __init__(self, *cursors: StreamCursor) -> None:
        self.disk: dict[str, dict[int, bytes | None]] = defaultdict(dict)
        for cursor in cursors:
            self.disk[cursor.name] = {seq: b"%d" % seq for seq in range(cursor.next_seq)}
        self.pending: list[tuple[str, int, bytes]] = []
        self.admission = Admission(cursors, lambda stream, seq: self.disk[stream].get(seq))

    def hello(self, connection: bytes, message: Hello) -> tuple[Claim, int]:
        self.commit()
        claim = self.admission.hello(connection, message)
        for seq in claim.lost:
            self.disk[claim.stream][seq] = None
        return claim, self.admission.granted(connection, message, claim)

    def fixation(
        self, connection: bytes, seq: int, digest: bytes = b"", now_s: float = 0.0, stream: str = "s"
    ) -> object:
        digest = digest or b"%d" % seq
        outcome = self.admission.fixation(connection, fixation(seq, stream), digest, now_s)
        if isinstance(outcome, Accept):
            self.pending.append((stream, seq, digest))
        return outcome

    def commit(self) -> None:
        for stream, seq, digest in self.pending:
            assert seq == len(self.disk[stream]), "no hole in what is journalled"
            self.disk[stream][seq] = digest
        self.pending.clear()
        self.admission.committed()

    def roll_back(self) -> None:
        self.pending.clear()
        self.admission.rolled_back()


def code(caught: pytest.ExceptionInfo[WireError]) -> ErrorCode:
    return caught.value.code


def test_hello_comes_first() -> None:
    desk = Desk()
    with pytest.raises(WireError) as caught:
        desk.fixation(b"a", 0)
    assert code(caught) is ErrorCode.HELLO_REQUIRED
    assert desk.hello(b"a", hello()) == (Claim("s", 1, range(0), fresh=True), 0)
    assert desk.fixation(b"a", 0) == Accept()
    with pytest.raises(WireError) as caught:
        desk.fixation(b"b", 1)
    assert code(caught) is ErrorCode.HELLO_REQUIRED, "each connection for itself"
    with pytest.raises(WireError) as caught:
        desk.fixation(b"a", 0, stream="t")
    assert code(caught) is ErrorCode.HELLO_REQUIRED, "each stream for itself"


def test_duplicates_pending_and_durable_and_conflicts() -> None:
    desk = Desk()
    desk.hello(b"a", hello())
    desk.fixation(b"a", 0)
    assert desk.fixation(b"a", 0) == Duplicate()
    assert desk.fixation(b"a", 0, b"other") == Answer(Conflict(stream="s", seq=0, next_seq=1))
    assert desk.admission.cursor("s") == (-1, -1), "nothing durable, nothing acked"
    desk.commit()
    assert desk.admission.cursor("s") == (0, -1)
    assert desk.fixation(b"a", 0) == Duplicate()
    assert desk.fixation(b"a", 0, b"other") == Answer(Conflict(stream="s", seq=0, next_seq=1))


def test_a_hole_is_told_once_and_again_after_a_second() -> None:
    desk = Desk()
    desk.hello(b"a", hello())
    assert desk.fixation(b"a", 0) == Accept()
    resend = Answer(Resend(stream="s", from_seq=1))
    assert desk.fixation(b"a", 2, now_s=10.0) == resend
    assert desk.fixation(b"a", 3, now_s=10.5) == Answer(None)
    assert desk.fixation(b"a", 4, now_s=11.0) == resend
    assert desk.fixation(b"a", 5, now_s=11.9) == Answer(None)
    assert desk.fixation(b"a", 1, now_s=11.9) == Accept()
    assert desk.fixation(b"a", 9, now_s=11.9) == Answer(Resend(stream="s", from_seq=2)), "another hole"


def test_a_batch_that_failed_never_was() -> None:
    desk = Desk()
    desk.hello(b"a", hello())
    desk.fixation(b"a", 0)
    desk.commit()
    desk.fixation(b"a", 1)
    desk.fixation(b"a", 2)
    desk.roll_back()
    assert desk.admission.cursor("s") == (0, -1)
    assert desk.fixation(b"a", 3) == Answer(Resend(stream="s", from_seq=1))
    assert desk.fixation(b"a", 1, b"other content now") == Accept()


def test_epochs() -> None:
    desk = Desk(StreamCursor("s", 3, 5, 4))
    claim, next_seq = desk.hello(b"a", hello())
    assert (claim.epoch, claim.fresh, next_seq) == (4, True, 5)
    claim, _ = desk.hello(b"b", hello(epoch=4))
    assert (claim.epoch, claim.fresh) == (4, False), "the same again, on a fresh connection"
    assert desk.fixation(b"a", 5) == Accept(), "of one epoch are both"
    claim, _ = desk.hello(b"c", hello())
    assert claim.epoch == 5
    for superseded in (b"a", b"b"):
        with pytest.raises(WireError) as caught:
            desk.fixation(superseded, 6)
        assert code(caught) is ErrorCode.FENCED
    with pytest.raises(WireError) as caught:
        desk.hello(b"a", hello(epoch=4))
    assert code(caught) is ErrorCode.FENCED
    assert desk.admission.owner("s") == (b"c", False)


def test_an_epoch_from_before_a_backup_is_adopted() -> None:
    desk = Desk(StreamCursor("s", 3, 5, 4))
    claim, _ = desk.hello(b"a", hello(epoch=7))
    assert (claim.epoch, claim.fresh) == (7, True)
    with pytest.raises(WireError) as caught:
        desk.hello(b"a", hello(epoch=2**53 - 1))
    assert code(caught) is ErrorCode.BAD_MESSAGE


@pytest.mark.parametrize(
    ("told", "lost", "next_seq"),
    [
        ({"have_from": 8}, range(5, 8), 8),
        ({"have_from": 5}, range(5, 5), 5),
        ({"have_from": 2, "acked": 7}, range(5, 5), 5),
        ({"acked": 4}, range(5, 5), 5),
        ({"acked": 6}, range(5, 7), 7),
        ({"acked": 6, "have_from": 7, "epoch": 9}, range(5, 7), 7),
        ({"acked": -1}, range(5, 5), 5),
    ],
)
def test_what_nobody_has_is_a_gap(told: dict[str, int], lost: range, next_seq: int) -> None:
    desk = Desk(StreamCursor("s", 3, 5, 4))
    claim, found = desk.hello(b"a", hello(**told))
    assert list(claim.lost) == list(lost)
    assert found == next_seq
    assert desk.fixation(b"a", next_seq) == Accept()
    if lost:
        assert desk.fixation(b"a", lost.start) == Answer(Conflict(stream="s", seq=lost.start, next_seq=next_seq + 1)), (
            "what was reported lost is not taken for a duplicate"
        )


def test_a_gap_has_a_limit() -> None:
    desk = Desk()
    with pytest.raises(WireError) as caught:
        desk.hello(b"a", hello(have_from=MAX_GAP + 1))
    assert code(caught) is ErrorCode.BAD_MESSAGE
    assert desk.hello(b"a", hello())[1] == 0


def test_a_connection_silent_for_longest_is_forgotten() -> None:
    desk = Desk()
    desk.hello(b"first", hello())
    desk.hello(b"second", hello("t"))
    for number in range(MAX_CONNECTIONS - 2):
        desk.hello(b"%d" % number, hello("u"))
    desk.fixation(b"first", 0)
    desk.hello(b"one more", hello("v"))
    assert desk.fixation(b"first", 1) == Accept()
    with pytest.raises(WireError) as caught:
        desk.fixation(b"second", 0, stream="t")
    assert code(caught) is ErrorCode.HELLO_REQUIRED


actions = st.lists(
    st.one_of(
        st.tuples(st.just("hello"), st.integers(0, 2), st.sampled_from("st"), st.booleans()),
        st.tuples(st.just("fixation"), st.integers(0, 2), st.sampled_from("st"), st.integers(-3, 2), st.integers(0, 5)),
        st.tuples(st.just("commit")),
        st.tuples(st.just("roll back")),
        st.tuples(st.just("restart")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(actions)
def test_whatever_comes_the_journal_has_each_seq_once_and_an_ack_is_true(steps: list[tuple[object, ...]]) -> None:
    desk = Desk()
    epochs: dict[tuple[int, str], int] = {}
    last: dict[str, int] = defaultdict(int)
    for step in steps:
        match step:
            case ("hello", int(number), str(stream), bool(again)):
                told = epochs.get((number, stream)) if again else None
                try:
                    claim, next_seq = desk.hello(b"%d" % number, hello(stream, epoch=told))
                except WireError as error:
                    outcome = error.code
                    assert (outcome, told is not None and told < last[stream]) == (ErrorCode.FENCED, True)
                    continue
                assert next_seq == len(desk.disk[stream])
                assert claim.epoch == (last[stream] + 1 if told is None else told)
                epochs[number, stream] = last[stream] = claim.epoch
            case ("fixation", int(number), str(stream), int(offset), int(content)):
                pending = sum(name == stream for name, *_ in desk.pending)
                seq = max(0, len(desk.disk[stream]) + pending + offset)
                held = {s: d for name, s, d in desk.pending if name == stream} | desk.disk[stream]
                digest = b"%d-%d" % (seq, content // 5)
                try:
                    outcome = desk.fixation(b"%d" % number, seq, digest, stream=stream)
                except WireError as error:
                    expected = ErrorCode.FENCED if (number, stream) in epochs else ErrorCode.HELLO_REQUIRED
                    outcome = error.code
                    assert outcome in (expected, ErrorCode.HELLO_REQUIRED)
                    continue
                assert epochs[number, stream] == last[stream], "only the present epoch writes"
                if seq not in held:
                    assert (outcome == Accept()) == (seq == len(held))
                else:
                    assert (outcome == Duplicate()) == (held[seq] == digest)
            case ("commit",):
                desk.commit()
            case ("roll back",):
                desk.roll_back()
            case ("restart",):
                desk.pending.clear()
                cursors = [StreamCursor(name, last[name], len(desk.disk[name]), -1) for name in "st" if last[name]]
                desk.admission = Admission(cursors, lambda stream, seq: desk.disk[stream].get(seq))
        for stream in "st":
            if last[stream]:
                assert desk.admission.cursor(stream)[0] == len(desk.disk[stream]) - 1


def test_streams_are_bounded_and_those_there_are_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_STREAMS", 3)
    monkeypatch.setattr(admission, "MAX_STREAMS_PER_CONNECTION", 2)
    desk = Desk(StreamCursor("old", 1, 0, -1))
    desk.hello(b"a", hello("old"))
    desk.hello(b"a", hello("one"))
    with pytest.raises(WireError, match="2 streams on one connection") as caught:
        desk.hello(b"a", hello("two"))
    assert code(caught) is ErrorCode.TOO_MANY
    desk.hello(b"b", hello("two"))
    with pytest.raises(WireError, match="3 streams are held already") as caught:
        desk.hello(b"b", hello("three"))
    assert code(caught) is ErrorCode.TOO_MANY
    assert desk.hello(b"c", hello("old"))[1] == 0
    assert "three" not in desk.admission.epochs()
