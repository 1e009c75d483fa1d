"""An hour of sixteen viewers through one worker as fast as it goes: what its memory is, and that it comes to an end.

The retina's part is left out, its features are there already; with it: test_sixty_thousand.py. Every stream's windows
fill with its first 5,000 fixations; what is asked for is the time after.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from model.diagnostics import MOST_STREAMS
from model.ring import SCORED
from service.datadir import DATABASE
from service.journal import Admitted, Journal
from service.storage import open_reader
from tests.end_to_end.workers import Working, working
from tests.faults.lab import resident_kb
from tests.helpers import fixation_body, wait_until

pytestmark = pytest.mark.soak

STREAMS = [f"viewer{number}" for number in range(MOST_STREAMS)]
EACH = 14_400
"""Fixations of a stream: an hour, at four a second."""
MARKS = 12
FEATURES = 128
BATCH = 4000
LIMIT_S = 3600.0
FLAT_KB = 20_000
"""Growth in the second half; a kB kept of each fixation would be 115 MB."""


@dataclass
class Mark:
    """The worker's memory after ``learned`` fixations."""

    learned: int
    resident_kb: int
    own_kb: int
    """Of it what is in no file: without torch's libraries."""

    def __str__(self) -> str:
        return f"{self.learned:7d}: {self.resident_kb / 1000:.0f} MB, {self.own_kb / 1000:.0f} MB of them in no file"


def fill(folder: Path) -> None:
    """The journal of that hour: the viewers by turns, each fixation with features that go on from the last one's."""
    random = np.random.default_rng(0)
    z = random.standard_normal((len(STREAMS), FEATURES))
    batch: list[Admitted] = []
    features = []
    with closing(Journal(folder / DATABASE)) as journal:
        for stream in STREAMS:
            journal.claim(stream, 1, time.time())
        for seq in tqdm(range(EACH), desc="journal", unit_scale=len(STREAMS)):
            z = 0.6 * z + 0.8 * random.standard_normal(z.shape)
            for row, stream in enumerate(STREAMS):
                body = json.dumps(fixation_body(stream, seq))
                batch.append(Admitted(stream, seq, time.time(), body, b"%d %d" % (row, seq), b"", False, True))
                features.append(z[row].astype(np.float32))
            if len(batch) >= BATCH or seq + 1 == EACH:
                first = journal.last_id() + 1
                journal.append(batch)
                journal.put_features(enumerate(features, first))
                batch, features = [], []


def watch(worker: Working, folder: Path) -> list[Mark]:
    """Wait until all is learned; the memory at so many places on the way."""
    marks: list[Mark] = []
    pid, count = worker.process.pid, EACH * len(STREAMS)
    with closing(open_reader(folder / DATABASE)) as reader:

        def learned() -> int:
            return int(reader.execute("SELECT value FROM meta WHERE key = 'learned_id'").fetchone()[0])

        for goal in range(count // MARKS, count + 1, count // MARKS):
            wait_until(lambda goal=goal: learned() >= goal, LIMIT_S, f"{goal} learned")  # type: ignore[misc]
            marks.append(Mark(learned(), resident_kb(pid), resident_kb(pid, "RssAnon")))
            print(marks[-1], flush=True)
    return marks


def test_an_hour_of_sixteen_viewers_fills_their_windows_and_nothing_else(data_dir: Path, tmp_path: Path) -> None:
    assert EACH > 2 * SCORED, "the windows are full in the second half"
    fill(data_dir)
    with working(data_dir, tmp_path / "logs", options=("--checkpoint-every", "5")) as worker:
        marks = watch(worker, data_dir)
        assert len(list((data_dir / "checkpoints").iterdir())) >= 5
        assert worker.process.terminate(60.0) == 0, worker.process.stderr()[-3000:]
    middle, last = marks[MARKS // 2 - 1], marks[-1]
    assert last.own_kb - middle.own_kb < FLAT_KB, [str(mark) for mark in marks]
