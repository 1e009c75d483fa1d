"""The door of the benchmarks: what can't be measured or kept is refused before anything is, in one line."""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

import rjepa
from service import bench_recover, bench_size, bench_start
from service.bench_clock import Timed, side_by_side
from service.bench_load import Load
from service.bench_record import machine_told, record
from service.bench_worker import free_port
from service.errors import BenchRefused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("step", "--repeats", "0"), "--repeats is 0: give a number above 0"),
        (("step", "--seconds", "nan"), "--seconds is nan"),
        (("step", "--n", "128", "256", "128"), "--n names something twice: 128 256 128"),
        (("retina", "--shapes", "8", "-1"), "--shapes is -1"),
        (("retina", "--threads", "100000"), "--threads is 100000, and there are"),
        (("retina", "--threads", "0"), "--threads is 0"),
        (("size", "--units", "0"), "--units is 0"),
        (("start", "--rounds", "-1"), "--rounds is -1"),
        (("ingest", "--fixations", "0"), "--fixations is 0"),
        (("pipeline", "--seconds", "inf"), "--seconds is inf"),
        (("pipeline", "--parts", "load", "load"), "--parts names something twice"),
    ],
)
def test_numbers_with_which_nothing_can_be_measured_are_refused(
    words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rjepa.main(["bench", *words]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert rjepa.main(["bench", "step", "--device", "cuda"]) == 2
    assert "say cpu" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("--threads", "1"), ("--device", "cpu")])
def test_what_a_worker_chooses_for_itself_is_not_offered(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        rjepa.main(["bench", "pipeline", *words])
    assert ended.value.code == 2
    assert f"unrecognized arguments: {words[0]}" in capsys.readouterr().err


@pytest.mark.parametrize("place", [("file", "start.json"), ("folder",)])
def test_where_nothing_can_be_kept_nothing_is_measured(
    place: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    asked: list[argparse.Namespace] = []
    monkeypatch.setattr(bench_start, "run", asked.append)
    assert rjepa.main(["bench", "start", "--json", str(tmp_path.joinpath(*place))]) == 2
    assert "name another file" in capsys.readouterr().err
    assert asked == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_what_was_measured_is_told_where_it_can_no_longer_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "size.json"

    def run(arguments: argparse.Namespace) -> dict[str, Any]:
        path.mkdir()
        return {"rows": [{"units": 77, "gates": "dense", "shared": 1, "stream": 1}]}

    monkeypatch.setattr(bench_size, "run", run)
    assert rjepa.main(["bench", "size", "--json", str(path)]) == 2
    said = capsys.readouterr()
    assert "77" in said.out
    assert "can't be written" in said.err


def test_the_door_puts_away_what_was_begun_where_the_system_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(arguments: argparse.Namespace) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("it went on")

    monkeypatch.setattr(bench_size, "run", run)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        rjepa.main(["bench", "size"])
    assert ended.value.code == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def test_every_round_begins_with_another_and_what_is_to_be_warm_runs_uncounted() -> None:
    order: list[str] = []

    def contenders(warm_s: float) -> list[Timed]:
        return [
            Timed(name, lambda name=name: order.append(name), warm_s=warm_s, least_s=1e-9)  # type: ignore[misc]
            for name in "abc"
        ]

    timed = contenders(warm_s=1e-9)  # one run
    side_by_side(timed, repeats=3, most_s=60.0, device="cpu", told=lambda: order.append("|"))
    assert "".join(order) == "aabbcc|bbccaa|ccaabb|"
    assert [len(each.samples) for each in timed] == [3, 3, 3]
    order.clear()
    side_by_side(contenders(warm_s=0.0)[:2], repeats=2, most_s=60.0, device="cpu", told=lambda: order.append("|"))
    assert "".join(order) == "ab|ba|"


def test_a_card_is_named_where_the_model_was_on_it() -> None:
    found = record("step", "rjepa bench step", {})
    for device, told in (("cpu", "its GPU not used"), ("cuda", "on A CARD")):
        held = {**found, "device": device, "machine": {**found["machine"], "gpu": "A CARD", "threads": 1}}
        assert machine_told(held).endswith(told)
        assert ", 1 thread of torch" in machine_told(held)
    assert machine_told({**found, "machine": {**found["machine"], "gpu": None}}).endswith("no GPU")


def test_a_worker_that_learns_no_further_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_recover, "GIVE_UP_S", 0.1)
    with Load(f"tcp://127.0.0.1:{free_port()}") as load, pytest.raises(BenchRefused, match="no further than -1 of 10"):
        bench_recover._learn(load, load.add_import(4), 10, None)


def test_a_command_that_fails_has_no_time() -> None:
    assert bench_start._seconds(["-c", "pass"]) > 0.0
    with pytest.raises(BenchRefused, match="no such thing"):
        bench_start._seconds(["-c", "raise SystemExit('no such thing')"])


def test_memory_is_told_for_as_many_streams() -> None:
    row = {"units": 128, "gates": "dense", "shared": 10_000_000, "stream": 2_000_000}
    assert "| 10.00 | 2.000 | 42 | 74 | - | - | - | - |" in bench_size.told({"rows": [row]}, markdown=True)
    row |= {"watched_shared": 30_000_000, "watched_stream": 1_000_000}  # at most sixteen streams have windows
    assert "| 42 | 74 | 30.0 | 1.00 | 88 | 120 |" in bench_size.told({"rows": [row]}, markdown=True)
