"""An experiment as files: its rows as JSON, its pictures as PNG and SVG, and a short page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from service.errors import ExperimentRefused
from service.experiment_rows import Row, digest
from service.figures import (
    alignment,
    canvas,
    collapse,
    compare,
    endless,
    fidelity,
    learning,
    participants,
    scenes,
    streams,
    world,
)
from service.figures.canvas import Page

DRAWN: dict[str, Callable[[Sequence[Row]], Page]] = {
    "world": world.draw,
    "fidelity": fidelity.draw,
    "learning": learning.draw,
    "alignment": alignment.draw,
    "collapse": collapse.draw,
    "streams": streams.draw,
    "endless": endless.draw,
    "participants": participants.draw,
    "scenes": scenes.draw,
    "compare": compare.draw,
}
"""Every experiment's pictures."""


def draw(experiment: str, rows: Sequence[Row], folder: Path, *, table: Callable[[], str]) -> list[Path]:
    """Write EXPERIMENT.json, its pictures as .png and .svg, and EXPERIMENT.md; the paths, the page last.

    ``table``: gives the rows as Markdown, put under the sentences. Raises :class:`ExperimentRefused`.
    """
    if not rows:
        raise ExperimentRefused(f"{experiment} has no finished row: there is nothing to draw")
    try:
        with canvas.drawing():
            page = DRAWN[experiment](rows)
            folder.mkdir(parents=True, exist_ok=True)
            written = [
                path for picture in page.pictures for path in canvas.write(picture, folder, source=source_of(rows))
            ]
        held = folder / f"{experiment}.json"
        _whole(
            held,
            f'{{"experiment": {json.dumps(experiment)}, "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n",
        )
        told = folder / f"{experiment}.md"
        _whole(told, markdown(page, experiment, table()))
    except OSError as error:
        raise ExperimentRefused(f"{folder} can't be written ({error}): name another folder with --figures") from None
    except LookupError as error:
        raise ExperimentRefused(
            f"the rows of {experiment} have no {error}: they are of another version; run the experiment again"
        ) from None
    return [held, *written, told]


def source_of(rows: Sequence[Row]) -> str:
    """What a picture tells of the rows it was drawn from."""
    return f"rows {digest(list(rows))}"


def markdown(page: Page, experiment: str, table: str) -> str:
    """The page of text."""
    parts = [
        f"# {page.title}",
        f"Drawn from the rows in [{experiment}.json]({experiment}.json) by `rjepa experiment draw`; every "
        "number is theirs.",
    ]
    for picture in page.pictures:
        parts.append(f"![{picture.alt}]({picture.name}.svg)")
    parts += ["## What is seen", "\n".join(f"- {sentence}" for sentence in page.said), "## The rows", table]
    return "\n\n".join(parts) + "\n"


def _whole(path: Path, text: str) -> None:
    """Whole or not at all; left alone where it says the same already."""
    if path.exists() and path.read_text() == text:
        return
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)
