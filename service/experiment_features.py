"""Features for experiments: a retina per configuration, what it was calibrated to and what it saw kept in a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.backbone import ENGINE, PRECISION, Engine, Precision, usable_device, usable_engine
from model.calibration import Calibration, calibrate
from model.config import RetinaConfig
from model.retina import Retina
from model.weights import WeightsSource, load_weights
from model.worlds import patches_digest
from service.errors import ExperimentRefused
from service.experiment_rows import digest

_MOST_THREADS = 4
_AT_ONCE = 64
"""Patches between two steps of the progress bar."""


class KeptFeatures:
    """z of patches, computed once for each calibration; ``folder`` keeps calibrations and features by their digests."""

    def __init__(
        self, folder: Path, source: WeightsSource, *, seed: int, device: str = "cpu", quiet: bool = False,
        engine: Engine = ENGINE, precision: Precision = PRECISION,
    ) -> None:  # fmt: skip
        """Raises :class:`ExperimentRefused` where ``folder`` can't be made, ModelError where the engine isn't there."""
        usable_engine(engine, usable_device(device), precision)
        self._folder = folder
        self._source = source
        self._seed = seed
        self._device = device
        self._quiet = quiet
        self.engine = engine
        self.precision = precision
        self._way = [] if (engine, precision) == (ENGINE, PRECISION) else [engine, precision]
        self._calibrations: dict[str, Calibration] = {}
        self._retinas: dict[str, Retina] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExperimentRefused(f"{folder} can't be made ({error}): name another folder with --cache") from None

    def calibration(self, config: RetinaConfig) -> Calibration:
        """Of this retina: from memory, from the folder, or made now. Raises ModelError."""
        name = digest(config.model_dump(mode="json"))
        if name not in self._calibrations:
            weights = load_weights(self._source, seed=self._seed).digest
            path = self._folder / f"calibration-{digest([name, weights, self._seed])}.safetensors"
            if not path.exists():
                self._calibrate(config).save(path)
            self._calibrations[name] = Calibration.load(path)
        return self._calibrations[name]

    def _calibrate(self, config: RetinaConfig) -> Calibration:
        with self._bar("calibrating the retina") as bar, _all_threads():

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            return calibrate(config, self._source, seed=self._seed, device=self._device, progress=progress)

    def features(self, config: RetinaConfig, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """z, (N, m), of ``patches``, (N, 50, 50, 3) uint8 RGB. Raises ModelError."""
        calibration = self.calibration(config)
        path = self._folder / f"features-{digest([calibration.digest, patches_digest(patches), *self._way])}.npy"
        if path.exists():
            kept: NDArray[np.float32] = np.load(path, allow_pickle=False)
            return kept
        parts = []
        with self._bar("features", total=len(patches)) as bar, _all_threads():
            retina = self._retina(config)
            for first in range(0, len(patches), _AT_ONCE):
                parts.append(retina.features(patches[first : first + _AT_ONCE]))
                bar.update(len(parts[-1]))
        found = np.concatenate(parts)
        partial = path.with_name(f".{path.name}.partial")
        with partial.open("wb") as file:
            np.save(file, found, allow_pickle=False)
        os.replace(partial, path)
        return found

    def reader(self, config: RetinaConfig) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
        """:meth:`features` of one configuration."""
        return lambda patches: self.features(config, patches)

    def _retina(self, config: RetinaConfig) -> Retina:
        calibration = self.calibration(config)
        if calibration.digest not in self._retinas:
            made = Retina(
                config, self._source, calibration, seed=self._seed, device=self._device,
                engine=self.engine, precision=self.precision,
            )  # fmt: skip
            self._retinas[calibration.digest] = made
        return self._retinas[calibration.digest]

    def _bar(self, what: str, total: int | None = None) -> tqdm:  # type: ignore[type-arg]
        return tqdm(desc=what, total=total, unit="patch", disable=self._quiet, leave=False)


@contextmanager
def _all_threads() -> Iterator[None]:
    """Several threads for the retina; the learner's operations are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(os.cpu_count() or 1, _MOST_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)
