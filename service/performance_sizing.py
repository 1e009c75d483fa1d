"""How many participants a machine has room for, by learner: reckoned from what two benches have kept.

At the highest rate that a pipeline kept up with, a fixation takes 1/rate, whatever that is spent on. With another
learner it takes longer by what that one's step takes longer:

    rate' = 1 / (1 / rate + step' - step)                                                 (1)

Only learners whose step takes longer are told: none is given more than was measured.
"""

from __future__ import annotations

import json
from pathlib import Path

from service.experiment_rows import as_markdown

HEADING = ["gates", "units", "step, ms", "fixations/s", "participants, half of it left free"]
RATE_HZ = 4.0
"""Fixations of one participant."""
_FREE = 0.5


def participants(folder: Path) -> str:
    """The table, of the files in ``folder``; without both of them, that there are none.

    Raises ValueError or LookupError: they are damaged.
    """
    if not all((folder / f"{name}.json").exists() for name in ("pipeline", "step")):
        return "Nothing to reckon with."
    rate_hz = json.loads((folder / "pipeline.json").read_text())["rate"]["highest_hz"]
    if rate_hz is None:  # it kept up with none
        return "Nothing to reckon with."
    steps = json.loads((folder / "step.json").read_text())
    default_ms = steps["default"]["step_ms"]
    lines = [_line("two-point, as it comes", steps["default"]["n"], default_ms, rate_hz)]
    for row in (row for row in steps["rows"] if row["step_ms"] > default_ms):
        hz = 1000.0 / (1000.0 / rate_hz + row["step_ms"] - default_ms)
        lines.append(_line(row["gates"], row["n"], row["step_ms"], hz))
    return as_markdown([HEADING, *lines])


def _line(gates: str, units: int, step_ms: float, hz: float) -> list[str]:
    return [gates, f"{units:,}", f"{step_ms:.2f}", f"{hz:.0f}", f"{int(hz * _FREE / RATE_HZ)}"]
