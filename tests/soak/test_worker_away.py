"""A live client whose worker is away for ten minutes: nothing is lost, and the client's memory is as it was."""

from __future__ import annotations

import json
import time
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.storage import open_reader
from tests.end_to_end.test_stream import a_video
from tests.end_to_end.workers import working
from tests.helpers import free_port, start_rjepa, wait_until

pytestmark = pytest.mark.soak

AWAY_S = 600.0
SETTLED = 0.2
"""The share of that time after which the client's memory is first looked at."""
FLAT_KB = 4_000
"""The patches of ten minutes are 15 MB; the spool's growing index on them would be seen too."""
LONGEST_GAP_S = 5.0
"""Between the onsets of two fixations of the observer, at most: more and one is missing."""


def onsets(data_dir: Path) -> list[float]:
    """Of every fixation in the journal, in order (s)."""
    with closing(open_reader(data_dir / "rjepa.db")) as reader:
        rows: list[Any] = reader.execute("SELECT body FROM journal WHERE kind = 'fixation' ORDER BY id").fetchall()
    return [json.loads(body)["onset"] for (body,) in rows]


def resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def away(data_dir: Path, tmp_path: Path, away_s: float) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    video, summary = a_video(tmp_path / "scene.avi"), tmp_path / "summary.json"
    words = ["stream", "simulated", video, "--loop", "--stream=live", f"--ingest={address}", f"--summary={summary}"]
    with start_rjepa(*words, f"--spool={tmp_path / 'spool'}", logs=tmp_path / "client") as client:
        begun = time.monotonic()
        with working(data_dir, tmp_path / "first", address) as worker:
            wait_until(lambda: len(onsets(data_dir)) >= 10, 60.0, "ten fixations")
            worker.process.kill()
        left = time.monotonic()
        wait_until(lambda: time.monotonic() - left > SETTLED * away_s, away_s, "the client to be used to it")
        settled_kb = resident_kb(client.pid)
        wait_until(lambda: time.monotonic() - left > away_s, away_s, "the rest of the time")
        last_kb = resident_kb(client.pid)
        sizes = f"{settled_kb / 1024:.1f} MB soon after, {last_kb / 1024:.1f} MB at the end"
        print(f"\n{away_s:.0f} s without a worker: the client has {sizes}", flush=True)
        with working(data_dir, tmp_path / "second", address):
            wait_until(
                lambda: time.monotonic() - begun - max(onsets(data_dir)) < 10.0, 300.0, "the client to be up to date"
            )
            assert client.terminate(60.0) == 0, client.stderr()[-3000:]
            wait_until(lambda: _all_learned(data_dir), 120.0, "all to be learned")
    told, found = json.loads(summary.read_text()), onsets(data_dir)
    print(f"{len(found)} fixations, all durable and learned", flush=True)
    assert told["dropped"].get("spool_full", 0) == 0
    assert told["acked"] == told["sent"] == len(found), told
    gaps = [after - one for one, after in pairwise(found)]
    assert all(0.0 < gap < LONGEST_GAP_S for gap in gaps), "in order, each once, none missing"
    assert last_kb - settled_kb < FLAT_KB


def _all_learned(data_dir: Path) -> bool:
    with closing(open_reader(data_dir / "rjepa.db")) as reader:
        (row,) = reader.execute("SELECT next_seq, learned_seq FROM streams WHERE name = 'live'").fetchall()
    return int(row[0]) == int(row[1]) + 1


def test_ten_minutes_without_a_worker(data_dir: Path, tmp_path: Path) -> None:
    away(data_dir, tmp_path, AWAY_S)
