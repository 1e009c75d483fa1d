"""``rjepa bench start``: seconds until a worker is ready, and until a client's command has said its first word."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tqdm import tqdm

from service.bench_record import Found
from service.bench_worker import BenchWorker
from service.errors import BenchRefused
from service.experiment_rows import as_markdown, as_text

ROUNDS = 5
NEW_ROUNDS = 3
"""At most, of a new directory: its calibration takes long."""
WORDS = {
    "rjepa stream --help": ["-m", "rjepa", "stream", "--help"],
    "rjepa stream recording --help": ["-m", "rjepa", "stream", "recording", "--help"],
    "importing all a recording needs": ["-c", "import clients.main, clients.opened, clients.pipeline, clients.session"],
    "python alone": ["-c", "pass"],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """How often."""
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of each line ({ROUNDS})")


def run(arguments: argparse.Namespace) -> Found:
    """Seconds of every round of every line. Raises :class:`BenchRefused`."""
    new = min(arguments.rounds, NEW_ROUNDS)
    took: dict[str, list[float]] = {"rjepa worker, new directory": [], "rjepa worker": [], "rjepa serve": []}
    with (
        tempfile.TemporaryDirectory(prefix="rjepa-bench-") as folder,
        tqdm(total=new + arguments.rounds, desc="start", unit="round", disable=arguments.quiet) as bar,
    ):
        for number in range(new):
            data_dir = Path(folder) / f"new{number}"
            with BenchWorker(data_dir) as worker:
                took["rjepa worker, new directory"].append(worker.ready())
            bar.update()
        for _ in range(arguments.rounds):
            for name, words in WORDS.items():
                took.setdefault(name, []).append(_seconds(words))
            for name in ("rjepa worker", "rjepa serve"):
                with BenchWorker(data_dir, http=name == "rjepa serve") as worker:
                    took[name].append(worker.ready())
            bar.update()
    return {"seconds": took}


def told(found: Found, *, markdown: bool) -> str:
    """The medians."""
    lines = [["until", "seconds", "of rounds"]]
    ready = {"rjepa worker", "rjepa serve", "rjepa worker, new directory"}
    for name, took in found["seconds"].items():
        command, _, where = name.partition(", ")
        what = (
            f"`{command}` is ready" + (where and f" ({where})")
            if name in ready
            else f"`{name}` has ended"
            if name.startswith("rjepa")
            else name
        )
        lines.append([what, f"{statistics.median(took):.2f}", str(len(took))])
    return as_markdown(lines) if markdown else as_text(lines)


def _seconds(words: list[str]) -> float:
    begun_s = time.perf_counter()
    done = subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took_s = time.perf_counter() - begun_s
    if done.returncode:
        raise BenchRefused(f"python {' '.join(words)} failed: {done.stderr[-500:]}")
    return took_s
