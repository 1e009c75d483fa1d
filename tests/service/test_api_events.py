"""``GET /v1/events``: cut and resumed, many listeners and slow ones, and every way it ends or refuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access_cli import main as access
from service.access_cli import make_token
from service.api import broadcast
from service.backup import copy_database
from service.events import ALARMS_KEPT
from service.journal import Alarm, Forget, Turn
from tests.helpers import wait_until
from tests.service.api_support import Lab, interface
from tests.service.events_support import Cutter, Heard, Told, kept, newest

Hear = Callable[..., Heard]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    made.learn([None, 1.0])
    yield made
    made.journal.close()


@pytest.fixture
def hear() -> Iterator[Hear]:
    """Makes listeners, and cuts them at the end."""
    made: list[Heard] = []

    def listening(client: httpx.Client, query: str = "", last: int | None = None, **headers: str) -> Heard:
        made.append(Heard(address(client), query, last, **headers))
        return made[-1]

    yield listening
    for heard in made:
        heard.cut()


def address(client: httpx.Client) -> tuple[str, int]:
    return client.base_url.host, client.base_url.port or 0


def database(lab: Lab) -> Path:
    return lab.folder / "rjepa.db"


def checkpoint(lab: Lab, name: str) -> None:
    told = {"id": name, "created": 1.5, "label": "é\n", "pinned": False, "size_bytes": 1, "sha256": "0" * 64}
    lab.journal.put_checkpoints([told | {"timeline": lab.journal.timeline(), "parent": None, "cursors": {"s1": 1}}])


def a_session(lab: Lab, rounds: int) -> None:
    """Records of two streams, alarms, checkpoints, a restore and a stream deleted, as a session has them."""
    for number in range(rounds):
        lab.learn([0.5, float("inf"), 0.25], "s1")
        lab.learn([0.125, None], "s2", skipped="refused")
        if number % 3 == 0:
            lab.journal.put_alarm(Alarm("refused", f"line\nof {number}", "s2" if number % 2 else None), 5.0)
        if number % 4 == 0:
            checkpoint(lab, f"c{number}")
        if number == rounds // 2:
            lab.restore(fork=3)


def test_cut_anywhere_and_resumed_nothing_is_missing_and_nothing_comes_twice(lab: Lab) -> None:
    goal: list[int] = []
    with interface(lab.folder) as client:
        begun = newest(database(lab))
        cutters = [
            Cutter(address(client), last, lambda: goal[0] if goal else None, seed)
            for seed, last in enumerate([0, begun, begun])
        ]
        for cutter in cutters:
            cutter.start()
        a_session(lab, 24)
        goal.append(newest(database(lab)))
        for cutter in cutters:
            cutter.join(60.0)
            assert not cutter.is_alive()
        for cutter, last in zip(cutters, [0, begun, begun], strict=True):
            assert cutter.events == kept(database(lab), last)
            assert cutter.cuts > 10
        records = [json.loads(data) for _, kind, data in cutters[0].events if kind == "record"]
        assert [one["timeline"] for one in records] == sorted(one["timeline"] for one in records)
        assert records[-1]["timeline"] == 1
        of_s2 = client.get("/v1/streams/s2/records", params={"limit": 1000}).json()["records"]
        after_the_fork = [one for one in records if one["stream"] == "s2" and one["timeline"] == 1]
        assert after_the_fork == of_s2, "as /records has them"
    print(f"{sum(cutter.cuts for cutter in cutters)} cuts, {goal[0]} events")


def test_it_begins_now_and_a_heartbeat_tells_where_it_is(lab: Lab, hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(broadcast, "LOOK_S", 0.05)
    with interface(lab.folder) as client:
        lab.claim("quiet")
        heard = hear(client, "?stream=quiet")
        begun = heard.status, heard.response.headers["Content-Type"], heard.response.headers["Cache-Control"]
        assert begun == (200, "text/event-stream; charset=utf-8", "no-store")
        before = newest(database(lab))
        heard.until(before)
        lab.learn([0.5], "s1")
        lab.journal.put_alarm(Alarm("lag", "of the whole"), 1.0)
        checkpoint(lab, "c1")
        lab.journal.put_alarm(Alarm("refused", "of another", "s1"), 1.0)
        heard.until(newest(database(lab)))  # by a heartbeat: the last event is none of its own
        assert [kind for _, kind, _ in heard.events] == ["alarm", "checkpoint"], "of the whole"
        assert all(number > before for number, _, _ in heard.events)


def test_two_hundred_listeners_are_one_reader(lab: Lab, hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []

    def counted(*words: Any) -> Any:
        reads.append(1)
        return real(*words)

    real = broadcast.events_between
    monkeypatch.setattr(broadcast, "events_between", counted)
    turns = 12
    with interface(lab.folder, request_rate=1000.0) as client:
        before = newest(database(lab))
        listeners = [hear(client) for _ in range(200)]
        for heard in listeners:
            heard.until(before)
        for _ in range(turns):
            lab.learn([0.5, 0.25], "s1")
        told = kept(database(lab), before)
        for heard in listeners:
            assert heard.until(told[-1][0]) == told
    assert len(told) == 2 * turns
    assert len(reads) <= turns, "one for each commit, at most, whoever listens"


def test_a_slow_listener_gets_everything_and_delays_nobody(lab: Lab, hear: Hear) -> None:
    count = 6000
    with interface(lab.folder) as client:
        before = newest(database(lab))
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.settimeout(30.0)
            slow.connect(address(client))
            slow.sendall(b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            quick = hear(client)
            assert slow.recv(1), "it is answered"
            lab.claim("long", lost=range(count))
            lab.record("long", range(count), [None] * count, skipped="lost", embedding=None)
            told = kept(database(lab), before)
            assert quick.until(told[-1][0]) == told
            got = bytearray()
            while b'"seq":%d,' % (count - 1) not in got[-4000:]:
                got += slow.recv(1 << 16)
        ids = [int(line[4:]) for line in bytes(got).split(b"\n") if line.startswith(b"id: ")]
        assert [number for number in ids if number > before] == [number for number, _, _ in told]


def test_a_deleted_streams_events_are_no_more_and_the_stream_of_events_goes_on(lab: Lab, hear: Hear) -> None:
    lab.learn([0.5, 0.25], "s2")
    with interface(lab.folder) as client:
        heard = hear(client)
        entry = lab.journal.append_command("delete", "s1", {}, 1.0)
        lab.journal.put_turn(Turn(entry, [Forget(entry, "s1")]), 1.0)
        lab.learn([0.5], "s1")
        last = newest(database(lab))
        assert [json.loads(data)["seq"] for _, _, data in heard.until(last)] == [2]
        again = hear(client, last=0)
        told = again.until(last)
        assert [(json.loads(data)["stream"], json.loads(data)["seq"]) for _, _, data in told] == [
            ("s2", 0),
            ("s2", 1),
            ("s1", 2),
        ]


def test_nonsense_is_refused(lab: Lab) -> None:
    with interface(lab.folder) as client:
        for nonsense in ("", "x", "-1", "1.5", "1" * 19, "1 2", "١"):
            told = client.get("/v1/events", headers={"Last-Event-ID": nonsense.encode()})
            assert (told.status_code, told.json()["code"]) == (422, "invalid"), nonsense
        told = client.get("/v1/events", params={"stream": "../s1"})
        assert (told.status_code, told.json()["code"]) == (422, "invalid")


def test_what_can_not_be_gone_on_from_is_said(lab: Lab, hear: Hear) -> None:
    with interface(lab.folder) as client:
        last = newest(database(lab))
        told = client.get("/v1/events", headers={"Last-Event-ID": str(last + 1)})
        assert (told.status_code, told.json()["code"]) == (404, "unknown_event")
        told = client.get("/v1/events", params={"stream": "nobody"})
        assert (told.status_code, told.json()["code"]) == (404, "unknown_stream")
        learned = lab.journal.learned_id()
        lab.journal.put_turn(Turn(learned, alarms=[Alarm("lag", str(n)) for n in range(ALARMS_KEPT + 2)]), 1.0)
        told = client.get("/v1/events", headers={"Last-Event-ID": str(last + 1)})
        assert (told.status_code, told.json()["code"]) == (410, "events_gone")
        heard = hear(client, last=last + 2)
        alarms = [json.loads(data)["detail"] for _, _, data in heard.until(last + ALARMS_KEPT + 2)]
        assert alarms == [str(n) for n in range(2, ALARMS_KEPT + 2)], "the newest are all there"


def test_only_so_many_at_a_time(lab: Lab, hear: Hear) -> None:
    with interface(lab.folder, event_streams=2) as client:
        listeners = [hear(client) for _ in range(2)]
        told = client.get("/v1/events")
        assert (told.status_code, told.json()["code"]) == (503, "too_many_event_streams")
        assert told.headers["Retry-After"] == "5"
        assert client.get("/v1/streams").status_code == 200, "other calls have their own places"
        listeners.pop().cut()
        wait_until(lambda: _opens(address(client)), 30.0, "the place of one that has gone")
        listeners.pop().cut()


def _opens(at: tuple[str, int]) -> bool:
    heard = Heard(at)
    heard.cut()
    return heard.status == 200


def test_it_ends_with_the_interface_and_says_so(lab: Lab, hear: Hear) -> None:
    with interface(lab.folder) as client:
        heard = hear(client)
        heard.read(1)
    assert (heard.to_the_end() or {})["code"] == "stopping"
    with interface(lab.folder) as client:
        lab.learn([0.5])
        again = hear(client, last=heard.last)
        assert again.until(newest(database(lab))) == kept(database(lab), heard.last or 0)


def test_it_ends_with_its_token(lab: Lab, hear: Hear) -> None:
    folder = lab.folder / "access"
    mine = f"Bearer {make_token(folder, 'mine', 'read')}"
    other = f"Bearer {make_token(folder, 'other', 'read')}"
    with interface(lab.folder) as client:
        assert client.get("/v1/events").status_code == 401
        heard = hear(client, Authorization=mine)
        stays = hear(client, Authorization=other)
        heard.read(1)
        assert access(["token", "revoke", "mine", "--access-dir", str(folder)]) == 0
        assert (heard.to_the_end() or {})["code"] == "unauthorized"
        lab.learn([0.5])
        assert stays.until(newest(database(lab)))


def test_it_ends_where_the_database_is_put_back(lab: Lab, hear: Hear, tmp_path_factory: pytest.TempPathFactory) -> None:
    older = tmp_path_factory.mktemp("older") / "rjepa.db"
    copy_database(lab.folder, older)
    lab.learn([0.5, 0.25])
    with interface(lab.folder) as client:
        last = newest(database(lab))
        heard = hear(client)
        heard.until(last)
        lab.journal.close()
        older.replace(database(lab))
        for log in (database(lab).with_name("rjepa.db-wal"), database(lab).with_name("rjepa.db-shm")):
            log.unlink(missing_ok=True)
        assert (heard.to_the_end() or {})["code"] == "set_back"
        told = client.get("/v1/events", headers={"Last-Event-ID": str(last)})
        assert (told.status_code, told.json()["code"]) == (404, "unknown_event")


def test_nothing_is_asked_while_nobody_listens(lab: Lab, hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Semaphore(0)
    real = broadcast.newest_event

    def counted(connection: Any) -> int:
        asked.release()
        return real(connection)

    monkeypatch.setattr(broadcast, "newest_event", counted)
    with interface(lab.folder) as client:
        assert not asked.acquire(timeout=3 * broadcast.POLL_S)
        heard = hear(client)
        assert asked.acquire(timeout=30.0)
        heard.cut()

        def still() -> bool:
            while asked.acquire(blocking=False):
                pass
            return not asked.acquire(timeout=3 * broadcast.POLL_S)

        wait_until(still, 30.0, "the reader to rest")


def test_events_of_a_directory_that_no_worker_has_brought_up(lab: Lab, hear: Hear) -> None:
    """The interface may run on an older directory first: it begins there, and hears the events that come."""
    connection = lab.journal._database.connection
    for name in ("record_came", "checkpoint_came", "alarm_came"):
        connection.execute(f"DROP TRIGGER {name}")
    for name in ("events", "checkpoints"):
        connection.execute(f"DROP TABLE {name}")
    connection.execute("UPDATE meta SET value = '2' WHERE key = 'schema_version'")
    lab.journal.close()
    with interface(lab.folder) as client:
        heard = hear(client)
        heard.read(1)
        brought_up = Lab(lab.folder)
        brought_up._next = {"s1": 2}
        brought_up.learn([0.5])
        told: list[Told] = heard.until(1)
        assert [json.loads(data)["seq"] for _, _, data in told] == [2]
        brought_up.journal.close()
