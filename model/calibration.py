"""What the retina learns about patches before it sees one, once: scales, whitening, batch-norm statistics.

Letters: N patches, f pooled activities (d of them), m features. With scale (d), mean (d) and projection (d, m)::

    z = ((f - mean) * scale) @ projection          whitened
    z = f * scale                                  not whitened (m = d, mean = 0)

Scale gives the activities of each area (the stem and each stage) unit total variance, so that no area counts for
more because it is wider or louder. The projection is onto the first m principal components, each divided by its
standard deviation. From 2,000 patches of 3,904 activities the small components' variances come out more than twice
too large, for the components are chosen to be large on just these patches. So variances are cross-validated: each
half of the patches tells how much the components of the other half vary on it, rank by rank, and the mean of the two,
at least 1e-6 of the largest, is what a component is divided by. On patches not seen before, features then have
about unit variance at every rank.

All of it in float64. A component's sign is such that its largest weight is positive.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from model.backbone import WIDTHS, Backbone, Progress, check_patches, measure_statistics
from model.config import RetinaConfig
from model.deadleaves import dead_leaves
from model.errors import ModelError
from model.weights import WeightsSource, load_weights, tensors_digest

SYNTHETIC_PATCHES = 2000
FORMAT = "rjepa-calibration-1"
_FIT_BATCH = 32
"""Batch shape while fitting, where speed counts; the retina's own shape would differ in the last bits."""
_LEAST_VARIANCE = 1e-6
_RANK_LIMIT = 1e-10
"""Of the largest component's variance: below it, a component is rounding noise."""
_FACTS = ("stages", "features", "whiten", "seed", "weights", "weights_digest", "fitted_on")


@dataclass(frozen=True)
class Calibration:
    """What was fitted, once, and on what; see the module for the letters. Tensors are on the CPU."""

    stages: str
    """``all`` or ``last``, as in RetinaConfig."""
    features: int
    """m."""
    whiten: bool
    """Whether ``projection`` is there."""
    scale: Tensor
    """(d,) float64."""
    mean: Tensor
    """(d,) float64, zero without whitening."""
    projection: Tensor | None
    """(d, m) float64."""
    statistics: Mapping[str, Tensor]
    """Batch-norm means and variances by name, float32; empty where the weights bring their own."""
    seed: int
    """What random weights and synthetic patches were made from."""
    weights: str
    """The weights' source, as it was said."""
    weights_digest: str
    """Of the weights without ``statistics``."""
    fitted_on: str
    """The patches, in words; given ones with their sha256."""
    digest: str = field(init=False)
    """Sha256, in hex, over everything above."""

    def __post_init__(self) -> None:
        facts = json.dumps(self._facts(), sort_keys=True)
        whole = f"{FORMAT} {facts} {tensors_digest(self._tensors())}"
        object.__setattr__(self, "digest", hashlib.sha256(whole.encode()).hexdigest())

    def check_fits(self, config: RetinaConfig, weights_digest: str) -> None:
        """Raise :class:`ModelError` unless it was made for ``config`` and these weights."""
        for name in ("stages", "features", "whiten"):
            made, wanted = getattr(self, name), getattr(config, name)
            if made != wanted:
                raise ModelError(f"the calibration was made for {name} {made}, not {wanted}: make a new one")
        if self.weights_digest != weights_digest:
            raise ModelError(
                f"the calibration was made with other weights ({self.weights}, {self.weights_digest[:12]}) than these "
                f"({weights_digest[:12]}): use those, or make a new one"
            )

    def save(self, path: Path) -> None:
        """Write it to ``path`` as safetensors, whole or not at all. Raises OSError."""
        metadata = {"format": FORMAT, "digest": self.digest, "facts": json.dumps(self._facts(), sort_keys=True)}
        written = path.with_name(f".{path.name}.partial")
        safetensors.torch.save_file(self._tensors(), written, metadata)
        _sync(written)
        os.replace(written, path)
        _sync(path.parent)

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """The calibration in ``path``. Raises :class:`ModelError` if it is none, or damaged."""
        if not path.is_file():
            raise ModelError(f"{path}: no such calibration")
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ModelError(f"{path}: format {metadata.get('format')!r}; {FORMAT!r} is read here")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
            facts = json.loads(metadata["facts"])
            calibration = cls(
                **{name: facts[name] for name in _FACTS},
                scale=tensors.pop("scale"),
                mean=tensors.pop("mean"),
                projection=tensors.pop("projection", None),
                statistics=tensors,
            )
            digest = metadata["digest"]
        except (SafetensorError, OSError, LookupError, ValueError, TypeError) as error:
            raise ModelError(f"{path}: no calibration that can be read ({error}): restore it from a backup") from None
        if calibration.digest != digest:
            raise ModelError(f"{path}: damaged: its content does not have its digest: restore it from a backup")
        return calibration

    def _facts(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FACTS}

    def _tensors(self) -> dict[str, Tensor]:
        named = {"scale": self.scale, "mean": self.mean, **self.statistics}
        return named if self.projection is None else {**named, "projection": self.projection}


