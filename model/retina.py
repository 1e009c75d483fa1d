"""The retina: a fixated patch becomes features z. Frozen: nothing here learns, and nothing has a gradient.

Patch (50 x 50 x 3 uint8 RGB) -> ResNet-50's pooled activities (backbone.py) -> z by the calibration's scale and
whitening (calibration.py), in float64, told as float32.

Passes differ in size only where that changes no bit, so a patch's z is the same whatever else waits to be converted, in
whatever order (backbone.py); between engines, kinds of device and, if plain, thread counts the last bits differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model.backbone import ENGINE, PRECISION, Backbone, Engine, Precision, same_bits
from model.calibration import Calibration
from model.config import RetinaConfig
from model.openvino_network import openvino_version
from model.weights import WeightsSource, load_weights


class Retina:
    """Patches to features. Not for several threads at once."""

    def __init__(
        self,
        config: RetinaConfig,
        source: WeightsSource,
        calibration: Calibration,
        *,
        seed: int,
        device: str = "cpu",
        engine: Engine = ENGINE,
        precision: Precision = PRECISION,
    ) -> None:
        """Load the weights of ``source`` (``seed`` counts for ``random`` alone); the others as the backbone's.

        Raises :class:`ModelError`: the weights can't be had, the calibration was made for other weights or another
        configuration, or the device is not there.
        """
        weights = load_weights(source, seed=seed)
        calibration.check_fits(config, weights.digest)
        self.config = config
        self.source = source
        self.weights_digest = weights.digest
        self.calibration = calibration
        self.backbone = Backbone(
            weights, calibration.statistics,
            stages=config.stages, batch_shape=config.batch_shape, device=device, engine=engine,
            precision=precision,
        )  # fmt: skip
        where = self.backbone.device
        self._mean = calibration.mean.to(where)
        self._scale = calibration.scale.to(where)
        self._projection = None if calibration.projection is None else calibration.projection.to(where)

    def features(self, patches: np.ndarray) -> np.ndarray:
        """z, (N, m) float32, of ``patches``, (N, 50, 50, 3) uint8 RGB, any N.

        Raises :class:`ModelError`: patches of another shape or dtype.
        """
        chunks = [np.empty((0, self.config.features), np.float32)]
        with torch.inference_mode(), same_bits():
            for pooled, count in self.backbone.batches(patches):
                z = (pooled.double() - self._mean) * self._scale
                if self._projection is not None:
                    z = z @ self._projection
                chunks.append(z.float().cpu().numpy()[:count])
        return np.concatenate(chunks)

    def describe(self) -> dict[str, Any]:
        """What it is, JSON-able."""
        return {
            "backbone": "ResNet-50",
            "weights": str(self.source),
            "weights_digest": self.weights_digest,
            "stages": self.config.stages,
            "pooled": self.backbone.pooled_size,
            "features": self.config.features,
            "whiten": self.config.whiten,
            "batch_shape": self.config.batch_shape,
            "device": str(self.backbone.device),
            "engine": self.backbone.engine,
            "precision": self.backbone.precision,
            "openvino_version": openvino_version() if self.backbone.engine == "openvino" else None,
            "calibration": self.calibration.digest,
            "fitted_on": self.calibration.fitted_on,
        }
