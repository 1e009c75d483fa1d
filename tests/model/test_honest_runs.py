"""Runs that are told by what they leave behind: lean rows, parts of an endless stream, participants, collapses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from model import collapse, participants, skill
from model.config import ModelConfig
from model.endless import EndlessRun
from model.errors import ModelError
from model.participants import Person, order
from model.stream_run import run_stream
from tests.model.diagnosed import M, looks, noise, small, turning


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "ms_per_fixation"}


def stream(n: int, seed: int = 0) -> np.ndarray:
    return turning(n, 0.7, seed).astype(np.float32)


def test_a_lean_row_says_what_the_whole_one_says() -> None:
    z, where = stream(800), looks(800)
    z[700:703] = z[699]  # repeats
    lean = run_stream(small(), z, where, seed=0, lean=True)
    whole = run_stream(small(), z, where, seed=0)
    assert lean["lean"]
    assert not whole["lean"]
    assert lean["skipped"] == 3
    assert lean["skill"] is not None
    shared = {name: whole[name] for name in set(lean) - {"lean", "ms_per_fixation", "opponent"}}
    assert {name: lean[name] for name in shared} == pytest.approx(shared, rel=1e-5)
    assert lean["opponent"] == whole["opponent"]
    assert {"learned_skill", "probe", "retrieval", "live_cosine", "balance"} <= set(whole) - set(lean)


def test_an_endless_run_goes_on_with_the_same_bits() -> None:
    z, where = stream(1000), looks(1000)
    parts = [slice(0, 700), slice(700, 850), slice(850, 1000)]
    whole, begun, again = (EndlessRun(small(), seed=3) for _ in range(3))
    for part in parts:
        whole.part(z[part], where[part])
    for part in parts[:2]:
        begun.part(z[part], where[part])
    again.unpack(begun.pack())
    again.part(z[parts[2]], where[parts[2]])
    assert [without_time(row) for row in again.rows] == [without_time(row) for row in whole.rows]
    assert all(row["skill_low"] < row["skill"] < row["skill_high"] for row in whole.rows)
    assert whole.rows[0]["skill"] != whole.rows[1]["skill"], "each part is told by itself"
    with pytest.raises(ModelError):
        EndlessRun(small(units=M + 2), seed=3).unpack(begun.pack())


def test_turns() -> None:
    assert order([3, 5], 2) == [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (1, 3), (1, 4)]
    assert order([], 2) == []


def test_each_participant_is_held_against_itself_alone() -> None:
    people = [Person(stream(700, seed), looks(700, seed)) for seed in (1, 2)]
    rows = participants.run(small(), people, turn=50, seed=0)
    told = {(row["arrangement"], row["participant"]): row for row in rows}
    assert list(told) == [(arrangement, number) for arrangement in participants.ARRANGEMENTS for number in (1, 2)]
    for number, person in enumerate(people, start=1):
        alone = run_stream(small(), person.features, person.looks, seed=0, lean=True)
        assert told["alone", number]["skill"] == pytest.approx(alone["skill"])
        assert told["alone", number]["gain"] == 0.0
        for arrangement in participants.ARRANGEMENTS[1:]:
            row = told[arrangement, number]
            expected = row["skill_ar1"] - told["alone", number]["skill_ar1"]
            assert row["gain"] == pytest.approx(expected, abs=0.02), "but for what one of them had no error of"
            assert row["gain_low"] < row["gain"] < row["gain_high"]
    assert told["by turns", 1]["skill"] != told["one state", 1]["skill"]


def test_two_that_share_no_weights_to_learn_are_as_alone() -> None:
    still = small(
        predictor={"kind": "linear"},
        learning={"rates": dict.fromkeys(("gates", "retention", "input", "predictor"))},
    )
    people = [Person(stream(650, seed), [None] * 650) for seed in (1, 2)]
    told = {(r["arrangement"], r["participant"]): r for r in participants.run(still, people, turn=40, seed=0)}
    # The statistics are shared all the same: the opponents differ, and little else.
    assert told["by turns", 1]["skill"] == pytest.approx(told["alone", 1]["skill"], abs=0.05)
    assert abs(told["one state", 1]["gain"]) < 0.2


def rows_of(n: int, error: float, opponent: float, seed: int) -> torch.Tensor:
    rows = torch.full((n, len(skill.COLUMNS)), opponent)
    rows[:, 0] = error
    return rows * (1.0 + 0.1 * torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)))


def test_the_gain_is_paired() -> None:
    one, other = rows_of(900, 0.8, 1.0, 0), rows_of(900, 1.8, 2.0, 1)
    found = skill.gain(one, other)
    assert found.value == pytest.approx(0.2 - 0.1, abs=1e-4)
    assert found.low == pytest.approx(found.high, abs=1e-4), "what both have in common is no doubt"
    one[100:300, 0] = float("nan")
    other[300:, 0] = float("nan")
    assert skill.gain(one, other).value == pytest.approx(0.1, abs=1e-4)
    other[:, 0] = float("nan")
    assert skill.gain(one, other).value is None


def tiny(**learning: Any) -> ModelConfig:
    """The straightforward implementation, small."""
    return ModelConfig.preset(
        "paper",
        retina={"stages": "all", "features": M, "whiten": True},
        units=M,
        embedding_size=2 * M,
        gates="two-point",
        distance="cosine",
        predictor={"hidden": 16},
        learning={"update": "step", **learning},
    )


def test_a_collapse_is_told_and_a_learner_is_not_accused() -> None:
    z = stream(2250)
    rates = dict.fromkeys(("gates", "input", "embedding", "predictor"), 0.3)
    lost = collapse.run(collapse.Setting(tiny(optimiser="sgd", rates=rates), True, ""), z, [None] * len(z), seed=0)
    assert lost["loss_last"] < 0.6 * lost["loss_first"], "the loss falls"
    assert lost["rank_ratio"] < 0.5
    assert lost["told"], lost["asked"]
    assert lost["word"] == "not learning yet"
    well = collapse.run(collapse.Setting(small(), False, ""), z, [None] * len(z), seed=0)
    assert (well["told"], well["told_at"], well["first"], well["alarms"]) == (False, None, "none", 0)
    assert well["word"] == "learning"
    assert len(well["spectrum"]) == len(well["spectrum_frozen"]) == 2 * M
    assert [each["fixations"] for each in well["asked"]] == list(range(250, 2251, 250))


def test_weight_decay_draws_to_zero() -> None:
    z = noise(300).astype(np.float32)
    kept = dict.fromkeys(("gates", "input", "embedding", "predictor"), 1e-3)
    plain, decayed = (
        collapse.run(collapse.Setting(tiny(rates=kept), True, "", decay), z, [None] * 300, seed=0)
        for decay in (0.0, 30.0)
    )
    assert sum(decayed["spectrum"]) < 0.5 * sum(plain["spectrum"])


def asked(*said: tuple[bool, list[str]]) -> list[dict[str, Any]]:
    return [
        {"fixations": 500 * (index + 1), "learning": learning, "warnings": warnings}
        for index, (learning, warnings) in enumerate(said)
    ]


def test_told_means_an_alarm_and_the_word_at_once_and_in_time() -> None:
    low, doubt = ["rank_low"], ["gradient_doubtful"]
    for said, told_at, told in (
        (asked((False, []), (False, low)), 1000, True),
        (asked((False, doubt), (True, low), (False, low)), 1500, True),
        (asked(*[(False, [])] * 4, (False, low)), 2500, False),
        (asked((True, low), (False, doubt)), None, False),
    ):
        found = collapse._told(said)
        assert (found["told_at"], found["told"]) == (told_at, told)


@pytest.mark.parametrize("gaze", [True, False])
def test_every_setting_is_a_model_of_its_own(gaze: bool) -> None:
    found = collapse.settings(gaze=gaze)
    assert len({(each.config.model_dump_json(), each.weight_decay) for each in found.values()}) == len(found)
    assert [name for name, each in found.items() if not each.wrong] == ["nothing", "default"]
    assert found["default"].config.predictor.action == ("gaze" if gaze else "none")
