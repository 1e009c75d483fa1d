"""Records as CSV and as an Arrow stream: the same as the database has, and never a part that passes for the whole."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pyarrow as pa
import pytest

from service.api.accept import chosen
from service.api.arrow import ArrowStream
from service.api.columns import COLUMNS, NAMES
from service.api.forms import ARROW_TYPE, CSV_TYPE, JSON_TYPE, CsvPage, JsonPage
from service.api.problems import Problem
from service.api.records import FORMS
from service.journal import Forget, Journal, Turn
from tests.helpers import wait_until
from tests.service.api_support import Lab, interface
from tests.service.histories import arrow_rows, csv_rows, database_rows, write_history

COUNT = 5_000
RECORDS = "/v1/streams/s1/records"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, httpx.Client]]:
    """An interface on a history of COUNT records, for tests that only read."""
    folder = tmp_path_factory.mktemp("long")
    write_history(folder, COUNT)
    with interface(folder) as client:
        yield folder, client


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.journal.close()


def get(client: httpx.Client, accept: str, **params: Any) -> httpx.Response:
    got = client.get(RECORDS, params=params, headers={"Accept": accept})
    assert got.status_code == 200, got.text
    assert got.headers["vary"] == "Accept"
    return got


def seqs(content: bytes) -> list[int]:
    return [row[NAMES.index("seq")] for row in arrow_rows(content)]


def pages(client: httpx.Client, **params: Any) -> Iterator[httpx.Response]:
    """The CSV pages, as their Link headers lead."""
    url: str | None = str(httpx.URL(RECORDS, params=params))
    while url is not None:
        got = client.get(url, headers={"Accept": CSV_TYPE})
        assert got.status_code == 200, got.text
        yield got
        url = urljoin(url, got.links["next"]["url"]) if "next" in got.links else None


@pytest.mark.parametrize("embeddings", [False, True])
def test_an_arrow_stream_is_the_database_row_by_row(made: tuple[Path, httpx.Client], embeddings: bool) -> None:
    folder, client = made
    got = get(client, ARROW_TYPE, embeddings=embeddings, limit=7)  # a limit is for pages; a stream has none
    assert got.headers["content-type"] == ARROW_TYPE
    pairs = zip_longest(arrow_rows(got.content), database_rows(folder, embeddings=embeddings))
    assert sum(told == held for told, held in pairs) == COUNT
    with pa.ipc.open_stream(got.content) as reader:
        fields = list(reader.schema)[: len(COLUMNS)]
        assert [(f.name, f.nullable, f.metadata[b"unit"].decode()) for f in fields] == [
            (column.name, not column.needed, column.unit) for column in COLUMNS
        ]
        assert max(batch.num_rows for batch in reader) == ArrowStream.piece


@pytest.mark.parametrize("embeddings", [False, True])
def test_csv_pages_are_the_database_row_by_row(made: tuple[Path, httpx.Client], embeddings: bool) -> None:
    folder, client = made
    found = list(pages(client, limit=2_200, embeddings=embeddings))
    assert len(found) == 3
    assert {got.headers["content-type"] for got in found} == {"text/csv; charset=utf-8; header=present"}
    told = [row for got in found for row in csv_rows(got.text.splitlines(keepends=True))]
    assert told == list(database_rows(folder, embeddings=embeddings))


def test_json_pages_are_the_same_records(made: tuple[Path, httpx.Client]) -> None:
    _, client = made
    page = client.get(RECORDS, params={"after": 4_899}).json()
    table = pa.ipc.open_stream(get(client, ARROW_TYPE, after=4_899).content).read_all().to_pylist()
    flat = [
        {
            name: (one["gaze"] or {}).get(name[-1]) if name.startswith("gaze_")
            else one["trivial_error"][name[8:]] if name.startswith("trivial_")
            else one[name]
            for name in NAMES
        }
        for one in page["records"]
    ]  # fmt: skip
    assert flat == table
    assert len(table) == 100


def test_a_history_without_records(lab: Lab) -> None:
    lab.claim("s1")
    with interface(lab.folder) as client:
        table = pa.ipc.open_stream(get(client, ARROW_TYPE, embeddings=True).content).read_all()
        assert (table.num_rows, table.schema.names) == (0, [*NAMES, "embedding"])
        assert get(client, CSV_TYPE).text == ",".join(NAMES) + "\r\n"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, JSON_TYPE),
        ("", JSON_TYPE),
        ("nonsense", JSON_TYPE),
        ("*/*", JSON_TYPE),
        ("application/*", JSON_TYPE),
        ("text/*", CSV_TYPE),
        ("TEXT/CSV", CSV_TYPE),
        ("text/csv;header=absent;q=1.000", CSV_TYPE),
        ("text/csv, application/json", JSON_TYPE),
        ("text/csv, application/json;q=0.9", CSV_TYPE),
        ("text/csv; q=0.5 , */*; Q=0.1", CSV_TYPE),
        ("*/*, application/json;q=0", CSV_TYPE),
        ("application/*;q=1, application/json;q=0.2", ARROW_TYPE),
        ("text/html, application/vnd.apache.arrow.stream;q=0.001", ARROW_TYPE),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON_TYPE),
        ("text/csv;q=2, application/json;q=0.1", JSON_TYPE),
    ],
)
def test_the_form_the_client_likes_best(accept: str | None, form: str) -> None:
    assert chosen(accept, FORMS) == form


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "image/*, text/csv;q=0", "application/json;q=0.000"])
def test_a_form_there_is_not(accept: str) -> None:
    with pytest.raises(Problem) as refused:
        chosen(accept, FORMS)
    assert (refused.value.status_code, refused.value.code) == (406, "not_acceptable")


def test_a_refused_form_is_told_what_there_is(made: tuple[Path, httpx.Client]) -> None:
    got = made[1].get(RECORDS, headers={"Accept": "text/html"})
    assert (got.status_code, got.headers["content-type"]) == (406, "application/problem+json")
    assert (got.json()["code"], got.json()["offered"]) == ("not_acceptable", list(FORMS))


class Held:
    """Lets a form give its first batch, then waits until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, form: type) -> None:
        self.reached, self.free, self.count = threading.Event(), threading.Event(), 0
        rows = form.rows

        def held(made: Any, batch: Any) -> bytes:
            self.count += 1
            if self.count == 2:
                self.reached.set()
                assert self.free.wait(30)
            return bytes(rows(made, batch))

        monkeypatch.setattr(form, "rows", held)
        monkeypatch.setattr(ArrowStream, "piece", 100)


