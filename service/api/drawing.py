"""The loss curve as an SVG picture made here: no script, no colour without a second sign.

The raw error is faint, its running mean strong, the best trivial predictor's running mean dashed.
"""

from __future__ import annotations

import html
import math
from typing import Any

WIDTH, HEIGHT = 1100, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 44
TOP_QUANTILE = 0.98
"""Of the raw errors; the rest is cut at the upper edge, so that one outlier does not flatten the curve."""


def loss_picture(loss: dict[str, Any], stream: str) -> str:
    """The answer of the loss route, ``by=time``, as one ``<svg>`` element."""
    points = loss["points"]
    if not points:
        return '<p class="quiet">No prediction error yet: it begins with the second fixation of a sequence.</p>'
    top = _top(points)
    first, last = points[0]["seq"], max(points[-1]["seq"], points[0]["seq"] + 1)

    def place(seq: float, value: float) -> str:
        x = LEFT + (seq - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - min(value, top) / top * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    def line(key: str, kind: str) -> str:
        places = " ".join(place(point["seq"], point[key]) for point in points if point[key] is not None)
        return f'<polyline class="{kind}" points="{places}"/>' if places else ""

    title = html.escape(
        f"Prediction error of stream {stream}, fixations {first} to {points[-1]['seq']}; "
        f"running mean {points[-1]['smoothed']:.4g} at the end"
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>'
        + _grid(first, last, top, place)
        + line("error", "raw")
        + line("trivial_smoothed", "trivial")
        + line("smoothed", "smoothed")
        + "</svg>"
    )


def steps(low: float, high: float, wanted: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, about ``wanted`` of them."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    begin, end = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(begin, end + 1)]


def _top(points: list[dict[str, Any]]) -> float:
    raw = sorted(point["error"] for point in points)
    highest = raw[int(TOP_QUANTILE * (len(raw) - 1))]
    for point in points:
        highest = max(highest, point["smoothed"] or 0.0, point["trivial_smoothed"] or 0.0)
    return highest * 1.05 if highest > 0 else 1.0


def _grid(first: int, last: int, top: float, place: Any) -> str:
    parts = []
    for value in steps(0.0, top, 5):
        x, y = place(first, value).split(",")
        parts.append(f'<line class="grid" x1="{x}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for seq in steps(first, last, 6):
        if seq == int(seq):
            x = place(seq, 0).split(",")[0]
            parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{int(seq)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">fixation (seq)</text>')
    parts.append(
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        "prediction error</text>"
    )
    return "".join(parts)
