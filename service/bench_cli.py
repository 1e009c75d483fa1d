"""``rjepa bench NAME``: how fast, as ratios of things measured side by side in one run.

Each benchmark is a module with ``add_options(parser)``, ``run(arguments) -> Found``, ``told(found, markdown) -> str``.
What it found is JSON-able; the door adds the command, the date and the machine, and keeps it all in ``--json``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol, cast

from service.bench_record import Found, machine_told, record
from service.errors import BenchRefused


class Benchmark(Protocol):
    """What a module of a benchmark has."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Options of its own."""
        ...

    def run(self, arguments: argparse.Namespace) -> Found:
        """Measure; JSON-able. ``arguments`` has ``threads``, ``device`` and ``quiet`` too."""
        ...

    def told(self, found: Found, *, markdown: bool) -> str:
        """What was found, as tables."""
        ...


BENCHMARKS: dict[str, tuple[str, str]] = {
    "step": ("service.bench_step", "one learning step beside a copy of the bytes it touches, and beside BPTT"),
    "retina": ("service.bench_retina", "the frozen network alone, beside onnxruntime and openvino"),
    "diagnostics": ("service.bench_diagnostics", "what each measure of learning costs, as a share of a fixation"),
    "ingest": ("service.bench_ingest", "durable fixations a second, beside SQLite's own group commit"),
    "recover": ("service.bench_recover", "seconds to learn a journal again after a crash"),
    "start": ("service.bench_start", "seconds to ready, and of the client's first word"),
    "size": ("service.bench_size", "bytes of a learner by its number of units"),
    "pipeline": ("service.bench_pipeline", "patch to durable and to learned under a load that does not wait"),
}
"""Name, its module, and one line of help."""
WHERE_CHOSEN = frozenset({"step", "retina"})
"""Those that have ``--threads`` and ``--device``; the others measure what a worker chooses for itself, on the CPU."""


def module_of(name: str) -> Benchmark:
    """The module of a benchmark."""
    return cast(Benchmark, importlib.import_module(BENCHMARKS[name][0]))


def main(argv: list[str]) -> int:
    """Run ``rjepa bench ...``; the tables go to stdout, everything to ``--json``."""
    arguments = _parser(argv).parse_args(argv)
    check(arguments)
    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)
    benchmark = module_of(arguments.name)
    with _unwound_by_sigterm():
        measured = benchmark.run(arguments)
    command = shlex.join(["rjepa", "bench", *argv])
    found = record(arguments.name, command, measured, device=arguments.device)
    try:
        if arguments.json is not None:
            keep(arguments.json, found)
    finally:  # what took minutes to measure is told in any case
        print(machine_told(found), benchmark.told(found, markdown=arguments.markdown), sep="\n\n")
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Find out before anything is measured what would be in the way. Raises :class:`BenchRefused`, or ModelError.

    Every number that a benchmark takes is above 0, and nothing is measured twice.
    """
    for name, value in vars(arguments).items():
        values = value if isinstance(value, list) else [value]
        option = "--" + name.replace("_", "-")
        for each in values:
            if isinstance(each, int | float) and not isinstance(each, bool) and not 0 < each < math.inf:
                raise BenchRefused(f"{option} is {each}: give a number above 0")
        if len(set(values)) < len(values):
            raise BenchRefused(f"{option} names something twice: {' '.join(map(str, values))}")
    cores = os.cpu_count() or 1
    if arguments.threads is not None and arguments.threads > cores:
        raise BenchRefused(f"--threads is {arguments.threads}, and there are {cores} cores: give that many at most")
    if arguments.device != "cpu":
        from model.backbone import usable_device

        usable_device(arguments.device)
    if arguments.json is not None:
        with _writing(arguments.json) as partial:
            partial.touch()
            partial.unlink()


def keep(path: Path, found: Found) -> None:
    """Write ``found`` to ``path``, whole or not at all. Raises :class:`BenchRefused`."""
    with _writing(path) as partial:
        partial.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(partial, path)


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """The file beside ``path`` that is written first; what the system says against it becomes a refusal."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        yield path.with_name(f".{path.name}.partial")
    except OSError as error:
        raise BenchRefused(f"{path} can't be written ({error}): name another file") from None


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a benchmark as Ctrl-C does: its workers end too, its folders go."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rjepa bench", description="How fast, as ratios of things measured side by side in one run."
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, (_, text) in BENCHMARKS.items():
        own = names.add_parser(name, help=text, description=text)
        _add_common(own, name in WHERE_CHOSEN)
        if name == next((word for word in argv if word in BENCHMARKS), None):  # the others need not be imported
            module_of(name).add_options(own)
    return parser


def _add_common(parser: argparse.ArgumentParser, where_chosen: bool) -> None:
    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--json", type=Path, metavar="FILE", help="keep everything that was measured here")
    option("--markdown", action="store_true", help="print the tables as Markdown")
    option("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(threads=None, device="cpu")
    if where_chosen:
        option("--threads", type=int, metavar="N", help="of torch (as many as there are cores)")
        option("--device", default="cpu", choices=["cpu", "cuda"], help="where the model is (cpu)")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