def while_read(lab: Lab, client: httpx.Client, held: Held, accept: str, meanwhile: Any, **params: Any) -> bytes:
    """What an answer comes to when ``meanwhile`` is done after its first batch."""
    with client.stream("GET", RECORDS, params=params, headers={"Accept": accept}) as got:
        assert got.status_code == 200
        assert held.reached.wait(30)
        meanwhile()
        held.free.set()
        return got.read()


def test_an_export_is_the_history_as_it_was_at_its_beginning(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    first = lab.learn([1.0] * 250)
    held = Held(monkeypatch, ArrowStream)

    def meanwhile() -> None:
        lab.learn([1.0] * 10)
        lab.restore(fork=first[50].id)
        lab.learn([2.0] * 10)

    with interface(lab.folder) as client:
        assert seqs(while_read(lab, client, held, ARROW_TYPE, meanwhile)) == list(range(250))
        assert seqs(get(client, ARROW_TYPE).content) == [*range(51), *range(260, 270)]


def test_csv_pages_stay_on_the_timeline_they_began_on(lab: Lab) -> None:
    first = lab.learn([1.0] * 6)
    with interface(lab.folder) as client:
        found = pages(client, limit=4)
        told = next(found).text
        lab.restore(fork=first[1].id)
        lab.learn([2.0] * 2)
        assert next(found).text.count("\r\n") == 3
        assert told.count("\r\n") == 5
        assert list(found) == []


@pytest.mark.parametrize(("accept", "form"), [(ARROW_TYPE, ArrowStream), (CSV_TYPE, CsvPage), (JSON_TYPE, JsonPage)])
def test_a_delete_meanwhile_breaks_the_answer(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, accept: str, form: type
) -> None:
    lab.learn([1.0] * 250)
    held = Held(monkeypatch, form)
    monkeypatch.setattr(form, "__init__", _small(form))

    def delete() -> None:
        entry = lab.journal.append_command("delete", "s1", {}, 1.0)
        lab.journal.put_turn(Turn(entry, [Forget(entry, "s1")]), 1.0)

    with interface(lab.folder) as client:
        with pytest.raises(httpx.TransportError):
            while_read(lab, client, held, accept, delete)
        wait_until(lambda: "was deleted while its records were read" in caplog.text, 10.0, "a word of it")
        assert "Traceback" not in caplog.text
        assert get(client, JSON_TYPE).json() == {"records": [], "next": None}, "who asks anew is told what is left"


def _small(form: type) -> Any:
    make = form.__init__

    def init(made: Any, *words: Any) -> None:
        make(made, *words)
        made.piece = 100

    return init


def test_a_client_of_the_old_protocol_sees_the_cut_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/1.0 knows no chunks: an answer ends with its connection, so that this must not end orderly."""
    lab.learn([1.0] * 250)
    held = Held(monkeypatch, ArrowStream)
    with interface(lab.folder) as client, socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as plain:
        plain.sendall(f"GET {RECORDS} HTTP/1.0\r\nHost: localhost\r\nAccept: {ARROW_TYPE}\r\n\r\n".encode())
        assert held.reached.wait(30)
        (lab.folder / "rjepa.db").rename(lab.folder / "away.db")
        held.free.set()
        with pytest.raises(ConnectionResetError):
            _all_of(plain)


def _all_of(plain: socket.socket) -> bytes:
    return b"".join(iter(lambda: plain.recv(65536), b""))


def test_a_client_that_goes_away_ends_the_work(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rjepa.api")
    lab.learn([1.0] * 1_000)
    held = Held(monkeypatch, ArrowStream)
    with interface(lab.folder) as client:
        with client.stream("GET", RECORDS, headers={"Accept": ARROW_TYPE}):
            assert held.reached.wait(30)
        held.free.set()
        wait_until(lambda: "was given up, its client is gone" in caplog.text, 10.0, "a word of it")
        assert held.count < 10
        assert seqs(get(client, ARROW_TYPE, after=989).content) == list(range(990, 1_000)), "its place is free again"


def test_no_read_stays_open_between_two_batches(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.learn([1.0] * 250)
    held = Held(monkeypatch, ArrowStream)
    told: list[int] = []

    def checkpoint() -> None:
        other = Journal(lab.folder / "rjepa.db")
        try:
            told.extend(other._read("PRAGMA wal_checkpoint(TRUNCATE)")[0])
        finally:
            other.close()

    with interface(lab.folder) as client:
        assert len(seqs(while_read(lab, client, held, ARROW_TYPE, checkpoint))) == 250
    assert told == [0, 0, 0], "not busy, and nothing left in the log"
