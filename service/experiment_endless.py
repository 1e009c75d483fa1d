"""``rjepa experiment endless``: a scanpath that goes on and on while the video changes; does it stay what it was?

After each part everything is kept in the cache's folder; a second run goes on there, with the same bits.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from model import snapshot
from model.config import ModelConfig
from model.endless import EndlessRun
from model.learners import LEARNERS, config_of
from service.errors import ExperimentRefused
from service.experiment_features import KeptFeatures
from service.experiment_rows import SEEDS, Column, KeptRows, Row, digest
from service.experiment_sources import known_learners, no_stream, over, watched

NAME = "endless"
KEY = ("learner", "part", "part_fixations", "seed", "config", "calibration", "seen")
PARTS = 10
PART = 10_000
BY = (
    Column("learner", "learner"),
    Column("part", "part"),
    Column("until", "until"),
    Column("video", "video"),
)
COLUMNS = (
    SEEDS,
    Column("skill", "skill", each=True),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("against AR(1)", "skill_ar1"),
    Column("rank", "effective_rank", 1),
    Column("rank/frozen", "rank_ratio", 2, each=True),
    Column("largest state", "largest_state", 1, each=True),
    Column("units cut", "cut_units", 0),
    Column("ms a fixation", "ms_per_fixation", 2),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``endless`` alone is told."""
    parser.add_argument("--scanpath", type=Path, metavar="PATH", help="studyforrest tables of events: a file or folder")
    parser.add_argument("--video", type=Path, nargs="+", metavar="FILE", help="the parts' videos, again and again")
    parser.add_argument("--shots", type=Path, nargs="+", metavar="FILE", help="one more: shots cut to each other")
    parser.add_argument("--learners", nargs="+", metavar="NAME", help=f"which of {', '.join(LEARNERS)} (default)")
    parser.add_argument("--part", type=int, default=PART, metavar="N", help=f"fixations of one part ({PART:,})")


def run(arguments: argparse.Namespace, features: KeptFeatures, kept: KeptRows) -> Iterator[Row]:
    """Each part's row as it is finished, or found finished. Raises ModelError, SourceError."""
    videos = watched(arguments) or no_stream(arguments.name)
    parts = max((arguments.fixations or PARTS * arguments.part) // arguments.part, 1)
    for learner in known_learners(arguments.learners, ("default",)):
        config = config_of(learner)
        for seed in arguments.seeds:
            base: Row = {
                "learner": learner,
                "part_fixations": arguments.part,
                "seed": seed,
                "config": digest(config.model_dump(mode="json")),
                "calibration": features.calibration(config.retina).digest[:12],
                "seen": _seen(arguments, videos),
            }
            keys = [{**base, "part": number + 1} for number in range(parts)]
            found = [row for row in map(kept.find, keys) if row is not None]
            yield from found if len(found) == parts else _go_on(config, keys, videos, arguments, features, kept)


def _go_on(
    config: ModelConfig,
    keys: list[Row],
    videos: Sequence[tuple[str, Sequence[Path]]],
    arguments: argparse.Namespace,
    features: KeptFeatures,
    kept: KeptRows,
) -> Iterator[Row]:
    """Every part of one run, from where the cache's folder has it."""
    learner, seed, size = keys[0]["learner"], keys[0]["seed"], arguments.part
    path = arguments.cache / f"endless-{digest(keys[0])}.safetensors"
    run = EndlessRun(config, seed=seed)
    if path.exists():
        run.unpack(snapshot.read(path))
    for number, key in enumerate(keys):
        name, files = videos[number % len(videos)]
        if number >= len(run.rows):
            seen = over(
                name, arguments.scanpath, files, seed=arguments.retina_seed + number, first=number * size, count=size
            )
            z = seen.features(features, config.retina, seed)
            said = f"{learner} seed {seed}, part {number + 1}: {name}"
            with tqdm(total=len(z), desc=said, unit="fixation", disable=arguments.quiet, leave=False) as bar:
                run.part(z, seen.looks(len(z)), progress=bar.update)
            _write(run.pack(), path)
        row = {**key, "until": (number + 1) * size, "video": name, **run.rows[number]}
        kept.add(row)
        yield row


def _seen(arguments: argparse.Namespace, videos: Sequence[tuple[str, Sequence[Path]]]) -> str:
    """What tells one run's fixations from another's: scanpath, videos, seed. Raises :class:`ExperimentRefused`."""
    path: Path = arguments.scanpath
    tables = sorted(path.rglob("*.tsv")) if path.is_dir() else [path]
    told = [[name, [_file(file) for file in files]] for name, files in [*videos, ("scanpath", tables)]]
    return digest([told, arguments.retina_seed])


def _file(file: Path) -> list[str | int]:
    try:
        return [file.name, file.stat().st_size]
    except OSError as error:
        raise ExperimentRefused(f"{file} can't be read ({error})") from None


def _write(found: snapshot.Snapshot, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    snapshot.write(found, partial)
    os.replace(partial, path)
