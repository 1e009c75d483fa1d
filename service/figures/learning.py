"""Figure 4: the error by position in a sequence, epoch 0 and after, forward propagation beside BPTT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.figure_four import SEQUENCE
from service.experiment_rows import Row
from service.figures.canvas import BLACK, BLUE, GREEN, GREY, VERMILION, Page, Picture, course, letter, line_at, new
from service.figures.grouped import each, groups, mean, of_seeds, spoken

POSITIONS = range(1, SEQUENCE)
_LOOKS: dict[str, tuple[str, dict[str, Any]]] = {
    "untrained": ("untrained: epoch 0", {"color": GREY, "linestyle": ":"}),
    "frozen": ("circuit frozen", {"color": GREEN, "linestyle": "-."}),
    "online": ("online RFP", {"color": BLUE, "linestyle": (0, (5, 1))}),
    "bptt": ("BPTT, once a sequence", {"color": BLACK, "linestyle": "-", "linewidth": 2.4}),
    "rfp": ("RFP, once a sequence", {"color": VERMILION, "linestyle": "--"}),
}
"""What each method is called, and its look, in drawing order."""


def draw(rows: Sequence[Row]) -> Page:
    """One picture for each world."""
    pictures, said = [], []
    worlds = groups(rows, "back", "fixations")
    for (back, fixations), members in worlds.items():
        name = "learning" if len(worlds) == 1 else f"learning-k{back}-{fixations}"
        pictures.append(_picture(name, back, fixations, groups(members, "method")))
        said += _said(back, fixations, groups(members, "method"), members)
    return Page("When the information arrives: error by position in a sequence", pictures, said)


def _picture(name: str, back: int, fixations: int, methods: dict[str, list[Row]]) -> Picture:
    figure, axes = new(1, 2, height_in=3.1, width_ratios=[1.7, 1.0])
    left, right = axes
    for number, (method, (label, look)) in enumerate(_LOOKS.items()):
        if method in methods:
            course(left, POSITIONS, [_errors(row) for row in methods[method]], label=label, number=number, **look)
    line_at(left, back, text=f" from here on it can be known (k = {back})")
    left.set(xlabel="position in the sequence (fixations)", ylabel="error / error of carry-mean (ratio)")
    left.set_title("what is learned", loc="left")
    left.set_xticks(POSITIONS)
    left.set_ylim(0.0, None)
    left.legend(loc="lower left", handlelength=3.0, frameon=True, facecolor="white", edgecolor="none", framealpha=1.0)
    if {"bptt", "rfp"} <= set(methods):
        off = [_off(row, methods["bptt"]) for row in methods["rfp"]]
        course(right, POSITIONS, off, label="|RFP / BPTT - 1|", number=1)
        right.set_yscale("log")
    right.set(xlabel="position in the sequence (fixations)", ylabel="|RFP's error / BPTT's - 1| (share)")
    right.set_title("how far apart the two are", loc="left")
    right.set_xticks(POSITIONS)
    letter(axes)
    return Picture(
        name, figure, f"Error by position, planted world of k = {back}, {fixations:,} fixations: RFP, BPTT, epoch 0"
    )


def _errors(row: Row) -> list[float | None]:
    return [row[f"error_{position}"] for position in POSITIONS]


def _off(row: Row, truth: Sequence[Row]) -> list[float | None]:
    """By position, of the same seed; none where they are the same to the last digit, which a logarithm can't show."""
    beside = next((other for other in truth if other["seed"] == row["seed"]), None)
    if beside is None:
        return [None] * len(POSITIONS)
    pairs = zip(_errors(row), _errors(beside), strict=True)
    return [abs(one / other - 1.0) or None if one is not None and other else None for one, other in pairs]


def _said(back: int, fixations: int, methods: dict[str, list[Row]], rows: Sequence[Row]) -> list[str]:
    said = [
        f"A planted world of k = {back}: what comes depends on the place {back} fixations before, so it can "
        "be foreseen from "
        f"position {back} on and not before. {fixations:,} fixations in sequences of {SEQUENCE}, "
        f"{of_seeds(rows)}; errors are means "
        f"over the last quarter, divided by those of carry-mean at the same position (1: as good as the mean)."
    ]
    for method, (label, _) in _LOOKS.items():
        if method in methods:
            before = _mean_over(methods[method], range(1, back))
            after = _mean_over(methods[method], range(back, SEQUENCE))
            said.append(f"{label}: {spoken(before, 2)} before position {back}, {spoken(after, 2)} from there on.")
    if "rfp" in methods and (off := each(methods["rfp"], "most_off")):
        said.append(
            "Learned by forward propagation and by back-propagation through time, the error at no position "
            "and in no seed "
            f"differs by more than {spoken(100.0 * max(off), 4)} %; over all positions RFP's is "
            f"{spoken(mean(methods['rfp'], 'over_bptt'), 4)} of BPTT's."
        )
    return said


def _mean_over(rows: Sequence[Row], positions: range) -> float | None:
    values = [value for position in positions if (value := mean(rows, f"error_{position}")) is not None]
    return float(np.mean(values)) if values else None
