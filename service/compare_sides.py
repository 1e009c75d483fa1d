"""What is compared: answers of a checkpoint, as they were recorded, or an array of a lab's own, to the same fixations.

A side is told by one word:

    CHECKPOINT           the id of one in --over's directory, its folder, a file as downloaded, or a data directory (its
                         newest): it sees the fixations again, in order, from the features that were kept, learning off
    recorded             the embedding as it was when each fixation was learned
    FILE.npy .npz .csv   a row for each fixation of the stream, in order; of an .npz with several: FILE.npz:NAME

Fixations to which one side has no answer (a repeat, a refused one, a sequence's first for the prediction) are left out
of both.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model import snapshot as snapshots
from model.config import ModelConfig
from model.errors import ModelError
from model.learner import Learner, Watched
from model.snapshot import Snapshot
from service.checkpoints import Checkpoints
from service.compare_fixations import Fixations
from service.errors import CheckpointBad, ExperimentRefused, RequestRefused
from service.manifests import LEARNER

RECORDED = "recorded"
ARRAYS = (".npy", ".npz", ".csv")
LAYERS: dict[str, str] = {
    "features": "z, as the retina gave them (m)",
    "input": "x = V z, what the circuit is given (n)",
    "state": "s = (h, c), the context vector (2n)",
    "embedding": "y = U s (q)",
    "prediction": "p, what was foreseen of y before it came (q)",
}
"""What a learner has at each fixation, by name. It has no spatial areas: the retina is frozen, and pooled."""
_STREAM = "compared"
Answers = NDArray[np.float64]


class Side(NamedTuple):
    """``answers``: fixations x units, NaN throughout a row without an answer."""

    name: str
    layer: str
    answers: Answers


def is_array(word: str) -> bool:
    """Whether ``word`` names a file of numbers."""
    return Path(_split(word)[0]).suffix in ARRAYS


def side(
    word: str, layer: str, over: Path | None, fixations: Fixations | None, progress: Callable[[int], object]
) -> Side:
    """One side. Raises :class:`ExperimentRefused`, CheckpointBad, ModelError."""
    if is_array(word):
        return Side(word, "array", load_array(word))
    if over is None or fixations is None:
        raise ExperimentRefused(f"{word} needs fixations to answer to: say --over DIR and --stream NAME")
    if word == RECORDED:
        if layer != "embedding":
            raise ExperimentRefused(f"what is recorded is the embedding, not {layer}: name a checkpoint for that")
        return Side(word, layer, _stacked(fixations.recorded, fixations.count))
    return Side(word, layer, seen_again(_learner(word, over, fixations), layer, fixations, progress))


def seen_again(
    learner: Learner, layer: str, fixations: Fixations, progress: Callable[[int], object] = lambda done: None
) -> Answers:
    """The answers of ``learner``, from the zero state, its weights as they are. Raises :class:`ModelError`."""
    for stream in learner.streams():
        learner.forget(stream)
    learner.set_learning(False)
    held: list[Watched] = []
    learner.watch = held.append
    found: list[NDArray[np.float32] | None] = []
    for z, look, start in zip(fixations.z, fixations.looks, fixations.starts, strict=True):
        held.clear()
        if z is not None:
            outcome = learner.observe(_STREAM, z, look, start=start)
        found.append(None if z is None or outcome.skipped else _answer(held[0], layer))
        progress(1)
    learner.watch = None
    return _stacked(found, fixations.count)


def _answer(seen: Watched, layer: str) -> NDArray[np.float32] | None:
    assert seen.made is not None
    if layer == "features":
        answer = seen.z
    elif layer == "input":
        answer = seen.made.new.x
    elif layer == "state":
        answer = seen.made.new.state.flatten()
    elif layer == "embedding":
        answer = seen.made.new.y
    elif seen.made.attempt is None:
        return None
    else:
        answer = seen.made.attempt.predicted.p
    return answer.detach().to("cpu", torch.float32, copy=True).numpy()


def _stacked(rows: list[NDArray[np.float32] | None], count: int) -> Answers:
    units = next((len(row) for row in rows if row is not None), 0)
    if not units:
        raise ExperimentRefused("no fixation of the stream has an answer: was anything learned there?")
    found = np.full((count, units), np.nan)
    for place, row in enumerate(rows):
        if row is not None:
            found[place] = row
    return found


def _learner(word: str, over: Path, fixations: Fixations) -> Learner:
    """Raises :class:`ExperimentRefused` where it sees patches otherwise than the features were made."""
    snapshot, identity = _snapshot(word, over)
    retina = fixations.identity
    for key in ("calibration", "weights"):
        mine, kept = identity.get(key), retina.get(key)
        if mine is not None and kept is not None and _digest(mine) != _digest(kept):
            raise ExperimentRefused(
                f"{word} saw through another retina ({key} {_digest(mine)[:12]}) than the features kept in {over} "
                f"({_digest(kept)[:12]}): compare what each recorded over its own fixations, as arrays"
            )
    if identity and retina and _precision(identity) != _precision(retina):
        raise ExperimentRefused(
            f"{word} saw in {_precision(identity)}, the features kept in {over} are of {_precision(retina)}: compare "
            "what each recorded over its own fixations, as arrays"
        )
    try:
        config = ModelConfig.parse(snapshot.meta["config"])
        learner = Learner(config, seed=0)
        learner.load(snapshot)
    except (KeyError, ModelError) as error:
        raise ExperimentRefused(f"{word} is no checkpoint of this version ({error})") from None
    kept_size = next((len(z) for z in fixations.z if z is not None), config.features)
    if config.features != kept_size:
        raise ExperimentRefused(
            f"{word} takes {config.features} features, those kept in {over} are of {kept_size} numbers: name "
            "a checkpoint that "
            "sees as they were made"
        )
    return learner


def _precision(identity: dict[str, Any]) -> str:
    """What was made before there was a choice is in float32."""
    return str(identity.get("precision", "float32"))


def _digest(told: Any) -> str:
    return str(told["digest"] if isinstance(told, dict) else told)


def _snapshot(word: str, over: Path) -> tuple[Snapshot, dict[str, Any]]:
    """The learner's snapshot, and what its directory was made with where that is known."""
    path = Path(word)
    if path.suffix == ".safetensors" and path.is_file() and path.name != LEARNER:
        try:
            return snapshots.read(path), {}
        except ModelError as error:
            raise ExperimentRefused(str(error)) from None
    folder = path.parent if path.name == LEARNER else path
    if (folder / LEARNER).is_file():
        place, name = Checkpoints(folder.resolve().parent), folder.resolve().name
    elif (folder / "checkpoints").is_dir():
        place = Checkpoints(folder / "checkpoints")
        name = next((manifest.id for manifest in reversed(place.list())), "")
    else:
        place, name = Checkpoints(over / "checkpoints"), word
    try:
        manifest, snapshot = place.read(name)
    except (CheckpointBad, RequestRefused) as error:
        there = ", ".join(each.id for each in place.list()) or "none"
        raise ExperimentRefused(
            f"{word} is no array, no checkpoint and no folder of one ({error}); in {place.folder} there are {there}"
        ) from None
    return snapshot, manifest.identity


