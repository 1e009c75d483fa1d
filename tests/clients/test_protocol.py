"""Each row of the client's table of states, by itself."""

from __future__ import annotations

import itertools

import pytest

from clients import actions as acts
from clients import wire
from clients.drops import TELL_EVERY_S, Drops
from clients.errors import Fenced, KeyRefused, Refused, StreamConflict
from clients.protocol import SILENCE_S, VERIFY_BATCH, WINDOW, Protocol
from tests.clients.model_worker import MODEL, OFFER

S = "s1"


def welcome(next_seq: int, epoch: int = 1) -> wire.Welcome:
    return wire.Welcome(stream=S, epoch=epoch, next_seq=next_seq, patch=OFFER, model=MODEL)


def ack(seq: int, learned: int = -1) -> wire.Ack:
    return wire.Ack(stream=S, seq=seq, learned=learned)


def error(code: str) -> wire.Error:
    return wire.Error(code=code, detail="because", stream=S)


def offer(protocol: Protocol, count: int, first_row: int = 1) -> list[acts.Action]:
    return [action for row in range(first_row, first_row + count) for action in protocol.offered(row, 0.0)]


def sent(actions: list[acts.Action]) -> list[int]:
    return [action.seq for action in actions if isinstance(action, acts.Send)]


def kinds(actions: list[acts.Action]) -> list[str]:
    return [type(action).__name__ for action in actions]


def opened(next_seq: int = 0, **options: object) -> Protocol:
    protocol = Protocol(S, **options)  # type: ignore[arg-type]
    protocol.tick(0.0)
    protocol.received(welcome(next_seq), 0.0)
    return protocol


def test_a_seq_only_after_welcome() -> None:
    protocol = Protocol(S)
    assert offer(protocol, 2) == []
    (connect,) = protocol.tick(0.0)
    assert connect == acts.Connect(wire.Hello(stream=S, notify="learned"))
    actions = protocol.received(welcome(7), 0.1)
    assert kinds(actions) == ["Remember", "Number", "Send", "Send"]
    assert sent(actions) == [7, 8]
    assert offer(protocol, 1, first_row=3) == [acts.Number(((3, 9),)), acts.Send(3, 9)]


def test_acks_are_cumulative() -> None:
    protocol = opened()
    offer(protocol, 3)
    assert protocol.received(ack(1, 0), 0.1) == [acts.LetGo((1, 2), 1)]
    assert (protocol.waiting, protocol.counts.acked, protocol.counts.learned) == (1, 2, 1)
    assert not protocol.all_acked
    protocol.received(ack(2, 0), 0.2)
    assert protocol.all_acked
    assert not protocol.all_learned
    protocol.received(
        wire.Learned(stream=S, seq=2, prediction_error=None, position=2, latency_ms=1.0, skipped=None), 0.3
    )
    assert protocol.all_learned
    assert protocol.counts == acts.Counts(sent=3, acked=3, learned=3, held=0)


def test_resend_goes_back_and_brings_everything_after() -> None:
    protocol = opened()
    offer(protocol, 5)
    assert sent(protocol.received(wire.Resend(stream=S, from_seq=2), 0.1)) == [2, 3, 4]
    assert protocol.counts.sent == 5


def test_resend_below_what_was_acked_says_hello() -> None:
    protocol = opened()
    offer(protocol, 3)
    protocol.received(ack(1), 0.1)
    (connect,) = protocol.received(wire.Resend(stream=S, from_seq=1), 0.2)
    assert isinstance(connect, acts.Connect)
    assert (connect.hello.epoch, connect.hello.acked, connect.hello.have_from) == (1, 1, 2)


def test_silence_with_something_unacked() -> None:
    protocol = opened()
    assert protocol.tick(100.0) == []
    protocol.offered(1, 100.0)
    assert protocol.deadline_s() == 100.0 + SILENCE_S
    assert protocol.tick(101.9) == []
    assert kinds(protocol.tick(102.0)) == ["Connect"]
    waits = []
    for _ in range(6):
        due_s = protocol.deadline_s()
        assert due_s is not None
        waits.append(due_s)
        assert protocol.tick(due_s - 0.01) == []
        assert kinds(protocol.tick(due_s)) == ["Connect"]
    gaps = [b - a for a, b in itertools.pairwise(waits)]
    assert gaps == sorted(gaps)
    assert gaps[0] < gaps[-1] == 5.0
    assert protocol.trouble == "no answer from the worker; trying again"
    assert sent(protocol.received(welcome(0), 200.0)) == [0]
    assert protocol.trouble is None


def test_an_old_connections_ack_counts_no_more() -> None:
    protocol = opened()
    offer(protocol, 1)
    protocol.tick(SILENCE_S)
    assert protocol.received(ack(0), SILENCE_S) == []
    assert protocol.waiting == 1


