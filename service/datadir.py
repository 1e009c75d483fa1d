"""The data directory: one worker at a time, made once, and never for another model.

``identity`` (in the database's ``meta``, and in every checkpoint) says what the directory was made with. What it
says can't change, for the parameters and every stored z hang on it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from model.calibration import Calibration, calibrate
from model.config import ModelConfig
from model.errors import ModelError
from model.retina import Retina
from model.weights import WeightsSource, load_weights
from service.errors import DirectoryInUse, DirectoryRefused
from service.journal import Journal
from service.offline import calibration_patches
from service.settings import Settings

MOST_THREADS = 4

log = logging.getLogger("rjepa.datadir")


class DataDirectory:
    """``settings.data_dir``, locked by this process until :meth:`close`; made if it is not there.

    Raises :class:`DirectoryInUse` where another worker holds it, :class:`DirectoryRefused` where it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)

    @property
    def database(self) -> Path:
        """``rjepa.db``."""
        return self.path / "rjepa.db"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def calibration(self) -> Path:
        """Whitening and batch-norm statistics."""
        return self.path / "calibration.safetensors"

    @property
    def step(self) -> Path:
        """The mark of :class:`~service.stepmark.StepMark`."""
        return self.path / "step"

    def close(self) -> None:
        """Let the next worker have it."""
        self._lock.close()

    def open_retina(
        self,
        journal: Journal,
        config: ModelConfig,
        source: WeightsSource,
        settings: Settings,
        progress: Callable[[int, int], None],
    ) -> tuple[Retina, dict[str, Any]]:
        """The retina and the directory's identity. A new directory is calibrated, and torch's threads are fixed.

        Raises :class:`DirectoryRefused` where it was made with something else; the message names what.
        """
        found = journal.meta("identity")
        identity: dict[str, Any] | None = None if found is None else json.loads(found)
        threads = settings.threads or min(os.cpu_count() or 1, MOST_THREADS)
        if identity is not None:
            threads = settings.threads or int(identity["threads"])
        torch.set_num_threads(threads)
        if identity is None:
            log.info("new data directory %s: calibrating, once", self.path)
            patches = None
            if settings.calibrate != "synthetic":
                patches = calibration_patches(Path(settings.calibrate), seed=settings.seed)
            calibration = calibrate(
                config.retina, source, seed=settings.seed, patches=patches, device=settings.device, progress=progress
            )
            calibration.save(self.calibration)
        else:
            self._check(identity, config, settings.seed, threads)
            self._check_weights(identity, source, settings.seed)
            calibration = self._calibration(identity)
        retina = Retina(config.retina, source, calibration, seed=settings.seed, device=settings.device)
        if identity is None:
            identity = {
                "model": config.model_dump(mode="json"),
                "weights": {"name": str(source), "digest": retina.weights_digest},
                "seed": settings.seed,
                "calibration": calibration.digest,
                "batch_shape": config.retina.batch_shape,
                "threads": threads,
            }
            journal.put_meta("identity", json.dumps(identity))
        return retina, identity

    def _check(self, identity: dict[str, Any], config: ModelConfig, seed: int, threads: int) -> None:
        try:
            made = ModelConfig.parse(identity["model"])
        except ModelError as error:
            raise DirectoryRefused(
                f"{self.path} was made by another version of this program ({error}); use that, or another --data-dir"
            ) from None
        wanted = _flat(config.model_dump(mode="json"))
        for key, value in _flat(made.model_dump(mode="json")).items():
            if wanted[key] != value:
                raise self._other("preset" if key == "name" else key, value, wanted[key])
        if identity["seed"] != seed:
            raise self._other("seed", identity["seed"], seed)
        if identity["threads"] != threads:
            raise self._other("threads", identity["threads"], threads)

    def _check_weights(self, identity: dict[str, Any], source: WeightsSource, seed: int) -> None:
        """The digest counts, not the name: the same weights may come by another path."""
        made = identity["weights"]
        digest = load_weights(source, seed=seed).digest
        if digest != made["digest"]:
            raise self._other("weights", f"{made['name']} ({made['digest'][:12]})", f"{source} ({digest[:12]})")

    def _calibration(self, identity: dict[str, Any]) -> Calibration:
        try:
            calibration = Calibration.load(self.calibration)
        except ModelError as error:
            raise DirectoryRefused(str(error)) from None
        if calibration.digest != identity["calibration"]:
            raise DirectoryRefused(
                f"{self.calibration} is not the one {self.path} was made with (digest {calibration.digest[:12]}, not "
                f"{identity['calibration'][:12]}); restore it from a backup"
            )
        return calibration

    def _other(self, key: str, made: object, wanted: object) -> DirectoryRefused:
        return DirectoryRefused(
            f"{self.path} was made with {key} {made}, not {wanted}; start with what it was made with, "
            "or name another --data-dir"
        )


def _lock(path: Path) -> IO[str]:
    """An open, locked ``DIR/lock`` that holds this process's number."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = (path / "lock").open("a+")
    except OSError as error:
        raise DirectoryRefused(
            f"{path} can't be used as a data directory: {error.strerror}; name another one"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise DirectoryInUse(
            f"{path} is in use by another worker (process {holder}); stop that one, or name another --data-dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _flat(nested: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
