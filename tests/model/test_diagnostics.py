"""The diagnostics beside a learner: what they say of streams whose answer is known, and that they cost it nothing."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import diagnostics, snapshot
from model.bootstrap import NOTHING, Interval
from model.diagnostics import MOST_STREAMS
from model.errors import ModelError
from model.learner import Learner
from model.skill import Skill
from model.snapshot import Snapshot
from model.verdict import judge
from model.warned import Warned
from tests.model.diagnosed import Diagnosed, M, begun, looks, noise, run, small, turning

KEYS = {
    *("window", "count", "skill", "skill_ar1", "learned_skill", "effective_rank", "effective_rank_frozen", "retrieval"),
    *("retrieval_trivial", "probe", "own_skill", "learning", "spectrum", "balance", "covariance", "error_by_position"),
}


@pytest.fixture(scope="module")
def on_noise() -> Diagnosed:
    return run(noise(1800))


@pytest.fixture(scope="module")
def on_a_turn() -> Diagnosed:
    return run(turning(2300, 0.9))


def test_noise_is_not_learned(on_noise: Diagnosed) -> None:
    told = on_noise.diagnostics.representation("a")
    assert not told["learning"]
    assert told["skill"]["low"] < 0.0
    assert told["skill"]["value"] < 0.01
    assert told["own_skill"] > 0.02, "noise flatters the ordinary measure: that is why there is another"
    assert abs(told["learned_skill"]["value"]) < 2e-3
    assert told["learned_skill"]["low"] <= 0.0
    assert abs(told["probe"]) < 0.01
    assert abs(told["probe_ceiling"]) < 0.01
    assert told["retrieval"] < 0.03
    assert told["retrieval_trivial"] < 0.03


def test_what_can_be_foreseen_is_learned(on_a_turn: Diagnosed) -> None:
    told = on_a_turn.diagnostics.representation("a")
    assert told["learning"]
    assert told["skill"]["low"] > 0.3
    assert told["skill_ar1"] == told["skill"]["value"]
    assert told["retrieval"] > 2 * told["retrieval_trivial"]
    assert 0.7 < told["probe_ceiling"] < 0.85  # 0.81 of the variance is the turn's
    assert told["probe"] > 0.5
    assert told["probe_features"] > 0.7
    assert told["learned_skill"]["value"] < 0.05, "z_t says it all: there was nothing for the circuit to learn"
    assert 0.5 < told["rank_ratio"] < 1.5
    assert not on_a_turn.diagnostics.warnings("a")


def test_to_copy_the_last_is_not_rewarded() -> None:
    """P is the identity and stays it: on a slow stream the embedding of a frozen circuit looks well foreseen."""
    predictor = {"kind": "linear", "carry": False, "residual": True, "normalise": False}
    still = dict.fromkeys(("gates", "retention", "input"))
    copycat = small(predictor=predictor, learning={"rates": {**still, "predictor": 0.0}, "repeat_threshold": 0.0})
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1300, M))
    for t in range(1, len(z)):
        z[t] = 0.95 * z[t - 1] + (1 - 0.95**2) ** 0.5 * z[t]
    found = run(z, copycat)
    told = found.diagnostics.representation("a")
    assert told["own_skill_against"]["running_mean"] > 0.7
    assert told["own_skill_against"]["copy_last"] == pytest.approx(0.0, abs=1e-6)
    assert told["skill"]["high"] < 0.0
    assert not told["learning"]
    assert told["learned_skill"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert told["retrieval"] <= told["retrieval_trivial"] + 0.03
    assert "skill_negative" in [each.kind for each in found.diagnostics.warnings("a")]


def test_the_twin_of_a_frozen_circuit_is_its_like() -> None:
    """Same seed, same start, same rule for the predictor: prediction by prediction the same."""
    found = begun(small(learning={"rates": dict.fromkeys(("gates", "retention", "input"))}))
    gaze = looks(400)
    for t, z in enumerate(turning(400, 0.6)):
        outcome = found.learner.observe("a", z, gaze[t], start=t == 200)
        seen = found.diagnostics._seen
        found.diagnostics.after("a", outcome)
        found.diagnostics.catch_up()
        if seen is not None and seen.made is not None and seen.made.attempt is not None:
            step = found.diagnostics._twin._states["a"]
            assert torch.allclose(step, seen.made.new.state, atol=1e-5)
    by_position = found.diagnostics.representation("a")["error_by_position"]
    assert len(by_position) > 150
    assert all(each["untrained"] == pytest.approx(each["mean"], rel=1e-3) for each in by_position)


def test_a_circuit_that_learned_is_told_from_its_twin() -> None:
    """What comes depends on what was three fixations ago: from short spans, memory must be learned."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((M, M)))[0]
    z = rng.standard_normal((2400, M))
    for t in range(3, len(z)):
        z[t] = 0.95 * turn @ z[t - 3] + 0.3 * z[t]
    told = run(z, small(spans=(0.0, 0.3))).diagnostics.representation("a")
    assert told["learned_skill"]["low"] > 0.003
    assert told["probe_ceiling"] > 0.7
    assert told["probe"] > told["probe_untrained"]


