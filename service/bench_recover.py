"""``rjepa bench recover``: seconds to learn a journal again after a crash, where no checkpoint helps.

A real worker is given fixations, killed, and started again, several times; nothing is written between.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.bench_load import GIVE_UP_S, Load, Viewer
from service.bench_record import Found
from service.bench_worker import TICK_S, BenchWorker, Directories
from service.errors import BenchRefused, ServiceError
from service.experiment_rows import as_markdown, as_text

FIXATIONS = 2000
ROUNDS = 3
AHEAD = 64
FIRST_WORD_S = 60.0
"""How long a worker that was started again may say nothing."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """How long a journal, how often."""
    parser.add_argument("--fixations", type=int, default=FIXATIONS, metavar="N", help=f"in the journal ({FIXATIONS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"crashes ({ROUNDS})")


def run(arguments: argparse.Namespace) -> Found:
    """Seconds of every round. Raises :class:`BenchRefused`."""
    rounds = []
    with (
        tempfile.TemporaryDirectory(prefix="rjepa-bench-") as folder,
        tqdm(total=arguments.fixations, desc="learning", unit="fixation", disable=arguments.quiet) as bar,
        Directories(Path(folder)).worker("--checkpoint-every", "86400") as worker,
    ):
        with Load(worker.address) as load:
            _learn(load, load.add_import(AHEAD), arguments.fixations, bar)
        for _ in range(arguments.rounds):
            worker.kill()
            worker.start()
            rounds.append(_recovered(worker))
    return {"fixations": arguments.fixations, "rounds": rounds}


def told(found: Found, *, markdown: bool) -> str:
    """The medians."""
    rounds = found["rounds"]
    per = statistics.median(10_000 * each["again_s"] / each["again"] for each in rounds)
    lines = [
        ["fixations learned again", "seconds", "seconds for 10,000", "from start to ready, s", "rounds"],
        [
            f"{statistics.median(each['again'] for each in rounds):.0f}",
            f"{statistics.median(each['again_s'] for each in rounds):.1f}", f"{per:.1f}",
            f"{statistics.median(each['ready_s'] for each in rounds):.1f}", str(len(rounds)),
        ],
    ]  # fmt: skip
    return as_markdown(lines) if markdown else as_text(lines)


def _learn(load: Load, recorded: Viewer, count: int, bar: Any) -> None:
    """Until ``count`` are learned."""
    while recorded.learned < count:
        wanted = min(count, recorded.learned + AHEAD)
        load.run(GIVE_UP_S, until=partial(_has_learned, recorded, wanted))
        if recorded.learned < wanted:
            raise BenchRefused(f"the worker learns no further than {recorded.learned} of {count}: is the disk full?")
        bar.update(recorded.learned - bar.n)


def _has_learned(viewer: Viewer, count: int) -> bool:
    return viewer.learned >= count


def _recovered(worker: BenchWorker) -> dict[str, float]:
    """How many were learned again, and how long that took, from the first word of the worker on."""
    before = _first_word(worker)
    begun_s = time.perf_counter()
    ready_s = worker.ready()
    again_s = time.perf_counter() - begun_s
    again = worker.status()["recovered"] - before
    if again <= 0:
        raise BenchRefused("all was learned again before the worker's first word: ask for more with --fixations")
    return {"again": again, "again_s": again_s, "ready_s": ready_s}


def _first_word(worker: BenchWorker) -> int:
    """How many it had learned again when it answered for the first time."""
    while True:
        try:
            return int(worker.status()["recovered"])
        except ServiceError:
            if time.perf_counter() - worker.started_s > FIRST_WORD_S:
                worker.ready()  # which says why where it has ended
            time.sleep(TICK_S)
