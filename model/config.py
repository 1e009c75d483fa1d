"""Every choice of the model by name; a wrong key is an error.

Three presets: ``default`` (a learner that holds up on an endless stream), ``long`` (known long
dependencies) and ``paper`` (the paper's own recipe: Velarde and Parra, arXiv 2411.16695; what the paper
leaves open is chosen in ``_PRESETS`` below, and said there).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from model.errors import ModelError

PresetName = Literal["default", "long", "paper"]
Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
EveryK = Annotated[int, Field(ge=2, le=100_000)]


class _Choices(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RetinaConfig(_Choices):
    """How a patch becomes features z."""

    stages: Literal["all", "last"] = "all"
    """Pooled activities of the stem and the four stages (3904), or of the last stage alone (2048)."""
    features: Annotated[int, Field(ge=1, le=3904)] = 128
    """m: how many numbers z has."""
    whiten: bool = True
    """Whitened to m dimensions; otherwise scaled to unit total variance (then m is what the stages give)."""
    batch_shape: Annotated[int, Field(ge=1, le=256)] = 8
    """Patches of one pass, at most; fewer only where that changes no bit: a row's bits depend on nothing else."""
    patch_px: Literal[50] = 50
    """Height and width of a patch."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        pooled = 3904 if self.stages == "all" else 2048
        if not self.whiten and self.features != pooled:
            raise ValueError(f"features is {self.features}; stages {self.stages!r} without whitening give {pooled}")
        if self.features > pooled:
            raise ValueError(f"features is {self.features}; stages {self.stages!r} have {pooled}")
        return self


class PredictorConfig(_Choices):
    """What is read, and by what, to predict the next embedding."""

    kind: Literal["rls", "linear", "mlp"] = "rls"
    """Linear by recursive least squares, linear by the optimiser, or one hidden layer by the optimiser."""
    hidden: Annotated[int, Field(ge=1, le=65536)] = 256
    """Hidden units of ``mlp``."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of the hidden units of ``mlp``."""
    carry: bool = True
    """The part of the next embedding that the circuit's own memory fixes is known, not learned."""
    residual: bool = False
    """Add y itself: the predictor starts at the identity."""
    normalise: bool = True
    """Read y less its running mean, over its running standard deviation."""
    action: Literal["gaze", "none"] = "gaze"
    """Read where the eye lands next."""
    near: bool = True
    """Read the present features, the more the nearer the next gaze is."""
    place_memory: Literal["off", "still", "moving"] = "moving"
    """Read what was seen where the eye goes next; ``still`` keeps it, ``moving`` lets it fade."""
    action_head: bool = False
    """Predict the saccade from the context vector, with a loss of its own."""
    forgetting: Annotated[float, Field(gt=0.9, le=1.0)] = 0.9999
    """lambda of ``rls``."""
    prior: Annotated[float, Field(gt=0.0)] = 1000.0
    """``rls``: the inverse covariance starts at I/prior, and no entry of its diagonal grows past 1/prior."""


class RatesConfig(_Choices):
    """Learning rates by part; ``None`` fixes that part for ever."""

    gates: Rate | None = 1e-4
    """W_hh, W_ch, W_hc, W_cc."""
    retention: Rate | None = 5e-4
    """beta_h, beta_c, theta; the time decay unit's decay."""
    input: Rate | None = 1e-4
    """V."""
    embedding: Rate | None = None
    """U."""
    predictor: Rate | None = None
    """P of ``linear`` and ``mlp``; ``rls`` has no rate."""
    action: Rate | None = 1e-3
    """A of the action head."""


