"""``rjepa bench pipeline``: from a patch to durable and to learned, under a load that does not wait.

A real worker, real sockets, a data directory of its own; sender and worker share the machine. Each part has a fresh
directory.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.bench_beside import BESIDE, Sides
from service.bench_load import LEAST, Load, percentiles
from service.bench_record import Found
from service.bench_retina import encoder_pass_ms
from service.bench_worker import BenchWorker, Directories
from service.experiment_rows import as_markdown, as_text

RATE_HZ = 4.0
STREAMS = (1, 4, 16, 32)
SECONDS = 20.0
WARM_S = 5.0
"""Of load before anything is counted."""
LIMIT_MS = 250.0
"""Of p99, for the highest rate."""
PROBE_STREAMS = 16
PROBE_S = 10.0
FINEST = 1.1
"""The highest rate is known to within this factor."""
AHEAD = 8
"""Of an import, as ``rjepa stream`` has it."""
PARTS = ("load", "rate", *BESIDE)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which parts, how many streams, how long."""
    option = parser.add_argument
    option("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    option("--streams", type=int, nargs="+", default=list(STREAMS), metavar="N", help=f"for load ({STREAMS})")
    option("--rate", type=float, default=RATE_HZ, metavar="HZ", help=f"fixations a second of a stream ({RATE_HZ:g})")
    option("--seconds", type=float, default=SECONDS, metavar="S", help=f"of each line, warm ({SECONDS:g})")
    option("--beside", type=int, default=4, metavar="N", help="streams that look while something else goes on (4)")
    option("--ahead", type=int, nargs="+", default=[AHEAD], metavar="N", help=f"how far an import may be ({AHEAD})")


def run(arguments: argparse.Namespace) -> Found:
    """Every part that was asked for. Raises BenchRefused."""
    found: Found = {"pass_ms": encoder_pass_ms(), "rate_hz": arguments.rate}
    with tempfile.TemporaryDirectory(prefix="rjepa-bench-") as folder:
        directories = Directories(Path(folder))
        with _bar(arguments) as done:
            for part in arguments.parts:
                if part == "load":
                    found[part] = list(_loads(directories, arguments, done))
                elif part == "rate":
                    found[part] = _highest(directories, done)
                else:
                    sides = Sides(
                        directories, arguments.beside, arguments.rate, arguments.seconds, tuple(arguments.ahead)
                    )
                    found[part] = BESIDE[part](sides)
                    done(f"beside {part}")
    return found


def told(found: Found, *, markdown: bool) -> str:
    """A table for each part."""
    table = as_markdown if markdown else as_text
    parts = [f"one pass of the retina at its shape, alone: {found['pass_ms']:.1f} ms"]
    if "load" in found:
        parts.append(table(_load_lines(found)))
    if "rate" in found:
        rate = found["rate"]
        parts.append(table(_rate_lines(rate)))
    if any(part in found for part in ("checkpoint", "export", "import")):
        parts.append(table(_beside_lines(found)))
    if "recovery" in found:
        parts.append(table(_recovery_lines(found["recovery"][0])))
    return "\n\n".join(parts)


def _loads(
    directories: Directories, arguments: argparse.Namespace, done: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    for count in arguments.streams:
        with directories.worker() as worker, Load(worker.address) as load:
            viewers = load.add(count, arguments.rate)
            load.run(WARM_S)
            before, disk, skipped = worker.used(), worker.disk_bytes(), load.skipped
            span = load.run(max(arguments.seconds, LEAST / (count * arguments.rate)))
            row = {"streams": count, **percentiles(load.took(viewers, span)), **_used(worker, before, span)}
            row |= {"disk_bytes": worker.disk_bytes() - disk, "skipped": load.skipped - skipped}
            yield row
        done(f"{count} streams")


def _used(worker: BenchWorker, before: Any, span: tuple[float, float]) -> dict[str, Any]:
    after = worker.used()
    if before is None or after is None:
        return {"cores": None, "resident_mb": None}
    return {"cores": (after.cpu_s - before.cpu_s) / (span[1] - span[0]), "resident_mb": after.resident_mb}


def _highest(directories: Directories, done: Callable[[str], None]) -> dict[str, Any]:
    """By halving: the highest rate of all 16 streams together at which p99 stays under the limit, and every try.

    Every try meets a checkpoint, so that none passes for want of one.
    """
    tries: list[dict[str, Any]] = []

    def passes(rate_hz: float) -> bool:
        load.pace(viewers, rate_hz / PROBE_STREAMS)
        load.run(2.0)
        span = load.run(PROBE_S)
        load.pace(viewers, 0.0)
        load.settle()
        row = {"rate_hz": rate_hz, **percentiles(load.took(viewers, span))}
        tries.append(row)
        return bool(row["learned_ms"]["p99"] < LIMIT_MS)

    words = ("--lag-limit", "100000", "--checkpoint-every", f"{PROBE_S:g}")
    with directories.worker(*words) as worker, Load(worker.address) as load:
        viewers = load.add(PROBE_STREAMS, RATE_HZ)
        load.run(WARM_S)
        low, high = 0.0, PROBE_STREAMS * RATE_HZ
        while passes(high):
            low, high = high, 2.0 * high
        low = low or high / 8.0
        while high > FINEST * low:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if passes(middle) else (low, middle)
    done("highest rate")
    kept = [each["rate_hz"] for each in tries if each["learned_ms"]["p99"] < LIMIT_MS]
    return {"limit_ms": LIMIT_MS, "highest_hz": max(kept, default=None), "tries": tries}


def _load_lines(found: Found) -> list[list[str]]:
    lines = [
        ["streams", "fixations/s", "fixations", "durable p50, ms", "p99", "learned p50, ms", "p99", "worst",
         "p99 / a pass", "sent late p99, ms", "not learned", "cores of the worker", "its memory, MB",
         "disk, kB a fixation", "GB an hour"]
    ]  # fmt: skip
    for row in found["load"]:
        durable, learned = row["durable_ms"], row["learned_ms"]
        lines.append([
            str(row["streams"]), f"{row['streams'] * found['rate_hz']:g}", str(row["count"]),
            f"{durable['p50']:.1f}", f"{durable['p99']:.1f}",
            f"{learned['p50']:.0f}", f"{learned['p99']:.0f}", f"{learned['worst']:.0f}",
            f"{learned['p99'] / found['pass_ms']:.1f}", f"{row['late_ms']['p99']:.1f}", str(row["skipped"]),
            _or_dash(row["cores"], "{:.2f}"), _or_dash(row["resident_mb"], "{:.0f}"),
            f"{row['disk_bytes'] / row['count'] / 1000:.1f}",
            f"{row['disk_bytes'] / row['count'] * row['streams'] * found['rate_hz'] * 3600 / 1e9:.2f}",
        ])  # fmt: skip
    return lines


def _rate_lines(rate: dict[str, Any]) -> list[list[str]]:
    under = f"p99 under {rate['limit_ms']:g} ms"
    lines = [["fixations/s", "participants at 4/s", "learned p50, ms", "p99", under]]
    for row in sorted(rate["tries"], key=lambda each: float(each["rate_hz"])):
        learned = row["learned_ms"]
        kept = "yes" if learned["p99"] < rate["limit_ms"] else "no"
        if row["rate_hz"] == rate["highest_hz"]:
            kept = "yes, the highest"
        many = [f"{row['rate_hz']:.0f}", f"{row['rate_hz'] / RATE_HZ:.0f}"]
        lines.append([*many, f"{learned['p50']:.0f}", f"{learned['p99']:.0f}", kept])
    return lines


def _beside_lines(found: Found) -> list[list[str]]:
    lines = [["beside", "durable p99, ms", "without", "learned p99, ms", "without", "ratio", "what went on"]]
    for part in ("checkpoint", "export", "import"):
        for row in found.get(part, []):
            beside, alone = row["beside"], row["alone"]
            lines.append([
                part, f"{beside['durable_ms']['p99']:.1f}", f"{alone['durable_ms']['p99']:.1f}",
                f"{beside['learned_ms']['p99']:.0f}", f"{alone['learned_ms']['p99']:.0f}",
                f"{beside['learned_ms']['p99'] / alone['learned_ms']['p99']:.2f}", row["what"],
            ])  # fmt: skip
    return lines


def _recovery_lines(row: dict[str, Any]) -> list[list[str]]:
    return [
        ["learned again", "first durable, s", "ready, s", "caught up, s", "worst wait to durable, s", "to learned, s"],
        [
            str(row["again"]), f"{row['durable_s']:.1f}", f"{row['ready_s']:.1f}", f"{row['caught_up_s']:.1f}",
            f"{row['worst_durable_s']:.1f}", f"{row['worst_learned_s']:.1f}",
        ],
    ]  # fmt: skip


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


@contextmanager
def _bar(arguments: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    total = sum(len(arguments.streams) if part == "load" else 1 for part in arguments.parts)
    with tqdm(total=total, desc="pipeline", unit="line", disable=arguments.quiet) as bar:

        def done(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        yield done
