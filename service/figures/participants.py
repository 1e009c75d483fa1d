"""Two by turns who share weights: skill, and what is gained beside each alone."""

from __future__ import annotations

from collections.abc import Sequence

from service.experiment_rows import Row
from service.figures.canvas import Page, Picture, dots, letter, line_at, named, names_beside, new
from service.figures.grouped import dot, groups, of_seeds, ranged


def draw(rows: Sequence[Row]) -> Page:
    """One picture for each learner."""
    pictures, said = [], []
    learners = groups(rows, "learner")
    for learner, members in learners.items():
        pictures.append(_picture("participants" if len(learners) == 1 else f"participants-{named(learner)}", members))
        for (stream, person, arrangement), own in groups(members, "stream", "participant", "arrangement").items():
            told = f"skill {ranged(own, 'skill')}"
            if arrangement != "alone":
                told += f", {ranged(own, 'gain')} more than alone in skill against AR(1)"
            said.append(
                f"{learner}, {stream}, participant {person}, {arrangement}: {told} ({own[0]['fixations']:,} "
                f"fixations, {of_seeds(own)})."
            )
    return Page("By turns: two who share weights", pictures, said)


def _picture(name: str, rows: Sequence[Row]) -> Picture:
    people = groups(rows, "stream", "participant")
    at = [f"{stream}, participant {person}" for stream, person in people]
    figure, axes = new(1, 2, height_in=0.42 * len(at) + 1.5, sharey=True)
    arrangements = groups(rows, "arrangement")
    for number, (arrangement, members) in enumerate(arrangements.items()):
        own = {
            f"{stream}, participant {person}": found
            for (stream, person), found in groups(members, "stream", "participant").items()
        }
        shift = 0.2 * (number - (len(arrangements) - 1) / 2.0)
        dots(
            axes[0],
            {one: dot(found, "skill") for one, found in own.items()},
            at=at,
            label=arrangement,
            number=number,
            shift=shift,
        )
        if arrangement != "alone":
            dots(
                axes[1],
                {one: dot(found, "gain") for one, found in own.items()},
                at=at,
                label=arrangement,
                number=number,
                shift=shift,
            )
    axes[0].set(xlabel="skill, 95 % (share)")
    axes[1].set(xlabel="more than alone in skill against AR(1), 95 % (share)")
    for axis, title in zip(axes, ("what is foreseen", "what sharing weights is worth"), strict=True):
        line_at(axis, 0.0)
        axis.set_title(title, loc="left")
        names_beside(axis, at)
    letter(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return Picture(
        name,
        figure,
        "Skill of two participants alone, by turns and as one unmarked stream, and the difference to alone",
    )
