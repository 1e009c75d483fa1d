"""The network is cut and heals: two streams of a real client go through it to the end, each fixation once, in order."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clients.spool import Spool
from tests.faults import mortal
from tests.faults.lab import Lab, lab
from tests.faults.nursery import Child, Nursery
from tests.faults.proxy import KINDS, Cut, Proxy
from tests.faults.story import WAIT_S
from tests.helpers import wait_until

EACH = 160
"""Fixations of each stream in one story, 8 kB each on the wire."""


class Story:
    """One run of both streams through a proxy that is cut in each of ``kinds`` as they come."""

    def __init__(self, lab: Lab, folder: Path, seed: int) -> None:
        self.lab = lab
        self.client_folder = folder / "client"
        self.generator = np.random.default_rng(seed)
        self.cuts: Counter[str] = Counter()
        self.connections = 0

    def tell(self, kinds: list[str]) -> None:
        proxy = Proxy(int(self.lab.home.ingest.rpartition(":")[2]))
        try:
            arguments = {"address": proxy.address, "folder": str(self.client_folder), "count": EACH}
            client = self.lab.home.nursery.start("client", **arguments)
            for kind in kinds:
                self._cut(proxy, client, kind)
            assert client.wait(WAIT_S) == 0, client.said()
            self.connections = proxy.connections
        finally:
            proxy.close()

    def _cut(self, proxy: Proxy, client: Child, kind: str) -> None:
        """A cut in the midst of what goes up, or of what comes down, and its end."""
        up = bool(self.generator.random() < 0.5)
        after = int(self.generator.integers(10_000, 60_000) if up else self.generator.integers(200, 1_500))
        taken = proxy.connections
        proxy.arm(Cut(kind, up, after))
        wait_until(lambda: proxy.struck.is_set() or client.ended() is not None, WAIT_S, f"a cut ({kind})")
        assert proxy.struck.is_set(), client.said()
        if kind == "silence":
            wait_until(proxy.knocked.is_set, WAIT_S, "the client to try anew by itself")
        elif kind == "refuse":
            threading.Event().wait(float(self.generator.uniform(0.2, 0.8)))  # how long it lasts: nobody can be seen
        elif kind == "trickle":
            enough = proxy.passed_bytes + int(self.generator.integers(2_000, 30_000))
            wait_until(lambda: proxy.passed_bytes > enough or client.ended() is not None, WAIT_S, "what trickles")
        proxy.heal()
        if kind != "trickle":
            wait_until(lambda: proxy.connections > taken or client.ended() is not None, WAIT_S, "a new connection")
        self.cuts[f"{kind} {'up' if up else 'down'}"] += 1

    def judge(self) -> None:
        found = self.lab.end()
        whole = [0.25 * number for number in range(EACH)]
        for name in mortal.STREAMS:
            assert [onset for other, _, onset in found.fixations if other == name] == whole, name
            with_spool = Spool(self.client_folder / f"spool-{name}", name)
            assert with_spool.entries() == []
            with_spool.close()
        lines = (self.client_folder / "acked").read_text().splitlines()
        assert {name: json.loads(lines[-1])[name] for name in mortal.STREAMS} == found.next_seq
        print(f"{sum(self.cuts.values())} cuts {dict(self.cuts)}, {self.connections} connections")
        self.lab.check_bits(found)


def chosen(seed: int, count: int) -> list[str]:
    """``count`` kinds of cut: each as often as any other, in random order."""
    generator = np.random.default_rng(seed)
    rounds = -(-count // len(KINDS))
    return [str(kind) for _ in range(rounds) for kind in generator.permutation(KINDS)][:count]


def tell(prepared: tuple[Nursery, Path], folder: Path, seed: int, kinds: list[str]) -> Counter[str]:
    folder.mkdir()
    print(f"seed {seed}: {', '.join(kinds)}")
    with lab(prepared, folder) as found:
        story = Story(found, folder, seed)
        story.tell(kinds)
        story.judge()
        assert story.connections > len(mortal.STREAMS), "the client has come back by itself"
        return story.cuts


@pytest.mark.timeout(900)
def test_eight_cuts(connected: tuple[Nursery, Path], tmp_path: Path) -> None:
    """Each kind twice."""
    cuts = tell(connected, tmp_path / "story", 1, chosen(1, 8))
    assert sum(cuts.values()) == 8


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_two_hundred_cuts(connected: tuple[Nursery, Path], tmp_path: Path) -> None:
    cuts: Counter[str] = Counter()
    kinds = chosen(5, 200)
    for begin in range(0, len(kinds), 8):
        cuts += tell(connected, tmp_path / str(begin), 100 + begin, kinds[begin : begin + 8])
        shutil.rmtree(tmp_path / str(begin))
    print(f"{sum(cuts.values())} cuts: {dict(cuts)}")
    assert sum(cuts.values()) == 200
    assert {f"{kind} {way}" for kind in KINDS for way in ("up", "down")} == set(cuts)
