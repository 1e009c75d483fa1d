"""What is seen when learning is not real: settings that make the loss fall and learn nothing, or collapse.

The paper's Figure 3 asks it of the embedding's covariance; here the same run is also put to what a lab would be told:
the word ("learning" or "not learning yet") and the warnings, asked again and again while it learns. All but the last
three settings are what a straightforward implementation tries first: the paper's circuit at q = 120 in sequences of 100
fixations, its predictor p = y + MLP(y), no carry, no gaze, weights changed at every step.

Decoupled weight decay (Loshchilov and Hutter 2019) is done here, after each step: w <- (1 - rate decay) w; the
learner's own optimiser has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model import frozen_rank
from model.action import Look
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner
from model.learners import config_of
from model.ledger import Ledger
from model.stream_run import told_skill
from model.warned import KINDS

ASKED_EVERY = 250
"""Fixations from one asking to the next."""
WITHIN = 2000
"""An alarm must have come by then."""
_STREAM = "collapse"


class Setting(NamedTuple):
    """A way to learn, and whether it is wrong: then it must be told."""

    config: ModelConfig
    wrong: bool
    text: str
    weight_decay: float = 0.0


def settings(*, gaze: bool) -> dict[str, Setting]:
    """Every setting by name; with ``gaze`` the default and its dense gates read it."""
    wide = {"stages": "last", "features": 2048, "whiten": False}
    some = {"predictor": 1e-3, "gates": 1e-3}
    every = {"predictor": 1e-3, "gates": 1e-3, "input": 1e-4, "embedding": 1e-4}
    alike = dict.fromkeys(every, 1e-3)
    coarse = dict.fromkeys(every, 1e-2)
    dense = config_of("default", gaze=gaze).model_dump()
    dense["gates"] = "dense"
    dense["learning"]["rates"]["gates"] = 1e-3
    return {
        "nothing": Setting(_plain({}), False, "nothing learns"),
        "P, W": Setting(_plain(some), True, "P and two-point W, Adam 1e-3"),
        "P, dense W": Setting(_plain(some, gates="dense"), True, "P and dense W, Adam 1e-3"),
        "P, W, U, V": Setting(_plain(every, distance="cosine"), True, "Adam 1e-3, U and V 1e-4, cosine"),
        "slow W": Setting(_plain({**every, "gates": 1e-4}, distance="cosine"), True, "P 1e-3, the others 1e-4, cosine"),
        "decay": Setting(_plain(alike), True, "all, Adam 1e-3, mean square, decoupled weight decay 0.1", 0.1),
        "sgd": Setting(_plain(coarse, "sgd", distance="cosine"), True, "all, gradient descent 0.01, cosine"),
        "raw": Setting(_plain(coarse, "sgd", distance="cosine", retina=wide), True, "the same, features not whitened"),
        "raw, Adam": Setting(_plain(alike, retina=wide), True, "all, Adam 1e-3, mean square, features not whitened"),
        "runaway": Setting(
            _plain({"predictor": 1e-4, "gates": 1e-2}, length=None), True, "P 1e-4, W 1e-2, one endless sequence"
        ),
        "dense": Setting(ModelConfig.parse(dense), True, "the default, dense gates at 1e-3"),
        "paper": Setting(config_of("paper", gaze=gaze), True, "the preset paper"),
        "default": Setting(config_of("default", gaze=gaze), False, "the preset default"),
    }


def _plain(
    rates: dict[str, float], optimiser: str = "adam", *, length: int | None = 100, **choices: Any
) -> ModelConfig:
    """The straightforward implementation; a part without a rate does not learn."""
    none = dict.fromkeys(("gates", "retention", "input", "embedding", "predictor"))
    learning = {"rates": {**none, **rates}, "optimiser": optimiser, "update": "step", "sequence_length": length}
    whitened = {"stages": "all", "features": 128, "whiten": True}
    return ModelConfig.preset(
        "paper", **{"retina": whitened, "units": 128, "gates": "two-point", **choices}, learning=learning
    )


def run(
    setting: Setting,
    features: NDArray[np.float32],
    looks: Sequence[Look | None],
    *,
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Every fixation once: a row.

    ``features``: (T, m); ``looks``: T. In the row ``told_at`` is the first fixation asked at which an alarm stood and
    the word was not "learning", ``told`` whether that was within 2,000, ``asked`` what was said each time.
    """
    learner = Learner(setting.config, seed=seed)
    diagnostics, ledger = Diagnostics(learner, seed=seed), Ledger(learner)
    kept = 1.0 - setting.weight_decay * learner.parameters.rates(learner.rates)
    asked: list[dict[str, Any]] = []
    for at, (z, look) in enumerate(zip(features, looks, strict=True)):
        outcome = learner.observe(_STREAM, z, look)
        diagnostics.after(_STREAM, outcome)
        ledger.note(_STREAM, z, outcome)
        if setting.weight_decay and learner.steps > setting.config.learning.warmup:
            learner.parameters.flat.mul_(kept)
        if (at + 1) % ASKED_EVERY == 0:
            asked.append(_ask(diagnostics, at + 1))
            if progress is not None:
                progress(ASKED_EVERY)
    return {
        **_told(asked),
        **_losses(ledger),
        **_pictures(diagnostics, ledger),
        "skipped": ledger.skipped,
        "asked": asked,
    }


