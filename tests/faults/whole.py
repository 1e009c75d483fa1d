"""Sixty fixations of two streams, what a worker that is never disturbed makes of them, and whether another did too."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.snapshot import Snapshot
from service.check import check
from tests.faults import judge, mortal
from tests.faults.nursery import Child, Nursery
from tests.faults.story import WAIT_S, Home, body, interleaved, ready
from tests.helpers import PlainClient, wait_until
from tests.service.bench import same_bits

EACH = 30
ORDER = interleaved(EACH)
LAST = {"a": EACH - 1, "b": EACH - 1}
TAKEN = re.compile(r"checkpoint (\S+): journal id \d+, \d+ bytes")
LOADED = re.compile(r"checkpoint (\S+) loaded")


@dataclass(frozen=True)
class Whole:
    """A nursery, a directory in which nothing was learned, and the end of :data:`ORDER`: records and learner."""

    nursery: Nursery
    made: Path
    records: list[tuple[Any, ...]]
    learner: Snapshot

    def home(self, folder: Path) -> Home:
        """A new data directory."""
        shutil.copytree(self.made, folder)
        return Home.at(self.nursery, folder)

    def judge(self, data: Path, *, faultless: bool = True) -> str:
        """The sha256 of the learner in ``data``, which has the records and the bits of one never disturbed.

        ``faultless``: ``rjepa check`` finds nothing wrong, either.
        """
        found = judge.read(data)
        assert [(name, number) for name, number, _ in found.fixations] == list(ORDER)
        assert found.records == self.records
        assert found.learned_id == found.last_id
        learner = judge.newest(data)[1]
        assert same_bits(learner, self.learner)
        if faultless:
            assert check(data).said() == []
        return judge.sha256(learner)


class OneByOne(PlainClient):
    """Sends one fixation after the other, so that what the worker says of each is known, and their order with it."""

    def claim(self) -> dict[str, int]:
        """Say hello for both streams, again where the disk refuses the claim; each one's next seq."""
        begun: dict[str, int] = {}
        while len(begun) < len(mortal.STREAMS):
            name = mortal.STREAMS[len(begun)]
            self.send("hello", {"stream": name, "notify": "durable"})
            kind, told = self.receive(limit_s=WAIT_S)
            assert kind == "welcome" or told["code"] == "storage_failed", (kind, told)
            if kind == "welcome":
                begun[name] = told["next_seq"]
        return begun

    def offer(self, name: str, number: int) -> str | None:
        """None once the fixation is acked, or the code of the error it was answered with: then nothing was acked."""
        self.send("fixation", body(name, number, number), mortal.patch_of(name, number).tobytes())
        while True:
            kind, told = self.receive(limit_s=WAIT_S)
            if kind == "error":
                if (told["stream"], told["seq"]) != (name, number):
                    continue  # one that is held already, and was offered again to hear how far it is
                return str(told["code"])
            assert kind == "ack", (kind, told)
            if told["stream"] == name and told["seq"] >= number:
                return None

    def until_learned(self, seqs: dict[str, int], limit_s: float = WAIT_S) -> None:  # type: ignore[override]
        """Until each stream is learned up to its seq; offering a fixation again tells how far it is."""
        for name, seq in seqs.items():
            told: dict[str, Any] = {"learned": -1}

            def far(name: str = name, seq: int = seq) -> bool:
                self.send("fixation", body(name, seq, seq), mortal.patch_of(name, seq).tobytes())
                while True:
                    kind, told = self.receive(limit_s=WAIT_S)
                    assert kind == "ack", (kind, told)
                    if told["stream"] == name and told["seq"] >= seq:
                        return bool(told["learned"] >= seq)

            wait_until(far, limit_s, f"{name} to be learned up to {seq}, last {told}")


def told(process: Child, what: re.Pattern[str]) -> list[str]:
    """The ids in what a worker said."""
    return what.findall(process.log.read_text(errors="replace"))


def taken(process: Child, after: int = 0) -> str:
    """Wait until a worker has told of more than ``after`` checkpoints; the newest's id."""
    return wait_until(lambda: told(process, TAKEN)[after:], WAIT_S, "a checkpoint")[-1]


def stop(process: Child) -> None:
    """An orderly end, after recovery."""
    ready(process)
    assert process.terminate(WAIT_S) == 0, process.said()
