"""A data directory is put back from a backup while its clients are further on: real worker, real clients.

What a client can offer again is learned; what nobody has any more is journalled as lost, told, and gone on from.
"""

from __future__ import annotations

from contextlib import closing
from itertools import groupby
from pathlib import Path

import pytest

from service.backup import backup
from service.check import check
from service.storage import open_reader
from tests.faults import judge, mortal
from tests.faults.story import WAIT_S, Home, body, ready
from tests.faults.whole import Whole, stop
from tests.helpers import PlainClient
from tests.service.bench import same_bits

BEFORE, AFTER, END = 8, 12, 30
"""Of each stream: what the backup has, what was acked when it was put back, what there is."""
SKIPPED = {("lost", "lost"), ("fixation", None), ("fixation", "repeat"), ("fixation", "refused")}
JOURNAL = "SELECT journal.id, kind, journal.stream, journal.seq, skipped, position FROM journal JOIN records USING (id)"
RECORDS = f"SELECT {judge.RECORD} FROM records ORDER BY id"


def offer(home: Home, folder: Path, count: int) -> None:
    """Both streams by their clients, to ``count``, until all is learned."""
    client = home.nursery.start("client", address=home.ingest, folder=str(folder), count=count)
    assert client.wait(WAIT_S) == 0, client.said()


def rows(data: Path, query: str) -> list[tuple]:  # type: ignore[type-arg]
    with closing(open_reader(data / "rjepa.db")) as reader:
        return [tuple(row) for row in reader.execute(query)]


def same_again(home: Home, entries: list[tuple]) -> None:  # type: ignore[type-arg]
    """Another worker on another copy of the backup is told the same in the same order, by hand."""
    process = home.worker()
    with PlainClient(home.ingest) as client:
        for name in mortal.STREAMS:
            client.send("hello", {"stream": name, "notify": "durable"})
            client.expect("welcome", limit_s=WAIT_S)
        for (kind, name), group in groupby(entries, key=lambda entry: (entry[1], entry[2])):
            seqs = [entry[3] for entry in group]
            if kind == "lost":
                client.send("hello", {"stream": name, "notify": "durable", "acked": seqs[-1]})
                client.expect("welcome", limit_s=WAIT_S)
            else:
                for seq in seqs:
                    client.send("fixation", body(name, seq, seq), mortal.patch_of(name, seq).tobytes())
        last = {name: END - 1 for name in mortal.STREAMS}
        while last:
            kind, told = client.receive(limit_s=WAIT_S)
            assert kind == "ack", (kind, told)
            if told["learned"] >= last.get(told["stream"], END):
                del last[told["stream"]]
    stop(process)


@pytest.mark.timeout(900)
def test_put_back_from_a_backup(whole: Whole, tmp_path: Path) -> None:
    home = whole.home(tmp_path / "data")
    clients = tmp_path / "clients"
    process = home.worker()
    offer(home, clients, BEFORE)
    assert backup(home.data_dir, tmp_path / "backup") == [], "taken while it runs"
    assert backup(home.data_dir, tmp_path / "other") == []
    offer(home, clients, AFTER)
    ready(process)
    process.kill()
    home.data_dir.rename(tmp_path / "gone")
    (tmp_path / "backup").rename(home.data_dir)
    process = home.worker()
    offer(home, clients, END)
    ready(process)
    stop(process)

    entries = rows(home.data_dir, f"{JOURNAL} ORDER BY journal.id")
    for name in mortal.STREAMS:
        assert [entry[3] for entry in entries if entry[2] == name] == list(range(END)), "each once, in order"
    lost = [(entry[2], entry[3]) for entry in entries if entry[1] == "lost"]
    assert lost == [("b", seq) for seq in range(BEFORE, AFTER)], "the live one's; the recording is offered again"
    assert {(entry[1], entry[4]) for entry in entries} <= SKIPPED
    assert [entry[5] for entry in entries if entry[2:4] == ("b", AFTER)] == [0], "a new sequence"
    alarms = rows(home.data_dir, "SELECT stream, detail FROM alarms WHERE kind = 'data_lost'")
    assert [alarm[0] for alarm in alarms] == ["b"]
    assert f"seq {BEFORE} to {AFTER - 1}" in alarms[0][1]
    assert check(home.data_dir).said() == []

    other = Home.at(whole.nursery, tmp_path / "other")
    same_again(other, entries[2 * BEFORE :])
    assert rows(other.data_dir, RECORDS) == rows(home.data_dir, RECORDS)
    learner = judge.newest(home.data_dir)[1]
    assert same_bits(learner, judge.newest(other.data_dir)[1])
    print(f"{len(lost)} lost; {judge.sha256(learner)}")