def load_array(word: str) -> Answers:
    """The numbers in a file, rows x units. Raises :class:`ExperimentRefused`."""
    name, key = _split(word)
    path = Path(name)
    try:
        if path.suffix == ".csv":
            with path.open() as file:
                first = file.readline()
            found = np.loadtxt(path, delimiter=",", ndmin=2, skiprows=0 if _are_numbers(first) else 1)
        else:
            held = np.load(path, allow_pickle=False)
            found = _of(held, key, word) if isinstance(held, np.lib.npyio.NpzFile) else held
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ExperimentRefused(f"{word} can't be read as numbers ({error})") from None
    if found.ndim != 2 or not (np.issubdtype(found.dtype, np.floating) or np.issubdtype(found.dtype, np.integer)):
        raise ExperimentRefused(
            f"{word} has shape {found.shape} of {found.dtype}: wanted are fixations x units, real numbers"
        )
    return found.astype(np.float64)


def _of(held: np.lib.npyio.NpzFile, key: str | None, word: str) -> NDArray[Any]:
    names = list(held)
    if key is None and len(names) == 1:
        key = names[0]
    if key not in names:
        raise ExperimentRefused(f"{word}: name one of its arrays as FILE.npz:NAME; there are {', '.join(names)}")
    return np.asarray(held[key])


def _split(word: str) -> tuple[str, str | None]:
    before, colon, after = word.rpartition(":")
    return (before, after) if colon and before.endswith(".npz") else (word, None)


def _are_numbers(line: str) -> bool:
    try:
        return bool([float(part) for part in line.split(",")])
    except ValueError:
        return False
