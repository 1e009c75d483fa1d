"""What the project aims at in speed, and where it stands: each aim is held against what a bench has kept.

Aims are for two cores, and nearly all of them ratios to something measured in the same run.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.bench_record import Found
from service.bench_retina import CHOSEN, RIVALS
from service.experiment_rows import as_markdown

HEADING = ["aim", "at most", "at least", "measured", ""]
THREADS = 2


@dataclass(frozen=True)
class Aim:
    """``read`` finds the figure in ``file`` (of docs/performance), told by ``form``; LookupError: it has none."""

    what: str
    file: str
    read: Callable[[Found], float]
    most: float | None = None
    least: float | None = None
    form: str = "{:.2f}"

    def line(self, folder: Path) -> list[str]:
        """The aim's row."""
        limits = ["" if limit is None else self.form.format(limit) for limit in (self.most, self.least)]
        path = folder / f"{self.file}.json"
        try:
            value = self.read(json.loads(path.read_text()))
        except (LookupError, FileNotFoundError):
            return [self.what, *limits, "not measured", ""]
        kept = (self.most is None or value <= self.most) and (self.least is None or value >= self.least)
        return [self.what, *limits, self.form.format(value), "reached" if kept else "missed"]


def _step(gates: str, units: int, name: str) -> Callable[[Found], float]:
    def read(found: Found) -> float:
        return _only(row[name] for row in found["rows"] if (row["gates"], row["n"]) == (gates, units))

    return read


def _retina(patches: int) -> Callable[[Found], float]:
    def read(found: Found) -> float:
        return _only(row["ratio"] for row in found["rows"] if (row["threads"], row["shape"]) == (THREADS, patches))

    return read


def _retina_by(engine: str) -> Callable[[Found], float]:
    """Of one patch by ``engine``."""

    def read(found: Found) -> float:
        rows = (row["pass_ms"] for row in found["rows"] if (row["threads"], row["shape"]) == (THREADS, 1))
        return _only(took[engine] / _best(took) for took in rows)

    return read


def _rested(engine: str) -> Callable[[Found], float]:
    return lambda found: float(found["rested"]["pass_ms"][engine] / _best(found["rested"]["pass_ms"]))


def _best(took: dict[str, float]) -> float:
    return min(took[name] for name in RIVALS)


def _load(streams: int, read: Callable[[Found, dict[str, Any]], float]) -> Callable[[Found], float]:
    return lambda found: _only(read(found, row) for row in found["load"] if row["streams"] == streams)


def _only(values: Any) -> float:
    for value in values:
        return float(value)
    raise LookupError


def _checkpoint(found: Found) -> float:
    row = found["checkpoint"][0]
    return float(row["beside"]["learned_ms"]["p99"] / row["alone"]["learned_ms"]["p99"])


def _ingest(found: Found) -> float:
    return float(statistics.median(each["door"] / each["sqlite"] for each in found["rounds"]))


def _diagnostics(found: Found) -> float:
    price = found["full_ms"] - found["step_ms"]
    return float(100.0 * price / (found["pass_ms"] / found["batch_shape"] + found["full_ms"]))


AIMS = (
    *(
        Aim(f"dense step, n = {units:,}, compiled: times a copy of what it touches", "step",
            _step("dense-compiled", units, "to_copy"), most)
        for units, most in ((512, 2.0), (2048, 1.5))
    ),
    *(
        Aim(f"{gates} step, n = 512, ms", "step", _step(gates, 512, "step_ms"), 1.0)
        for gates in ("two-point", "modular-4")
    ),
    Aim("default learner's step, ms", "step", lambda found: found["default"]["step_ms"], 2.0),
    *(
        Aim(f"100 steps back, {how}, n = {units:,}: times the dense step, compiled", "step",
            _step("dense-compiled", units, name), least=30.0, form="{:.1f}")
        for how, name in (("as stored", "to_stored"), ("anew", "to_anew"))
        for units in (512, 1024, 2048)
    ),
    *(
        Aim(f"retina, {what}, two threads: times the best of onnxruntime and openvino", "retina", _retina(patches), 1.3)
        for what, patches in (("one patch", 1), ("eight", 8), ("32", 32))
    ),
    Aim("the same, one patch by `--engine openvino`", "retina", _retina_by(CHOSEN), 1.3),
    Aim("the same, one patch after a rest", "retina", _rested("packed"), 1.3),
    Aim("the same, one patch after a rest by `--engine openvino`", "retina", _rested(CHOSEN), 1.3),
    Aim("one viewer, learned, p99: times a full pass of the retina", "pipeline",
        _load(1, lambda found, row: row["learned_ms"]["p99"] / found["pass_ms"]), 2.0, form="{:.1f}"),
    Aim("one viewer, durable, p99, ms", "pipeline", _load(1, lambda _, row: row["durable_ms"]["p99"]), 20.0,
        form="{:.1f}"),
    Aim("16 viewers for ten minutes, learned, p99, ms", "pipeline-ten-minutes",
        _load(16, lambda _, row: row["learned_ms"]["p99"]), 250.0, form="{:.0f}"),
    Aim("of those, not learned", "pipeline-ten-minutes", _load(16, lambda _, row: row["skipped"]), 0.0, form="{:.0f}"),
    Aim("learned beside one checkpoint after the other, p99: times without", "pipeline", _checkpoint, 1.5),
    Aim("durable ingest: times SQLite's own commit of as many", "ingest", _ingest, least=0.8),
    Aim("all measures on the learner's thread, of a fixation of a full pass, % of its time", "diagnostics",
        _diagnostics, 20.0, form="{:.1f}"),
    Aim("`rjepa stream --help`, s", "start",
        lambda found: statistics.median(found["seconds"]["rjepa stream --help"]), 0.5),
)  # fmt: skip


def aims(folder: Path) -> str:
    """The table, from the numbers in ``folder``. Raises OSError or ValueError."""
    return as_markdown([HEADING, *(aim.line(folder) for aim in AIMS)])