@pytest.mark.parametrize("n", [0, 1, 30, 130, 640])
def test_it_can_be_told_at_any_time(n: int) -> None:
    found = run(noise(n), gaze=True)
    for stream in (None, "a", "never seen"):
        told = found.diagnostics.representation(stream)
        assert told.keys() >= KEYS
        json.dumps(told, allow_nan=False)
        json.dumps(found.diagnostics.gradient(stream), allow_nan=False)
        assert told["count"] == (max(0, n - 1) if stream != "never seen" else 0)
        assert told["window"] == max(0, told["count"] - 500)
        assert (told["skill"]["value"] is not None) == (told["window"] >= 100)
        assert (told["effective_rank"] is not None) == (n >= 100 and stream != "never seen")
        assert isinstance(told["learning"], bool)
        assert isinstance(found.diagnostics.warnings(stream), list)
    places = found.diagnostics.representation("a")["place_memory"]
    assert (places is not None) == (n > 0)
    if places is not None:
        assert np.shape(places["known"]) == (6, 12)
        assert 0.0 < np.max(places["known"]) <= 1.0


def test_the_learner_is_the_same_with_and_without() -> None:
    watched, alone = begun(), Learner(small(), seed=0)
    gaze = looks(300)
    for t, z in enumerate(turning(300, 0.5)):
        watched.feed(z, look=gaze[t], start=t == 150)
        alone.observe("a", z, gaze[t], start=t == 150)
        if t == 200:
            watched.diagnostics.representation()
            watched.diagnostics.gradient("a")
            watched.diagnostics.warnings()
    one, other = watched.learner.snapshot(), alone.snapshot()
    assert one.meta == other.meta
    assert all(torch.equal(one.tensors[name], tensor) for name, tensor in other.tensors.items())


def test_it_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole, parts = begun(), begun()
    z = turning(700, 0.7)

    def feed(to: Diagnosed, first: int, last: int) -> None:
        for t in range(first, last):
            to.feed(z[t], "ab"[t % 2], start=t in (300, 301))

    feed(whole, 0, 700)
    feed(parts, 0, 500)
    snapshot.write(parts.diagnostics.pack(), tmp_path / "diagnostics")
    learner, again = parts.learner.snapshot(), begun()
    again.learner.load(learner)
    again.diagnostics.unpack(snapshot.read(tmp_path / "diagnostics"))
    feed(again, 500, 700)
    one, other = whole.diagnostics.pack(), again.diagnostics.pack()
    assert one.meta == other.meta
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():  # errors that there are not are NaN
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0.0, atol=0.0, equal_nan=True, msg=name)
    for stream in (None, "a"):
        assert whole.diagnostics.representation(stream) == again.diagnostics.representation(stream)
        assert whole.diagnostics.gradient(stream) == again.diagnostics.gradient(stream)


