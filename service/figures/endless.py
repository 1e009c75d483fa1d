"""A scanpath without end while the video changes: skill, rank and the largest state of each part."""

from __future__ import annotations

from collections.abc import Sequence

from service.experiment_rows import Row
from service.figures.canvas import Page, Picture, course, letter, line_at, named, new
from service.figures.grouped import each, groups, mean, of_seeds, ranged, spoken

_MEASURES = (
    ("skill", "skill, 95 %\n(share)"),
    ("rank_ratio", "rank / frozen\n(ratio)"),
    ("largest_state", "largest state\n(units of s)"),
)


def draw(rows: Sequence[Row]) -> Page:
    """One picture for each learner."""
    pictures, said = [], []
    learners = groups(rows, "learner")
    for learner, members in learners.items():
        parts = groups(members, "part", "until", "video")
        pictures.append(_picture("endless" if len(learners) == 1 else f"endless-{named(learner)}", learner, parts))
        largest = each_part(parts, "largest_state")
        said.append(
            f"{learner}: {max(until for _, until, _ in parts):,} fixations without an end between, "
            f"{of_seeds(members)}; largest state "
            f"of any part {spoken(max(largest, default=None), 1)}, skill of the parts from "
            f"{spoken(_least(parts, 'skill'))} to "
            f"{spoken(_most(parts, 'skill'))}, units cut {sum(int(row['cut_units']) for row in members)}."
        )
        for video, own in _by_video(parts).items():
            told = " then ".join(f"{ranged(found, 'skill')} (until {until:,})" for until, found in own)
            said.append(f"{learner}, {video}: skill {told}.")
    return Page("For ever: does it stay what it was?", pictures, said)


def each_part(parts: dict[tuple[int, int, str], list[Row]], name: str) -> list[float]:
    """Every value of every part and seed."""
    return [value for rows in parts.values() for value in each(rows, name)]


def _least(parts: dict[tuple[int, int, str], list[Row]], name: str) -> float | None:
    return min((value for rows in parts.values() if (value := mean(rows, name)) is not None), default=None)


def _most(parts: dict[tuple[int, int, str], list[Row]], name: str) -> float | None:
    return max((value for rows in parts.values() if (value := mean(rows, name)) is not None), default=None)


def _by_video(parts: dict[tuple[int, int, str], list[Row]]) -> dict[str, list[tuple[int, list[Row]]]]:
    found: dict[str, list[tuple[int, list[Row]]]] = {}
    for (_, until, video), rows in parts.items():
        found.setdefault(video, []).append((until, rows))
    return found


def _picture(name: str, learner: str, parts: dict[tuple[int, int, str], list[Row]]) -> Picture:
    figure, axes = new(len(_MEASURES), 1, height_in=5.0, sharex=True)
    at = [(until - rows[0]["part_fixations"] / 2.0) / 1000.0 for (_, until, _), rows in parts.items()]
    seeds = sorted({row["seed"] for rows in parts.values() for row in rows})
    for number, (axis, (value, unit)) in enumerate(zip(axes, _MEASURES, strict=True)):
        by_seed = [
            [next((row[value] for row in rows if row["seed"] == seed), None) for rows in parts.values()]
            for seed in seeds
        ]
        low, high = ([mean(rows, f"{value}_{side}") for rows in parts.values()] for side in ("low", "high"))
        band = (low, high) if any(end is not None for end in low) else None
        course(axis, at, by_seed, label=value, number=number, band=band, linestyle="-")
        axis.set(ylabel=unit)
        axis.set_title(
            {"skill": "what is foreseen", "rank_ratio": "dimensions", "largest_state": "state"}[value], loc="left"
        )
        for count, ((_, until, video), rows) in enumerate(parts.items()):
            size = rows[0]["part_fixations"] / 1000.0
            if count % 2:
                axis.axvspan(until / 1000.0 - size, until / 1000.0, color="#F2F2F2", linewidth=0.0, zorder=0.0)
            if not number:
                middle = (until / 1000.0 - size / 2.0, 0.0)
                axis.annotate(
                    video, middle, xycoords=("data", "axes fraction"), xytext=(0, 3), textcoords="offset points",
                    ha="center", fontsize=6.5, color="#555555",
                )  # fmt: skip
    axes[0].set_ylim(0.0 if (_least(parts, "skill_low") or 0.0) > 0.0 else None, None)
    line_at(axes[1], 1.0, upright=False)
    axes[1].set_ylim(0.0, None)
    axes[2].set_ylim(0.0, None)
    axes[-1].set(xlabel="fixations (thousands)")
    letter(axes)
    return Picture(
        name, figure, f"{learner} over a scanpath without end: skill, effective rank and largest state of each part"
    )
