"""Two representations beside each other: similarity and what chance gives, and which stimuli are unlike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from service.experiment_rows import Row
from service.figures.canvas import BLUE, GREY, VERMILION, Page, Picture, letter, new
from service.figures.grouped import groups, spoken

_NAMES = {"cka": "linear CKA, debiased", "rsa": "RSA, Spearman"}
_BINS = 30


def draw(rows: Sequence[Row]) -> Page:
    """One picture for each pair."""
    pictures, said = [], []
    pairs = groups(rows, "a", "layer_a", "b", "layer_b", "block", "answers")
    for number, (pair, members) in enumerate(pairs.items()):
        name = "compare" if len(pairs) == 1 else f"compare-{number + 1}"
        pictures.append(_picture(name, members))
        said += [_sentence(row) for row in members]
        said.append(_null(members[0], pair[4]))
    return Page("Two representations of the same fixations", pictures, said)


def _side(row: Row, which: str) -> str:
    """What it is called in a picture: the path's last part, and the layer."""
    name = Path(row[which]).name or row[which]
    layer = row[f"layer_{which}"]
    return name if layer == "array" else f"{name}\n{layer}"


def _flat(row: Row, which: str) -> str:
    return _side(row, which).replace("\n", ", ")


def _picture(name: str, rows: Sequence[Row]) -> Picture:
    rsa = next((row for row in rows if "unlike_a" in row), None)
    figure, axes = new(
        1 if rsa is None else 2,
        2,
        height_in=2.9 if rsa is None else 5.6,
        height_ratios=None if rsa is None else [1.0, 1.35],
    )
    for axis, row in zip(axes, rows, strict=False):
        _histogram(axis, row)
    for axis in axes[len(rows) : 2]:
        axis.set_axis_off()
    if rsa is not None:
        for axis, which in zip(axes[2:], ("a", "b"), strict=True):
            count, unlike = rsa["stimuli"], np.array(rsa[f"unlike_{which}"])
            image = axis.imshow(
                unlike, vmin=0.0, vmax=1.0, cmap="cividis", interpolation="nearest", extent=(0, count, count, 0),
                gid=f"unlike-{which}",
            )  # fmt: skip
            axis.set(xlabel="stimulus (in order)", ylabel="stimulus (in order)")
            axis.set_title(f"{which.upper()}: {_side(rsa, which)}", loc="left", fontsize=7.5)
        bar = figure.colorbar(image, ax=axes[2:], fraction=0.05, pad=0.02)
        bar.set_label(f"dissimilarity ({rsa['dissimilarity']}), rank / pairs (0 to 1)")
    letter(axes[: len(rows)])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    first = rows[0]
    return Picture(
        name,
        figure,
        f"Similarity of A ({_flat(first, 'a')}) and B ({_flat(first, 'b')}), beside what shuffled stimuli give",
    )


def _histogram(axis: Axes, row: Row) -> None:
    values = [*row["null"], *row["halves"], row["value"]]
    edges = np.linspace(min(values), max(values), _BINS + 1).tolist() if max(values) > min(values) else _BINS
    axis.hist(row["null"], bins=edges, color=GREY, label="stimuli shuffled", gid=f"null-{row['measure']}")
    axis.hist(
        row["halves"],
        bins=edges,
        histtype="step",
        color=BLUE,
        linestyle="--",
        label="random halves",
        gid=f"halves-{row['measure']}",
    )
    axis.axvline(row["value"], color=VERMILION, label="A and B", gid=f"value-{row['measure']}")
    axis.axvspan(
        row["low"],
        row["high"],
        color=VERMILION,
        alpha=0.15,
        linewidth=0.0,
        label="95 % of the halves",
        gid=f"interval-{row['measure']}",
    )
    axis.set(xlabel="similarity (1: the same)", ylabel=f"draws (of {row['draws']:,})")
    axis.set_title(f"{_NAMES[row['measure']]}: p = {row['p']:.4f}", loc="left")


def _sentence(row: Row) -> str:
    told = (
        f"{_NAMES[row['measure']]}, of A ({row['a']}, {row['layer_a']}, {row['units_a']:,} units) and B "
        f"({row['b']}, {row['layer_b']}, "
        f"{row['units_b']:,} units) over {row['stimuli']:,} stimuli: {spoken(row['value'])} "
        f"[{spoken(row['low'])}, {spoken(row['high'])}]; "
        f"shuffled {spoken(row['null_mean'])} [{spoken(row['null_low'])}, {spoken(row['null_high'])}], p = "
        f"{row['p']:.4f}"
    )
    return told + (f"; not debiased {spoken(row['biased'])}." if row.get("biased") is not None else ".")


def _null(row: Row, block: int) -> str:
    """What the test and the interval are of."""
    shuffled = "single stimuli were" if block == 1 else f"blocks of {block} neighbours were"
    return (
        f"{row['draws']:,} times {shuffled} shuffled (seed {row['seed']}); p is the share at least as "
        "similar, the pair itself among "
        f"them. The interval is of {row['draws']:,} random halves of the stimuli. "
        + ("Where stimuli follow one another in time, p is too small so: say --block. " if block == 1 else "")
        + "Similar is not the same as caused, explained or used by."
    )
