"""What a data directory was made with: checked at every start, and made at the first.

The identity (in the database's ``meta``, and in every checkpoint) can't change, for the parameters and every
stored z hang on it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from model.backbone import ENGINE, PRECISION, Engine, Precision, usable_device, usable_engine
from model.calibration import Calibration, calibrate
from model.config import ModelConfig
from model.errors import ModelError
from model.retina import Retina
from model.weights import WeightsSource, load_weights
from service.datadir import DataDirectory
from service.errors import DirectoryRefused
from service.journal import Journal
from service.offline import calibration_patches
from service.settings import Settings

MOST_THREADS = 4

log = logging.getLogger("rjepa.identity")


def open_retina(
    directory: DataDirectory,
    journal: Journal,
    config: ModelConfig,
    source: WeightsSource,
    settings: Settings,
    progress: Callable[[int, int], None],
) -> tuple[Retina, dict[str, Any]]:
    """The retina of a data directory, and its identity. A new directory is calibrated, and torch's threads fixed.

    Raises :class:`DirectoryRefused` where it was made with something else; the message names what. ModelError where
    the engine is not there, before anything is calibrated.
    """
    found = journal.meta("identity")
    if found is not None:
        identity: dict[str, Any] = json.loads(found)
        _check(directory.path, identity, config, settings)
        _check_weights(directory.path, identity, source, settings.seed)
        torch.set_num_threads(int(identity["threads"]))
        calibration = _calibration(directory, identity)
        retina = Retina(
            config.retina, source, calibration, seed=settings.seed, device=settings.device,
            engine=engine_of(identity), precision=precision_of(identity),
        )  # fmt: skip
        return retina, identity
    engine, precision = settings.engine or ENGINE, settings.precision or PRECISION
    usable_engine(engine, usable_device(settings.device), precision)
    threads = settings.threads or min(os.cpu_count() or 1, MOST_THREADS)
    torch.set_num_threads(threads)
    log.info("new data directory %s: calibrating, once", directory.path)
    patches = None
    if settings.calibrate != "synthetic":
        patches = calibration_patches(Path(settings.calibrate), seed=settings.seed)
    calibration = calibrate(
        config.retina, source, seed=settings.seed, patches=patches, device=settings.device, progress=progress
    )
    calibration.save(directory.calibration)
    retina = Retina(
        config.retina, source, calibration, seed=settings.seed, device=settings.device,
        engine=engine, precision=precision,
    )  # fmt: skip
    identity = {
        "model": config.model_dump(mode="json"),
        "weights": {"name": str(source), "digest": retina.weights_digest},
        "seed": settings.seed,
        "calibration": calibration.digest,
        "batch_shape": config.retina.batch_shape,
        "threads": threads,
        "engine": engine,
        "precision": precision,
    }
    journal.put_meta("identity", json.dumps(identity))
    return retina, identity


def engine_of(identity: dict[str, Any]) -> Engine:
    """Who convolves for this directory; those made before there was a choice go on with what they had."""
    engine: Engine = identity.get("engine", "plain")
    return engine


def precision_of(identity: dict[str, Any]) -> Precision:
    """The numbers its retina computes with; those made before there was a choice have float32."""
    precision: Precision = identity.get("precision", "float32")
    return precision


def _check(path: Path, identity: dict[str, Any], config: ModelConfig, settings: Settings) -> None:
    try:
        made = ModelConfig.parse(identity["model"])
    except ModelError as error:
        raise DirectoryRefused(
            f"{path} was made by another version of this program ({error}); use that, or another --data-dir"
        ) from None
    wanted = {"dense_step": config.dense_step} | _flat(config.model_dump(mode="json"))
    for key, value in ({"dense_step": made.dense_step} | _flat(made.model_dump(mode="json"))).items():
        if wanted[key] != value:
            raise _other(path, "preset" if key == "name" else key, value, wanted[key])
    if identity["seed"] != settings.seed:
        raise _other(path, "seed", identity["seed"], settings.seed)
    if settings.threads not in (None, identity["threads"]):
        raise _other(path, "threads", identity["threads"], settings.threads)
    if settings.engine not in (None, engine_of(identity)):
        raise _other(path, "engine", engine_of(identity), settings.engine)
    if settings.precision not in (None, precision_of(identity)):
        raise _other(path, "precision", precision_of(identity), settings.precision)


def _check_weights(path: Path, identity: dict[str, Any], source: WeightsSource, seed: int) -> None:
    """The digest counts, not the name: the same weights may come by another path.

    Under the same name, the calibration and the retina find out whether they are others by now.
    """
    made = identity["weights"]
    if str(source) != made["name"]:
        digest = load_weights(source, seed=seed).digest
        if digest != made["digest"]:
            raise _other(path, "weights", f"{made['name']} ({made['digest'][:12]})", f"{source} ({digest[:12]})")


def _calibration(directory: DataDirectory, identity: dict[str, Any]) -> Calibration:
    try:
        calibration = Calibration.load(directory.calibration)
    except ModelError as error:
        raise DirectoryRefused(str(error)) from None
    if calibration.digest != identity["calibration"]:
        raise DirectoryRefused(
            f"{directory.calibration} is not the one {directory.path} was made with (digest "
            f"{calibration.digest[:12]}, not {identity['calibration'][:12]}); restore it from a backup"
        )
    return calibration


def _other(path: Path, key: str, made: object, wanted: object) -> DirectoryRefused:
    return DirectoryRefused(
        f"{path} was made with {key} {made}, not {wanted}; start with what it was made with, or name another --data-dir"
    )


def _flat(nested: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
