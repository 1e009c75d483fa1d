"""``rjepa experiment compare A B``: how alike two checkpoints, layers or arrays represent the same fixations."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from model.errors import ModelError
from model.similarity import MOST_STIMULI, Dissimilarity, Measure, cka_biased, compare, picture
from service.compare_fixations import Fixations, fixations_of
from service.compare_sides import LAYERS, RECORDED, Side, is_array, side
from service.errors import ExperimentRefused
from service.experiment_rows import Column, KeptRows, Row, digest

NAME = "compare"
KEY = ("a", "layer_a", "b", "layer_b", "measure", "dissimilarity", "block", "draws", "seed", "answers")
BLOCK = 20
"""Fixations shuffled together where they follow one another in a stream."""
DRAWS = 1000
MEASURES: tuple[Measure, ...] = ("cka", "rsa")
BY = (
    Column("a", "a"), Column("of it", "layer_a"), Column("b", "b"), Column("of it", "layer_b"),
    Column("measure", "measure"), Column("stimuli", "stimuli"), Column("block", "block"),
)  # fmt: skip
COLUMNS = (
    Column("similarity", "value"),
    Column("from", "low"),
    Column("to", "high"),
    Column("shuffled", "null_mean"),
    Column("from", "null_low"),
    Column("to", "null_high"),
    Column("p", "p", 4),
    Column("CKA not debiased", "biased"),
)
ABOUT = """\
How alike A and B represent the same fixations: linear CKA (debiased) and RSA, with permutation tests and intervals.

  rjepa experiment compare 20261104T090000Z-000000001200 20261104T100000Z-000000005200 --over session-1 --stream s1
  rjepa experiment compare recorded neurons.npy --over session-1 --stream s1 --figures compared
  rjepa experiment compare session-1 session-1 --layer features embedding --over session-1 --stream s1
  rjepa experiment compare v1.npy v4.npy

