"""``rjepa bench size``: bytes of a learner by its number of units: what all streams share, what each has of its own.

Counted from snapshots, which hold everything a learner knows, with the trivial predictors and without the diagnostics;
the same bytes are in memory and, once more, in each checkpoint on the disk.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

from model.action import Look
from model.config import ModelConfig
from model.learner import Learner
from service.bench_record import Found
from service.experiment_rows import as_markdown, as_text

UNITS = (128, 256, 512, 1024, 2048)
GATES = ("two-point", "modular", "dense")
STEPS = 3
STREAMS = (16, 32)
"""For which the whole is told."""


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
        one = _bytes_with(learner, "one")
        two = _bytes_with(learner, "two")
        name = f"modular-{config.block}" if gates == "modular" else gates
        rows.append({"units": units, "gates": name, "shared": 2 * one - two, "stream": two - one})
    return {"rows": rows}


def told(found: Found, *, markdown: bool) -> str:
    """One line for each."""
    heading = ["units", "gates", "shared by all streams, MB", "of each stream, MB"]
    lines = [heading + [f"with {count} streams, MB" for count in STREAMS]]
    for row in found["rows"]:
        shared, stream = row["shared"] / 1e6, row["stream"] / 1e6
        line = [str(row["units"]), row["gates"], f"{shared:.2f}", f"{stream:.3f}"]
        lines.append(line + [f"{shared + count * stream:.0f}" for count in STREAMS])
    return as_markdown(lines) if markdown else as_text(lines)


def _bytes_with(learner: Learner, stream: str) -> int:
    """Bytes of everything it knows once it has seen a few fixations of ``stream`` too."""
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        z = random.standard_normal(learner.config.features).astype(np.float32)
        learner.observe(stream, z, Look((float(random.random()), float(random.random()))))
    return sum(tensor.numel() * tensor.element_size() for tensor in learner.snapshot().tensors.values())
