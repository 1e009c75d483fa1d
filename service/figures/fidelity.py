"""Forward propagation against back-propagation through time, over the size of the gates' weights."""

from __future__ import annotations

from collections.abc import Sequence

from model.gate_scale import FEATURES, STEPS, UNITS
from service.experiment_rows import Row
from service.figures.canvas import Page, Picture, course, letter, line_at, new
from service.figures.grouped import each, groups, of_seeds, spoken

EXACT = 1e-10
"""Under this relative error the two are called the same."""


def draw(rows: Sequence[Row]) -> Page:
    """One picture."""
    figure, axes = new(1, 2, height_in=3.4)
    for number, (circuit, members) in enumerate(groups(rows, "circuit").items()):
        scales = sorted({row["scale"] for row in members})
        for axis, name in zip(axes, ("cosine", "relative_error"), strict=True):
            seeds = [[_value(own, scale, name) for scale in scales] for own in groups(members, "seed").values()]
            course(axis, scales, seeds, label=circuit, number=number)
    cosine, error = axes
    cosine.set(xlabel="gate scale (standard deviation × √units a gate reads)", ylabel="cosine with BPTT's gradient")
    cosine.set_title("direction", loc="left")
    cosine.set_ylim(-0.1, 1.05)
    error.set(xlabel="gate scale (standard deviation × √units a gate reads)", ylabel="relative error of the gradient")
    error.set_title("size of the difference", loc="left")
    error.set_yscale("log")
    line_at(error, EXACT, upright=False)
    error.annotate(
        "under this: called exact",
        (0.12, EXACT),
        xytext=(0, 3),
        textcoords="offset points",
        color="#555555",
        fontsize=7.0,
    )
    letter(axes)
    figure.legend(*cosine.get_legend_handles_labels(), loc="outside lower center", ncols=3, handlelength=3.4)
    alt = "Cosine and relative error of forward propagation against back-propagation through time, over gate scale"
    title = "Is the gradient right? Forward propagation over the size of the gates"
    return Page(title, [Picture("fidelity", figure, alt)], _said(rows))


def _value(rows: Sequence[Row], scale: float, name: str) -> float | None:
    return next((row[name] for row in rows if row["scale"] == scale), None)


def _said(rows: Sequence[Row]) -> list[str]:
    said = [
        f"float64, n = {UNITS} units, m = {FEATURES} features, {STEPS} fixations with the weights held fixed, "
        f"{of_seeds(rows)}: the summed "
        "gradient of all gates and of V by forward propagation, beside back-propagation through time."
    ]
    for circuit, members in groups(rows, "circuit").items():
        worst = {
            scale: max(each(own, "relative_error"), default=None) for scale, own in groups(members, "scale").items()
        }
        exact = [scale for scale, value in worst.items() if value is not None and value < EXACT]
        other = [scale for scale in worst if scale not in exact]
        told = (
            f"{circuit}: under {EXACT:g} relative error in every seed at scales {', '.join(map(str, exact)) or 'none'}"
        )
        if other:
            last = max(other)
            least = min(each(groups(members, "scale")[last], "cosine"), default=None)
            told += f"; at {last:g} up to {spoken(worst[last], 2)}, with a cosine down to {spoken(least, 2)}"
        said.append(told + ".")
    return said
