"""``rjepa replay``: learn a journal again, from any checkpoint, into another directory."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from model.config import PresetName
from service.care_options import Parser
from service.errors import SettingsError
from service.replay import START, Otherwise, Source, replay
from service.replay_rows import compare, table

_ABOUT = """\
Learns the journal of a data directory again: what would have come of it? The source is only read, and its worker may
be running. DIR2 is a data directory of its own that rjepa serve goes on with. With the same settings records and
learner are the same to the bit.

  rjepa replay --data-dir session-1 --from start --gates modular --into what-if
  rjepa replay --data-dir session-1 --from 20261104T090000Z-000000001200 --rate gates=3e-4 --into what-if"""


def main(argv: list[str]) -> int:
    """Run ``rjepa replay <argv>``: 0 when all was learned again."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; say --device cpu")
    torch.set_num_threads(1)
    source = Source.open(arguments.data_dir)
    otherwise = Otherwise(arguments.preset, arguments.gates, dict(arguments.rate))
    beginning = source.beginning(arguments.begin, otherwise)
    with tqdm(desc="copying", unit="entry", disable=arguments.quiet or None) as bar:

        def tell(what: str, done: int, whole: int) -> None:
            if what == "learning":
                bar.set_description("learning again", refresh=False)
                bar.total = whole
                bar.update(done - bar.n)

        replay(
            source, arguments.begin, arguments.into, otherwise,
            device=arguments.device, diagnostics=arguments.diagnostics, tell=tell,
        )  # fmt: skip
    rows = compare(arguments.data_dir, arguments.into, 0 if beginning is None else beginning.journal)
    print(table(rows))
    same, count = sum(row.same for row in rows), sum(row.fixations for row in rows)
    print(f"{same} of {count} records are the source's to the bit (latency_ms apart)")
    print(f"learned into {arguments.into}; live from here: {_served(arguments, source)}", file=sys.stderr)
    return 0


def _served(arguments: argparse.Namespace, source: Source) -> str:
    """The command that takes the folder as its data directory."""
    made, chosen = source.identity, source.config(Otherwise(arguments.preset, arguments.gates))
    words = f"rjepa serve --data-dir {arguments.into} --weights {made['weights']['name']} --seed {made['seed']}"
    words += "" if chosen.name == "default" else f" --preset {chosen.name}"
    words += "" if chosen.dense_step == "torch" else f" --dense-step {chosen.dense_step}"
    return words + f" --gates {chosen.gates}"


def _parser() -> Parser:
    parser = Parser(prog="rjepa replay", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    option = parser.add_argument
    option("--data-dir", type=Path, required=True, metavar="DIR", help="a worker's data directory")
    option("--from", dest="begin", required=True, metavar="CHECKPOINT", help=f"its id, or {START}")
    option("--into", type=Path, required=True, metavar="DIR2", help="a folder that does not exist yet")
    option("--preset", choices=get_args(PresetName), help=f"another configuration; needs --from {START}")
    option("--gates", choices=["two-point", "modular", "dense"], help=f"other gates; needs --from {START}")
    option("--rate", type=_rate, action="append", default=[], metavar="PART=RATE", help="a learning rate that holds "
           "throughout (gates, retention, input, ...); repeat it for others")  # fmt: skip
    option("--device", choices=["cpu", "cuda"], default="cpu", help="of the learner (cpu)")
    option(
        "--diagnostics", action=argparse.BooleanOptionalAction, default=True, help="measure beside it, as serve does"
    )
    option("--quiet", action="store_true", help="no progress bar")
    return parser


def _rate(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no PART=RATE with a rate from 0 to 1")
    return name, value
