"""The checkpoints of a data directory, one by one: manifest, sha256, and whether they load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from model.config import ModelConfig
from model.errors import ModelError
from model.learner import Learner
from service.checkpoints import Checkpoints
from service.errors import CheckpointBad, RequestRefused
from service.manifests import Manifest

WAY_OUT = "the worker uses the one before it; remove its folder, and check the disk"


def good_checkpoints(folder: Path, tell: Callable[[], None]) -> tuple[list[Manifest], list[tuple[str, str]]]:
    """The good ones, oldest first, and of each other one what is wrong and the way out; ``tell`` hears of each.

    One that a running worker removes meanwhile is passed over.
    """
    checkpoints = Checkpoints(folder)
    good: list[Manifest] = []
    wrong = [(told, WAY_OUT) for told in checkpoints.unreadable()]
    learner: Learner | None = None
    for manifest in checkpoints.list():
        tell()
        try:
            _, snapshot = checkpoints.read(manifest.id)
            config = ModelConfig.parse(manifest.identity["model"])
            if learner is None or learner.config != config:
                learner = Learner(config, seed=int(manifest.identity["seed"]))
            learner.load(snapshot)
        except RequestRefused:
            continue
        except (CheckpointBad, ModelError, KeyError) as error:
            if (folder / manifest.id).exists():
                wrong.append((f"{error}" if manifest.id in str(error) else f"{manifest.id}: {error}", WAY_OUT))
            continue
        good.append(manifest)
        try:
            checkpoints.diagnostics(manifest.id)
        except CheckpointBad as error:
            wrong.append((f"{manifest.id}: {error}", "its learner is good, its diagnostics would begin anew"))
        except RequestRefused:
            continue
    return good, wrong