@pytest.mark.parametrize("code", ["storage_full", "storage_failed"])
def test_a_full_disk_is_waited_for(code: str) -> None:
    protocol = opened()
    offer(protocol, 3)
    assert protocol.received(error(code), 1.0) == []
    assert protocol.received(error(code), 1.1) == []
    assert "because" in (protocol.trouble or "")
    assert protocol.offered(4, 1.2) == []
    assert protocol.tick(1.9) == []
    assert sent(protocol.tick(2.0)) == [0, 1, 2, 3]
    assert protocol.received(error(code), 2.0) == []
    assert protocol.tick(3.9) == []
    assert sent(protocol.tick(4.0)) == [0, 1, 2, 3]
    protocol.received(ack(3), 4.1)
    assert protocol.trouble is None


def test_a_full_disk_at_hello() -> None:
    protocol = Protocol(S)
    protocol.tick(0.0)
    assert protocol.received(error("storage_full"), 0.1) == []
    assert protocol.tick(1.0) == []
    assert kinds(protocol.tick(1.1)) == ["Connect"]


def told(actions: list[acts.Action]) -> list[int | None]:
    """What each hello says was dropped."""
    hellos = [action.hello for action in actions if isinstance(action, acts.Greet | acts.Connect)]
    return [hello.dropped.spool_full if hello.dropped else None for hello in hellos]


def test_what_was_dropped_is_told_at_once_then_now_and_then() -> None:
    protocol = opened(drops=Drops(since_s=5.0))
    assert protocol.tick(0.1) == []
    protocol.drops.count = 3
    (greet,) = protocol.tick(0.2)
    assert greet == acts.Greet(
        wire.Hello(stream=S, notify="learned", epoch=1, acked=-1, dropped=wire.Dropped(since=5.0, spool_full=3))
    )
    protocol.drops.count = 7
    assert protocol.received(welcome(0), 0.3) == [], "it opens nothing anew"
    assert protocol.tick(0.4 + TELL_EVERY_S / 2) == [], "not so often"
    assert told(protocol.tick(0.3 + TELL_EVERY_S)) == [7]
    protocol.received(welcome(0), 11.0)
    assert protocol.tick(100.0) == [], "it is known"


def test_what_was_dropped_while_nobody_answered_is_told_by_the_next_hello() -> None:
    protocol = Protocol(S)
    protocol.drops.count = 2
    assert told(protocol.tick(0.0)) == [2]
    protocol.received(welcome(0), 0.1)
    assert protocol.tick(0.2) == []
    protocol.drops.count = 3
    assert told(protocol.tick(1.0)) == [3]
    protocol.received(error("storage_full"), 1.1)
    assert told(protocol.tick(1.0 + TELL_EVERY_S)) == [], "first what was sent is sent again"
    assert told(protocol.tick(2.0 + TELL_EVERY_S)) == [3], "again: it was refused"


def test_what_was_dropped_is_not_told_while_held_fixations_are_verified() -> None:
    """Its welcome would be taken for that of the batch, and a conflict of the batch not be heard."""
    protocol = opened(2, recording=True)
    protocol.drops.count = 1
    assert protocol.tick(0.1) == [], "number 0 may come, and is held"
    assert told(offer(protocol, 1)) == [1], "its own hello tells it"
    protocol.received(welcome(2), 0.2)
    protocol.drops.count = 2
    assert protocol.tick(20.0) == []
    assert told(offer(protocol, 2, first_row=2)) == [2]
    protocol.received(welcome(2), 20.1)
    protocol.drops.count = 3
    assert told(protocol.tick(40.0)) == [3], "nothing held is left"


def test_a_worker_that_knows_no_dropped_is_told_no_more() -> None:
    protocol = opened()
    offer(protocol, 1)
    protocol.drops.count = 1
    protocol.tick(0.5)
    actions = protocol.received(error("bad_message"), 0.6)
    assert told(actions) == [None]
    assert sent(protocol.received(welcome(0), 0.7)) == [0], "it goes on"
    protocol.drops.count = 2
    assert told(protocol.tick(50.0)) == [None], "the silence asks, and does not tell"
    assert kinds(protocol.received(error("bad_message"), 50.1)) == ["Fail"], "a bad message is one again"


def test_hello_required_says_hello_once() -> None:
    protocol = opened()
    offer(protocol, 3)
    assert kinds(protocol.received(error("hello_required"), 0.1)) == ["Connect"]
    assert protocol.received(error("hello_required"), 0.2) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [("fenced", Fenced), ("unauthorized", KeyRefused), ("bad_patch", Refused), ("bad_version", Refused)],
)
def test_errors_that_end(code: str, kind: type[Exception]) -> None:
    protocol = opened()
    offer(protocol, 1)
    *before, last = protocol.received(error(code), 0.1)
    assert isinstance(last, acts.Fail)
    assert isinstance(last.error, kind)
    assert before == ([acts.Remember(None, 0)] if code == "fenced" else [])
    assert "because" in str(last.error)
    assert protocol.tick(99.0) == []
    assert protocol.offered(9, 99.0) == []
    assert protocol.deadline_s() is None