def _ask(diagnostics: Diagnostics, fixations: int) -> dict[str, Any]:
    """What the machine says now."""
    told = diagnostics.representation(_STREAM)
    return {
        "fixations": fixations,
        "learning": told["learning"],
        "skill": told["skill"]["value"],
        "rank_ratio": told["rank_ratio"],
        "warnings": [found.kind for found in diagnostics.warnings(_STREAM)],
    }


def _told(asked: list[dict[str, Any]]) -> dict[str, Any]:
    """When it was first said, and what stands at the end."""
    alarmed = [each for each in asked if any(KINDS[kind] == "alarm" for kind in each["warnings"])]
    honest = [each for each in alarmed if not each["learning"]]
    learned = [each["fixations"] for each in asked if each["learning"]]
    told_at = honest[0]["fixations"] if honest else None
    return {
        "told": told_at is not None and told_at <= WITHIN,
        "told_at": told_at,
        "first": ", ".join(alarmed[0]["warnings"]) if alarmed else "none",
        "alarms": len(alarmed),
        "word": "learning" if asked and asked[-1]["learning"] else "not learning yet",
        "said_learning": len(learned),
        "stands": ", ".join(asked[-1]["warnings"]) or "none" if asked else "none",
        "times_asked": len(asked),
    }


def _losses(ledger: Ledger) -> dict[str, Any]:
    """Of the first and the last quarter."""
    errors = ledger.errors()[:, 0]
    errors = errors[torch.isfinite(errors)]
    quarter = max(len(errors) // 4, 1)
    first, last = (float(part.mean()) if len(part) else None for part in (errors[:quarter], errors[-quarter:]))
    return {"loss_first": first, "loss_last": last, "largest_state": ledger.largest_state}


def _pictures(diagnostics: Diagnostics, ledger: Ledger) -> dict[str, Any]:
    """Figure 3's: rank, spectrum and covariance, beside the frozen network's."""
    told, frozen = diagnostics.representation(_STREAM), ledger.frozen_embeddings()
    skill = told_skill(ledger.skill())
    spread = frozen_rank.picture(frozen_rank.covariance(frozen)) if frozen.shape[0] >= 2 else []
    return {
        **{name: value for name, value in skill.items() if name != "learning"},
        **{name: told[name] for name in ("effective_rank", "effective_rank_frozen", "rank_ratio", "probe")},
        "probe_untrained": told["probe_untrained"],
        "spectrum": _short(told["spectrum"]),
        "spectrum_frozen": _short(frozen_rank.spectrum(frozen)),
        "covariance": [_short(line) for line in told["covariance"]],
        "covariance_frozen": [_short(line) for line in spread],
    }


def _short(values: list[float]) -> list[float]:
    """As many digits as a picture shows."""
    return [float(f"{value:.3g}") for value in values]
