"""A learner taken apart into a snapshot, put together again, and told in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from model.config import ModelConfig
from model.errors import ModelError
from model.reading import ActionMoments
from model.rfp import is_exact
from model.snapshot import Snapshot
from model.stream import StreamState, pack, unpack

if TYPE_CHECKING:
    from model.learner import Learner


class _Holder(Protocol):
    def tensors(self) -> dict[str, Tensor]: ...


def describe(learner: Learner) -> dict[str, Any]:
    """What the model is, JSON-able."""
    config = learner.config
    counts = learner.parameters.count()
    if learner.network.rls is not None:
        counts["P"] = learner.network.rls.weights.numel()
    return {
        "name": "rjepa",
        "preset": config.name,
        "cell": config.cell,
        "gates": config.gates,
        "block": learner.network.circuit.block,
        "retention": config.retention,
        "distance": config.distance,
        "rfp_exact": is_exact(config),
        "embedding_size": config.embedding_size,
        "units": config.units,
        "features": config.features,
        "predictor": config.predictor.model_dump(),
        "carry": config.predictor.carry,
        "parameters": {**counts, "total": sum(counts.values())},
        "learned": [*learner.parameters.learned, *(["P"] if learner.network.rls is not None else [])],
        "learning": learner.learning,
        "optimiser": config.learning.optimiser,
        "update": config.learning.update,
        "rates": learner.rates,
        "steps": learner.steps,
        "cut_units": learner.cut_units,
    }


def _tensors(learner: Learner) -> dict[str, Tensor]:
    """Every tensor a step reads but those of streams and of the action's statistics: the tensors themselves."""
    found = {f"parameters/{name}": tensor for name, tensor in learner.network.weights.items()}
    found |= {f"optimiser/{name}": tensor for name, tensor in learner.optimiser.state.items()}
    if learner.network.rls is not None:
        found |= {"parameters/P": learner.network.rls.weights, "rls/inverse": learner.network.rls.inverse}
    parts: dict[str, _Holder] = {
        "moments": learner.opponents.moments,
        "scene": learner.opponents.scene,
        "rank": learner.rank,
    }
    for part, holder in parts.items():
        found |= {f"statistics/{part}/{name}": tensor for name, tensor in holder.tensors().items()}
    return found


def take(learner: Learner) -> Snapshot:
    """Independent copies of everything a step reads."""
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in _tensors(learner).items()}
    moments = learner.network.reader.moments
    tensors["statistics/action/mean"] = moments.mean.cpu().clone()
    tensors["statistics/action/variance"] = moments.variance.cpu().clone()
    tensors["generator"] = learner.generator.get_state().clone()
    streams: dict[str, Any] = {}
    for name, own in learner.own.items():
        packed, streams[name] = pack(name, own)
        tensors |= packed
    meta = {
        "config": learner.config.model_dump(mode="json"),
        "dtype": str(learner.dtype),
        "learning": learner.learning,
        "rates": learner.rates,
        "steps": learner.steps,
        "cut_units": learner.cut_units,
        "usual": {"level": learner.usual.level, "count": learner.usual.count},
        "optimiser_steps": learner.optimiser.steps,
        "rls_steps": 0 if learner.network.rls is None else learner.network.rls.steps,
        "action_count": moments.actions,
        "scene_steps": learner.opponents.scene.steps,
        "rank_count": learner.rank.count,
        "streams": streams,
    }
    return Snapshot(tensors, meta)


def put(learner: Learner, snapshot: Snapshot) -> None:
    """Go on from ``snapshot``. Raises :class:`ModelError`, the learner unchanged, if it does not fit."""
    tensors, meta = snapshot
    try:
        _check(learner, snapshot)
        streams = {name: _stream(learner, name, tensors, told) for name, told in meta["streams"].items()}
        like = learner.parameters.flat
        mean, variance = tensors["statistics/action/mean"], tensors["statistics/action/variance"]
        moments = ActionMoments(mean.to(like, copy=True), variance.to(like, copy=True), int(meta["action_count"]))
        usual = float(meta["usual"]["level"]), int(meta["usual"]["count"])
        learner.set_rates(meta["rates"])
    except KeyError as missing:
        raise ModelError(f"the snapshot has no {missing}: it is from another version or damaged") from None
    for name, tensor in _tensors(learner).items():
        tensor.copy_(tensors[name])
    learner.network.reader.moments = moments
    learner.generator.set_state(tensors["generator"])
    learner.learning = bool(meta["learning"])
    learner.steps = int(meta["steps"])
    learner.cut_units = int(meta["cut_units"])
    learner.usual.level, learner.usual.count = usual
    learner.optimiser.steps = int(meta["optimiser_steps"])
    if learner.network.rls is not None:
        learner.network.rls.steps = int(meta["rls_steps"])
    learner.opponents.scene.steps = int(meta["scene_steps"])
    learner.rank.count = int(meta["rank_count"])
    learner.own = streams


def _check(learner: Learner, snapshot: Snapshot) -> None:
    """Raise :class:`ModelError` naming the first thing that does not fit, or KeyError for what is missing."""
    tensors, meta = snapshot
    here, there = learner.config, ModelConfig.parse(meta["config"])
    for key in type(here).model_fields:
        if getattr(here, key) != getattr(there, key):
            raise ModelError(f"the snapshot's model has {key} {getattr(there, key)!r}, this one {getattr(here, key)!r}")
    if meta["dtype"] != str(learner.dtype):
        raise ModelError(f"the snapshot is of {meta['dtype']}, this model of {learner.dtype}")
    for name, tensor in _tensors(learner).items():
        if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
            got, want = tensors[name], tensor
            raise ModelError(
                f"{name} is {tuple(got.shape)} {got.dtype} in the snapshot, here {tuple(want.shape)} {want.dtype}"
            )
    for key in ("learning", "steps", "cut_units", "optimiser_steps", "rls_steps", "scene_steps", "rank_count", "rates"):
        meta[key]
    tensors["generator"]


def _stream(learner: Learner, name: str, tensors: dict[str, Tensor], told: dict[str, Any]) -> StreamState:
    blank = learner.blank()
    found = unpack(name, blank, tensors, told)
    pairs = (
        (found.state, blank.state),
        (found.sensitivities.values, blank.sensitivities.values),
        (found.seen, blank.seen),
    )
    if any(one.shape != other.shape for one, other in pairs):
        raise ModelError(f"stream {name!r} in the snapshot is of another size")
    return found
