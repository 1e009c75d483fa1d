"""``rjepa learn``: offline, sequences from recordings or a journal, in epochs, with a part held out. Resumable."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, get_args

import platformdirs
import torch
from tqdm import tqdm

from model.backbone import ENGINE, PRECISION, Engine, Precision
from model.calibration import Calibration
from model.config import ModelConfig, PresetName
from model.epochs import Epochs, Work
from model.sequences import Parts, cut, describe, split
from model.side_by_side import GRADIENTS, SideBySide
from model.weights import load_weights, parse_weights
from service.errors import LearnRefused, SettingsError
from service.experiment_features import KeptFeatures
from service.experiment_rows import Column, KeptRows, Row, as_text, digest, table
from service.identity import engine_of, precision_of
from service.learn_directory import Eyes, LearnDirectory, asked_before, retina_threads
from service.learn_sources import Gathered, JournalSource, from_recordings, pairs_of
from service.offline import add_recording_options
from service.settings import WEIGHTS_HELP

INTERRUPTED = 130
_BY = (Column("epoch", "epoch"),)
_COLUMNS = (
    Column("train error", "train_error", 6),
    Column("held-out error", "held_out_error", 6),
    Column("best trivial", "best_trivial"),
    Column("its error", "best_trivial_error", 6),
    Column("skill", "skill"),
    Column("from", "skill_low"),
    Column("to", "skill_high"),
    Column("early", "early", 6),
    Column("late", "late", 6),
    Column("rank", "rank", 1),
)
_ABOUT = """\
Learns sequences of fixations offline, epoch by epoch, several side by side in one update, and after each epoch
predicts those that are held out. Stopped or killed, the same command goes on where it was, to the same bits.

  rjepa learn --from session-1 --epochs 10 --into learned
  rjepa learn --video scene.mp4 --gaze gaze.csv --px-per-degree 15.5 --weights random --preset paper --into learned"""


def main(argv: list[str]) -> int:
    """Run ``rjepa learn <argv>``: 0 when every epoch is finished, 130 when it was stopped before."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; say --device cpu")
    overrides = {} if arguments.gates is None else {"gates": arguments.gates}
    config = ModelConfig.preset(arguments.preset, **overrides)
    before = asked_before(arguments.into)
    gathered, eyes = _gather(arguments, config, None if before is None else before.get("until"))
    torch.set_num_threads(1)
    sequences = cut(gathered.streams, arguments.sequence_length)
    parts = split(sequences, arguments.held_out, arguments.seed)
    there = describe(sequences, gathered.streams)
    _say(
        f"{there['fixations']} fixations of {there['streams']} streams: {there['sequences']} sequences of "
        f"{arguments.sequence_length}, {len(parts.held_out)} of them held out; {there['left_over']} fixations left over"
    )
    asked = {
        "gradient": arguments.gradient,
        "side_by_side": arguments.side_by_side,
        "sequence_length": arguments.sequence_length,
        "held_out": arguments.held_out,
        "seed": arguments.seed,
        "device": arguments.device,
        "until": gathered.until,
        "model": config.model_dump(mode="json"),
        "calibration": eyes.calibration.digest,
        "fixations": gathered.digest,
    }
    with LearnDirectory(arguments.into, config, eyes, asked, arguments.device) as directory:
        return _learn(arguments, config, parts, directory, asked, eyes)


def _learn(
    arguments: argparse.Namespace,
    config: ModelConfig,
    parts: Parts,
    directory: LearnDirectory,
    asked: dict[str, Any],
    eyes: Eyes,
) -> int:
    learning = SideBySide(config, gradient=arguments.gradient, seed=arguments.seed, device=arguments.device)
    epochs = Epochs(learning, parts, side_by_side=arguments.side_by_side, seed=arguments.seed)
    found = directory.newest()
    if found is not None:
        epochs.unpack(found)
        _say(f"{directory.path}: going on with epoch {epochs.epoch}, {epochs.taken} sequences of it taken in")
    run = {"run": digest(asked)} | {key: asked[key] for key in _TOLD} | {"preset": config.name, "gates": config.gates}
    kept = [KeptRows(path, "learn", ("run", "epoch")) for path in (directory.rows, arguments.json) if path is not None]

    def rows() -> list[Row]:
        return [run | row for row in epochs.rows]

    def keep(first: int) -> None:
        for file in kept:
            for row in rows()[first:]:
                if file.find(row) != row:
                    file.add(row)

    keep(0)
    with _asked_to_stop() as stopping:
        finished = _work(arguments, parts, epochs, directory, keep, stopping)
    print(as_text(table(rows(), _BY, _COLUMNS)) if epochs.rows else "no epoch is finished")
    if not finished:
        _say(f"rjepa learn: stopped in epoch {epochs.epoch}; the same command goes on from there")
        return INTERRUPTED
    _say(f"learned into {directory.path}; live from here: {_served(arguments, config, eyes)}")
    return 0