def test_errors_about_another_stream_are_not_ours() -> None:
    protocol = opened()
    assert protocol.received(wire.Error(code="fenced", detail="", stream="other"), 0.1) == []


def test_a_worker_that_takes_other_patches() -> None:
    protocol = Protocol(S)
    protocol.tick(0.0)
    other = OFFER.model_copy(update={"height": 64})
    (failed,) = protocol.received(wire.Welcome(stream=S, epoch=1, next_seq=0, patch=other, model=MODEL), 0.1)
    assert isinstance(failed, acts.Fail)
    assert "64 x 50" in str(failed.error)


def test_a_worker_that_waits_for_what_no_one_has() -> None:
    protocol = Protocol(S, entries=[acts.Entry(1, 5)], epoch=2, acked=4)
    (connect,) = protocol.tick(0.0)
    assert isinstance(connect, acts.Connect)
    assert (connect.hello.epoch, connect.hello.acked, connect.hello.have_from) == (2, 4, 5)
    (failed,) = protocol.received(welcome(3, epoch=2), 0.1)
    assert isinstance(failed, acts.Fail)


def test_no_more_under_way_than_the_window() -> None:
    protocol = opened()
    assert len(sent(offer(protocol, WINDOW + 50))) == WINDOW
    assert sent(protocol.received(ack(9), 0.1)) == list(range(WINDOW, WINDOW + 10))


def test_a_recording_holds_back() -> None:
    protocol = opened(recording=True, hold_back=32)
    assert sent(offer(protocol, 100)) == list(range(32))
    assert sent(protocol.received(ack(31, -1), 0.1)) == []
    assert sent(protocol.received(ack(31, 4), 0.2)) == list(range(32, 37))
    assert sent(protocol.received(ack(36, 4), 0.3)) == []
    # Word of what is learned may get lost: the silence about it is asked about.
    assert protocol.deadline_s() == 0.3 + SILENCE_S
    assert kinds(protocol.tick(0.3 + SILENCE_S)) == ["Connect"]
    assert kinds(protocol.received(welcome(37), 3.0)) == ["Remember", "SendLast"]
    assert sent(protocol.received(ack(36, 36), 3.0)) == list(range(37, 69))


def test_waiting_for_learned_asks_with_a_duplicate() -> None:
    protocol = opened()
    offer(protocol, 2)
    protocol.received(ack(1, 0), 0.1)
    assert protocol.tick(50.0) == []
    protocol.want_learned = True
    assert protocol.tick(50.0) == []
    assert kinds(protocol.tick(52.0)) == ["Connect"]
    assert kinds(protocol.received(welcome(2), 52.1)) == ["Remember", "SendLast"]
    protocol.received(ack(1, 1), 52.2)
    assert protocol.all_learned
    assert protocol.deadline_s() is None


def recording_again(next_seq: int, count: int) -> tuple[Protocol, list[acts.Action]]:
    protocol = opened(next_seq, recording=True, hold_back=32)
    return protocol, offer(protocol, count)


def test_a_recording_again_is_verified_batch_by_batch() -> None:
    protocol, actions = recording_again(40, 45)
    assert sent(actions) == [0]
    assert isinstance(actions[-1], acts.Greet)
    assert protocol.received(ack(39, 39), 0.1) == [], "a cumulative ack says nothing of a held seq"
    actions = protocol.received(welcome(40), 0.2)
    assert sent(actions) == list(range(1, 1 + VERIFY_BATCH))
    actions = protocol.received(welcome(40), 0.3)
    assert sent(actions) == list(range(33, 40))
    assert kinds(actions)[-1] == "Greet"
    actions = protocol.received(welcome(40), 0.4)
    assert sent(actions) == list(range(40, 45))
    assert protocol.counts.held == 40
    assert protocol.received(ack(44, 44), 0.5) == [acts.LetGo(tuple(range(41, 46)), 44)]
    assert protocol.all_learned


def test_a_recording_in_conflict_names_the_way_out() -> None:
    protocol, _ = recording_again(10, 3)
    (failed,) = protocol.received(wire.Conflict(stream=S, seq=0, next_seq=10), 0.1)
    assert isinstance(failed, acts.Fail)
    assert isinstance(failed.error, StreamConflict)
    assert "--stream" in str(failed.error)


