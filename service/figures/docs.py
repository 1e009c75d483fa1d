"""The pictures of docs/, from the rows kept in docs/learning/*.json: ``python -m service.figures.docs``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from service.experiment_cli import held
from service.figures import canvas
from service.figures.pages import DRAWN, source_of

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
SHOWN: dict[str, tuple[str, ...]] = {
    "world": ("world", "world-course"),
    "fidelity": ("fidelity",),
    "learning": ("learning",),
    "alignment": ("alignment",),
    "collapse": ("collapse-bikes-covariance", "collapse-bikes-told"),
    "streams": ("streams", "streams-measures"),
    "scenes": ("scenes", "scenes-differences"),
    "endless": ("endless",),
    "participants": ("participants",),
    "compare": ("compare",),
}
"""Of each experiment, the pictures that the docs show."""


def draw(rows: Path, names: Iterable[str], folder: Path) -> list[Path]:
    """Draw the pictures ``names`` from a file of rows, as SVG in ``folder``; their paths."""
    experiment, found = held(rows)
    with canvas.drawing():
        pictures = {picture.name: picture for picture in DRAWN[experiment](found).pictures}
        return [canvas.write_svg(pictures[name], folder, source=source_of(found)) for name in names]


def main() -> int:
    """Draw them all anew."""
    for experiment, names in SHOWN.items():
        draw(DOCS / "learning" / f"{experiment}.json", names, DOCS / "images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
