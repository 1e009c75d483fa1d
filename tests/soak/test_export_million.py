"""A million records exported while they are compared with the database row by row: time, and the interface's memory."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from tqdm import tqdm

from service.api.forms import ARROW_TYPE, CSV_TYPE
from tests.helpers import Running, free_port, start_rjepa, wait_until
from tests.service.histories import arrow_rows, csv_rows, database_rows, write_history

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
COUNT = 1_000_000
EMBEDDING_SIZE = 256
GROWN_KB = 64_000
"""What a few batches and their text may need; the history is twenty times that, with embeddings."""
RECORDS = "/v1/streams/s1/records"


class Body(io.RawIOBase):
    """An answer's body as a file; counts its bytes."""

    def __init__(self, response: httpx.Response) -> None:
        self._pieces = response.iter_raw()
        self._left = b""
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
            self.count += len(piece)
        taken = min(len(buffer), len(self._left))
        buffer[:taken], self._left = self._left[:taken], self._left[taken:]
        return taken


def test_a_million_records_leave_as_they_are_stored(tmp_path: Path) -> None:
    began = time.monotonic()
    write_history(tmp_path, COUNT, embedding_size=EMBEDDING_SIZE)
    size = (tmp_path / "rjepa.db").stat().st_size
    print(f"\n{COUNT:,} records written in {time.monotonic() - began:.0f} s: {size / 1e9:.2f} GB")
    for form in ("Arrow", "Arrow with embeddings", "CSV"):
        port = free_port()
        with start_rjepa("api", "--data-dir", tmp_path, "--http", f"127.0.0.1:{port}", logs=tmp_path / "logs") as api:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300.0) as client:
                wait_until(lambda client=client: _lives(client), 120.0, "the interface")
                assert client.get(RECORDS, params={"limit": 1}).status_code == 200
                _measured(form, client, api, tmp_path)
            assert api.terminate() == 0


def _lives(client: httpx.Client) -> bool:
    try:
        return client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False


def _measured(form: str, client: httpx.Client, api: Running, folder: Path) -> None:
    """Once as fast as it comes, for the time; once compared row by row."""
    embeddings = form.endswith("embeddings")
    before_kb = _kb(api, "VmRSS")
    began, bytes_ = time.monotonic(), 0
    for piece in _pages(client) if form == "CSV" else _stream(client, embeddings):
        bytes_ += len(piece)
    took_s, used_s = time.monotonic() - began, _cpu_s(api)
    told = _csv(client) if form == "CSV" else _arrow(client, embeddings)
    held = database_rows(folder, embeddings=embeddings)
    same = sum(one == other for one, other in zip_longest(tqdm(told, form, COUNT, unit_scale=True), held))
    peak_kb = _kb(api, "VmHWM")
    print(
        f"{form}: {bytes_ / 1e6:.0f} MB in {took_s:.1f} s ({used_s:.1f} s of the interface's CPU); "
        f"{same:,} of {COUNT:,} rows as in the database; the interface had {before_kb / 1e3:.0f} MB, "
        f"at most {peak_kb / 1e3:.0f} MB"
    )
    assert same == COUNT
    assert peak_kb - before_kb < GROWN_KB


def _stream(client: httpx.Client, embeddings: bool) -> Iterator[bytes]:
    with client.stream("GET", RECORDS, params={"embeddings": embeddings}, headers={"Accept": ARROW_TYPE}) as got:
        assert got.status_code == 200
        yield from got.iter_raw()


def _arrow(client: httpx.Client, embeddings: bool) -> Iterator[tuple[Any, ...]]:
    with client.stream("GET", RECORDS, params={"embeddings": embeddings}, headers={"Accept": ARROW_TYPE}) as got:
        yield from arrow_rows(io.BufferedReader(Body(got), 1 << 20))


def _pages(client: httpx.Client) -> Iterator[bytes]:
    url: str | None = f"{RECORDS}?limit=10000"
    while url is not None:
        got = client.get(url, headers={"Accept": CSV_TYPE})
        assert got.status_code == 200, got.text
        yield got.content
        url = urljoin(url, got.links["next"]["url"]) if "next" in got.links else None


def _csv(client: httpx.Client) -> Iterable[tuple[Any, ...]]:
    for page in _pages(client):
        yield from csv_rows(page.decode().splitlines(keepends=True))


def _kb(process: Running, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def _cpu_s(process: Running) -> float:
    import os

    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
