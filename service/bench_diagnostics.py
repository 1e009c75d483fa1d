"""``rjepa bench diagnostics``: what each measure of whether learning is real costs, as a share of a fixation's time.

Three learners take the same features by turns: one with nobody watching; one watched, fixation by fixation, as where
they come alone; one watched in turns of a full pass of the retina, after which the measures catch up. The price is the
difference to the first. Beside it stands what each measure was timed at inside that loop; what these leave of the
difference the learner's own step took longer, by telling of itself and by caches that it no longer has to itself.
What is done on other threads, regressions and looks, is told as time of a core; each learner's is waited for before the
next has its turn, so that it falls on none of the others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from model.action import Look
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.helper import helper
from model.learner import Learner
from service.bench_record import Found
from service.bench_retina import encoder_pass_ms
from service.errors import BenchRefused
from service.experiment_rows import as_markdown, as_text

FIXATIONS = 3000
BLOCK = 96
WARM = 200
LEAST = -(-WARM // BLOCK) * BLOCK + 1
"""Of fewer none would be counted."""
TICK_S = 0.001
STREAM = "viewer"
MEASURES = {
    "twin": "the untrained twin, for the learned skill",
    "evidence": "the probe's evidence",
    "retrieval": "retrieval",
    "fidelity": "the gradient's window",
    "moment": "looks: copies for another thread",
    "windows": "windows of errors, embeddings, extents",
}
"""What is timed by itself."""
LOOPS = ("alone", "full")


def add_options(parser: argparse.ArgumentParser) -> None:
    """How many fixations."""
    parser.add_argument("--fixations", type=int, default=FIXATIONS, metavar="N", help=f"of each learner ({FIXATIONS})")


def run(arguments: argparse.Namespace) -> Found:
    """Milliseconds of a fixation with and without, and where those went that are more. Raises :class:`BenchRefused`."""
    if arguments.fixations < LEAST:
        raise BenchRefused(f"--fixations is {arguments.fixations}: give at least {LEAST}, the first are not counted")
    torch.set_num_threads(1)
    config = ModelConfig.preset("default")
    shape = config.retina.batch_shape
    plain = Learner(config, seed=0)
    loops = {"alone": _Watched(config, 1), "full": _Watched(config, shape)}
    random = np.random.default_rng(0)
    took: dict[str, list[float]] = {"plain": [], "alone": [], "full": []}
    cores: dict[str, list[float]] = {"plain": [], "alone": [], "full": []}
    with tqdm(total=arguments.fixations, desc="diagnostics", unit="fixation", disable=arguments.quiet) as bar:
        z = np.zeros(config.features, np.float32)
        for first in range(0, arguments.fixations, BLOCK):
            seen = []
            for _ in range(BLOCK):
                z = (0.5 * z + random.standard_normal(len(z))).astype(np.float32)
                seen.append((z, Look((float(random.random()), float(random.random())))))
            for name in took:
                begun, core = time.perf_counter(), time.process_time()
                if name in loops:
                    loops[name].go(seen)
                else:
                    for features, look in seen:
                        plain.observe(STREAM, features, look)
                ended = time.perf_counter()
                if name in loops:
                    loops[name].settle()
                if first >= WARM:
                    took[name].append(1000 * (ended - begun) / BLOCK)
                    cores[name].append(1000 * (time.process_time() - core) / BLOCK)
                elif name in loops:
                    loops[name].clock.clear()
            bar.update(BLOCK)
    counted = max(1, len(took["plain"])) * BLOCK
    return {
        "fixations": arguments.fixations, "batch_shape": shape,
        "pass_ms": encoder_pass_ms(), "pass_of_one_ms": encoder_pass_ms(patches=1),
        "step_ms": statistics.median(took["plain"]), "core_ms": float(np.mean(cores["plain"])),
        **{f"{name}_ms": statistics.median(took[name]) for name in LOOPS},
        **{f"{name}_core_ms": float(np.mean(cores[name])) for name in LOOPS},
        **{f"{name}_parts_ms": loops[name].parts(counted) for name in LOOPS},
    }  # fmt: skip


class _Watched:
    """A learner and its diagnostics, which catch up after every ``turn`` fixations; each measure is timed."""

    def __init__(self, config: ModelConfig, turn: int) -> None:
        self._learner = Learner(config, seed=0)
        self._diagnostics = Diagnostics(self._learner, seed=0)
        self._turn = turn
        self._helper = helper("diagnostics")
        self._looks: list[Future[dict[str, Any]]] = []
        self.clock: Counter[str] = Counter()
        """Seconds by measure; of ``all``, whatever the diagnostics do beside the learner."""
        _time(self._diagnostics._twin, "step", self.clock, "twin")
        _time(self._diagnostics._evidence, "add", self.clock, "evidence")
        _time(self._diagnostics._of(STREAM).gradient, "add", self.clock, "fidelity")
        _time(self._diagnostics, "moment", self.clock, "moment")
        _time(self._learner, "watch", self.clock, "retrieval")
        for name in ("after", "catch_up"):
            _time(self._diagnostics, name, self.clock, "all")

    def go(self, seen: list[tuple[np.ndarray[Any, Any], Look]]) -> None:
        """Learn them, as a worker does."""
        for number, (features, look) in enumerate(seen, 1):
            self._diagnostics.after(STREAM, self._learner.observe(STREAM, features, look))
            if self._diagnostics.due(STREAM):
                self._looks.append(self._helper.submit(self._diagnostics.moment(STREAM).look))
            if number % self._turn == 0:
                self._diagnostics.catch_up()

    def settle(self) -> None:
        """Wait for what is done on other threads."""
        for look in self._looks:
            look.result()
        self._looks.clear()
        while self._diagnostics.busy:
            time.sleep(TICK_S)

    def parts(self, fixations: int) -> dict[str, float]:
        """Milliseconds of a fixation by measure."""
        found = {name: self.clock[name] for name in MEASURES}
        found["windows"] = self.clock["all"] - sum(found[name] for name in ("twin", "evidence", "fidelity"))
        return {name: 1000 * seconds / fixations for name, seconds in found.items()}


def _time(owner: object, name: str, clock: Counter[str], part: str) -> None:
    """From now on ``clock`` counts the seconds spent in a method of ``owner`` as ``part``."""
    timed: Callable[..., Any] = getattr(owner, name)

    def call(*arguments: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return timed(*arguments, **named)
        finally:
            clock[part] += time.perf_counter() - begun  # type: ignore[assignment]

    setattr(owner, name, call)


def told(found: Found, *, markdown: bool) -> str:
    """One line for each measure, and what they must come to."""
    step: float = found["step_ms"]
    retina = {"alone": found["pass_of_one_ms"], "full": found["pass_ms"] / found["batch_shape"]}
    price = {name: found[f"{name}_ms"] - step for name in LOOPS}
    heads = ("what", "of one that comes alone, ms", "share", "of one of a full pass, ms", "share")

    def line(what: str, ms: dict[str, float]) -> list[str]:
        cells = [what]
        for name in LOOPS:
            cells += [f"{ms[name]:.2f}", f"{100 * ms[name] / (retina[name] + found[f'{name}_ms']):.1f} %"]
        return cells

    def parts(name: str) -> dict[str, float]:
        return {loop: found[f"{loop}_parts_ms"][name] for loop in LOOPS}

    timed = {name: sum(found[f"{name}_parts_ms"].values()) for name in LOOPS}
    lines = [
        list(heads),
        line("the retina", retina),
        line("the learning step, nobody watching", dict.fromkeys(LOOPS, step)),
    ]
    lines += [line(what, parts(name)) for name, what in MEASURES.items()]
    lines.append(line("the step itself takes longer by", {name: price[name] - timed[name] for name in LOOPS}))
    lines.append(line("all measures together: with them less without", price))
    others = {name: max(0.0, found[f"{name}_core_ms"] - found["core_ms"] - price[name]) for name in LOOPS}
    lines.append(["on other threads, of a core", f"{others['alone']:.2f}", "", f"{others['full']:.2f}", ""])
    return as_markdown(lines) if markdown else as_text(lines)