def test_a_live_stream_in_conflict_numbers_anew_in_order() -> None:
    """Seqs 5 to 9 are in the spool; of the 8 the worker holds, 5 and 7 are another's."""
    entries = [acts.Entry(seq, seq) for seq in range(5, 10)]
    protocol = Protocol(S, entries=entries, epoch=None, acked=4)
    protocol.tick(0.0)
    actions = protocol.received(welcome(8, epoch=3), 0.1)
    assert actions[0] == acts.Remember(3, 8)
    assert sent(actions) == [5, 6, 7], "what is not held has to wait"
    assert protocol.offered(10, 0.1) == []
    assert protocol.received(ack(7), 0.2) == []
    protocol.received(wire.Conflict(stream=S, seq=5, next_seq=8), 0.2)
    protocol.received(wire.Conflict(stream=S, seq=7, next_seq=8), 0.2)
    actions = protocol.received(welcome(8, epoch=3), 0.3)
    assert actions[0] == acts.LetGo((6,), 6)
    assert actions[1] == acts.Number(((5, 8), (7, 9), (8, 10), (9, 11), (10, 12)))
    assert actions[2] == acts.Remember(3, 0)
    assert actions[3:] == [acts.Send(5, 8), acts.Send(7, 9), acts.Send(8, 10), acts.Send(9, 11), acts.Send(10, 12)]


def test_what_is_held_stays_unsure_over_a_crash() -> None:
    """The client claimed, then crashed before it had verified: the epoch is its own, what is held need not be."""
    protocol = Protocol(S, entries=[acts.Entry(5, 5), acts.Entry(6, 6)], epoch=3, acked=4, held_end=6)
    protocol.tick(0.0)
    actions = protocol.received(welcome(7, epoch=3), 0.1)
    assert acts.LetGo((6,), 6) in actions, "above what was held at the claim, only we can have written"
    assert sent(actions) == [5]
    assert kinds(actions)[-1] == "Greet"


def test_an_unexpected_conflict_claims_anew() -> None:
    protocol = opened(3)
    offer(protocol, 2)
    actions = protocol.received(wire.Conflict(stream=S, seq=4, next_seq=9), 0.1)
    assert actions[0] == acts.Remember(None, 0)
    assert isinstance(actions[1], acts.Connect)
    assert actions[1].hello.epoch is None
    actions = protocol.received(welcome(9, epoch=2), 0.2)
    assert sent(actions) == [3, 4]
    assert kinds(actions)[-1] == "Greet"
    assert protocol.received(wire.Conflict(stream=S, seq=99, next_seq=100), 0.2) == [], "not one that was sent"


def test_what_a_lost_worker_still_needs_is_sent() -> None:
    """The worker comes back with less than at the claim: what it does not hold is sent like anything else."""
    protocol = Protocol(S, entries=[acts.Entry(5, 5), acts.Entry(6, 6)], epoch=3, acked=4, held_end=9)
    protocol.tick(0.0)
    assert sent(protocol.received(welcome(5, epoch=3), 0.1)) == [5, 6]


def test_a_message_nobody_expects_moves_nothing() -> None:
    protocol = opened()
    offer(protocol, 1)
    assert protocol.received(wire.Hello(stream=S, notify="learned"), 0.1) == []
    assert protocol.received(welcome(5), 0.1) == []
    assert protocol.waiting == 1


def test_a_backlog_is_sent_though_it_is_not_known_what_is_learned() -> None:
    entries = [acts.Entry(seq, seq) for seq in range(50, 90)]
    protocol = Protocol(S, hold_back=32, entries=entries, epoch=1, acked=49)
    protocol.tick(0.0)
    assert sent(protocol.received(welcome(50), 0.1)) == [50], "one, whose ack will tell"
    assert sent(protocol.received(ack(50, 40), 0.2)) == list(range(51, 73))


def test_a_claim_given_up_and_heard_late_does_not_end_it() -> None:
    """Two claims, the first one unanswered; the worker takes them the other way round."""
    protocol = Protocol(S)
    offer(protocol, 1)
    protocol.tick(0.0)
    protocol.tick(2.0)
    assert sent(protocol.received(welcome(0, epoch=1), 2.1)) == [0]
    forgotten, again = protocol.received(error("fenced"), 2.2)
    assert forgotten == acts.Remember(None, 0)
    assert isinstance(again, acts.Connect)
    assert again.hello.epoch is None
    assert sent(protocol.received(welcome(0, epoch=3), 2.3)) == [0]
    *_, failed = protocol.received(error("fenced"), 2.4)
    assert isinstance(failed, acts.Fail), "once; then it is another client"


def test_after_an_ack_fenced_is_another_client() -> None:
    protocol = Protocol(S)
    offer(protocol, 2)
    protocol.tick(0.0)
    protocol.tick(2.0)
    protocol.received(welcome(0), 2.1)
    protocol.received(ack(0), 2.2)
    *_, failed = protocol.received(error("fenced"), 2.3)
    assert isinstance(failed, acts.Fail)
