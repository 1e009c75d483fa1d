"""Planted worlds: the share of the optimum that each learner finds, and how it grows."""

from __future__ import annotations

from collections.abc import Sequence

from model.learners import LEARNERS
from service.experiment_rows import Row
from service.figures.canvas import Page, Picture, course, dots, letter, line_at, names_beside, new
from service.figures.grouped import dot, groups, mean, of_seeds, ranged, spoken

_LEAST = -0.2
"""Shares under this are told as a number at the edge."""
_IN_COURSE = ("default", "one-step", "frozen", "tight", "long", "long-one-step", "long-frozen", "memoryless")
"""Of whom the course is drawn, where they were run."""


def draw(rows: Sequence[Row]) -> Page:
    """Shares at the end, and over the longest runs of each world."""
    planted = [row for row in rows if not row["shuffled"]]
    worlds = groups(planted, "back", "fixations")
    pictures = [_shares(worlds), _courses(worlds)] if worlds else []
    said = []
    for (back, fixations), members in worlds.items():
        told = groups(members, "learner")
        best = max(told, key=lambda name: mean(told[name], "share") or float("-inf"))
        parts = [f"{name} {spoken(mean(own, 'share'), 2)}" for name, own in told.items()]
        said.append(
            f"k = {back}, {fixations:,} fixations, {of_seeds(members)}: share of the optimum over the last "
            f"quarter {', '.join(parts)}. "
            f"Most is found by {best}: {ranged(told[best], 'share')}."
        )
    for (back, fixations), members in groups([row for row in rows if row["shuffled"]], "back", "fixations").items():
        parts = [f"{name} {ranged(own, 'skill')}" for name, own in groups(members, "learner").items()]
        said.append(f"k = {back}, {fixations:,} fixations in random order: skill {'; '.join(parts)}.")
    return Page("Planted worlds: how much of what there is to find is found", pictures, said)


def _shares(worlds: dict[tuple[int, int], list[Row]]) -> Picture:
    names = [name for name in LEARNERS if any(row["learner"] == name for rows in worlds.values() for row in rows)]
    figure, axes = new(1, len(worlds), height_in=0.19 * len(names) + 1.2, sharey=True)
    for axis, ((back, fixations), rows) in zip(axes, worlds.items(), strict=True):
        found = {name: dot(own, "share") for name, own in groups(rows, "learner").items()}
        dots(axis, found, at=names, label=f"k = {back}, {fixations}", least=_LEAST)
        line_at(axis, 0.0)
        line_at(axis, 1.0)
        axis.set_xlim(_LEAST - 0.05, 1.08)
        axis.set_title(f"k = {back}\n{fixations:,} fixations", loc="left")
        names_beside(axis, names)
    figure.supxlabel(
        "share of the optimum (0: the mean, 1: the best there is), last quarter of the fixations", fontsize=8.0
    )
    letter(axes)
    return Picture(
        "world", figure, "Share of the optimum that each learner finds in each planted world; each seed a stroke"
    )


def _courses(worlds: dict[tuple[int, int], list[Row]]) -> Picture:
    longest = {back: max(length for other, length in worlds if other == back) for back, _ in worlds}
    figure, axes = new(1, len(longest), height_in=3.1, sharey=True)
    for axis, (back, fixations) in zip(axes, longest.items(), strict=True):
        learners = groups(worlds[back, fixations], "learner")
        for number, name in enumerate(_IN_COURSE):
            if name in learners:
                seeds = [row["share_by_part"] for row in learners[name]]
                parts = len(seeds[0])
                at = [fixations * (part + 0.5) / parts / 1000.0 for part in range(parts)]
                course(axis, at, seeds, label=name, number=number)
        line_at(axis, 0.0, upright=False)
        line_at(axis, 1.0, upright=False)
        axis.set(xlabel="fixations (thousands)")
        axis.set_title(f"k = {back}", loc="left")
        axis.set_ylim(-0.3, 1.05)
        axis.set_xlim(0.0, fixations / 1000.0)
    axes[0].set_ylabel("share of the optimum")
    letter(axes)
    handles = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, handlelength=3.4)
    return Picture("world-course", figure, "Share of the optimum over the run, by learner, in each planted world")
