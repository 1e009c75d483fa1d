"""Learners on recorded scanpaths: every measure that can't be flattered, of one learner on one stream.

Nothing is known of the best there is on such a stream; the probe's ceiling tells what a regression on the last eight
fixations finds offline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.action import Look
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner

TOLD = (
    "learning",
    "skill_ar1",
    "opponent",
    "own_skill",
    "effective_rank",
    "rank_ratio",
    "retrieval",
    "retrieval_trivial",
    "probe",
    "probe_features",
    "probe_untrained",
    "probe_ceiling",
    "balance",
    "largest_state_ever",
    "cut_units",
)
"""What a row takes from the diagnostics as it is."""


def run_stream(
    config: ModelConfig,
    features: NDArray[np.float32],
    looks: Sequence[Look | None],
    *,
    seed: int,
    starts: NDArray[np.bool_] | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Every fixation once, in order: a row of the table.

    ``features``: (T, m); ``looks``: T, where the eye was; ``starts``: (T,), where a sequence begins; with it the stream
    counts as marked. ``progress`` is told how many more were done, now and then.
    """
    learner = Learner(config, seed=seed)
    diagnostics = Diagnostics(learner, seed=seed)
    steps_s, skipped = 0.0, 0
    for at, (z, look) in enumerate(zip(features, looks, strict=True)):
        begun = time.perf_counter()
        start = starts is not None and bool(starts[at])
        outcome = learner.observe("stream", z, look, start=start, marked=starts is not None)
        steps_s += time.perf_counter() - begun
        diagnostics.after("stream", outcome)
        skipped += outcome.skipped is not None
        if progress is not None and at % 100 == 99:
            progress(100)
    told = diagnostics.representation("stream")
    live = diagnostics.gradient("stream")["live"]
    return {
        **{f"skill{_end(end)}": told["skill"][end] for end in ("value", "low", "high")},
        **{f"learned_skill{_end(end)}": told["learned_skill"][end] for end in ("value", "low", "high")},
        **{name: told[name] for name in TOLD},
        "live_cosine": live["cosine"],
        "skipped": skipped,
        "ms_per_fixation": 1000.0 * steps_s / max(len(features), 1),
    }


def _end(name: str) -> str:
    return "" if name == "value" else f"_{name}"
