"""``rjepa bench diagnostics``: what each measure of whether learning is real costs, as a share of a fixation's time.

Two learners take the same features by turns, one of them watched; the difference is the price on the learner's
thread. What is done on other threads is told as seconds of a core. Which measure it was is told by a sampler that asks
a thousand times a second in whose file the learner's thread is.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.action import Look
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner
from service.bench_record import Found
from service.bench_retina import encoder_pass_ms
from service.experiment_rows import as_markdown, as_text

FIXATIONS = 3000
BLOCK = 100
WARM = 200
MEASURES = {
    "twin": "the untrained twin, for the learned skill",
    "evidence": "the probe's evidence",
    "retrieval": "retrieval",
    "fidelity": "the gradient's window",
    "moment": "looks: copies for another thread",
    "diagnostics": "windows of errors, embeddings, extents",
}
"""By file of model/, the measure it is of."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many fixations."""
    parser.add_argument("--fixations", type=int, default=FIXATIONS, metavar="N", help=f"of each learner ({FIXATIONS})")


def run(arguments: argparse.Namespace) -> Found:
    """Milliseconds of a fixation with and without, and where those went that are more."""
    torch.set_num_threads(1)
    config = ModelConfig.preset("default")
    plain, watched = (Learner(config, seed=0) for _ in range(2))
    diagnostics = Diagnostics(watched, seed=0)
    random = np.random.default_rng(0)
    took: dict[str, list[float]] = {"plain": [], "watched": []}
    cores: dict[str, list[float]] = {"plain": [], "watched": []}
    sampler = _Sampler(threading.get_ident())
    with tqdm(total=arguments.fixations, desc="diagnostics", unit="fixation", disable=arguments.quiet) as bar:
        z = np.zeros(config.features, np.float32)
        for first in range(0, arguments.fixations, BLOCK):
            seen = []
            for _ in range(BLOCK):
                z = (0.5 * z + random.standard_normal(len(z))).astype(np.float32)
                seen.append((z, Look((float(random.random()), float(random.random())))))
            for name, learner, beside in (("plain", plain, None), ("watched", watched, diagnostics)):
                begun, core = time.perf_counter(), time.process_time()
                with sampler if beside is not None else _Nothing():
                    for features, look in seen:
                        outcome = learner.observe("viewer", features, look)
                        if beside is not None:
                            beside.after("viewer", outcome)
                            if beside.due("viewer"):
                                beside.moment("viewer")
                if first >= WARM:
                    took[name].append(1000 * (time.perf_counter() - begun) / BLOCK)
                    cores[name].append(1000 * (time.process_time() - core) / BLOCK)
            bar.update(BLOCK)
    step, with_them = (statistics.median(each) for each in took.values())
    core, core_with = (float(np.mean(each)) for each in cores.values())
    shape = config.retina.batch_shape
    return {
        "fixations": arguments.fixations, "step_ms": step, "watched_ms": with_them,
        "core_ms": core, "core_watched_ms": core_with,
        "pass_ms": encoder_pass_ms(), "batch_shape": shape, "samples": dict(sampler.found),
    }  # fmt: skip


def told(found: Found, *, markdown: bool) -> str:
    """One line for each measure."""
    price = found["watched_ms"] - found["step_ms"]
    alone = found["pass_ms"] + found["watched_ms"]
    full = found["pass_ms"] / found["batch_shape"] + found["watched_ms"]
    samples: dict[str, int] = found["samples"]
    lines = [["what", "ms a fixation", "of a fixation that comes alone", "of one of a full pass"]]

    def line(what: str, ms: float) -> list[str]:
        return [what, f"{ms:.2f}", f"{100 * ms / alone:.1f} %", f"{100 * ms / full:.1f} %"]

    lines.append(["the retina", f"{found['pass_ms']:.1f}, or {found['pass_ms'] / found['batch_shape']:.2f}", "", ""])
    lines.append(line("the learning step", found["step_ms"]))
    every = max(1, sum(samples.values()))
    for name, what in MEASURES.items():
        lines.append(line(what, price * samples.get(name, 0) / every))
    lines.append(line("all measures together", price))
    others = (found["core_watched_ms"] - found["core_ms"]) - price
    lines.append(["on other threads, ms of a core", f"{max(0.0, others):.2f}", "", ""])
    return as_markdown(lines) if markdown else as_text(lines)


class _Nothing:
    """No sampler."""

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


class _Sampler:
    """While entered: a thousand times a second, in which measure's file the thread ``ident`` is."""

    def __init__(self, ident: int) -> None:
        self.found: Counter[str] = Counter()
        self._ident = ident
        self._stop = threading.Event()

    def __enter__(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.001):
            measure = _measure(sys._current_frames().get(self._ident))
            if measure is not None:
                self.found[measure] += 1


def _measure(frame: FrameType | None) -> str | None:
    """The measure a thread is at: the innermost of their files, if it is inside the diagnostics at all."""
    names: list[str] = []
    now: Any = frame
    while now is not None:
        path = Path(now.f_code.co_filename)
        if path.parent.name == "model" and path.stem in MEASURES:
            names.append(path.stem)
        now = now.f_back
    return names[0] if "diagnostics" in names else None
