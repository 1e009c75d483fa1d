"""Still scenes: what each learner finds, how its error falls as a scene is explored, and what differences are."""

from __future__ import annotations

from collections.abc import Sequence

from service.experiment_rows import Row
from service.figures.canvas import Page, Picture, dots, letter, line_at, names_beside, new
from service.figures.grouped import dot, groups, of_seeds, ranged

_MEASURES = (
    ("skill_ar1", "what is found", "skill against AR(1) (share)", 0.0),
    ("curve", "as it is explored", "error at 41-99 / 1-5,\nuntrained = 1 (ratio)", 1.0),
    ("returns", "coming back", "error saved at returns,\nagainst AR(1) (share)", 0.0),
)
_LESS = " less "


def draw(rows: Sequence[Row]) -> Page:
    """One picture of the learners, one of their differences."""
    learners = groups(rows, "learner")
    single = {name: own for name, own in learners.items() if _LESS not in name}
    pairs = {name: own for name, own in learners.items() if _LESS in name}
    pictures = [
        _picture("scenes", single, "Still scenes: skill, error as a scene is explored, and returns, by learner")
    ]
    if pairs:
        alt = "Still scenes: differences of two learners on the same scenes, with paired intervals"
        pictures.append(_picture("scenes-differences", pairs, alt, differ=True))
    first = rows[0]
    said = [
        f"{first['scenes']} scenes from {first.get('files', '?')} files, {first['fixations']:,} fixations, "
        f"{of_seeds(rows)}; the last half is "
        f"told, intervals (95 %) are over scenes.{'' if first.get('judged', True) else ' Too few scenes to be judged.'}"
    ]
    for name, own in single.items():
        parts = [f"{title} {ranged(own, value)}" for value, _, title, _ in _MEASURES if dot(own, value)]
        said.append(f"{name}: {'; '.join(parts)}.")
    said += [f"{name}: {ranged(own, 'skill_ar1')} in skill against AR(1)." for name, own in pairs.items()]
    return Page("Still scenes: what memory is worth", pictures, said)


def _picture(name: str, learners: dict[str, list[Row]], alt: str, *, differ: bool = False) -> Picture:
    at = list(learners)
    measures = [one for one in _MEASURES if any(dot(rows, one[0]) for rows in learners.values())]
    figure, axes = new(1, len(measures), height_in=0.2 * len(at) + 1.3, sharey=True)
    for axis, (value, title, unit, zero) in zip(axes, measures, strict=True):
        dots(axis, {one: dot(rows, value) for one, rows in learners.items()}, at=at, label=value)
        line_at(axis, 0.0 if differ else zero)
        axis.set(xlabel=("difference in " if differ else "") + unit + ", 95 %")
        axis.set_title(title, loc="left")
        names_beside(axis, at)
    letter(axes)
    return Picture(name, figure, alt)
