"""``rjepa experiment learning``: the paper's Figure 4 on a planted world, forward propagation beside BPTT."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.figure_four import METHODS, SEQUENCE, config_of
from model.figure_four import run as figure
from model.worlds import make_world
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, digest

NAME = "learning"
KEY = ("method", "back", "fixations", "seed", "config", "calibration")
FIXATIONS = 40_000
BY = (Column("k", "back"), Column("fixations", "fixations"), Column("gradient", "method"))
COLUMNS = (
    *(Column(f"{position}", f"error_{position}", 2) for position in range(1, SEQUENCE)),
    Column("from k on / before", "from_k"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``learning`` alone is told."""
    parser.add_argument("--back", type=int, default=5, metavar="K", help="the k of the world (5)")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished."""
    fixations = arguments.fixations or FIXATIONS
    for method in METHODS:
        config = config_of(method)
        for seed in arguments.seeds:
            key: Row = {
                "method": method,
                "back": arguments.back,
                "fixations": fixations,
                "seed": seed,
                "config": digest(config.model_dump(mode="json")),
                "calibration": features.calibration(config.retina).digest[:12],
            }
            found = kept.find(key)
            if found is None:
                read = features.reader(config.retina)
                world = make_world(read, arguments.back, fixations, seed=seed, sequence_length=SEQUENCE)
                said = f"{method} seed {seed}"
                with tqdm(total=fixations, desc=said, unit="fixation", disable=arguments.quiet, leave=False) as bar:
                    found = {**key, **figure(config, method, world, seed=seed, progress=bar.update)}
                kept.add(found)
            yield found
