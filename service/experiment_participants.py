"""``rjepa experiment participants``: two by turns who share weights, each beside the same learner alone."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tqdm import tqdm

from model.learners import LEARNERS, config_of
from model.participants import ARRANGEMENTS, TURN, Person
from model.participants import run as by_turns
from service import experiment_sources
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.experiment_sources import Recorded, demo, known_learners, no_stream, over, told_features, watched

NAME = "participants"
KEY = ("stream", "learner", "turn", "arrangement", "participant", "fixations", "seed", "config", "features")
FIXATIONS = 5900
"""Of each participant: half of the scanpath of studyforrest."""
PEOPLE = 2
BY = (
    Column("stream", "stream"),
    Column("learner", "learner"),
    Column("participant", "participant"),
    Column("fixations", "fixations"),
    Column("arrangement", "arrangement"),
)
COLUMNS = (
    SEEDS,
    Column("skill", "skill", each=True),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("more than alone", "gain", each=True),
    Column("from", "gain_low"),
    Column("to", "gain_high"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``participants`` alone is told."""
    experiment_sources.add_recorded(parser)
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {', '.join(LEARNERS)} (default)")
    parser.add_argument("--turn", type=int, default=TURN, metavar="N", help=f"fixations of one turn ({TURN})")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Rows as they are finished, or found finished. Raises ModelError, SourceError, :class:`ExperimentRefused`."""
    learners = known_learners(arguments.learners, ("default",))
    for people in _pairs(arguments):
        for learner in learners:
            for seed in arguments.seeds:
                yield from _rows(people, learner, seed, arguments, features, kept)


def _pairs(arguments: argparse.Namespace) -> list[list[Recorded]]:
    """Of each stream the two who look: parts of one scanpath, or observers of two seeds."""
    count, seed = arguments.fixations or FIXATIONS, arguments.retina_seed
    found = [
        [
            over(name, arguments.scanpath, videos, seed=seed + number, first=number * count, count=count)
            for number in range(PEOPLE)
        ]
        for name, videos in watched(arguments)
    ]
    if arguments.demo:
        found.append([demo(count, seed=seed + number) for number in range(PEOPLE)])
    return found or no_stream(arguments.name, "--demo")


def _rows(
    people: list[Recorded],
    learner: str,
    seed: int,
    arguments: argparse.Namespace,
    features: KeptFeatures,
    kept: KeptRows,
) -> Iterator[Row]:
    config = config_of(learner)
    z = [person.features(features, config.retina, seed) for person in people]
    base = {
        "stream": people[0].name,
        "learner": learner,
        "turn": arguments.turn,
        "seed": seed,
        "config": digest(config.model_dump(mode="json")),
        "features": digest([told_features(features, config.retina, each) for each in z]),
    }
    keys: list[Row] = [
        {**base, "arrangement": arrangement, "participant": number + 1, "fixations": len(z[number])}
        for arrangement in ARRANGEMENTS
        for number in range(PEOPLE)
    ]
    found = [kept.find(key) for key in keys]
    if all(row is not None for row in found):
        yield from (row for row in found if row is not None)
        return
    said = f"{people[0].name}: {learner} seed {seed}"
    total = len(ARRANGEMENTS) * sum(len(each) for each in z)
    with tqdm(total=total, desc=said, unit="fixation", disable=arguments.quiet, leave=False) as bar:
        seen = [Person(each, person.looks(len(each))) for each, person in zip(z, people, strict=True)]
        told = by_turns(config, seen, turn=arguments.turn, seed=seed, progress=bar.update)
    for key, row in zip(keys, told, strict=True):
        kept.add({**key, **row})
        yield {**key, **row}