def test_nothing_depends_on_when_fixations_are_taken_in() -> None:
    """One at a time, or when enough wait: with streams that come, go, are forgotten, and rates that change."""
    at_once, later = begun(), begun()
    taken: list[int] = []
    later.diagnostics.taking = taken.append
    z, names = noise(700), np.random.default_rng(0).integers(0, MOST_STREAMS + 2, 700)
    for t, each in enumerate(z):
        for found in (at_once, later):
            if t == 300:
                found.diagnostics.forget("s3")
                found.learner.forget("s3")
            if t in (310, 330):
                found.learner.set_learning(t == 330)
            stream = f"s{names[t] if t < 400 else t // 200}"
            found.diagnostics.after(stream, found.learner.observe(stream, each, start=t % 50 == 0), t + 1)
        at_once.diagnostics.catch_up()
    assert 0 < len(later.diagnostics._waiting) < diagnostics.MOST_WAITING
    one, other = at_once.diagnostics.pack(), later.diagnostics.pack()
    assert [number for number in taken if number] == list(range(1, 701)), "each by its number, in order"
    assert taken[-1] == 0
    assert one.meta == other.meta
    for name, tensor in one.tensors.items():  # errors that there are not are NaN
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0.0, atol=0.0, equal_nan=True, msg=name)


@pytest.mark.parametrize(
    "choices", [{}, {"gates": "modular", "block": 5}, {"cell": "paper"}, {"cell": "time-decay", "embedding_size": M}]
)
def test_an_untrained_circuit_is_the_linear_map_the_twin_takes_it_for(choices: dict[str, Any]) -> None:
    found = begun(small(**choices))
    twin = found.diagnostics._twin
    for t, z in enumerate(noise(40)):
        before = twin._states.get("a", twin._zero) if t % 20 else twin._zero
        found.feed(z, start=t % 20 == 0)
        found.diagnostics.catch_up()
        circuit, weights = twin.network.circuit, twin.network.weights
        x = (torch.from_numpy(z).float().expand(2, -1) @ weights["V"].T)[0]
        assert torch.equal(twin._states["a"], circuit.step(circuit.settle(weights, before), x))


def test_nothing_depends_on_when_a_block_is_scored() -> None:
    """The other thread is held up until all is fed; what is told and packed is what it is without that."""
    prompt, held_up = begun(), begun()
    go_on = threading.Event()
    held_up.diagnostics._evidence._helper.submit(go_on.wait)
    z = turning(500, 0.7)
    for each in z:
        prompt.feed(each)
        prompt.diagnostics._land(wait=True)
        held_up.feed(each)
    assert held_up.diagnostics.busy
    assert not prompt.diagnostics.busy
    moment, others = held_up.diagnostics.moment("a"), prompt.diagnostics.moment("a")
    for each in turning(200, 0.1, seed=1):
        prompt.feed(each)
    go_on.set()
    assert moment.representation() == others.representation(), "a moment stays what it was"
    for each in turning(200, 0.1, seed=1):
        held_up.feed(each)
    one, other = prompt.diagnostics.pack(), held_up.diagnostics.pack()
    assert one.meta == other.meta
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(other.tensors[name], tensor, rtol=0.0, atol=0.0, equal_nan=True, msg=name)
    assert moment.gradient() == others.gradient()


def test_the_word_says_why() -> None:
    nothing = Skill(NOTHING, NOTHING, None, {})
    assert judge(nothing, 412, []) == ("not learning yet", "too few fixations (412 of 2000)")
    assert judge(nothing, 700, []).word == "not learning yet"
    for low, high, word, why in [
        (0.1, 0.3, "learning", "better than"),
        (-0.1, 0.3, "not learning yet", "may be no better than"),
        (-0.3, -0.1, "not learning yet", "worse than"),
    ]:
        found = judge(Skill(Interval(0.0, low, high), NOTHING, "carry_ar1", {}), 5000, [])
        assert found.word == word
        assert f"{why} the best trivial predictor (carry_ar1)" in found.why
        assert f"({low:+.3f} to {high:+.3f})" in found.why
    early = judge(Skill(Interval(0.2, 0.1, 0.3), NOTHING, "carry_ar1", {}), 1999, [])
    assert early == (
        "not learning yet",
        "skill +0.200 (+0.100 to +0.300), but too few fixations to be sure (1999 of 2000)",
    )
    collapsed = judge(Skill(Interval(0.2, 0.1, 0.3), NOTHING, "carry_ar1", {}), 5000, [Warned("rank_lost", "rank 2")])
    assert collapsed == ("not learning yet", "skill +0.200 (+0.100 to +0.300), but rank 2")


