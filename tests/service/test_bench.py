"""The benchmarks measure what they say: their load loses nothing, their tables tell what was kept."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from model.action import Look
from model.diagnostics import Diagnostics
from model.moment import Moment
from model.openvino_network import openvino_version
from model.readout import BLOCK
from model.scorer import Block, Scorer, Taken
from service import bench_diagnostics, bench_ingest, bench_pipeline, bench_retina, bench_size
from service.bench_cli import BENCHMARKS, module_of
from service.bench_load import Load, Took, percentiles
from service.bench_record import record
from service.bench_worker import BenchWorker, Directories
from service.errors import BenchRefused
from service.performance_aims import AIMS
from service.performance_page import NOT_MEASURED, PAGE, PART, page
from service.performance_sizing import participants
from service.storage import open_reader
from tests.service.bench import CONFIG


def options(name: str, *words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    module_of(name).add_options(parser)
    return argparse.Namespace(
        **vars(parser.parse_args(words)), threads=None, device="cpu", quiet=True, json=None, markdown=False
    )


def test_viewers_look_on_while_their_worker_dies_and_nothing_of_theirs_is_lost(data_dir: Path) -> None:
    with BenchWorker(data_dir) as worker, Load(worker.address) as load:
        worker.ready()
        viewers = load.add(2, 8.0)
        span = load.run(1.5)
        before = load.took(viewers, span)
        assert 8 <= len(before) <= 40
        worker.kill()
        worker.start()
        load.run(1.0)
        load.pace(viewers, 0.0)
        recorded = load.add_import(4)
        load.run(150.0, until=lambda: recorded.learned >= 10)
        assert 10 < recorded.next_seq <= recorded.learned + 5, "it goes on, and never further ahead than it may"
        recorded.ahead = 0
        load.settle()
        for viewer in load.viewers:
            assert len(viewer.took) == viewer.next_seq == viewer.learned + 1
            assert all(0.0 < took.durable_ms <= took.learned_ms for took in viewer.took)
        used = worker.used()
        assert used is None or (used.cpu_s > 0.0 and used.resident_mb > 100.0)
        with closing(open_reader(data_dir / "rjepa.db")) as reader:
            held = {row[0]: row[1] for row in reader.execute("SELECT stream, count(*) FROM records GROUP BY stream")}
        assert held == {viewer.name: viewer.next_seq for viewer in load.viewers}
        assert 1e4 < worker.disk_bytes() < 1e8


def test_a_worker_that_does_not_start_is_told(tmp_path: Path) -> None:
    with BenchWorker(tmp_path / "data", "--preset", "none") as worker, pytest.raises(BenchRefused, match="--preset"):
        worker.ready()


def test_percentiles_are_of_every_fixation() -> None:
    row = percentiles([Took(0.0, float(n), 2.0 * n, 0.01 * n) for n in range(101)])
    assert row == {
        "count": 101,
        "durable_ms": {"p50": 50.0, "p99": 99.0, "worst": 100.0},
        "learned_ms": {"p50": 100.0, "p99": 198.0, "worst": 200.0},
        "late_ms": {"p50": 0.5, "p99": pytest.approx(0.99), "worst": 1.0},
    }
    with pytest.raises(BenchRefused, match="--seconds"):
        percentiles([])


def test_ingest_is_measured_through_the_door() -> None:
    found = record("ingest", "rjepa bench ingest", bench_ingest.run(options("ingest", "--fixations=40", "--rounds=1")))
    (row,) = json.loads(json.dumps(found))["rounds"]
    assert row["door"] > 0.0
    assert row["sqlite"] > 0.0
    assert 1 <= row["group"] <= 40
    assert f"{row['door'] / row['sqlite']:.2f}" in bench_ingest.told(found, markdown=True)


def test_the_retina_is_measured_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_retina, "REST_S", 0.01)
    asked = options("retina", "--rivals", "--shapes", "1", "--seconds", "0.1", "--rests", "1")
    asked.threads = 1
    found = bench_retina.run(asked)
    assert [row["shape"] for row in found["rows"]] == [1] * len(found["rows"])
    ours = {"packed", "plain"} | ({bench_retina.CHOSEN} if openvino_version() is not None else set())
    assert all(set(row["pass_ms"]) - {bench_retina.COARSE} == ours for row in found["rows"])
    assert set(found["rested"]["pass_ms"]) - {bench_retina.COARSE} == ours - {"plain"}
    assert "One patch after a rest of 10 ms:" in bench_retina.told(found, markdown=True)
    del found["rested"]
    assert len(bench_retina.told(found, markdown=True).splitlines()) == 2 + len(found["rows"])


def test_bytes_are_those_of_the_learner() -> None:
    found = bench_size.run(options("size", "--units", "128"))
    two_point, modular, dense = found["rows"]
    assert 0 < two_point["stream"] < modular["stream"] < dense["stream"]
    assert all(row["shared"] > 0 for row in found["rows"])
    assert two_point["watched_stream"] > 1000 * (256 + 128) * 4, "its embeddings and inputs alone"
    sums = 3 * 4 * 4 * (128**2 - 128)  # of the gradients of four dense gates, beside those of two-point ones
    assert dense["watched_stream"] - two_point["watched_stream"] == pytest.approx(sums, rel=0.01)


def test_measures_are_timed_where_they_are_paid() -> None:
    found = bench_diagnostics.run(options("diagnostics", "--fixations", "300"))
    for loop in bench_diagnostics.LOOPS:
        parts = found[f"{loop}_parts_ms"]
        assert set(parts) == set(bench_diagnostics.MEASURES)
        assert all(0.0 < parts[name] < found[f"{loop}_ms"] for name in parts if name != "moment")
        assert sum(parts.values()) < found[f"{loop}_ms"], "they are part of it"
    table = [line.split("|") for line in bench_diagnostics.told(found, markdown=True).splitlines()]
    price = found["full_ms"] - found["step_ms"]
    share = price / (found["pass_ms"] / found["batch_shape"] + found["full_ms"])
    told = next(line for line in table if "with them less without" in line[1])
    assert [cell.strip() for cell in told[4:6]] == [f"{price:.2f}", f"{100 * share:.1f} %"]


def test_what_other_threads_do_for_one_learner_falls_on_none_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Moment] = []
    monkeypatch.setattr(Moment, "look", lambda moment: looked.append(moment))
    monkeypatch.setattr(Diagnostics, "due", lambda diagnostics, stream: True)
    released = threading.Event()
    take = Scorer.take

    def taken(scorer: Scorer, block: Block) -> Taken:
        released.wait(5.0)
        return take(scorer, block)

    monkeypatch.setattr(Scorer, "take", taken)
    watched = bench_diagnostics._Watched(CONFIG, 1)
    random = np.random.default_rng(0)
    seen = [(random.standard_normal(CONFIG.features).astype(np.float32), Look((0.5, 0.5))) for _ in range(BLOCK + 2)]
    watched.go(seen)
    assert watched._diagnostics.busy
    threading.Timer(0.05, released.set).start()
    watched.settle()
    assert released.is_set()
    assert not watched._diagnostics.busy
    assert len(looked) == len(seen)


def test_too_few_fixations_for_the_measures_are_refused_before_any() -> None:
    with pytest.raises(BenchRefused, match=f"at least {bench_diagnostics.LEAST}"):
        bench_diagnostics.run(options("diagnostics", "--fixations", str(bench_diagnostics.LEAST - 1)))


def test_every_try_of_the_highest_rate_meets_a_checkpoint() -> None:
    class AskedError(Exception):
        pass

    class Asking(Directories):
        @contextmanager
        def worker(self, *words: str, http: bool = False) -> Iterator[BenchWorker]:
            raise AskedError(*words)
            yield

    with pytest.raises(AskedError) as asked:
        bench_pipeline._highest(Asking(Path()), lambda what: None)
    words = asked.value.args
    assert 0.0 < float(words[words.index("--checkpoint-every") + 1]) <= bench_pipeline.PROBE_S


def test_the_aim_about_going_back_is_held_against_both_ways_of_it() -> None:
    aims = {aim.what for aim in AIMS}
    for units in ("512", "1,024", "2,048"):
        for how in ("as stored", "anew"):
            assert f"100 steps back, {how}, n = {units}: times the dense step, compiled" in aims


def pipeline_found() -> dict[str, object]:
    took = percentiles([Took(0.0, 5.0, 50.0, 0.1), Took(0.0, 6.0, 60.0, 0.1)])
    beside = {"alone": took, "beside": took, "what": "WHAT"}
    again = {"again": 7, "durable_s": 1.0, "ready_s": 2.0, "caught_up_s": 3.0}
    return {
        "pass_ms": 25.0, "rate_hz": 4.0,
        "load": [{"streams": 16, **took, "skipped": 0, "cores": None, "resident_mb": None, "disk_bytes": 20_000}],
        "rate": {"limit_ms": 250.0, "highest_hz": 80.0, "tries": [{"rate_hz": 80.0, **took}]},
        "checkpoint": [beside], "import": [beside],
        "recovery": [{**again, "worst_durable_s": 4.0, "worst_learned_s": 5.0}],
    }  # fmt: skip


def test_the_pipeline_tells_every_part_it_measured() -> None:
    told = bench_pipeline.told(pipeline_found(), markdown=True)
    for word in ("| 16 | 64 | 2 |", "| 2.4 |", "| 10.0 | 2.30 |", "| 80 | 20 |", "the highest", "| import |", "| 7 |"):
        assert word in told, word


def test_participants_are_reckoned_from_the_rate_and_what_a_step_takes_longer(tmp_path: Path) -> None:
    rows = [{"gates": "two-point", "n": 512, "step_ms": 0.5}, {"gates": "dense", "n": 512, "step_ms": 11.0}]
    steps = {"rows": rows, "default": {"n": 128, "step_ms": 1.0}}
    (tmp_path / "step.json").write_text(json.dumps(steps))
    (tmp_path / "pipeline.json").write_text(json.dumps({"rate": {"highest_hz": 100.0}}))
    told = participants(tmp_path)
    assert "| two-point, as it comes | 128 | 1.00 | 100 | 12 |" in told
    assert "| dense | 512 | 11.00 | 50 | 6 |" in told
    assert "0.50" not in told, "what takes less is given no more"


def test_the_page_is_as_the_numbers_have_it() -> None:
    text = PAGE.read_text()
    assert page(text, PAGE.with_suffix("")) == text, "make docs"


def test_the_page_tells_every_benchmark_and_says_what_was_not_measured(tmp_path: Path) -> None:
    named = {found[2] for found in PART.finditer(PAGE.read_text())}
    assert set(BENCHMARKS) <= named
    untold = page(PAGE.read_text(), tmp_path)
    assert untold.count(NOT_MEASURED) == len(PART.findall(untold))
    assert "Nothing to reckon with." in untold
    kept = {"bench": "size", **record("size", "rjepa bench size", {"rows": []})}
    (tmp_path / "size.json").write_text(json.dumps(kept))
    assert "`rjepa bench size`" in page(PAGE.read_text(), tmp_path)