_TOLD = ("gradient", "side_by_side", "sequence_length", "held_out", "seed")
"""What of a run its rows tell."""


def _work(
    arguments: argparse.Namespace,
    parts: Parts,
    epochs: Epochs,
    directory: LearnDirectory,
    keep: Callable[[int], None],
    stopping: threading.Event,
) -> bool:
    """Learn until every epoch has its row; False where it was stopped before. What is done is on the disk then."""
    written_s = time.monotonic()
    if epochs.epoch > arguments.epochs:
        return True
    with _Bar(parts, arguments.epochs, epochs, quiet=arguments.quiet) as bar:
        for work in epochs.run(arguments.epochs):
            bar.tell(work)
            done = epochs.epoch > arguments.epochs
            late = time.monotonic() - written_s >= arguments.checkpoint_every
            if work.kind == "row" or stopping.is_set() or (late and work.kind == "group"):
                directory.write(epochs.pack(), last=done)
                written_s = time.monotonic()
            if work.kind == "row":
                keep(-1)
            if stopping.is_set() and not done:
                return False
    return True


class _Bar:
    """One bar for each epoch: its sequences, learned from and held out, and the error so far."""

    def __init__(self, parts: Parts, last: int, epochs: Epochs, *, quiet: bool) -> None:
        self._total = len(parts.learned) + len(parts.held_out)
        self._last = last
        self._quiet = quiet
        self._bar = self._new(epochs.epoch, epochs.taken)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _new(self, epoch: int, taken: int) -> tqdm:  # type: ignore[type-arg]
        said = f"epoch {epoch}/{self._last}"
        return tqdm(desc=said, total=self._total, initial=taken, unit="sequence", disable=self._quiet)

    def tell(self, work: Work) -> None:
        """Show what was done."""
        if work.kind == "row":
            self._bar.close()
            if work.epoch < self._last:
                self._bar = self._new(work.epoch + 1, 0)
            return
        if work.error is not None:
            self._bar.set_postfix_str(f"error {work.error:.4g}", refresh=False)
        self._bar.update(work.sequences)


def _gather(arguments: argparse.Namespace, config: ModelConfig, until: int | None) -> tuple[Gathered, Eyes]:
    """What was seen, and by what. Raises :class:`LearnRefused` where it was not said, or said twice."""
    pairs = pairs_of(arguments.recordings, arguments.video, arguments.gaze)
    if (arguments.source is None) == (not pairs):
        raise LearnRefused(
            "say what to learn from: either --from DATA_DIR, or recordings (--video FILE --gaze FILE, --recordings DIR)"
        )
    if arguments.source is not None and arguments.weights is None:
        journal = JournalSource(arguments.source)
        gathered = journal.features(config, until)
        made = journal.identity
        if int(made["seed"]) != arguments.seed:
            raise LearnRefused(
                f"{arguments.source} began with --seed {made['seed']}, and what is learned from its features goes on "
                f"with that: say --seed {made['seed']} (or name --weights, to see its patches again with another)"
            )
        for what, kept in (("engine", engine_of(made)), ("precision", precision_of(made))):
            if vars(arguments)[what] not in (None, kept):
                raise LearnRefused(
                    f"the features of {arguments.source} were made with {what} {kept}: say that (or name --weights, to "
                    f"see its patches again with {what} {vars(arguments)[what]})"
                )
        calibration = Calibration.load(arguments.source / "calibration.safetensors")
        return gathered, Eyes(
            made["weights"], int(made["seed"]), calibration, int(made["threads"]), engine_of(made), precision_of(made)
        )
    if arguments.weights is None:
        raise SettingsError(f"--weights has no default; the choices are {WEIGHTS_HELP}")
    weights = parse_weights(arguments.weights)
    features = KeptFeatures(
        arguments.cache, weights, seed=arguments.seed, device=arguments.device, quiet=arguments.quiet,
        engine=arguments.engine or ENGINE, precision=arguments.precision or PRECISION,
    )  # fmt: skip
    if arguments.source is not None:
        gathered = JournalSource(arguments.source).seen_again(config, features, until)
    else:
        gathered = from_recordings(pairs, vars(arguments), config, features, quiet=arguments.quiet)
    told = {"name": str(weights), "digest": load_weights(weights, seed=arguments.seed).digest}
    calibration = features.calibration(config.retina)
    return gathered, Eyes(told, arguments.seed, calibration, retina_threads(), features.engine, features.precision)


