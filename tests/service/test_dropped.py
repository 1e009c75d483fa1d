"""Fixations a client had no room for: told by its hello, counted once, shown, with an alarm that goes on and off."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

import clients.sender
from clients.sender import Sender
from clients.wire import Dropped, ModelOffer
from service.access import Access
from service.alarms import Alarms
from service.api.streams import stream_entries
from service.dropped import OVER_S, Drops
from service.errors import StorageFailed
from service.ingest import Ingest, configure
from service.journal import Forget, Journal, Turn
from service.storage import open_reader
from tests.helpers import free_port, patches, wait_until
from tests.service.api_support import interface, working


def shown(folder: Path, stream: str = "anna") -> tuple[dict[str, int], list[str]]:
    """What ``/v1/streams`` has of it: dropped, and the alarms that are on."""
    with closing(open_reader(folder / "rjepa.db")) as reader:
        (entry,) = stream_entries(reader, None, 0.0, only=stream)
    return entry["dropped"], [alarm["kind"] for alarm in entry["alarms_on"]]


def told(count: int, since: float = 1.0) -> Dropped:
    return Dropped(since=since, spool_full=count)


@contextmanager
def life(folder: Path, before_commit: Callable[[str], None] | None = None) -> Iterator[tuple[Journal, Drops]]:
    with closing(Journal(folder / "rjepa.db", before_commit=before_commit)) as journal:
        journal.claim("anna", 1, 0.0)
        yield journal, Drops(journal, Alarms(journal))


def test_told_twice_counts_once_and_runs_add_up(tmp_path: Path) -> None:
    with life(tmp_path) as (journal, drops):
        assert shown(tmp_path) == ({}, [])
        for count in (3, 3, 2, 5):
            drops.heard("anna", told(count))
        assert shown(tmp_path) == ({"spool_full": 5}, ["spool_full"])
        drops.heard("anna", told(2, since=9.0))
        assert shown(tmp_path)[0] == {"spool_full": 7}, "another run of the client counts anew"
        kinds = journal._read("SELECT kind, stream FROM alarms")
        assert kinds == [("spool_full", "anna")], "raised once"
    with life(tmp_path) as (journal, drops):
        drops.heard("anna", told(2, since=9.0))
        assert shown(tmp_path)[0] == {"spool_full": 7}, "a restart of the worker counts nothing twice"
        drops.heard("anna", told(3, since=9.0))
        assert shown(tmp_path)[0] == {"spool_full": 8}
        journal.put_turn(Turn(writes=[Forget(1, "anna")], alarms=[], learned_id=0, meta={}), 0.0)
        assert shown(tmp_path)[0] == {}, "forgotten with its stream"


def test_the_alarm_goes_off_when_no_more_is_told(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    with life(tmp_path) as (_, drops):
        drops.heard("anna", told(3))
        drops.look(begun_s + OVER_S - 1.0)
        assert shown(tmp_path)[1] == ["spool_full"]
    with life(tmp_path) as (journal, drops):
        drops.look(begun_s + OVER_S - 1.0)
        assert shown(tmp_path)[1] == ["spool_full"], "a restart neither raises nor clears it"
        drops.look(time.monotonic() + OVER_S)
        assert shown(tmp_path) == ({"spool_full": 3}, [])
        assert journal._read("SELECT kind, detail FROM alarms")[1:] == [
            ("cleared", "spool_full: no more for 60 s; 3 in all")
        ]


def test_a_disk_that_refuses_it_is_told_again(tmp_path: Path) -> None:
    full = True

    def before_commit(what: str) -> None:
        if full and what in ("alarm", "meta"):
            raise OSError(28, "full")

    with life(tmp_path, before_commit) as (_, drops):
        with pytest.raises(StorageFailed):
            drops.heard("anna", told(3))
        assert shown(tmp_path) == ({}, [])
        full = False
        drops.heard("anna", told(3))
        assert shown(tmp_path) == ({"spool_full": 3}, ["spool_full"])


@contextmanager
def door(folder: Path, address: str, context: zmq.Context[Any]) -> Iterator[None]:
    """Ingest with a real socket on a real journal."""
    with closing(Journal(folder / "rjepa.db")) as journal:
        router = context.socket(zmq.ROUTER)
        configure(router)
        router.bind(address)
        ingest = Ingest(
            router, journal, Access.load(folder / "access"), ModelOffer(name="rjepa", embedding_size=256),
            on_append=lambda: None, on_dropped=Drops(journal, Alarms(journal)).heard, on_end=lambda: None,
        )  # fmt: skip
        ingest.start()
        try:
            yield
        finally:
            ingest.stop()


def test_from_a_full_spool_to_an_alarm_over_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client offers on while nobody answers; the worker that comes learns what it has missed, and says so."""
    monkeypatch.setattr(clients.sender, "QUEUE", 4)
    address = f"tcp://127.0.0.1:{free_port()}"
    (patch,) = patches(1)
    with zmq.Context() as context, Sender(address, "anna", spool_dir=tmp_path / "spool", capacity=6) as sender:

        def offer(number: int, wait_s: float) -> bool:
            return sender.offer(onset_s=float(number), duration_s=0.2, gaze=(0.5, 0.5), patch=patch, wait_s=wait_s)

        assert all(offer(number, wait_s=30) for number in range(6))
        wait_until(lambda: sender.status.taken == 6, 30, "the spool to be full")
        assert [offer(number, wait_s=0) for number in range(6, 30)] == [True] * 4 + [False] * 20
        data_dir = tmp_path / "data"
        data_dir.mkdir()
        with door(data_dir, address, context):
            assert sender.flush(learned=False, timeout_s=30)
            wait_until(lambda: shown(data_dir)[1] == ["spool_full"], 30, "the alarm")
            with working(data_dir), interface(data_dir) as client:
                stream = client.get("/v1/streams/anna").json()
                metrics = client.get("/metrics").text
                page = client.get("/").text
    assert stream["dropped"] == {"spool_full": 20}
    assert stream["next_seq"] == 10, "what was dropped has no seq and leaves no hole"
    assert [alarm["kind"] for alarm in stream["alarms_on"]] == ["spool_full"]
    assert "20 fixations were dropped" in stream["alarms_on"][0]["detail"]
    assert 'rjepa_stream_alarm{kind="spool_full",stream="anna"} 1.0' in metrics
    assert 'reason="spool_full"' in metrics
    assert "20 spool_full" in page
