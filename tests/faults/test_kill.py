"""kill -9 of the worker, of the client, of both: nothing acked lost, nothing learned twice, the same bits at the end.

Each story is two streams offered as fast as they are taken, a recording and a live one, through a worker that is killed
again and again. Its journal is then learned by another worker in one life, and the two are compared.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from clients.spool import Spool
from service.storage import open_reader
from tests.faults import judge, mortal
from tests.faults.nursery import Child, Nursery
from tests.faults.story import WAIT_S, Home, nursery_of, ready, undisturbed
from tests.helpers import wait_until
from tests.service.bench import same_bits

POINTS = (
    "bound", "taking", "recovery", "commit epoch", "commit fixations", "journalled",
    "commit records", "checkpoint write", "checkpoint sync", "checkpoint rename", "checkpoint done",
    "commit checkpoints",
)  # fmt: skip
"""Of the worker, by name; ``commit fixations`` and ``commit records`` with a delay end it within the commit itself."""
AT_RANDOM = ("worker", "client", "both")
IN_THE_CLIENT = ("offered a", "offered b", "learned a", "learned b")
MOMENTS = (*POINTS, *AT_RANDOM, *IN_THE_CLIENT)
EACH = 100
"""Fixations of each stream in one story."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, Path]]:
    with nursery_of(tmp_path_factory.mktemp("kills")) as both:
        yield both


