"""What passes between host and device: a step on a card reads twice, waits for nothing else, and mixes no devices.

There is no card where these tests run, so one is acted: torch's fake tensors know their device and shape, refuse to be
read, and refuse to be mixed. Only what is fetched by model/host.py is given numbers. On a card the same is seen at
``gpu``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from model import backbone, host, learner, rfp, rgc
from model.config import ModelConfig
from model.host import Later, number, unwaited, upload
from model.learner import Learner, Look

STEPS, CALM = 30, 5
"""Fixations, and those of them before the first gradient."""
KINDS: dict[str, dict[str, Any]] = {
    "two-point": {},
    "dense": {"gates": "dense"},
    "modular": {"gates": "modular"},
    "paper's cell": {"cell": "paper", "gates": "dense"},
    "time decay": {"cell": "time-decay"},
    "linear": {"predictor": {"kind": "linear"}},
    "mlp and head": {"predictor": {"kind": "mlp", "action_head": True}},
    "cosine": {"distance": "cosine"},
    "embedding": {"learning": {"rates": {"embedding": 1e-4}}},
}


def config(kind: str) -> ModelConfig:
    choices = KINDS[kind]
    learning = {"warmup": CALM, "retraction_every": 10, **choices.get("learning", {})}
    return ModelConfig.preset("default", units=16, embedding_size=12, **{**choices, "learning": learning})


def fixations(taught: Learner) -> Iterator[tuple[np.ndarray, Look]]:
    generator = np.random.default_rng(0)
    while True:
        z = generator.standard_normal(taught.config.features).astype(np.float32)
        yield z, Look((float(generator.random()), float(generator.random())))


class Ways(TorchDispatchMode):
    """Counts copies from the host to a card that are waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        given = [arg for arg in args if isinstance(arg, Tensor)]
        crossed = isinstance(made, Tensor) and any(arg.is_cuda != made.is_cuda and arg.dim() > 0 for arg in given)
        if crossed and not kwargs.get("non_blocking", False):
            self.waited.append(str(func))
        return made


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An acted card; how many numbers each read brought back."""
    found: list[int] = []

    def fetched(numbers: Tensor) -> list[float]:
        assert numbers.is_cuda
        found.append(numbers.numel())
        return [0.1] * numbers.numel()

    def on_the_host(*tensors: Tensor | None) -> None:
        assert all(tensor is None or not tensor.is_cuda for tensor in tensors)

    monkeypatch.setattr(host, "_fetched", fetched)
    monkeypatch.setattr(host, "_pinned", lambda numbers: numbers)
    monkeypatch.setattr(learner, "energy", lambda z: on_the_host(z) or 1.0)
    monkeypatch.setattr(learner, "is_repeat", lambda z, kept, threshold: on_the_host(z, kept) is not None)
    with contextlib.ExitStack() as after:
        for kept in (rgc._one_by_one, rfp._places, backbone._usual):
            kept.cache_clear()
            after.callback(kept.cache_clear)
        with FakeTensorMode():
            yield found


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_a_card_reads_twice_and_waits_for_nothing_else(kind: str, reads: list[int]) -> None:
    taught = Learner(config(kind), seed=0, device="cuda")
    seen = fixations(taught)
    counts = []
    for at in range(STEPS):
        reads.clear()
        z, look = next(seen)
        with Ways() as ways:
            outcome = taught.observe("a", z, look, start=at == 15, marked=True)
        assert outcome.skipped is None
        assert at == 0 or ways.waited == [], "what stays the same goes there once"
        counts.append(len(reads))
    assert all(tensor.is_cuda for tensor in taught.network.weights.values())
    assert taught.own["a"].sensitivities.values.is_cuda
    late = counts[CALM + 1 :]
    retractions = sum(count == 3 for count in late)
    assert set(late) <= {2, 3}, "one before anything changes, one at the end; one more where V goes back"
    assert retractions == (STEPS - CALM - 1) // 10


def test_patches_go_to_a_card_without_a_wait(reads: list[int]) -> None:
    card = torch.device("cuda")
    patches = np.zeros((2, backbone.PATCH_PX, backbone.PATCH_PX, 3), np.uint8)
    backbone.images_of(patches, card)
    with Ways() as ways:
        images = backbone.images_of(patches, card)
    assert ways.waited == []
    assert (images.is_cuda, images.shape) == (True, (2, 3, backbone.PATCH_PX, backbone.PATCH_PX))
    assert reads == []


def test_the_acted_card_would_find_a_number_read_by_the_way(reads: list[int]) -> None:
    from torch._subclasses.fake_tensor import DataDependentOutputException

    there = torch.ones(3, device="cuda")
    with pytest.raises(DataDependentOutputException):
        float(there.sum())
    with pytest.raises(Exception, match="device"):
        there + torch.ones(3)
    with Ways() as ways:
        torch.ones(3).to("cuda")
    assert ways.waited
    assert number(there.sum()) == pytest.approx(0.1)
    assert reads == [1]
    assert isinstance(unwaited(there.sum()), Tensor)


def test_on_the_host_nothing_is_copied() -> None:
    numbers = torch.arange(3.0)
    assert upload(numbers, torch.zeros(1)) is numbers
    assert upload(numbers, torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
    later = Later()
    whole, single, plain = later.ask(numbers), later.ask(numbers.sum()), later.ask(2.5)
    later.read()
    assert later.all(whole) == [0.0, 1.0, 2.0]
    assert later.array(whole).tolist() == [0.0, 1.0, 2.0]
    later.array(whole)[0] = 7.0
    assert numbers[0] == 0.0, "an array is a copy"
    assert (later.one(single), later.one(plain), unwaited(numbers[2])) == (3.0, 2.5, 2.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_card_nothing_is_waited_for_but_what_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch, fetched = host._fetched, []

    def reading(numbers: Tensor) -> list[float]:
        fetched.append(numbers.numel())
        torch.cuda.set_sync_debug_mode("default")
        try:
            return fetch(numbers)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(host, "_fetched", reading)
    here, there = Learner(config(kind), seed=0), Learner(config(kind), seed=0, device="cuda")
    seen = fixations(here)
    for at in range(STEPS):
        z, look = next(seen)
        told = here.observe("a", z, look)
        fetched.clear()
        torch.cuda.set_sync_debug_mode("error" if at > CALM else "default")
        try:
            also = there.observe("a", z, look)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert at <= CALM or len(fetched) in (2, 3)
        assert also.prediction_error == pytest.approx(told.prediction_error, rel=1e-3)
    torch.testing.assert_close(there.parameters.flat.cpu(), here.parameters.flat, rtol=1e-3, atol=1e-4)
