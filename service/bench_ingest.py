"""``rjepa bench ingest``: durable fixations a second, beside SQLite's own group commit of the same bytes.

The door of a worker with its journal, and nobody learning behind it; its clients are a process of their own. SQLite
alone is given the same rows, as many to a commit as the door had, and copies its log to its file with the commit that
fills it, as it does by itself. By turns, each time into a new database.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import zmq
from tqdm import tqdm

from clients.wire import ModelOffer
from service import ingest
from service.access import Access
from service.bench_record import Found
from service.bench_sender import fixations
from service.bench_worker import free_port
from service.errors import BenchRefused
from service.experiment_rows import as_markdown, as_text
from service.journal import Journal

FIXATIONS = 20_000
ROUNDS = 5


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many, how often."""
    parser.add_argument("--fixations", type=int, default=FIXATIONS, metavar="N", help=f"of one round ({FIXATIONS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of each of the two ({ROUNDS})")


def run(arguments: argparse.Namespace) -> Found:
    """Fixations a second of every round of both."""
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="rjepa-bench-") as folder:
        for number in tqdm(range(arguments.rounds), desc="ingest", unit="round", disable=arguments.quiet):
            place = Path(folder) / str(number)
            place.mkdir()
            door, group = _door(place, arguments.fixations)
            rounds.append({"door": door, "sqlite": _sqlite(place, arguments.fixations, group), "group": group})
    return {"fixations": arguments.fixations, "rounds": rounds}


def told(found: Found, *, markdown: bool) -> str:
    """The medians and the ratio."""
    rounds = found["rounds"]
    door, alone = (statistics.median(each[name] for each in rounds) for name in ("door", "sqlite"))
    ratio = statistics.median(each["door"] / each["sqlite"] for each in rounds)
    lines = [
        ["durable fixations/s", "SQLite alone", "ratio", "fixations to a commit", "rounds"],
        [
            f"{door:,.0f}", f"{alone:,.0f}", f"{ratio:.2f}",
            f"{statistics.median(each['group'] for each in rounds):.0f}", str(len(rounds)),
        ],
    ]  # fmt: skip
    return as_markdown(lines) if markdown else as_text(lines)


def _door(place: Path, count: int) -> tuple[float, int]:
    """Fixations a second through the door, and how many there were to a commit."""
    commits: list[str] = []
    ended = threading.Event()
    address = f"tcp://127.0.0.1:{free_port()}"
    with closing(Journal(place / "door.db", before_commit=commits.append)) as journal, zmq.Context() as context:
        router = context.socket(zmq.ROUTER)
        ingest.configure(router)
        router.bind(address)
        offer = ModelOffer(name="bench", embedding_size=1)
        door = ingest.Ingest(
            router, journal, Access.load(place / "access"), offer,
            on_append=lambda: None, on_dropped=lambda stream, dropped: None, on_end=ended.set,
        )  # fmt: skip
        door.start()
        sender = [sys.executable, "-m", "service.bench_sender", address, str(count)]
        try:
            done = subprocess.run(sender, capture_output=True, text=True, check=False, timeout=600)
        finally:
            door.stop()
            ended.wait()
    if done.returncode != 0:
        raise BenchRefused(f"the sender ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return count / float(json.loads(done.stdout)["seconds"]), max(1, round(count / commits.count("fixations")))


def _sqlite(place: Path, count: int, group: int) -> float:
    """Rows a second by one plain connection."""
    rows: list[tuple[Any, ...]] = [
        (time.time(), stream, seq, frames[2].decode(), frames[2][:32], frames[3])
        for stream, seq, frames in fixations(count)
    ]
    with closing(sqlite3.connect(place / "plain.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, time, stream, seq, body, digest, bytes)")
        begun_s = time.perf_counter()
        for first in range(0, count, group):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO rows (time, stream, seq, body, digest, bytes) VALUES (?, ?, ?, ?, ?, ?)",
                rows[first : first + group],
            )
            connection.execute("COMMIT")
        return count / (time.perf_counter() - begun_s)
