"""The thread that writes checkpoints: how much it holds meanwhile and afterwards."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

from model.diagnostics import Diagnostics
from tests.helpers import wait_until
from tests.service.bench import life


def test_what_was_written_is_held_no_longer(tmp_path: Path) -> None:
    with life(tmp_path, watched=True) as bench:
        bench.offer("a", 10)
        bench.learn()
        diagnostics = Diagnostics(bench.learner, seed=0)
        taken = (bench.learner.snapshot(), diagnostics.pack())
        held = [weakref.ref(next(iter(each.tensors.values()))) for each in taken]
        bench.writer.submit(taken[0], bench.applier.place(), diagnostics=taken[1])
        del taken
        wait_until(lambda: not bench.writer.busy, 20, "the checkpoint's end")
        gc.collect()
        wait_until(lambda: all(each() is None for each in held), 5, "its memory")
        assert bench.writer.last is not None


def test_no_more_than_one_waits(tmp_path: Path) -> None:
    begun, go_on, handed = threading.Event(), threading.Event(), threading.Event()

    def fault(point: str) -> None:
        if point == "write":
            begun.set()
            assert go_on.wait(20)

    with life(tmp_path, fault=fault) as bench:
        bench.offer("a", 10)
        bench.learn()

        def submit() -> None:
            bench.writer.submit(bench.learner.snapshot(), bench.applier.place())

        def third() -> None:
            submit()
            handed.set()

        submit()
        assert begun.wait(20)
        submit()
        thread = threading.Thread(target=third)
        thread.start()
        try:
            assert not handed.wait(0.2)
        finally:
            go_on.set()
            thread.join()
        wait_until(lambda: not bench.writer.busy, 20, "the last one's end")
        assert len(bench.checkpoints.list()) == 3