def test_a_twin_that_began_later_is_not_compared_until_it_has_learned_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnostics, "CAUGHT_UP", 900)
    found = run(turning(200, 0.9))
    found.diagnostics.clear()
    zs = turning(1500, 0.9, seed=1)
    for each in zs[:800]:
        found.feed(each)
    late = found.diagnostics.representation("a")
    assert late["skill"]["value"] is not None
    assert (late["learned_skill"]["value"], late["probe_untrained"]) == (None, None)
    assert late["error_by_position"][-1]["untrained"] is None
    other = begun()
    other.diagnostics.unpack(found.diagnostics.pack())
    assert other.diagnostics.representation("a")["learned_skill"]["value"] is None, "a checkpoint knows it too"
    for each in zs[800:]:
        found.feed(each)
    caught_up = found.diagnostics.representation("a")
    assert caught_up["learned_skill"]["value"] is not None
    assert caught_up["error_by_position"][-1]["untrained"] is not None


def test_nothing_is_left_of_a_stream_that_is_forgotten() -> None:
    found = run(noise(150))
    for each in 1e6 + noise(9, seed=1):
        found.feed(each, "gone")
    found.feed(noise(1, seed=2)[0])
    found.diagnostics.forget("gone")
    tensors, meta = found.diagnostics.pack()
    assert "gone" not in json.dumps(meta)
    kept = {name: part for name, part in tensors.items() if name.startswith(("evidence/rows", "evidence/targets"))}
    assert kept
    assert all(float(part.abs().max()) < 1e3 for part in kept.values())


def test_what_does_not_fit_is_refused_and_forgotten() -> None:
    found = run(noise(150))
    tensors, meta = found.diagnostics.pack()
    other = begun(small(units=M + 2))
    with pytest.raises(ModelError, match="begun anew"):
        other.diagnostics.unpack(Snapshot(tensors, meta))
    assert other.diagnostics.representation()["count"] == 0
    for broken in (Snapshot({}, meta), Snapshot(tensors, {}), Snapshot(tensors, {**meta, "seed": 5})):
        with pytest.raises(ModelError, match="begun anew"):
            found.diagnostics.unpack(broken)
    found.diagnostics.unpack(Snapshot(tensors, meta))
    assert found.diagnostics.representation("a")["count"] == 149


def held_bytes(root: Any) -> int:
    """Of all tensors and arrays reachable from ``root``."""
    seen: set[int] = set()
    storages: dict[int, int] = {}
    queue = [root]
    while queue:
        each = queue.pop()
        if id(each) in seen or isinstance(each, type) or type(each).__name__ in ("module", "function"):
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            storage = each.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(each, np.ndarray):
            storages[each.ctypes.data] = each.nbytes
        else:
            queue += gc.get_referents(each)
    return sum(storages.values())


def test_memory_is_flat_on_ten_times_the_stream() -> None:
    found = begun()
    sizes = []
    for t, z in enumerate(noise(1300)):
        found.feed(z, "abc"[t % 3])
        if t + 1 in (130, 1300):
            found.diagnostics.representation()
            found.diagnostics.pack()  # nothing is being scored any more
            sizes.append(held_bytes(found.diagnostics))
    assert sizes[0] > 1e6
    assert sizes[1] == sizes[0]


def test_so_many_streams_have_windows() -> None:
    found = begun()
    z = noise(2 * (MOST_STREAMS + 3))
    for t in range(len(z)):
        found.feed(z[t], f"s{t % (MOST_STREAMS + 3)}")
    assert len(found.diagnostics._streams) == MOST_STREAMS
    assert found.diagnostics.representation()["count"] == MOST_STREAMS + 3
    found.diagnostics.forget("s5")
    assert found.diagnostics.representation("s5")["count"] == 0
    found.diagnostics.clear()
    assert found.diagnostics.representation()["count"] == 0


def test_what_was_not_learned_is_counted() -> None:
    found = begun()
    z = noise(40)
    for each in z:
        found.feed(each)
    found.feed(z[-1])
    found.feed(np.full(M, np.nan))
    found.feed(z[0])
    told = found.diagnostics.representation("a")
    assert told["skipped"] == {"repeat": 1, "refused": 1}
    assert told["count"] == 39
    found.feed(z[1])
    assert found.diagnostics.representation("a")["count"] == 40


def test_a_learner_that_is_no_longer_watched() -> None:
    found = run(noise(20))
    found.diagnostics.close()
    found.feed(noise(1, seed=3)[0])
    assert found.diagnostics.representation("a")["skipped"] == {"unwatched": 1}
