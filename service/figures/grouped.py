"""Rows by what they are of, as pictures and sentences need them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from service.errors import ExperimentRefused
from service.experiment_rows import Row
from service.figures.canvas import Dot


def groups(rows: Iterable[Row], *by: str) -> dict[Any, list[Row]]:
    """Rows by the values of ``by`` (one value, or a tuple of several), in order of appearance."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in by)
        found.setdefault(key if len(by) > 1 else key[0], []).append(row)
    return found


def each(rows: Sequence[Row], name: str) -> list[float]:
    """The values of ``name`` there are, one for each seed.

    Raises :class:`ExperimentRefused` where rows are of two versions, or two of one seed: their mean would mean nothing.
    """
    seeds = [row["seed"] for row in rows if "seed" in row]
    if len({row.get("config") for row in rows}) > 1 or len(set(seeds)) < len(seeds):
        raise ExperimentRefused(f"rows of {name} are of two versions or twice of one seed: run the older ones again")
    return [float(row[name]) for row in rows if row.get(name) is not None]


def mean(rows: Sequence[Row], name: str) -> float | None:
    """The mean over seeds; None where there is none, or one of the seeds came to no number."""
    values = each(rows, name)
    asked = [row for row in rows if name in row]
    return statistics.fmean(values) if values and len(values) == len(asked) else None


def dot(rows: Sequence[Row], name: str) -> Dot | None:
    """Each seed's ``name``, and the mean of the seeds' intervals where they have one; None without values."""
    values = each(rows, name)
    if not values or mean(rows, name) is None:
        return None
    return Dot(values, mean(rows, f"{name}_low"), mean(rows, f"{name}_high"))


def spoken(value: float | None, digits: int = 3, *, unit: str = "") -> str:
    """A number in a sentence."""
    if value is None:
        return "no number"
    text = f"{value:.1e}" if value and abs(value) < 10.0**-digits / 2 else f"{value:,.{digits}f}"
    return text + unit


def ranged(rows: Sequence[Row], name: str, digits: int = 3) -> str:
    """The mean and, of an interval, both ends; else the least and the most of the seeds."""
    value, found = mean(rows, name), dot(rows, name)
    if value is None or found is None:
        return "no number"
    if found.low is not None and found.high is not None:
        return f"{spoken(value, digits)} [{spoken(found.low, digits)}, {spoken(found.high, digits)}]"
    if len(found.seeds) == 1:
        return f"{spoken(value, digits)} (one seed)"
    return f"{spoken(value, digits)} (seeds {spoken(min(found.seeds), digits)} to {spoken(max(found.seeds), digits)})"


def of_seeds(rows: Sequence[Row]) -> str:
    """How many seeds there are, and which."""
    seeds = sorted({row["seed"] for row in rows if "seed" in row})
    return f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} ({', '.join(map(str, seeds))})"
