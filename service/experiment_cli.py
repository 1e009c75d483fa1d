"""``rjepa experiment NAME``: the truth about learning, as numbers and pictures. Seeded, resumable, with a progress bar.

Each experiment is a module with ``NAME``, the ``KEY`` of its rows, the table's columns ``BY`` and ``COLUMNS``,
``add_options`` and ``run``, which yields rows as they are finished. ``draw`` makes pictures of rows that are there, and
``compare`` runs nothing: it holds two representations beside each other.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import platformdirs
import torch

from model.weights import parse_weights
from service import (
    experiment_alignment,
    experiment_collapse,
    experiment_compare,
    experiment_endless,
    experiment_fidelity,
    experiment_learning,
    experiment_participants,
    experiment_scenes,
    experiment_streams,
    experiment_world,
)
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, as_markdown, as_text, table
from service.settings import WEIGHTS_HELP


class Told(Protocol):
    """Rows that can be told as a table."""

    NAME: str
    KEY: tuple[str, ...]
    BY: tuple[Column, ...]
    COLUMNS: tuple[Column, ...]


class Experiment(Told, Protocol):
    """What a module of an experiment has."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Options of its own."""
        ...

    def run(self, arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
        """Rows as they are finished."""
        ...


EXPERIMENTS: dict[str, tuple[Experiment, str]] = {
    "world": (cast(Experiment, experiment_world), "planted worlds with a known optimum: what is found of it"),
    "fidelity": (cast(Experiment, experiment_fidelity), "forward propagation against back-propagation through time"),
    "learning": (cast(Experiment, experiment_learning), "the paper's Figure 4: error by position, beside BPTT"),
    "alignment": (cast(Experiment, experiment_alignment), "the paper's Theorem 1: P^T P and the covariance of y"),
    "collapse": (cast(Experiment, experiment_collapse), "settings that learn nothing, and what a lab is told of them"),
    "streams": (cast(Experiment, experiment_streams), "real scanpaths, the demo and planted worlds, by every measure"),
    "endless": (cast(Experiment, experiment_endless), "a hundred thousand fixations while the video changes"),
    "participants": (
        cast(Experiment, experiment_participants),
        "two by turns who share weights, each beside itself alone",
    ),
    "scenes": (cast(Experiment, experiment_scenes), "still scenes under a real scanpath: what memory is worth"),
}


TOLD: dict[str, Told] = {
    **{name: experiment for name, (experiment, _) in EXPERIMENTS.items()},
    experiment_compare.NAME: cast(Told, experiment_compare),
}
"""Everything whose rows are told and drawn, by the name that stands in their file."""


def main(argv: list[str]) -> int:
    """Run ``rjepa experiment ...``; rows go to ``--json`` as they are finished, the table to stdout at the end."""
    arguments = _parser().parse_args(argv)
    torch.set_num_threads(1)
    if arguments.name == "draw":
        for file in arguments.files:
            _tell_files(draw(*held(file), arguments.figures))
        return 0
    if arguments.name == "world" and arguments.show is not None:
        experiment_world.show(arguments.show, seed=arguments.seeds[0], back=(arguments.back or [2])[0])
        print(f"{arguments.show}: the places and the first fixations of seed {arguments.seeds[0]}")
        return 0
    experiment = TOLD[arguments.name]
    if arguments.figures is not None:
        _pages()  # before hours of work, not after
    own = None if arguments.figures is None else arguments.figures / f"{experiment.NAME}.json"
    kept = KeptRows(arguments.json or own, experiment.NAME, experiment.KEY)
    rows: list[Row] = []
    try:
        for row in _rows(arguments, kept):
            rows.append(row)
    finally:
        print(told(experiment, rows, markdown=arguments.markdown))
        sys.stdout.flush()
    if arguments.figures is not None:
        _tell_files(draw(experiment.NAME, kept.rows if kept.path == own else rows, arguments.figures))
    return 0


def _rows(arguments: argparse.Namespace, kept: KeptRows) -> Iterable[Row]:
    if arguments.name == experiment_compare.NAME:
        return experiment_compare.run(arguments, kept)
    features = KeptFeatures(
        arguments.cache, parse_weights(arguments.weights), seed=arguments.retina_seed, device=arguments.device,
        quiet=arguments.quiet,
    )  # fmt: skip
    return EXPERIMENTS[arguments.name][0].run(arguments, features, kept)


def held(path: Path) -> tuple[str, list[Row]]:
    """The experiment a file of rows is of, and its rows. Raises :class:`ExperimentRefused`."""
    try:
        found = json.loads(path.read_text())
        name, rows = found["experiment"], list(found["rows"])
        if name not in TOLD:
            raise ValueError(f"there is no experiment {name!r}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ExperimentRefused(f"{path} holds no rows of an experiment ({error}): name a file of --json") from None
    return name, rows


def draw(name: str, rows: list[Row], folder: Path) -> list[Path]:
    """Rows as JSON, PNG, SVG and a page of text in ``folder``. Raises :class:`ExperimentRefused`."""
    return list(_pages().draw(name, rows, folder, table=lambda: told(TOLD[name], rows, markdown=True)))


def _pages() -> Any:
    """Imported late: the numbers need no matplotlib."""
    try:
        from service.figures import pages
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise ExperimentRefused("pictures need matplotlib: pip install 'rjepa[figures]'") from None
    return pages


def _tell_files(paths: list[Path]) -> None:
    print(*paths, sep="\n")


def told(experiment: Told, rows: list[Row], *, markdown: bool) -> str:
    """The table of ``rows``."""
    if not rows:
        return "no row is finished"
    lines = table(rows, experiment.BY, experiment.COLUMNS)
    return as_markdown(lines) if markdown else as_text(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rjepa experiment", description="The truth about learning.")
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, (experiment, text) in EXPERIMENTS.items():
        own = names.add_parser(name, help=text, description=text)
        _add_output(own)
        _add_common(own)
        experiment.add_options(own)
    compare = names.add_parser(
        "compare", help="how alike two checkpoints, layers or arrays represent the same fixations (CKA, RSA)",
        description=experiment_compare.ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _add_output(compare)
    experiment_compare.add_options(compare)
    text = "pictures and a page of text from rows that are there; nothing is run"
    drawn = names.add_parser("draw", help=text, description=text)
    drawn.add_argument("files", type=Path, nargs="+", metavar="FILE.json", help="what --json wrote, of any experiment")
    drawn.add_argument("--figures", type=Path, default=Path("figures"), metavar="DIR", help="where to (figures)")
    return parser


def _add_output(parser: argparse.ArgumentParser) -> None:
    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--json", type=Path, metavar="FILE", help="keep each finished row here; a second run goes on where it ended "
           "(with --figures: DIR/NAME.json)")  # fmt: skip
    option(
        "--figures",
        type=Path,
        metavar="DIR",
        help="draw: NAME.json, pictures as PNG and SVG, and NAME.md, a page of text",
    )
    option("--markdown", action="store_true", help="print the table as Markdown")
    option("--quiet", action="store_true", help="no progress bars")


def _add_common(parser: argparse.ArgumentParser) -> None:
    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="one run for each (0 1 2)")
    option("--fixations", type=int, metavar="N", help="how long each run is (what the tables say)")
    option("--weights", default="random", metavar="WEIGHTS", help=f"the retina's: {WEIGHTS_HELP} (random)")
    option("--retina-seed", type=int, default=0, metavar="N", help="of random weights and of the calibration (0)")
    option("--device", default="cpu", choices=["cpu", "cuda"], help="of the retina (cpu)")
    cache = Path(platformdirs.user_cache_dir("rjepa")) / "experiments"
    option("--cache", type=Path, default=cache, metavar="DIR", help=f"where features are kept ({cache})")
