"""``rjepa bench size``: bytes of a learner by its number of units: what all streams share, what each has of its own.

A learner's are counted from snapshots, which hold everything it knows, with the trivial predictors; the same bytes are
in memory and, once more, in each checkpoint on the disk. Those of its diagnostics are the tensors that are there with
them and not without: windows count as full, of a dense learner's gradients three sums each.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.action import Look
from model.config import ModelConfig
from model.diagnostics import MOST_STREAMS, Diagnostics
from model.learner import Learner, Outcome
from service.bench_record import Found
from service.experiment_rows import as_markdown, as_text

UNITS = (128, 256, 512, 1024, 2048)
GATES = ("two-point", "modular", "dense")
STEPS = 3
STREAMS = (16, 32)
"""For which the whole is told."""
_NAMES = ("one", "two")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which sizes."""
    parser.add_argument("--units", type=int, nargs="+", default=list(UNITS), metavar="N", help=f"units ({UNITS})")


def run(arguments: argparse.Namespace) -> Found:
    """One row for each number of units and kind of gates."""
    rows: list[dict[str, Any]] = []
    every = [(units, gates) for units in arguments.units for gates in GATES]
    for units, gates in tqdm(every, desc="size", unit="learner", disable=arguments.quiet):
        config = ModelConfig.preset("default", units=units, gates=gates)
        learner = Learner(config, seed=0)
        one, two = (_known_with(learner, name) for name in _NAMES)
        name = f"modular-{config.block}" if gates == "modular" else gates
        row = {"units": units, "gates": name, "shared": 2 * one - two, "stream": two - one}
        rows.append(row | _watched(learner))
    return {"rows": rows}


def told(found: Found, *, markdown: bool) -> str:
    """One line for each; a dash where an earlier version did not count the diagnostics."""
    heading = ["units", "gates", "shared by all streams, MB", "of each stream, MB"]
    heading += [f"with {count} streams, MB" for count in STREAMS]
    heading += ["diagnostics, shared, MB", f"of each of the last {MOST_STREAMS} streams, MB"]
    lines = [heading + [f"with diagnostics, {count} streams, MB" for count in STREAMS]]
    for row in found["rows"]:
        shared, stream = row["shared"] / 1e6, row["stream"] / 1e6
        known = [shared + count * stream for count in STREAMS]
        line = [str(row["units"]), row["gates"], f"{shared:.2f}", f"{stream:.3f}", *(f"{size:.0f}" for size in known)]
        if "watched_stream" in row:
            shared, stream = row["watched_shared"] / 1e6, row["watched_stream"] / 1e6
            watched = [shared + min(count, MOST_STREAMS) * stream for count in STREAMS]
            line += [f"{shared:.1f}", f"{stream:.2f}"]
            line += [f"{sum(both):.0f}" for both in zip(known, watched, strict=True)]
        else:
            line += ["-"] * (2 + len(STREAMS))
        lines.append(line)
    return as_markdown(lines) if markdown else as_text(lines)


def _known_with(learner: Learner, stream: str) -> int:
    """Bytes of everything it knows once it has seen a few fixations of ``stream`` too."""
    _feed(learner, stream)
    return sum(tensor.numel() * tensor.element_size() for tensor in learner.snapshot().tensors.values())


def _watched(learner: Learner) -> dict[str, int]:
    """Bytes of diagnostics beside ``learner``, which has seen both streams: what they share, and those of each."""
    gc.collect()
    without = _held()
    diagnostics = Diagnostics(learner, seed=0)
    sizes = []
    for name in _NAMES:
        _feed(learner, name, diagnostics.after)
        diagnostics.catch_up()
        sizes.append(_held() - without)
    diagnostics.close()
    one, two = sizes
    return {"watched_shared": 2 * one - two, "watched_stream": two - one}


def _feed(learner: Learner, stream: str, after: Callable[[str, Outcome], None] | None = None) -> None:
    """A few fixations of noise."""
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        z = random.standard_normal(learner.config.features).astype(np.float32)
        outcome = learner.observe(stream, z, Look((float(random.random()), float(random.random()))))
        if after is not None:
            after(stream, outcome)


def _held() -> int:
    """Bytes of all tensors there are, in the process."""
    tensors = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