def _served(arguments: argparse.Namespace, config: ModelConfig, eyes: Eyes) -> str:
    """The command that takes the folder as its data directory."""
    words = f"rjepa serve --data-dir {arguments.into} --weights {eyes.weights['name']} --seed {eyes.seed}"
    words += "" if arguments.preset == "default" else f" --preset {arguments.preset}"
    return words + ("" if arguments.gates is None else f" --gates {arguments.gates}")


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Set by SIGINT or SIGTERM; a second SIGINT ends at once."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as an exception."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rjepa learn", description=_ABOUT, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip

    def option(name: str, **how: Any) -> None:
        parser.add_argument(name, **how)

    option("--from", dest="source", type=Path, metavar="DATA_DIR", help="a worker's data directory; it may be running")
    option("--video", type=Path, action="append", default=[], metavar="FILE", help="a video or picture; with --gaze")
    option("--gaze", type=Path, action="append", default=[], metavar="FILE", help="the gaze over it; repeat both")
    option("--recordings", type=Path, action="append", default=[], metavar="DIR", help="gaze files, and of the same "
           "names beside them what was looked at")  # fmt: skip
    option("--into", type=Path, required=True, metavar="DIR", help="where checkpoints and rows go; a data directory")
    option("--weights", metavar="WEIGHTS", help=f"{WEIGHTS_HELP}; with --from: see the kept patches again with these")
    option("--engine", choices=get_args(Engine), help="who computes the retina, here and live (packed)")
    option("--precision", choices=get_args(Precision), help="what numbers the retina computes with (float32)")
    option("--preset", choices=get_args(PresetName), default="default", help="the learner's configuration (default)")
    option("--gates", choices=["two-point", "modular", "dense"], help="connectivity of the gates (the preset's)")
    option("--gradient", choices=GRADIENTS, default="rfp", help="credit carried forward, or through time (rfp)")
    option("--epochs", type=_whole(0), default=10, metavar="N", help="each learns from every sequence once (10)")
    option("--sequence-length", type=_whole(2), default=100, metavar="T", help="fixations of a sequence (100)")
    option("--side-by-side", type=_whole(1), default=1, metavar="B", help="sequences of one update (1)")
    option("--held-out", type=_share, default=0.2, metavar="SHARE", help="of the sequences, never learned from (0.2)")
    option("--seed", type=_whole(0), default=0, metavar="N", help="of the start, the order and what is held out (0)")
    option("--json", type=Path, metavar="FILE", help="keep each epoch's row here too")
    option("--checkpoint-every", type=_seconds, default=60.0, metavar="S", help="besides one after each epoch (60)")
    option("--device", choices=["cpu", "cuda"], default="cpu", help="of the retina and the learner (cpu)")
    cache = Path(platformdirs.user_cache_dir("rjepa")) / "experiments"
    option("--cache", type=Path, default=cache, metavar="DIR", help=f"where features are kept ({cache})")
    option("--quiet", action="store_true", help="no progress bars")
    add_recording_options(parser)
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least}")
        return int(text)

    return number


def _share(text: str) -> float:
    return _between(text, 0.0, 1.0, "a share from 0 to below 1")


def _seconds(text: str) -> float:
    return _between(text, 0.0, math.inf, "a number of seconds from 0")


def _between(text: str, low: float, below: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value < below:
        raise argparse.ArgumentTypeError(f"{text!r} is no {what.removeprefix('a ')}")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