class LearningConfig(_Choices):
    """When and how fast weights change."""

    optimiser: Literal["adam", "sgd"] = "adam"
    """Adam (.9, .999) or plain gradient descent."""
    rates: RatesConfig = RatesConfig()
    credit: Literal["rfp", "one-step"] = "rfp"
    """Sensitivities carried forward, or (a control) only the last step's effect of a weight."""
    update: Literal["step", "sequence"] | EveryK = "step"
    """Weights change at every step, every k steps of a sequence (and at its end), or only at its end."""
    losses: Literal["step", "sequence"] | EveryK = "step"
    """Which losses count: each, every k-th of a sequence, or only a sequence's last (Appendix E)."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps of the learner before the first gradient; the ``rls`` predictor learns from the first."""
    adam_epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    """For half the *sum* of squares; with the mean, which is what is recorded, q times smaller."""
    retraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.001
    """How far V goes back towards orthonormal; 0 never."""
    retraction_every: Annotated[int, Field(ge=1)] = 20
    """Updates from one retraction to the next."""
    sequence_length: Annotated[int, Field(ge=2)] | None = None
    """A sequence ends by itself after so many fixations; without it, only where it is marked."""
    repeat_threshold: Annotated[float, Field(ge=0.0, lt=2.0)] = 0.2
    """A fixation nearer than this to the last one kept, relative to its own mean square, is a repeat; 0 never."""
    far_threshold: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 25.0
    """A fixation whose mean square is more than this many times the usual is refused; 0 never."""

    @model_validator(mode="after")
    def _lets_the_usual_pass(self) -> Self:
        if 0.0 < self.far_threshold <= 1.0:
            raise ValueError(f"far_threshold {self.far_threshold} would refuse the usual: say 0, or more than 1")
        return self


