"""Every stream: skill of each learner with its interval, and what else is measured of the default."""

from __future__ import annotations

from collections.abc import Sequence

from service.experiment_rows import Row
from service.figures.canvas import Dot, Page, Picture, dots, letter, line_at, names_beside, new
from service.figures.grouped import dot, groups, mean, of_seeds, ranged, spoken

_LEAST = -0.1
"""Skill under this is told as a number at the edge."""
_COLUMNS = 4
_MEASURES = (
    ("how much is foreseen", "R² of the next features", (
        ("prediction p", "probe"), ("untrained p", "probe_untrained"), ("features z", "probe_features"),
        ("ceiling, 8 fixations", "probe_ceiling"))),
    ("which fixation comes", "found among 100 (share)", (
        ("prediction p", "retrieval"), ("copy-last", "retrieval_trivial"))),
    ("dimensions", "effective rank / frozen (ratio)", (("embedding y", "rank_ratio"),)),
)  # fmt: skip


def draw(rows: Sequence[Row]) -> Page:
    """Two pictures."""
    streams = groups(rows, "stream")
    said = []
    for stream, members in streams.items():
        said.append(
            f"{stream}, {members[0]['fixations']:,} fixations, "
            f"{of_seeds(members)}.{'' if members[0]['judged'] else ' Too few to be judged.'}"
        )
        for name, own in _learners(members).items():
            told = f"{name}: skill {ranged(own, 'skill')}"
            if mean(own, "probe") is not None:
                by_p, by_z = spoken(mean(own, "probe")), spoken(mean(own, "probe_features"))
                told += f"; the next features are foreseen with R² {by_p} by p, {by_z} by z"
            said.append(f"{stream}, {told}.")
    pictures = [_skill(streams)]
    if any(row["learner"] == "default" and not row["shuffled"] and "probe" in row for row in rows):
        pictures.append(_measures(streams))
    return Page("Every stream, every measure", pictures, said)


def _learners(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """By what tells them apart, in words."""
    told = len({row["gaze"] for row in rows}) > 1
    found: dict[str, list[Row]] = {}
    for row in rows:
        name = (
            row["learner"]
            + (", shuffled" if row["shuffled"] else "")
            + (", no gaze" if told and not row["gaze"] else "")
        )
        found.setdefault(name, []).append(row)
    return found


def _skill(streams: dict[str, list[Row]]) -> Picture:
    by_stream = {stream: _learners(rows) for stream, rows in streams.items()}
    names = list(dict.fromkeys(name for own in by_stream.values() for name in own))
    names.sort(key=lambda name: "shuffled" in name)
    lines = -(-len(streams) // _COLUMNS)
    figure, axes = new(
        lines, min(_COLUMNS, len(streams)), height_in=(0.165 * len(names) + 0.75) * lines + 0.3, sharey=True
    )
    for axis, (stream, learners) in zip(axes, by_stream.items(), strict=False):
        dots(axis, {name: dot(rows, "skill") for name, rows in learners.items()}, at=names, label=stream, least=_LEAST)
        line_at(axis, 0.0)
        axis.set_xlim(_LEAST - 0.01, None)
        axis.set_title(stream, loc="left")
        names_beside(axis, names)
    for axis in axes[len(streams) :]:
        axis.set_axis_off()
    figure.supxlabel("skill (share of the best trivial predictor's error that is saved), 95 %", fontsize=8.0)
    letter(axes[: len(streams)])
    return Picture("streams", figure, "Skill of each learner on each stream, with its interval; each seed a stroke")


def _default(rows: Sequence[Row]) -> list[Row]:
    """The default's in order, told of the gaze where there is any."""
    gaze = any(row["gaze"] for row in rows)
    return [row for row in rows if row["learner"] == "default" and not row["shuffled"] and row["gaze"] is gaze]


def _measures(streams: dict[str, list[Row]]) -> Picture:
    mine = {stream: _default(rows) for stream, rows in streams.items()}
    names = [stream for stream, rows in mine.items() if rows]
    figure, axes = new(1, len(_MEASURES), height_in=0.3 * len(names) + 1.7, sharey=True)
    for axis, (title, unit, series) in zip(axes, _MEASURES, strict=True):
        for number, (label, value) in enumerate(series):
            found: dict[str, Dot | None] = {name: dot(mine[name], value) for name in names}
            shift = 0.18 * (number - (len(series) - 1) / 2.0)
            dots(axis, found, at=names, label=label, number=number, shift=shift)
        axis.set(xlabel=unit)
        axis.set_title(title, loc="left")
        axis.set_xlim(0.0, None)
        names_beside(axis, names)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.32 / (0.12 * len(names) + 0.6)), ncols=1)
    line_at(axes[-1], 1.0)
    letter(axes)
    return Picture("streams-measures", figure, "Of the default on each stream: probe, retrieval and effective rank")