class Story:
    """One run of both streams to their end, with a kill at each of ``moments`` as they come."""

    def __init__(self, nursery: Nursery, made: Path, folder: Path, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.nursery = nursery
        self.folder = folder
        shutil.copytree(made, folder / "data")
        self.home = Home.at(nursery, folder / "data")
        self.client: Child | None = None
        self.kills: Counter[str] = Counter()

    def tell(self, moments: list[str]) -> None:
        for number, moment in enumerate(moments, 1):
            self._leg(moment, far=2 * EACH * number // (len(moments) + 1))
        process = self.home.worker()
        while (client := self._client()).wait(WAIT_S) == -signal.SIGKILL:
            continue  # a fate of an earlier leg came late: another one goes on
        assert client.ended() == 0, client.said()
        ready(process)
        assert process.terminate(WAIT_S) == 0, process.said()

    def _client(self, fate: dict[str, object] | None = None) -> Child:
        """The client; another one where it was killed, or is to have a fate."""
        if self.client is not None and fate is not None:
            self.client.kill()
        if self.client is None or fate is not None or self.client.ended() == -signal.SIGKILL:
            arguments = {"address": self.home.ingest, "folder": str(self.folder / "client"), "count": EACH}
            self.client = self.nursery.start("client", **arguments, fate=fate)
        return self.client

    def _leg(self, moment: str, far: int) -> None:
        """One life of the worker: it, or its client, ends at ``moment``, or in passing, once ``far`` are learned."""
        delay_s = float(self.generator.uniform(0.0, 0.003)) if self.generator.random() < 0.5 else 0.0
        count = int(self.generator.integers(1, 3 if moment.startswith(("checkpoint", "recovery")) else 5))
        fate = {"point": moment, "count": count, "delay_s": delay_s}
        process = self.home.worker(fate=fate if moment in POINTS else None)
        client = self._client(fate if moment in IN_THE_CLIENT else None)
        if moment in AT_RANDOM:
            threading.Event().wait(float(self.generator.uniform(0.0, 2.0)))
            for each in {"worker": [process], "client": [client], "both": [process, client]}[moment]:
                if each.ended() is None:
                    os.kill(each.pid, signal.SIGKILL)

        def over() -> bool:
            return process.ended() is not None or client.ended() is not None or self._learned() >= far

        wait_until(over, WAIT_S, moment)
        met = -signal.SIGKILL in (process.ended(), client.ended())
        self.kills[moment if met else "in passing" if client.ended() is None else "at rest"] += 1
        process.kill()
        if moment != "client":
            self._check_acks()
        assert client.ended() in (None, 0, -signal.SIGKILL), client.said()

    def _check_acks(self) -> None:
        """What the client knows to be acked is in the journal of the dead worker."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        acked = self._acked()
        shutil.copytree(self.home.data_dir, copy, ignore=shutil.ignore_patterns("control.sock"))
        found = judge.read(copy)
        for name, count in acked.items():
            assert found.next_seq.get(name, 0) >= count, f"{name}: acked {count}, held {found.next_seq}"

    def _learned(self) -> int:
        """How many fixations have been learned."""
        with closing(open_reader(self.home.data_dir / "rjepa.db")) as reader:
            return int(reader.execute("SELECT coalesce(sum(learned_seq + 1), 0) FROM streams").fetchone()[0])

    def _acked(self) -> dict[str, int]:
        path = self.folder / "client" / "acked"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return {name: max([line[name] for line in lines], default=0) for name in mortal.STREAMS}

    def judge(self, made: Path) -> str:
        """The sha256 of the learner at the end, which is that of a worker never killed."""
        found = judge.read(self.home.data_dir)
        assert found.learned_id == found.last_id
        onsets = {name: [onset for other, _, onset in found.fixations if other == name] for name in mortal.STREAMS}
        assert onsets["a"] == [0.25 * number for number in range(EACH)], "a recording is there as a whole"
        assert all(np.diff(onsets["b"]) > 0), "a live stream's are in order and none is there twice"
        acked = self._acked()
        assert acked["a"] == EACH
        with_spool = Spool(self.folder / "client" / "spool-b", "b")
        assert with_spool.entries() == []
        assert with_spool.acked == len(onsets["b"]) - 1
        with_spool.close()
        plain = undisturbed(self.nursery, made, self.folder / "plain", found.fixations)
        assert judge.read(plain).records == found.records
        (cursors, learner), (plain_cursors, plain_learner) = judge.newest(self.home.data_dir), judge.newest(plain)
        assert cursors == plain_cursors == found.next_seq
        assert same_bits(learner, plain_learner)
        killed, whole = judge.sha256(learner), judge.sha256(plain_learner)
        print(f"{sum(self.kills.values())} kills {dict(self.kills)}\n  killed {killed}\n  whole  {whole}")
        assert killed == whole
        return killed


def tell(prepared: tuple[Nursery, Path], folder: Path, seed: int, moments: list[str]) -> Counter[str]:
    nursery, made = prepared
    folder.mkdir()
    story = Story(nursery, made, folder, seed)
    print(f"seed {seed}: {', '.join(moments)}")
    story.tell(moments)
    story.judge(made)
    return story.kills


def chosen(seed: int, count: int) -> list[str]:
    """``count`` moments: all there are in random order, as often as it takes."""
    generator = np.random.default_rng(seed)
    rounds = -(-count // len(MOMENTS))
    return [str(moment) for _ in range(rounds) for moment in generator.permutation(MOMENTS)][:count]


@pytest.mark.timeout(1800)
def test_ten_kills(prepared: tuple[Nursery, Path], tmp_path: Path) -> None:
    """One at each kind of point, in one story."""
    moments = ["journalled", "client", "checkpoint rename", "recovery", "commit fixations", "both"]
    moments += ["bound", "commit records", "worker", "checkpoint sync"]
    kills = tell(prepared, tmp_path / "story", 1, moments)
    assert sum(kills.values()) == 10
    assert kills["at rest"] <= 4, "most of them in the midst of it"
    assert sum(kills[moment] for moment in MOMENTS) >= 1, (
        "which points are met in ten hangs on the machine; the soak meets all"
    )


@pytest.mark.soak
def test_two_hundred_kills(prepared: tuple[Nursery, Path], tmp_path: Path) -> None:
    kills: Counter[str] = Counter()
    moments = chosen(5, 200)
    for begin in range(0, len(moments), 10):
        kills += tell(prepared, tmp_path / str(begin), 100 + begin, moments[begin : begin + 10])
        shutil.rmtree(tmp_path / str(begin))
    print(f"{sum(kills.values())} kills: {dict(kills)}")
    assert sum(kills.values()) == 200
    assert set(MOMENTS) <= set(kills)
    assert kills["at rest"] <= 10
