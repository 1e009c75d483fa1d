"""``rjepa experiment NAME``: the truth about learning, as numbers. Seeded, resumable, with a progress bar.

Each experiment is a module with ``NAME``, the ``KEY`` of its rows, the table's columns ``BY`` and ``COLUMNS``,
``add_options`` and ``run``, which yields rows as they are finished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import platformdirs
import torch

from model.weights import parse_weights
from service import (
    experiment_alignment,
    experiment_collapse,
    experiment_endless,
    experiment_fidelity,
    experiment_learning,
    experiment_participants,
    experiment_scenes,
    experiment_streams,
    experiment_world,
)
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, as_markdown, as_text, table
from service.settings import WEIGHTS_HELP


class Experiment(Protocol):
    """What a module of an experiment has."""

    NAME: str
    KEY: tuple[str, ...]
    BY: tuple[Column, ...]
    COLUMNS: tuple[Column, ...]

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


def main(argv: list[str]) -> int:
    """Run ``rjepa experiment ...``; rows go to ``--json`` as they are finished, the table to stdout at the end."""
    arguments = _parser().parse_args(argv)
    if arguments.name == "world" and arguments.show is not None:
        experiment_world.show(arguments.show, seed=arguments.seeds[0], back=(arguments.back or [2])[0])
        print(f"{arguments.show}: the places and the first fixations of seed {arguments.seeds[0]}")
        return 0
    torch.set_num_threads(1)
    experiment, _ = EXPERIMENTS[arguments.name]
    kept = KeptRows(arguments.json, experiment.NAME, experiment.KEY)
    features = KeptFeatures(
        arguments.cache, parse_weights(arguments.weights), seed=arguments.retina_seed, device=arguments.device,
        quiet=arguments.quiet,
    )  # fmt: skip
    rows: list[Row] = []
    try:
        for row in experiment.run(arguments, features, kept):
            rows.append(row)
    finally:
        print(told(experiment, rows, markdown=arguments.markdown))
        sys.stdout.flush()
    return 0


def told(experiment: Experiment, rows: list[Row], *, markdown: bool) -> str:
    """The table of ``rows``."""
    if not rows:
        return "no row is finished"
    lines = table(rows, experiment.BY, experiment.COLUMNS)
    return as_markdown(lines) if markdown else as_text(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rjepa experiment", description="The truth about learning, as numbers.")
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, (experiment, text) in EXPERIMENTS.items():
        own = names.add_parser(name, help=text, description=text)
        _add_common(own)
        experiment.add_options(own)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--json", type=Path, metavar="FILE", help="keep each finished row here; a second run goes on where it ended")
    option("--markdown", action="store_true", help="print the table as Markdown")
    option("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="one run for each (0 1 2)")
    option("--fixations", type=int, metavar="N", help="how long each run is (what the tables say)")
    option("--weights", default="random", metavar="WEIGHTS", help=f"the retina's: {WEIGHTS_HELP} (random)")
    option("--retina-seed", type=int, default=0, metavar="N", help="of random weights and of the calibration (0)")
    option("--device", default="cpu", choices=["cpu", "cuda"], help="of the retina (cpu)")
    cache = Path(platformdirs.user_cache_dir("rjepa")) / "experiments"
    option("--cache", type=Path, default=cache, metavar="DIR", help=f"where features are kept ({cache})")
    option("--quiet", action="store_true", help="no progress bars")
