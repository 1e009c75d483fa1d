"""What the learner keeps for each stream: its context vector, its credit, and what it saw last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from model.action import Look
from model.place_memory import PlaceMemory
from model.rfp import Sensitivities


@dataclass(frozen=True)
class StreamState:
    """Replaced at every step; but for the sensitivities never changed in place.

    ``z`` are whitened features (m), ``y`` embeddings (q).
    """

    state: Tensor
    """K x n: the context vector s."""
    sensitivities: Sensitivities
    """d s / d weights; the next step but one writes in their place."""
    fresh: bool
    """A new sequence begins at the next fixation that is kept."""
    position: int
    """Of the next fixation in its sequence; 0 where it has nothing before it."""
    kept: Tensor | None
    """z of the last fixation kept: the repeat guard's, and the one before the next where ``position`` is above 0."""
    here: Tensor | None
    """The same, on the host."""
    look: Look | None
    """Where that was seen."""
    seen: Tensor
    """m: the sum of z over this sequence."""
    places: PlaceMemory | None
    """What was seen where in this sequence; None where the choice is off."""
    pending: Tensor | None
    """Gradients of this stream not yet applied, laid out as the parameters."""
    embedding: Tensor
    """q: y of the last fixation kept."""


def pack(name: str, own: StreamState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A stream as copies of its tensors, named under ``streams/<name>/``, and the rest, JSON-able."""
    found: dict[str, Tensor | None] = {
        "state": own.state,
        "sensitivities": own.sensitivities.values,
        "kept": own.kept,
        "seen": own.seen,
        "places_seen": own.places.seen if own.places is not None else None,
        "places_confidence": own.places.confidence if own.places is not None else None,
        "pending": own.pending,
        "embedding": own.embedding,
    }
    tensors = {f"streams/{name}/{key}": t.detach().cpu().clone() for key, t in found.items() if t is not None}
    look = own.look
    told = None if look is None else {"gaze": look.gaze, "gaze_deg": look.gaze_deg, "frame_deg": look.frame_deg}
    return tensors, {"fresh": own.fresh, "position": own.position, "look": told}


def unpack(name: str, blank: StreamState, tensors: dict[str, Tensor], meta: dict[str, Any]) -> StreamState:
    """What :func:`pack` gave, on the device and in the dtype of ``blank``. Raises KeyError where a part is missing."""

    def maybe(key: str) -> Tensor | None:
        tensor = tensors.get(f"streams/{name}/{key}")
        return None if tensor is None else tensor.to(blank.state, copy=True)

    def needed(key: str) -> Tensor:
        return tensors[f"streams/{name}/{key}"].to(blank.state, copy=True)

    kept = maybe("kept")
    told = meta["look"]
    look = None
    if told is not None:
        degrees = told["gaze_deg"]
        look = Look(tuple(told["gaze"]), None if degrees is None else tuple(degrees), tuple(told["frame_deg"]))
    places = None
    if blank.places is not None:
        places = PlaceMemory(needed("places_seen"), needed("places_confidence"))
    return replace(
        blank,
        state=needed("state"),
        sensitivities=Sensitivities(needed("sensitivities")),
        fresh=bool(meta["fresh"]),
        position=int(meta["position"]),
        kept=kept,
        here=None if kept is None else kept.cpu(),
        look=look,
        seen=needed("seen"),
        places=places,
        pending=maybe("pending"),
        embedding=needed("embedding"),
    )
