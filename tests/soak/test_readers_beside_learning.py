"""Fifty readers of all calls while fixations come at 8/s: how late learning is with them and without, in one run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from tqdm import tqdm

from tests.helpers import ROOT, PlainClient, environment, free_port, patches, start_rjepa, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
READERS = 50
RATE_PER_S = 8.0
BLOCK_S = 15.0
ROUNDS = 4
"""Each round has a block without readers and one with them: 60 s of each, in turn."""
BEFORE = 50
"""Fixations before the first block, not counted."""
HISTORY = 20_000
"""Records there are to read: of another stream, all of it reported lost, so that they are there at once."""
WAIT_S = 300.0
PATCHES = patches(64)


class Crowd:
    """The readers' process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline().strip() == word

    def told(self) -> Counter[str]:
        out, _ = self._process.communicate(timeout=WAIT_S)
        return Counter(json.loads(out))


@contextmanager
def crowd(url: str) -> Iterator[Crowd]:
    words = [sys.executable, "-m", "tests.soak.readers", url, str(READERS), "long", "live"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Crowd(process)
        finally:
            process.kill()


def sent(client: PlainClient, first: int, count: int, bar: tqdm) -> None:
    """``count`` fixations at the rate, whatever the worker does meanwhile."""
    pace, began = threading.Event(), time.monotonic()
    for n in range(count):
        pace.wait(max(0.0, began + n / RATE_PER_S - time.monotonic()))
        client.fixation("live", first + n, PATCHES[(first + n) % len(PATCHES)])
        bar.update()


def latencies(http: httpx.Client, first: int, count: int) -> list[float]:
    """Arrival to learned, ms, of so many fixations."""
    asked = {"after": first - 1, "limit": count}
    records = http.get("/v1/streams/live/records", params=asked).json()["records"]
    assert [record["seq"] for record in records] == list(range(first, first + count))
    assert {record["skipped"] for record in records} == {None}
    return [record["latency_ms"] for record in records]


def test_readers_of_all_calls_do_not_delay_learning(data_dir: Path, tmp_path: Path) -> None:
    port, ingest = free_port(), f"tcp://127.0.0.1:{free_port()}"
    words = ["--data-dir", data_dir, "--weights", "random", "--ingest", ingest, "--http", f"127.0.0.1:{port}"]
    more = ["--publish", f"tcp://127.0.0.1:{free_port()}", "--request-rate", "1e6", "--checkpoint-every", "30"]
    with start_rjepa("serve", *words, *more, logs=tmp_path / "logs") as serve:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=WAIT_S) as http, PlainClient(ingest) as client:
            wait_until(lambda: ready(http), WAIT_S, "the worker")
            with PlainClient(ingest) as other:
                other.send("hello", {"stream": "long", "notify": "durable", "acked": HISTORY - 1, "have_from": HISTORY})
                other.expect("welcome", WAIT_S)
            client.hello("live")
            found, told = measured(client, http, url)
            print(f"\n{sum(told.values())} answers:", *(f"{name}: {n}" for name, n in sorted(told.items())), sep="\n")
            print(table(found))
            assert {name[-3:] for name in told} <= {"200", "503"}, "each is answered, or told to come again"
            answered = {name[:-4] for name in told if name.endswith("200")}
            assert answered == {name[:-4] for name in told}, "no call was never answered"
            assert serve.alive(), serve.stderr()[-3000:]
            assert "Traceback" not in serve.stderr()


def ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def measured(client: PlainClient, http: httpx.Client, url: str) -> tuple[dict[str, list[float]], Counter[str]]:
    """Latencies with and without readers, block by block, and how often the readers were told what."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    count, at = round(BLOCK_S * RATE_PER_S), BEFORE
    with tqdm(total=BEFORE + 2 * ROUNDS * count, desc="fixations") as bar:
        sent(client, 0, BEFORE, bar)
        client.until_learned(BEFORE - 1, WAIT_S)
        assert http.post("/v1/checkpoints", json={"pinned": True}).status_code == 201
        with crowd(url) as readers:
            for _ in range(ROUNDS):
                for kind, word in (("without", "stop"), ("with", "go")):
                    readers.say(word)
                    sent(client, at, count, bar)
                    client.until_learned(at + count - 1, WAIT_S)
                    found[kind] += latencies(http, at, count)
                    at += count
                readers.say("stop")
            told = readers.told()
    return dict(found), told


def table(found: dict[str, list[float]]) -> str:
    """Median, 99th percentile and the worst of each."""
    rows = [f"{'readers':>8} {'fixations':>9} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}"]
    for kind, values in found.items():
        p50, p99 = np.percentile(values, [50, 99])
        rows.append(f"{kind:>8} {len(values):>9} {p50:>8.1f} {p99:>8.1f} {max(values):>8.1f}")
    return "\n".join(rows)