class ModelConfig(_Choices):
    """The whole model. The defaults are the preset ``default``."""

    name: str = "default"
    """The preset it was made from."""
    retina: RetinaConfig = RetinaConfig()
    cell: Literal["bounded", "paper", "time-decay"] = "bounded"
    """The paper's circuit with a bound, retention biases and rotation; without them; or the Time Decay Unit."""
    gates: Literal["two-point", "modular", "dense"] = "two-point"
    """What a gate reads: its own unit, its block of units, or all units (then RFP is approximate)."""
    block: Annotated[int, Field(ge=1, le=64)] = 4
    """Units of one block of ``modular`` gates."""
    retention: Literal["tanh", "one-minus-tanh"] = "tanh"
    """g of the paper's circuit; ``one-minus-tanh`` grows without bound on an endless stream."""
    units: Annotated[int, Field(ge=1, le=8192)] = 128
    """n: units of the circuit."""
    embedding_size: Annotated[int, Field(ge=1, le=16384)] = 256
    """q: numbers of the embedding."""
    bound: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """rho of the bounded circuit."""
    spans: tuple[Annotated[float, Field(ge=0.0)], Annotated[float, Field(ge=0.0)]] = (0.0, 0.9)
    """rho tanh(beta) is spread evenly over this at the start, in random order; both below ``bound``."""
    rotation: Annotated[float, Field(ge=0.0, le=3.141592653589793)] = 3.141592653589793
    """theta is uniform in [0, rotation] at the start."""
    sensitivity_limit: Annotated[float, Field(gt=0.0)] = 1e6
    """A unit whose sensitivities pass this has them set to zero, and counted."""
    dense_step: Literal["torch", "compiled"] = "torch"
    """How dense gates that learn at every step are passed over in memory: in tiles by torch, or compiled (by numba, on
    the CPU): the same up to rounding, and a model keeps to one of them."""
    distance: Literal["half_mse", "cosine"] = "half_mse"
    """D: half the mean square error, or one minus the cosine."""
    predictor: PredictorConfig = PredictorConfig()
    learning: LearningConfig = LearningConfig()

    @property
    def features(self) -> int:
        """m, as the retina gives it."""
        return self.retina.features

    @property
    def components(self) -> int:
        """Numbers of state per unit: h and c, or the time decay unit's one."""
        return 1 if self.cell == "time-decay" else 2

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gates == "modular" and self.units % self.block:
            raise ValueError(f"block {self.block} does not divide the {self.units} units")
        if self.dense_step == "compiled" and self.gates != "dense":
            raise ValueError(f"dense_step 'compiled' is for gates dense, not for {self.gates}")
        if self.cell == "time-decay" and self.gates != "two-point":
            raise ValueError(f"the time decay unit has no {self.gates} gates: say gates two-point")
        if self.cell != "paper" and self.retention != "tanh":
            raise ValueError(f"retention {self.retention!r} is for the cell paper alone, not for {self.cell}")
        if not self.spans[0] <= self.spans[1] < self.bound:
            raise ValueError(f"spans {self.spans} must rise and stay below the bound {self.bound}")
        if self.embedding_size > self.components * self.units:
            raise ValueError(
                f"embedding_size {self.embedding_size} is more than the state's {self.components * self.units}"
            )
        if self.predictor.kind == "rls" and self.learning.rates.predictor is not None:
            raise ValueError(
                "learning.rates.predictor is for linear and mlp: rls has no rate, but predictor.forgetting"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``dense_step`` where it says nothing new: what was named by its choices keeps its name."""
        choices: dict[str, Any] = dump(self)
        if choices.get("dense_step") == "torch":
            del choices["dense_step"]
        return choices

    @classmethod
    def preset(cls, name: PresetName = "default", **overrides: Any) -> ModelConfig:
        """The preset ``name``; ``overrides`` replace single choices, nested ones as dictionaries.

        Two rates follow other choices unless they are given: dense gates learn at 3e-5 (the rate that
        holds), a predictor under the optimiser at 1e-4. Raises :class:`ModelError`: an unknown preset or
        key, or choices that don't fit together.
        """
        if name not in _PRESETS:
            raise ModelError(f"no preset {name!r}; there are {', '.join(_PRESETS)}")
        following: dict[str, float] = {}
        if name != "paper":
            if overrides.get("gates") == "dense":
                following["gates"] = 3e-5
            predictor = overrides.get("predictor")
            if isinstance(predictor, BaseModel):
                predictor = predictor.model_dump()
            if isinstance(predictor, dict) and predictor.get("kind", "rls") != "rls":
                following["predictor"] = 1e-4
        chosen = _merge({"name": name, **_PRESETS[name]}, {"learning": {"rates": following}})
        return cls.parse(_merge(chosen, overrides))

    @classmethod
    def parse(cls, choices: dict[str, Any]) -> ModelConfig:
        """The configuration in ``choices``, as :meth:`model_dump` writes it; raises :class:`ModelError`."""
        try:
            return cls.model_validate(choices)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ModelError(f"model configuration: {where + ': ' if where else ''}{first['msg']}") from None


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on it, dictionary by dictionary; models count as dictionaries."""
    merged = dict(base)
    for key, value in over.items():
        plain = value.model_dump() if isinstance(value, BaseModel) else value
        old = merged.get(key)
        merged[key] = _merge(old, plain) if isinstance(old, dict) and isinstance(plain, dict) else plain
    return merged


_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "long": {
        "units": 256,
        "embedding_size": 512,
        "spans": (0.7, 0.93),
        "learning": {"rates": {"retention": 1e-3, "input": 2e-4}},
    },
    # The paper leaves open: n, the predictor's form and start, the optimiser and its rate, when weights
    # change. Chosen here: n = 256, P(y) = y + MLP(y) with 512 ReLU and a zero last layer, Adam 1e-3 for
    # everything, one update at the end of each sequence.
    "paper": {
        "retina": {"stages": "last", "features": 2048, "whiten": False},
        "cell": "paper",
        "gates": "dense",
        "units": 256,
        "embedding_size": 120,
        "predictor": {
            "kind": "mlp",
            "hidden": 512,
            "activation": "relu",
            "carry": False,
            "residual": True,
            "normalise": False,
            "action": "none",
            "near": False,
            "place_memory": "off",
        },
        "learning": {
            "rates": {"gates": 1e-3, "retention": 1e-3, "input": 1e-3, "embedding": 1e-3, "predictor": 1e-3},
            "update": "sequence",
            "warmup": 0,
            "retraction": 0.0,
            "sequence_length": 100,
            "repeat_threshold": 0.0,
            "far_threshold": 0.0,
        },
    },
}