def calibrate(
    config: RetinaConfig,
    source: WeightsSource,
    *,
    seed: int,
    patches: np.ndarray | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    synthetic: int = SYNTHETIC_PATCHES,
) -> Calibration:
    """Fit whitening, and the batch-norm statistics of random weights, on ``patches`` or on dead leaves.

    ``patches``: (N, 50, 50, 3) uint8 RGB, or None for ``synthetic`` dead leaves from ``seed``. ``progress`` is told
    how many of how many patches' worth of work are done. The same arguments give the same digest (on one kind of
    device, with one thread count). Raises :class:`ModelError`: weights that can't be had, patches of another shape,
    too few of them, or too much alike.
    """
    count = synthetic if patches is None else len(patches)
    if patches is not None:
        check_patches(patches)
    least = 2 * (config.features + 1) if config.whiten else 2
    if count < least:
        raise ModelError(f"{count} patches are too few to calibrate {config.features} features: give at least {least}")
    weights = load_weights(source, seed=seed)
    told = _Told(progress, count, passes=(patches is None) + (not weights.trained) + 1)
    if patches is None:
        patches = dead_leaves(count, seed=seed, progress=told.next_pass())
        fitted_on = f"{count} synthetic dead-leaves patches, seed {seed}"
    else:
        fitted_on = f"{count} given patches, sha256 {hashlib.sha256(np.ascontiguousarray(patches).data).hexdigest()}"
    statistics: dict[str, Tensor] = {}
    if not weights.trained:
        statistics = measure_statistics(weights, patches, device=device, progress=told.next_pass())
    backbone = Backbone(weights, statistics, stages=config.stages, batch_shape=_FIT_BATCH, device=device)
    pooled = torch.from_numpy(backbone.pooled(patches, told.next_pass())).double()
    scale = _area_scales(pooled, WIDTHS[config.stages])
    mean = pooled.mean(dim=0) if config.whiten else torch.zeros_like(scale)
    return Calibration(
        stages=config.stages,
        features=config.features,
        whiten=config.whiten,
        scale=scale,
        mean=mean,
        projection=whitening((pooled - mean) * scale, config.features) if config.whiten else None,
        statistics=statistics,
        seed=seed,
        weights=str(source),
        weights_digest=weights.digest,
        fitted_on=fitted_on,
    )


class _Told:
    """Several passes over the patches, told as one piece of work."""

    def __init__(self, progress: Progress | None, count: int, *, passes: int) -> None:
        self.progress, self.count, self.passes, self.begun = progress, count, passes, 0

    def next_pass(self) -> Progress | None:
        before = self.begun * self.count
        self.begun += 1
        tell = self.progress
        if tell is None:
            return None
        return lambda done, _total: tell(before + done, self.passes * self.count)


def _area_scales(pooled: Tensor, widths: tuple[int, ...]) -> Tensor:
    """(d,) float64: what gives each area's activities, (N, d) float64, unit total variance."""
    scales = []
    for last, width in zip(itertools.accumulate(widths), widths, strict=True):
        variance = float(pooled[:, last - width : last].var(dim=0, correction=0).sum())
        if not variance > 0.0 or not np.isfinite(variance):
            raise ModelError(f"the activities have variance {variance} on these patches: give patches that differ")
        scales.append(torch.full((width,), variance**-0.5, dtype=torch.float64))
    return torch.cat(scales)


def whitening(centred: Tensor, features: int) -> Tensor:
    """(d, m) float64: the first m principal components of ``centred``, (N, d) float64, over their deviations."""
    components, variances = _components(centred, features)
    first, second = centred[: len(centred) // 2], centred[len(centred) // 2 :]
    unseen = [_spread(second, _components(first, features)[0]), _spread(first, _components(second, features)[0])]
    held = torch.stack(unseen).mean(dim=0).clamp(min=_LEAST_VARIANCE * float(variances[0]))
    return components / held.sqrt()


def _components(centred: Tensor, features: int) -> tuple[Tensor, Tensor]:
    """The first m principal components, (d, m), of unit length and settled sign, and their variances, (m,).

    By the smaller of the two matrices, N x N or d x d: both have the same eigenvalues but for zeros.
    """
    rows, columns = centred.shape
    if rows <= columns:
        variances, vectors = torch.linalg.eigh(centred @ centred.T / rows)
    else:
        variances, vectors = torch.linalg.eigh(centred.T @ centred / rows)
    variances, vectors = variances.flip(0)[:features], vectors.flip(1)[:, :features]
    rank = int((variances > _RANK_LIMIT * variances[0]).sum())
    if rank < features:
        raise ModelError(f"{rows} patches vary in {rank} dimensions only, not in {features}: give more, or more varied")
    components = centred.T @ vectors if rows <= columns else vectors
    components = components / components.norm(dim=0)
    largest = components.gather(0, components.abs().argmax(dim=0, keepdim=True))
    return components * largest.sign(), variances


def _spread(rows: Tensor, components: Tensor) -> Tensor:
    """Mean square of ``rows`` (N, d) along each of ``components`` (d, m): (m,)."""
    return (rows @ components).square().mean(dim=0)


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
