"""``rjepa bench step``: what it says it measured it measured, and the page tells the numbers that were kept."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import rjepa
from service import bench_step, performance_page
from service.bench_clock import Timed, choose_threads, side_by_side
from tests.helpers import ROOT

SMALL = ("--n", "16", "32", "--features", "8", "--embedding", "8", "--repeats", "2", "--seconds", "0.01", "--quiet")
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("bench") / "new" / "step.json"
    words = ["bench", "step", *SMALL, "--gates", "two-point", "modular-4", "dense-compiled", "--json", str(path)]
    assert rjepa.main(words) == 0
    held: dict[str, Any] = json.loads(path.read_text())
    return held


def test_it_keeps_the_command_the_machine_and_a_row_for_each_circuit(found: dict[str, Any]) -> None:
    assert found["command"].startswith("rjepa bench step --n 16 32")
    assert found["machine"]["cores"] >= 1
    assert [(row["gates"], row["n"]) for row in found["rows"]] == [
        (gates, n) for gates in ("two-point", "modular-4", "dense-compiled") for n in (16, 32)
    ]
    for row in found["rows"]:
        assert row["to_copy"] == pytest.approx(row["step_ms"] / row["copy_ms"])
        for rival in ("stored", "anew", "every", "rtrl"):
            assert row[f"to_{rival}"] == pytest.approx(row[f"{rival}_ms"] / row["step_ms"])
        moved = sum(part["bytes"] * (part["reads"] + part["writes"]) for part in row["touched"])
        assert row["floor_mb"] == pytest.approx(moved / 1e6)
        assert row["bytes_anew"] > row["bytes_stored"] > 1.0
        assert row["first_ms"] > 0.0
        assert row["samples"]["step"] == 2
        assert row["bptt_1000_mb"] == pytest.approx(10 * row["bptt_mb"])
        assert row["bptt_anew_mb"] < row["bptt_mb"]
    assert [each["gates"] for each in found["exponents"]] == ["two-point", "modular-4", "dense-compiled"]
    assert found["default"]["gates"] == "default learner"


def test_it_tells_every_row_in_tables(found: dict[str, Any]) -> None:
    told = bench_step.told(found, markdown=True)
    assert told.count("| dense-compiled | 32 |") == 3
    assert "| default learner | 128 |" in told
    assert "not measured" in bench_step.told({**found, "exponents": []}, markdown=False)


def test_a_power_law_has_its_exponent() -> None:
    rows = [{"gates": "dense", "n": n, "step_ms": 3.0 * n**2, "copy_ms": float(n)} for n in (128, 512, 2048)]
    (told,) = bench_step.exponents(rows)
    assert told == pytest.approx({"gates": "dense", "step": 2.0, "step_last": 2.0, "copy_last": 1.0})


def test_each_has_its_turn_and_what_takes_long_is_let_off() -> None:
    order: list[str] = []
    quick, slow = Timed("quick", lambda: order.append("quick")), Timed("slow", lambda: order.append("slow"), 2)
    rounds: list[int] = []
    side_by_side([quick, slow], repeats=6, most_s=0.0, device="cpu", told=lambda: rounds.append(0))
    assert len(rounds) == 6
    assert [len(each.samples) for each in (quick, slow)] == [3, 3]
    assert order.index("slow") < len(order) - 1 - order[::-1].index("quick")


def test_each_has_the_number_of_threads_it_is_faster_with() -> None:
    def with_one_alone() -> None:
        time.sleep(0.001 if torch.get_num_threads() == 1 else 0.02)

    def with_all() -> None:
        time.sleep(0.02 if torch.get_num_threads() == 1 else 0.001)

    before = torch.get_num_threads()
    timed = [Timed("one", with_one_alone), Timed("all", with_all)]
    try:
        torch.set_num_threads(2)
        choose_threads(timed, most_s=0.0, device="cpu")
        assert ([each.threads for each in timed], torch.get_num_threads()) == ([1, 2], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("words", [("--n", "10", "--gates", "modular-4"), ("--n", "3", "--gates", "two-point")])
def test_what_does_not_go_together_is_refused(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert rjepa.main(["bench", "step", *SMALL, *words]) == 2
    assert "does not go with" in capsys.readouterr().err


def test_everything_is_checked_before_the_first_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measured(*told: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(bench_step, "_measure", measured)
    assert rjepa.main(["bench", "step", *SMALL, "--n", "16", "18", "--gates", "two-point", "modular-4"]) == 2
    assert "n = 18 does not go with gates modular-4" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "numba", None)
    assert rjepa.main(["bench", "step", *SMALL, "--gates", "two-point", "dense-compiled"]) == 2
    assert "numba is not installed" in capsys.readouterr().err


def test_what_is_compiled_for_the_cpu_is_left_out_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("numba")
    assert bench_step._all_gates("cpu") == list(bench_step.GATES)
    assert capsys.readouterr().err == ""
    assert bench_step._all_gates("cuda") == [gates for gates in bench_step.GATES if gates != "dense-compiled"]
    assert "not for cuda" in capsys.readouterr().err


def test_the_rivals_alone_take_subnormal_numbers_for_zero() -> None:
    small, found = torch.tensor([1e-40]), []

    def halve() -> None:
        found.append(float(small * 0.5))

    halve()
    bench_step._without_subnormals(halve)()
    halve()
    assert found[0] == found[2] > 0.0 == found[1]


def test_a_rival_that_takes_long_is_timed_warm_as_the_step_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Timed] = []

    class EnoughError(Exception):
        pass

    def measured(timed: list[Timed], **how: object) -> None:
        asked[:] = timed
        raise EnoughError

    monkeypatch.setattr(bench_step, "side_by_side", measured)
    with pytest.raises(EnoughError):
        rjepa.main(["bench", "step", *SMALL, "--n", "16", "--gates", "two-point"])
    assert {each.name for each in asked if each.warm_s > 0.0} == {"copy", "step", "stored", "anew", "rtrl"}


def test_numbers_that_can_t_be_kept_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    words = ["bench", "step", *SMALL, "--n", "16", "--gates", "two-point", "--without-rivals"]
    assert rjepa.main([*words, "--json", str(tmp_path / "file" / "step.json")]) == 2
    assert "name another file" in capsys.readouterr().err


def test_the_page_tells_what_was_kept() -> None:
    assert PAGE.read_text() == performance_page.page(PAGE.read_text(), PAGE.with_suffix("")), "make docs"
    assert "<!-- bench step -->" in PAGE.read_text()
