"""Theorem 1: P^T P beside U U^T and the covariance of the embedding, over training."""

from __future__ import annotations

from collections.abc import Sequence

from model.alignment import DECAY, RATE
from service.experiment_rows import Row
from service.figures.canvas import BLACK, Page, Picture, course, letter, line_at, new
from service.figures.grouped import groups, mean, of_seeds, ranged, spoken


def draw(rows: Sequence[Row]) -> Page:
    """One picture for each world."""
    pictures, said = [], []
    worlds = groups(rows, "back", "fixations")
    for (back, fixations), members in worlds.items():
        name = "alignment" if len(worlds) == 1 else f"alignment-k{back}-{fixations}"
        settings = groups(members, "text")
        pictures.append(_picture(name, back, fixations, settings))
        said += _said(back, fixations, settings, members)
    return Page("Theorem 1: does the predictor align with the embedding?", pictures, said)


def _picture(name: str, back: int, fixations: int, settings: dict[str, list[Row]]) -> Picture:
    figure, axes = new(2, 2, height_in=5.2, sharex=True)
    apart, alike, weights, rank = axes
    for number, (text, rows) in enumerate(settings.items()):
        at = [value / 1000.0 for value in rows[0]["at"]]
        for axis, column in ((apart, "apart"), (alike, "balance"), (weights, "balance_u"), (rank, "rank")):
            if any(value is not None for value in rows[0][column]):
                course(axis, at, [row[column] for row in rows], label=text, number=number)
        if any(value is not None for value in rows[0]["law"]):
            law = "the law: exp(-2 r \N{GREEK SMALL LETTER ETA} t)"
            apart.plot(at, rows[0]["law"], linestyle="", marker=".", markersize=3.0, color=BLACK, zorder=3.0,
                       label=law if not number else None, gid=f"law-{number}")  # fmt: skip
    apart.set_yscale("log")
    apart.set(ylabel="|P\N{SUPERSCRIPT ONE}P - UU\N{SUPERSCRIPT ONE}| / its start".replace("\N{SUPERSCRIPT ONE}", "ᵀ"))
    alike.set(ylabel="cosine of PᵀP with cov(y)", ylim=(0.0, 1.02))
    weights.set(ylabel="cosine of PᵀP with UUᵀ", ylim=(0.0, 1.02), xlabel="fixations (thousands)")
    rank.set(ylabel="effective rank of y (dimensions)", xlabel="fixations (thousands)")
    rank.set_ylim(0.0, None)
    for axis, title in zip(
        axes,
        ("the law of balance", "Theorem 1: balance", "predictor and embedding weights", "what is left"),
        strict=True,
    ):
        axis.set_title(title, loc="left")
    for axis in (alike, weights):
        line_at(axis, 1.0, upright=False)
    letter(axes)
    handles = {text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, handlelength=3.4)
    alt = f"Alignment of PᵀP with UUᵀ and the covariance of y over {fixations:,} fixations, planted world of k = {back}"
    return Picture(name, figure, alt)


def _said(back: int, fixations: int, settings: dict[str, list[Row]], rows: Sequence[Row]) -> list[str]:
    said = [
        f"A planted world of k = {back}, {fixations:,} fixations, {of_seeds(rows)}. The Time Decay Unit, a "
        "linear predictor without carry, "
        f"gradient descent at r = {RATE:g} with decoupled weight decay of \N{GREEK SMALL LETTER ETA} = "
        f"{DECAY:g} where it decays. "
        "The law: PᵀP - UUᵀ shrinks as exp(-2 r \N{GREEK SMALL LETTER ETA} t)."
    ]
    for text, members in settings.items():
        start = _start(members)
        end = ranged(members, "last_balance", 2)
        told = f"{text}: the cosine of PᵀP with the covariance of y goes from {spoken(start, 2)} to {end}"
        if members[0]["last_apart"] is not None:
            told += f"; PᵀP - UUᵀ ends at {spoken(mean(members, 'last_apart'), 4)} of its start"
            law = mean(members, "last_law")
            if law is None:
                told += ", and the law does not hold for it"
            else:
                told += f", the law says {spoken(law, 4)}, and in no seed is it ever more than {_off(members)} off"
        said.append(f"{told}. Effective rank at the end: {spoken(mean(members, 'last_rank'), 1)} dimensions.")
    return said


def _start(rows: Sequence[Row]) -> float | None:
    values = [row["balance"][0] for row in rows]
    return None if any(value is None for value in values) else float(sum(values) / len(values))


def _off(rows: Sequence[Row]) -> str:
    """The largest distance from the law, in percent of it."""
    pairs = [pair for row in rows for pair in zip(row["apart"], row["law"], strict=True)]
    return spoken(100.0 * max(abs(apart / law - 1.0) for apart, law in pairs), 2, unit=" %")
