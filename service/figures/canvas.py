"""What every picture shares: colours, type, how seeds and intervals are shown, and how it is written.

Each seed is faint, their mean strong; an interval is the mean of the seeds' own (95 %). Colours are those of Okabe and
Ito, told apart by colour-blind readers too, and no two series differ by colour alone. Every series is a group of its
own in the SVG, with its name as id, and text stays text. The same rows give the same bytes, on one matplotlib. Nothing
global is touched for longer than a picture is drawn: no pyplot, and matplotlib's settings are put back.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#7F7F7F"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)
"""Okabe and Ito 2008, without yellow, which is hardly seen on paper."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)), (0, (8, 2)))
WIDTH_IN = 7.1
"""Two columns of a journal: 180 mm."""
DPI = 160
_FAINT = 0.3
_FAMILIES = "'DejaVu Sans', Verdana, Arial, sans-serif"
"""Of the SVG's text: one of them is nearly as wide wherever it is read."""
_SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.formatter.use_mathtext": True,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "rjepa",
    "path.simplify": False,
}


class Picture(NamedTuple):
    """One picture, and what it is in words for who can't see it."""

    name: str
    """Of its files, without ending."""
    figure: Figure
    alt: str


class Page(NamedTuple):
    """What is drawn and said of one experiment. ``said`` are sentences, each from the rows alone."""

    title: str
    pictures: list[Picture]
    said: list[str]


@contextmanager
def drawing() -> Iterator[None]:
    """Within it pictures look as they should; matplotlib's settings are put back at the end."""
    with mpl.rc_context(_SETTINGS):  # type: ignore[arg-type]
        yield


def new(rows: int = 1, columns: int = 1, *, height_in: float, **how: Any) -> tuple[Figure, list[Axes]]:
    """A figure two columns wide and its axes, row by row. For :func:`drawing`."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    made = figure.subplots(rows, columns, squeeze=False, **how)
    return figure, list(made.ravel())


def write(picture: Picture, folder: Path, *, source: str) -> list[Path]:
    """The picture as PNG and SVG, without a date; their paths. ``source``: what it was drawn from, told in the SVG.

    For :func:`drawing`. Raises OSError.
    """
    return [_write_png(picture, folder), write_svg(picture, folder, source=source)]


def _write_png(picture: Picture, folder: Path) -> Path:
    png = folder / f"{picture.name}.png"
    picture.figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None, "Description": picture.alt})
    return png


def write_svg(picture: Picture, folder: Path, *, source: str) -> Path:
    """As :func:`write`, the SVG alone."""
    svg = folder / f"{picture.name}.svg"
    told = {"Date": None, "Creator": f"rjepa, matplotlib {mpl.__version__}", "Title": picture.alt, "Source": source}
    drawn = io.StringIO()
    picture.figure.savefig(drawn, format="svg", metadata=told)
    svg.write_text(drawn.getvalue().replace("'DejaVu Sans'", _FAMILIES))
    return svg


def named(name: object) -> str:
    """A name as an id or a file's name can have it."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", str(name)).strip("-").lower()


def letter(axes: Sequence[Axes]) -> None:
    """a, b, c ... before the titles."""
    for number, axis in enumerate(axes):
        axis.set_title(
            f"{chr(ord('a') + number)}  {axis.get_title(loc='left')}".rstrip(), loc="left", fontweight="bold"
        )


def course(
    axis: Axes,
    x: Sequence[float],
    seeds: Sequence[Sequence[float | None]],
    *,
    label: str,
    number: int,
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
    **how: Any,
) -> None:
    """A line over x: each of ``seeds`` faint, their mean strong, ``band`` the interval; ``number`` gives it its look.

    A point at which one seed has no value has no mean.
    """
    values = np.array([[np.nan if v is None else v for v in seed] for seed in seeds], dtype=np.float64)
    look = {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number % len(DASHES)]} | how
    colour = look["color"]
    if band is not None:
        low, high = (np.array([np.nan if v is None else v for v in side], dtype=np.float64) for side in band)
        axis.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0.0, gid=f"interval-{named(label)}")
    if len(values) > 1:
        for order, seed in enumerate(values):
            axis.plot(x, seed, color=colour, linewidth=0.7, alpha=_FAINT, gid=f"seed-{order}-{named(label)}")
    marker = MARKERS[number % len(MARKERS)] if len(x) <= 16 else ""
    axis.plot(x, values.mean(axis=0), label=label, gid=f"mean-{named(label)}", marker=marker, **look)


class Dot(NamedTuple):
    """One line of a picture of dots: each seed's value, and the interval."""

    seeds: Sequence[float]
    low: float | None = None
    high: float | None = None


def dots(
    axis: Axes, lines: Mapping[str, Dot | None], *, at: Sequence[str], label: str, number: int = 0,
    shift: float = 0.0, least: float | None = None, **how: Any,
) -> None:  # fmt: skip
    """Values beside names: ``at`` are all names from the top, ``lines`` those with a value, ``label`` the series'.

    What lies under ``least`` is told as a number at the edge.
    """
    look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]} | how
    means, places = [], []
    for place, name in enumerate(at):
        dot = lines.get(name)
        if dot is None or not len(dot.seeds):
            continue
        mean = float(np.mean(dot.seeds))
        if least is not None and mean < least:
            text = f"\N{LEFTWARDS ARROW} {mean:.2f}".replace("-", "\N{MINUS SIGN}")
            axis.text(least, place + shift, text, color=look["color"], va="center", ha="left", fontsize=7.0, zorder=2.0,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
            continue
        means.append(mean)
        places.append(place + shift)
        if dot.low is not None and dot.high is not None:
            axis.plot(
                [dot.low, dot.high], [place + shift] * 2, color=look["color"], linewidth=1.2, solid_capstyle="butt",
                gid=f"interval-{named(label)}-{named(name)}",
            )  # fmt: skip
        if len(dot.seeds) > 1:
            axis.plot(dot.seeds, [place + shift] * len(dot.seeds), linestyle="", color=look["color"], marker="|",
                      markersize=6.0, alpha=0.55, markeredgewidth=0.8)  # fmt: skip
    axis.plot(means, places, linestyle="", label=label, gid=f"mean-{named(label)}", **look)


def names_beside(axis: Axes, at: Sequence[str]) -> None:
    """The names of :func:`dots`, from the top, with a light line for each."""
    axis.set_yticks(range(len(at)), labels=list(at))
    axis.set_ylim(len(at) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0.0)
    axis.grid(visible=True, axis="y", color="#E5E5E5", linewidth=0.6)
    axis.set_axisbelow(True)


def line_at(axis: Axes, value: float, *, upright: bool = True, text: str | None = None) -> None:
    """A thin reference line, with what it means."""
    draw = axis.axvline if upright else axis.axhline
    draw(value, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
    if text is not None:
        place = {"xy": (value, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (2, -1)} if upright else {
            "xy": (1.0, value), "xycoords": ("axes fraction", "data"), "xytext": (-1, 2)}  # fmt: skip
        side = ("left", "top") if upright else ("right", "bottom")
        axis.annotate(text, textcoords="offset points", ha=side[0], va=side[1], color="#555555", fontsize=7.0, **place)  # type: ignore[arg-type]
