"""A few live streams while something else goes on: a checkpoint, an export, a recovery, an import.

Times without and with it alternate in one run, so that both meet the same machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.bench_load import GIVE_UP_S, Load, Took, Viewer, percentiles
from service.bench_worker import BenchWorker, Directories
from service.errors import BenchRefused, ServiceError

Row = dict[str, Any]
WARM_S = 5.0
TURNS = 4
"""How often each of the two, with and without, has its turn."""
RECORDS = 10_000
"""Of one page of an export: the most there is."""
NO_CHECKPOINT = ("--checkpoint-every", "86400")


@dataclass(frozen=True)
class Sides:
    """What all parts share: ``count`` live streams at ``rate_hz``, ``seconds`` with and as long without."""

    directories: Directories
    count: int
    rate_hz: float
    seconds: float
    ahead: tuple[int, ...]
    """How many fixations an import may be before the learner: one row for each."""


def checkpoint(sides: Sides) -> list[Row]:
    """One checkpoint after the other."""
    written: list[float] = []

    def go_on(worker: BenchWorker, stop: threading.Event) -> None:
        while not stop.is_set():
            begun = time.perf_counter()
            if worker.command("checkpoint").get("ok"):
                written.append(time.perf_counter() - begun)

    with sides.directories.worker(*NO_CHECKPOINT) as worker, Load(worker.address) as load:
        row = _by_turns(sides, worker, load, go_on)
    if not written:
        raise BenchRefused("no checkpoint was written beside the fixations")
    what = f"{len(written)} checkpoints, {1000 * sum(written) / len(written):.0f} ms each"
    return [{**row, "what": what}]


def export(sides: Sides) -> list[Row]:
    """One export of all of a stream's records after the other, with their embeddings, as CSV."""
    read: list[int] = []

    def go_on(worker: BenchWorker, stop: threading.Event) -> None:
        while not stop.is_set():
            with suppress(OSError):
                path = f"/v1/streams/viewer0/records?limit={RECORDS}&embeddings=true"
                read.append(worker.fetch(path, accept="text/csv"))

    with sides.directories.worker(*NO_CHECKPOINT, http=True) as worker, Load(worker.address) as load:
        row = _by_turns(sides, worker, load, go_on)
    if not read:
        raise BenchRefused("no export was made beside the fixations")
    return [{**row, "what": f"{len(read)} exports, {sum(read) / 1e6:.0f} MB in all"}]


def import_(sides: Sides) -> list[Row]:
    """A recording that is sent as fast as it may be, as many ahead as asked."""
    return [_imported(sides, ahead) for ahead in sides.ahead]


def _imported(sides: Sides, ahead: int) -> Row:
    with sides.directories.worker(*NO_CHECKPOINT) as worker, Load(worker.address) as load:
        viewers = load.add(sides.count, sides.rate_hz)
        load.run(WARM_S)
        recorded = load.add_import(0)
        alone: list[Took] = []
        beside: list[Took] = []
        imported, took_s = 0, 0.0
        for _ in range(TURNS):
            recorded.ahead = 0
            load.run(0.5)
            alone += load.took(viewers, load.run(sides.seconds / TURNS))
            recorded.ahead, before = ahead, recorded.learned
            span = load.run(sides.seconds / TURNS)
            imported, took_s = imported + recorded.learned - before, took_s + span[1] - span[0]
            beside += load.took(viewers, span)
        recorded.ahead = 0
        load.settle()
    what = f"{imported / took_s:.0f} fixations/s imported, at most {ahead} ahead"
    return {**_both(alone, beside), "imported_per_s": imported / took_s, "ahead": ahead, "what": what}


def recovery(sides: Sides) -> list[Row]:
    """The worker is killed in the middle and started again; nobody tells the viewers."""
    with sides.directories.worker(*NO_CHECKPOINT) as worker, Load(worker.address) as load:
        viewers = load.add(sides.count, sides.rate_hz)
        load.run(WARM_S + sides.seconds)
        again = sum(viewer.learned + 1 for viewer in viewers)
        durable = {viewer.name: viewer.durable for viewer in viewers}
        worker.kill()
        killed_s = time.perf_counter()
        worker.start()
        ready: list[float] = []
        threading.Thread(target=_suppressed, args=(lambda: ready.append(worker.ready()),), daemon=True).start()
        durable_s = _until(load, lambda: all(viewer.durable > durable[viewer.name] for viewer in viewers)) - killed_s
        _until(load, lambda: bool(ready))
        caught_s = _until(load, lambda: all(len(viewer.held) <= 2 for viewer in viewers)) - killed_s
        load.pace(viewers, 0.0)
        load.settle()
        waits = [took for viewer in viewers for took in viewer.took if took.due_s + took.learned_ms / 1000 > killed_s]
    row = {
        "again": again, "durable_s": durable_s, "ready_s": ready[0], "caught_up_s": caught_s,
        "worst_durable_s": max(took.durable_ms for took in waits) / 1000,
        "worst_learned_s": max(took.learned_ms for took in waits) / 1000,
    }  # fmt: skip
    return [row]


BESIDE: dict[str, Callable[[Sides], list[Row]]] = {
    "checkpoint": checkpoint,
    "export": export,
    "import": import_,
    "recovery": recovery,
}


def _until(load: Load, condition: Callable[[], bool]) -> float:
    """Go on until ``condition``; when that was. Raises :class:`BenchRefused` where it takes too long."""
    load.run(GIVE_UP_S, until=condition)
    if not condition():
        raise BenchRefused(f"the worker that was started again had not caught up within {GIVE_UP_S:g} s")
    return time.perf_counter()


def _by_turns(
    sides: Sides, worker: BenchWorker, load: Load, go_on: Callable[[BenchWorker, threading.Event], None]
) -> Row:
    viewers: list[Viewer] = load.add(sides.count, sides.rate_hz)
    load.run(WARM_S)
    alone: list[Took] = []
    beside: list[Took] = []
    for _ in range(TURNS):
        alone += load.took(viewers, load.run(sides.seconds / TURNS))
        stop = threading.Event()
        thread = threading.Thread(target=_suppressed, args=(partial(go_on, worker, stop),), daemon=True)
        thread.start()
        span = load.run(sides.seconds / TURNS)
        stop.set()
        beside += load.took(viewers, span)
        while thread.is_alive():
            load.run(0.1)
    return _both(alone, beside)


def _suppressed(go_on: Callable[[], None]) -> None:
    """Of a thread beside: that it came to nothing is seen by what it left."""
    with suppress(ServiceError):
        go_on()


def _both(alone: list[Took], beside: list[Took]) -> Row:
    return {"alone": percentiles(alone), "beside": percentiles(beside)}
