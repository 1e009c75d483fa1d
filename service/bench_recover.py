"""``rjepa bench recover``: seconds to learn a journal again after a crash, where no checkpoint helps.

A real worker is given fixations, killed, and started again, several times; nothing is written between.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from service.bench_load import Load
from service.bench_record import Found
from service.bench_worker import TICK_S, BenchWorker, Directories
from service.errors import ServiceError
from service.experiment_rows import as_markdown, as_text

FIXATIONS = 2000
ROUNDS = 3
AHEAD = 64


def add_options(parser: argparse.ArgumentParser) -> None:
    """How long a journal, how often."""
    parser.add_argument("--fixations", type=int, default=FIXATIONS, metavar="N", help=f"in the journal ({FIXATIONS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"crashes ({ROUNDS})")


def run(arguments: argparse.Namespace) -> Found:
    """Seconds of every round."""
    rounds = []
    with (
        tempfile.TemporaryDirectory(prefix="rjepa-bench-") as folder,
        tqdm(total=arguments.fixations, desc="learning", unit="fixation", disable=arguments.quiet) as bar,
        Directories(Path(folder)).worker("--checkpoint-every", "86400") as worker,
    ):
        with Load(worker.address) as load:
            recorded = load.add_import(AHEAD)
            while recorded.learned < arguments.fixations:
                load.run(1.0, until=lambda: recorded.learned >= arguments.fixations)
                bar.update(recorded.learned - bar.n)
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


def _recovered(worker: BenchWorker) -> dict[str, float]:
    """How many were learned again, and how long that took, from the first word of the worker on."""
    while True:
        try:
            told_ = worker.status()
            break
        except ServiceError:
            time.sleep(TICK_S)
    begun_s = time.perf_counter()
    ready_s = worker.ready()
    again_s = time.perf_counter() - begun_s
    return {"again": worker.status()["recovered"] - told_["recovered"], "again_s": again_s, "ready_s": ready_s}
