"""Figure 3 and what a lab is told: covariance and spectrum of the embedding of each setting, and when it was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.collapse import WITHIN
from service.experiment_rows import Row
from service.figures.canvas import (
    BLUE,
    GREY,
    VERMILION,
    Dot,
    Page,
    Picture,
    course,
    dots,
    letter,
    line_at,
    named,
    names_beside,
    new,
)
from service.figures.grouped import dot, each, groups, mean, of_seeds, ranged, spoken

_COLUMNS = 5
_RANKS = 40
"""Eigenvalues drawn of a spectrum."""
_EVEN = 0.1
"""Skill is shown evenly up to this, either way, and by its logarithm beyond."""


def draw(rows: Sequence[Row]) -> Page:
    """Three pictures for each stream."""
    pictures, said = [], []
    for (stream, fixations), members in groups(rows, "stream", "fixations").items():
        settings = groups(members, "setting")
        before = f"collapse-{named(stream)}"
        pictures += [_covariance(before, settings), _spectrum(before, settings), _told(before, settings)]
        said += _said(stream, fixations, settings, members)
    return Page("What is seen when learning is not real", pictures, said)


def _covariance(before: str, settings: Mapping[str, Sequence[Row]]) -> Picture:
    """Above the diagonal what was learned, below it the network as it began; the first seed's."""
    lines = -(-len(settings) // _COLUMNS)
    figure, axes = new(lines, min(_COLUMNS, len(settings)), height_in=1.42 * lines + 0.5)
    image = None
    for axis, (setting, rows) in zip(axes, settings.items(), strict=False):
        learned, frozen = np.array(rows[0]["covariance"]), np.array(rows[0]["covariance_frozen"])
        axis.set_title(setting, loc="left")
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
        if learned.shape != frozen.shape or learned.ndim != 2:
            axis.text(0.5, 0.5, "no number", ha="center", va="center", transform=axis.transAxes)
            continue
        both = np.where(np.tri(len(learned), k=-1) > 0, frozen, learned)
        name = f"covariance-{named(setting)}"
        image = axis.imshow(both, vmin=0.0, vmax=1.0, cmap="cividis", interpolation="nearest", gid=name)
        axis.plot([-0.5, len(learned) - 0.5], [-0.5, len(learned) - 0.5], color="white", linewidth=0.8)
    for axis in axes[len(settings) :]:
        axis.set_axis_off()
    if image is not None:
        bar = figure.colorbar(image, ax=axes, fraction=0.025, pad=0.01)
        bar.set_label("correlation of embedding dimensions (root mean square of a tile)")
    seed = next(iter(settings.values()))[0]["seed"]
    figure.supxlabel(f"above the diagonal: as learned; below it: as the network began (seed {seed})", fontsize=8.0)
    alt = "Correlations of the embedding for each setting: above the diagonal as learned, below it as the network began"
    return Picture(f"{before}-covariance", figure, alt)


def _spectrum(before: str, settings: Mapping[str, Sequence[Row]]) -> Picture:
    lines = -(-len(settings) // _COLUMNS)
    figure, axes = new(lines, min(_COLUMNS, len(settings)), height_in=1.55 * lines + 0.5, sharex=True, sharey=True)
    for axis, (setting, rows) in zip(axes, settings.items(), strict=False):
        for column, label, look in (
            ("spectrum_frozen", "as it began", {"color": GREY, "linestyle": "--", "linewidth": 1.2}),
            ("spectrum", "learned", {"color": BLUE, "linestyle": "-"}),
        ):
            shares = [share for row in rows if (share := _shares(row[column]))]
            size = min(map(len, shares), default=0)
            if size:
                ranks = _ranks(size)
                course(
                    axis,
                    ranks,
                    [[share[rank - 1] for rank in ranks] for share in shares],
                    label=label,
                    number=0,
                    **look,
                )
        axis.set_title(setting, loc="left")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_ylim(1e-5, 1.5)
    for axis in axes[len(settings) :]:
        axis.set_axis_off()
    figure.supxlabel("eigenvalue of the covariance of y (rank, largest first)", fontsize=8.0)
    figure.supylabel("share of the variance", fontsize=8.0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    alt = "Spectrum of the embedding's covariance for each setting, as learned and as the network began"
    return Picture(f"{before}-spectrum", figure, alt)


def _ranks(size: int) -> list[int]:
    """Evenly spread on a logarithmic axis, from 1 to ``size``."""
    return sorted({int(rank) for rank in np.geomspace(1, size, _RANKS).round()})


def _shares(spectrum: Sequence[float]) -> list[float | None]:
    """Of the whole variance; zero has no logarithm."""
    whole = sum(spectrum)
    return [value / whole or None for value in spectrum] if whole > 0.0 else []


def _told(before: str, settings: Mapping[str, Sequence[Row]]) -> Picture:
    figure, axes = new(1, 4, height_in=0.21 * len(settings) + 1.4, sharey=True)
    at = list(settings)
    loss, rank, skill, told = axes
    for number, wrong in enumerate((True, False)):
        label = "must be told" if wrong else "control"
        look: dict[str, Any] = {"color": VERMILION if wrong else BLUE}
        mine = {setting: rows for setting, rows in settings.items() if rows[0]["wrong"] is wrong}
        dots(loss, {name: _losses(rows) for name, rows in mine.items()}, at=at, label=label, number=number, **look)
        dots(
            rank,
            {name: dot(rows, "rank_ratio") for name, rows in mine.items()},
            at=at,
            label=label,
            number=number,
            **look,
        )
        dots(
            skill, {name: dot(rows, "skill") for name, rows in mine.items()}, at=at, label=label, number=number, **look
        )
        dots(
            told,
            {name: Dot(each(rows, "told_at")) for name, rows in mine.items()},
            at=at,
            label=label,
            number=number,
            **look,
        )
    for place, rows in enumerate(settings.values()):
        if len(each(rows, "told_at")) < len(rows):
            said = f"{len(each(rows, 'told_at'))} of {len(rows)} seeds"
            at_edge = ("axes fraction", "data")
            told.annotate(said, (1.0, place), xycoords=at_edge, ha="right", va="center", fontsize=7.0)
    loss.set(xscale="log", xlabel="loss, last quarter /\nfirst quarter (ratio)")
    rank.set(xscale="log", xlabel="effective rank /\nfrozen network's (ratio)")
    skill.set(xlabel="skill (share of the best\ntrivial error), 95 %")
    skill.set_xscale("symlog", linthresh=_EVEN)
    low, high = skill.get_xlim()
    ticks = [tick for tick in (-100.0, -10.0, -1.0, -0.1, 0.0, 0.1, 1.0) if low <= tick <= high]
    ticks = [tick for tick in ticks if abs(tick) != _EVEN] if low < -1.0 else ticks
    skill.set_xticks(ticks, labels=[f"{tick:g}".replace("-", "\N{MINUS SIGN}") for tick in ticks], minor=False)
    skill.set_xticks([], minor=True)
    told.set(xlabel="first told (fixations)")
    told.set_xlim(0.0, max(WITHIN * 1.1, *(value for rows in settings.values() for value in each(rows, "told_at"))))
    line_at(loss, 1.0)
    line_at(rank, 1.0)
    line_at(skill, 0.0)
    line_at(told, WITHIN, text=None)
    names_beside(loss, at)
    for axis, title in zip(axes, ("loss", "rank", "skill", "said"), strict=True):
        axis.set_title(title, loc="left")
        axis.grid(visible=True, axis="y", color="#E5E5E5", linewidth=0.6)
        axis.tick_params(axis="y", length=0.0)
    letter(axes)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    alt = "Loss, effective rank, skill and the first time it was told, for each setting"
    return Picture(f"{before}-told", figure, alt)


def _losses(rows: Sequence[Row]) -> Dot | None:
    """Last over first, of each seed."""
    found = [row["loss_last"] / row["loss_first"] for row in rows if row["loss_first"] and row["loss_last"] is not None]
    return Dot(found) if found else None


def _said(stream: str, fixations: int, settings: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> list[str]:
    wrong = [members for members in settings.values() if members[0]["wrong"]]
    fell = [m for m in wrong if (found := _losses(m)) is not None and float(np.mean(found.seeds)) < 1.0]
    told = [row for members in wrong for row in members if row["told"]]
    runs = sum(map(len, wrong))
    said = [
        f"{stream}, {fixations:,} fixations, {of_seeds(rows)}: {len(settings)} settings, {len(wrong)} of "
        "which learn nothing worth "
        f"having. In {len(fell)} of these the loss falls (mean of the seeds, last quarter below the first); "
        f"{len(told)} of their "
        f"{runs} runs are told within {WITHIN:,} fixations."
    ]
    for setting, members in settings.items():
        ratio = _losses(members)
        at = each(members, "told_at")
        when = f"told in {len(at)} of {len(members)} seeds, first after {_span(at)} fixations" if at else "never told"
        said.append(
            f"{setting} ({members[0]['text']}): loss "
            f"{spoken(None if ratio is None else float(np.mean(ratio.seeds)), 3)} of its first "
            f"quarter's, effective rank {spoken(mean(members, 'effective_rank'), 1)} of the frozen network's "
            f"{spoken(mean(members, 'effective_rank_frozen'), 1)}, skill {ranged(members, 'skill')}; {when}."
        )
    return said


def _span(values: Sequence[float]) -> str:
    least, most = min(values), max(values)
    return f"{least:,.0f}" if least == most else f"{least:,.0f} to {most:,.0f}"
