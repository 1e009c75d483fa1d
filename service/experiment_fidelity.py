"""``rjepa experiment fidelity``: forward propagation against back-propagation through time, as gates grow."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.gate_scale import CIRCUITS, SCALES, config_of, measure
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, digest

NAME = "fidelity"
KEY = ("circuit", "scale", "seed", "config")
BY = (Column("circuit", "circuit"), Column("gate scale", "scale"))
COLUMNS = (Column("cosine with BPTT", "cosine", 4), Column("relative error", "relative_error", 2))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Nothing of its own."""


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each row as it is finished, or found finished."""
    todo = [(circuit, scale, seed) for circuit in CIRCUITS for scale in SCALES for seed in arguments.seeds]
    for circuit, scale, seed in tqdm(todo, desc="fidelity", unit="run", disable=arguments.quiet, leave=False):
        config = digest(config_of(circuit).model_dump(mode="json"))
        key: Row = {"circuit": circuit, "scale": scale, "seed": seed, "config": config}
        found = kept.find(key)
        if found is None:
            found = {**key, **measure(circuit, scale, seed=seed)}
            kept.add(found)
        yield found