A and B: a checkpoint (its id in --over's directory, its folder, a downloaded file, or a data directory: its newest),
"recorded" (the embedding as each fixation was learned), or an array (.npy, .npz, .npz:NAME, .csv; rows are the stream's
fixations in order, columns units).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``compare`` is told."""

    def option(*names: str, **how: Any) -> None:
        parser.add_argument(*names, **how)

    told = "; ".join(f"{name}: {text}" for name, text in LAYERS.items())
    option("a", metavar="A", help="a checkpoint, recorded, or a file of numbers")
    option("b", metavar="B", help="the other")
    option("--over", type=Path, metavar="DIR", help="the data directory whose fixations they answer to")
    option("--stream", metavar="NAME", help="which of its streams")
    option("--layer", nargs="+", choices=list(LAYERS), default=["embedding"], metavar="LAYER",
           help=f"of checkpoints, one for both or one each ({told}) (embedding)")  # fmt: skip
    option(
        "--seqs",
        type=int,
        nargs=2,
        metavar=("FIRST", "LAST"),
        help="of these fixations alone; what was before is still seen",
    )
    option("--stimuli", type=int, metavar="N", help=f"so many, spread evenly (all; at most {MOST_STIMULI:,})")
    option("--dissimilarity", choices=["correlation", "euclidean"], default="correlation", help="of RSA (correlation)")
    option("--block", type=int, metavar="N", help="neighbours that are shuffled together, as long as answers last: "
           f"{BLOCK} over a stream, 1 for two arrays without one")  # fmt: skip
    option("--draws", type=int, default=DRAWS, metavar="N", help=f"shuffles, and halves for the interval ({DRAWS})")
    option("--seed", type=int, default=0, metavar="N", help="of shuffles and halves (0)")
    option("--arrays", type=Path, metavar="FILE.npz", help="write what was compared: a, b, seq")


def run(arguments: argparse.Namespace, kept: KeptRows) -> Iterator[Row]:
    """A row for each measure, as it is finished or found finished. Raises :class:`ExperimentRefused`, ModelError."""
    one, other, seqs = answers(arguments)
    if arguments.arrays is not None:
        try:
            np.savez(arguments.arrays, a=one.answers, b=other.answers, seq=seqs)
        except OSError as error:
            raise ExperimentRefused(f"{arguments.arrays} can't be written ({error}): name another file") from None
    block = arguments.block or (1 if arguments.over is None else BLOCK)
    known = digest([_sum(one), _sum(other), len(seqs)])
    for measure in MEASURES:
        key: Row = {
            "a": one.name, "layer_a": one.layer, "b": other.name, "layer_b": other.layer, "measure": measure,
            "dissimilarity": arguments.dissimilarity if measure == "rsa" else None, "block": block,
            "draws": arguments.draws, "seed": arguments.seed, "answers": known,
        }  # fmt: skip
        found = kept.find(key)
        if found is None:
            found = {**key, **_measured(measure, one, other, key, arguments, quiet=arguments.quiet)}
            kept.add(found)
        yield found


def answers(arguments: argparse.Namespace) -> tuple[Side, Side, NDArray[np.int64]]:
    """Both sides' answers to the stimuli that both answer to, and which these are (seq, or the row).

    Raises :class:`ExperimentRefused` where they are not the same stimuli.
    """
    fixations = _fixations(arguments)
    layers = [*arguments.layer, arguments.layer[0]][:2] if len(arguments.layer) == 1 else arguments.layer
    if len(layers) > 2:
        raise ExperimentRefused(f"--layer {' '.join(layers)}: one for both sides, or one each")
    seers = sum(not is_array(word) and word != RECORDED for word in (arguments.a, arguments.b))
    total = 0 if fixations is None else fixations.count * seers
    with tqdm(total=total, desc="seeing again", unit="fixation", disable=arguments.quiet, leave=False) as bar:
        one, other = (
            side(word, layer, arguments.over, fixations, bar.update)
            for word, layer in zip((arguments.a, arguments.b), layers, strict=True)
        )
    _same(one, other, fixations, arguments)
    seqs = np.arange(len(one.answers)) if fixations is None else np.array(fixations.seqs)
    kept = ~(np.isnan(one.answers).all(axis=1) | np.isnan(other.answers).all(axis=1))
    if arguments.seqs is not None:
        kept &= (seqs >= arguments.seqs[0]) & (seqs <= arguments.seqs[1])
    places = np.flatnonzero(kept)
    if arguments.stimuli is not None and len(places) > arguments.stimuli:
        places = places[np.linspace(0, len(places) - 1, arguments.stimuli).round().astype(int)]
    if len(places) > MOST_STIMULI:
        raise ExperimentRefused(
            f"{len(places):,} stimuli are more than {MOST_STIMULI:,}: say --stimuli {MOST_STIMULI}, or --seqs "
            "FIRST LAST"
        )
    return one._replace(answers=one.answers[places]), other._replace(answers=other.answers[places]), seqs[places]


def _fixations(arguments: argparse.Namespace) -> Fixations | None:
    if arguments.over is None:
        return None
    if arguments.stream is None:
        raise ExperimentRefused("--over needs --stream NAME: whose fixations?")
    return fixations_of(arguments.over, arguments.stream)


def _same(one: Side, other: Side, fixations: Fixations | None, arguments: argparse.Namespace) -> None:
    wanted, whose = (len(one.answers), one.name) if fixations is None else (
        fixations.count, f"stream {arguments.stream} of {arguments.over}")  # fmt: skip
    for each in (one, other):
        if len(each.answers) != wanted:
            raise ExperimentRefused(
                f"{each.name} has {len(each.answers):,} rows, {whose} {wanted:,}: they must be the same "
                "stimuli, one row each"
            )


def _measured(
    measure: Measure, one: Side, other: Side, key: Row, arguments: argparse.Namespace, *, quiet: bool
) -> dict[str, Any]:
    kind: Dissimilarity = arguments.dissimilarity
    try:
        with tqdm(total=2 * arguments.draws, desc=measure, unit="draw", disable=quiet, leave=False) as bar:
            found = compare(
                measure, one.answers, other.answers, dissimilarity=kind, block=key["block"], draws=arguments.draws,
                seed=arguments.seed, progress=bar.update,
            )  # fmt: skip
        told: dict[str, Any] = {
            "stimuli": len(one.answers), "units_a": one.answers.shape[1], "units_b": other.answers.shape[1],
            **found._asdict(), "null": _short(found.null), "halves": _short(found.halves),
        }  # fmt: skip
        if measure == "cka":
            return told | {"biased": cka_biased(one.answers, other.answers)}
        return told | {"unlike_a": picture(one.answers, kind), "unlike_b": picture(other.answers, kind)}
    except ModelError as error:
        raise ExperimentRefused(f"{one.name} and {other.name} can't be compared by {measure}: {error}") from None


def _short(values: list[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def _sum(found: Side) -> list[int | str]:
    """What tells one array from another, the same rows in another order too."""
    return [*found.answers.shape, hashlib.sha256(np.ascontiguousarray(found.answers).tobytes()).hexdigest()]
