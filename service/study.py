"""A learner in one's own process, without a server: what a notebook and a lab's own analysis call.

The same retina and the same learner as live. The same fixations give the same bits on the same software, device kind
and thread count; the learner has one thread here. Letters: N fixations, m features, q embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.config import ModelConfig, PresetName
from model.diagnostics import Diagnostics
from model.errors import ModelError
from model.learner import TRIVIAL_ERRORS, Learner, Look, Outcome
from model.weights import parse_weights
from service.experiment_features import KeptFeatures


def features(
    patches: NDArray[np.uint8],
    *,
    weights: str,
    preset: PresetName = "default",
    seed: int = 0,
    device: str = "cpu",
    cache: str | Path | None = None,
    quiet: bool = False,
) -> NDArray[np.float32]:
    """z, (N, m), of ``patches``, (N, 50, 50, 3) uint8 RGB, as the retina of ``preset`` sees them.

    ``weights`` are named as for ``rjepa serve --weights``; there is no default. The first call with new weights fits
    the whitening (about a minute); that and what was seen are kept in ``cache``. Raises :class:`ModelError`.
    """
    folder = Path(platformdirs.user_cache_dir("rjepa")) / "experiments" if cache is None else Path(cache)
    return _kept(folder, weights, seed, device, quiet).features(ModelConfig.preset(preset).retina, patches)


@lru_cache(maxsize=2)
def _kept(folder: Path, weights: str, seed: int, device: str, quiet: bool) -> KeptFeatures:
    """A retina takes seconds to make: one for all recordings of a folder."""
    return KeptFeatures(folder, parse_weights(weights), seed=seed, device=device, quiet=quiet)


@dataclass(frozen=True)
class Course:
    """What came of N fixations, in order. NaN where there was no prediction or no number yet."""

    prediction_error: NDArray[np.float64]
    """(N,): each recorded before anything was learned from that fixation."""
    trivial_error: dict[str, NDArray[np.float64]]
    """(N,) of each trivial predictor, under the same distance and against the same target."""
    embedding: NDArray[np.float32]
    """(N, q): y at each fixation, by the weights of then."""
    position: NDArray[np.int64]
    """(N,): in the sequence, from 0."""
    effective_rank: NDArray[np.float64]
    """(N,)"""
    skipped: tuple[str | None, ...]
    """Why a fixation was not learned: repeat, refused, or None."""


class Study:
    """A learner and the diagnostics beside it.

    ``overrides``: fields of the model's configuration, like ``gates="modular"``. Not thread-safe. The same
    configuration, seed and fixations give the same bits.
    """

    def __init__(self, *, preset: PresetName = "default", seed: int = 0, device: str = "cpu", **overrides: Any) -> None:
        """Raises :class:`ModelError` for a configuration that is none."""
        self.config = ModelConfig.preset(preset, **overrides)
        self.learner = Learner(self.config, seed=seed, device=device)
        self.diagnostics = Diagnostics(self.learner, seed=seed)

    def learn(
        self,
        stream: str,
        z: NDArray[np.float32],
        *,
        gaze: NDArray[np.float64] | None = None,
        frame_deg: tuple[float, float] = (30.0, 17.0),
        starts: NDArray[np.bool_] | None = None,
        quiet: bool = False,
    ) -> Course:
        """Learn ``z``, (N, m), as the next fixations of ``stream``, each predicted before it is learned.

        ``gaze``: (N, 2), fractions of a frame that is ``frame_deg`` wide and high; without it no gaze is told.
        ``starts``: (N,), True where a trial begins; only then are sequences marked. Raises :class:`ModelError`,
        nothing learned, where the shapes don't fit together.
        """
        if z.ndim != 2 or (gaze is not None and gaze.shape != (len(z), 2)) or (
            starts is not None and starts.shape != (len(z),)
        ):  # fmt: skip
            shapes = [None if array is None else array.shape for array in (gaze, starts)]
            raise ModelError(f"z {z.shape} needs gaze (N, 2) and starts (N,) of the same N; they are {shapes}")
        looks = [None] * len(z) if gaze is None else [Look((float(x), float(y)), frame_deg=frame_deg) for x, y in gaze]
        outcomes: list[Outcome] = []
        with _one_thread():
            for at in tqdm(range(len(z)), desc=stream, unit="fixation", disable=quiet, leave=False):
                start = starts is not None and bool(starts[at])
                outcome = self.learner.observe(stream, z[at], looks[at], start=start, marked=starts is not None)
                self.diagnostics.after(stream, outcome)
                outcomes.append(outcome)
        return _course(outcomes, self.config.embedding_size)

    def measures(self, stream: str | None = None) -> dict[str, Any]:
        """Is it learning? Of ``stream``, or of all in order: the answer of ``/v1/diagnostics/representation``."""
        return self.diagnostics.representation(stream)

    def gradient(self, stream: str | None = None) -> dict[str, Any]:
        """Fidelity of the gradient over the newest steps: the answer of ``/v1/diagnostics/gradient``."""
        return self.diagnostics.gradient(stream)

    def embed(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, q): of each row of ``z`` by itself, with today's weights from the zero state; learns nothing."""
        return np.stack([self.learner.embed(row) for row in z])


def _course(outcomes: list[Outcome], embedding_size: int) -> Course:
    empty = np.zeros((0, embedding_size), np.float32)
    return Course(
        prediction_error=_numbers([outcome.prediction_error for outcome in outcomes]),
        trivial_error={name: _numbers([outcome.trivial[name] for outcome in outcomes]) for name in TRIVIAL_ERRORS},
        embedding=np.stack([outcome.embedding for outcome in outcomes]) if outcomes else empty,
        position=np.array([outcome.position for outcome in outcomes], np.int64),
        effective_rank=_numbers([outcome.effective_rank for outcome in outcomes]),
        skipped=tuple(outcome.skipped for outcome in outcomes),
    )


def _numbers(values: list[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The learner's operations are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
