"""A worker without its processes: journal, learner, learning loop, recovery and checkpoints, all real.

Fixations come with their features, so that no retina is needed; what is told to clients and to the control socket is
written down. A crash is that everything is dropped but the directory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zmq

from clients.wire import Gaze, Learned, digest
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner
from model.snapshot import Snapshot
from service.alarms import Alarms
from service.checkpointing import CheckpointWriter
from service.checkpoints import Checkpoints
from service.entries import Applier
from service.features import Features
from service.journal import Admitted, Journal
from service.learning import LearningLoop, Told
from service.mailbox import Mailbox, Stop
from service.publish import Publisher
from service.recovery import Recovery
from service.stepmark import StepMark
from service.watching import Watching
from tests.helpers import fixation_body

CONFIG = ModelConfig.preset(
    "default",
    retina={"features": 12},
    units=16,
    embedding_size=32,
    learning={"warmup": 5},
    predictor={"place_memory": "moving"},
)
PATCH_BYTES = 50
"""Of the patches that stand for real ones: nothing sees them."""
IDENTITY = {"model": CONFIG.model_dump(mode="json"), "seed": 0, "weights": {"name": "none", "digest": "0"}}


@dataclass
class Bench:
    """One life of a worker on ``folder``."""

    folder: Path
    journal: Journal
    learner: Learner
    applier: Applier
    checkpoints: Checkpoints
    writer: CheckpointWriter
    recovery: Recovery
    loop: LearningLoop
    stop: Stop
    told: list[Learned] = field(default_factory=list)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    def applied(self, entry: int, value: dict[str, Any]) -> None:
        self.results[entry] = value

    def serve(self, *, idle: bool) -> None:
        return

    def recover(self) -> None:
        begun = self.recovery.run(self.stop)
        self.loop._checkpoint_id = begun.journal if begun else 0

    def learn(self, turns: int = 1_000_000) -> None:
        """So many turns, or until nothing waits."""
        for _ in range(turns):
            worked = self.loop._turn()
            self.loop._tell_looks(wait=not worked)
            self.loop._take_wanted(now=not worked)
            if not worked:
                return

    def command(self, name: str, stream: str | None = None, **arguments: Any) -> int:
        return self.journal.append_command(name, stream, arguments, time.time())

    def checkpoint(self) -> str:
        """Take a checkpoint by command; its id."""
        entry = self.command("checkpoint")
        self.learn()
        self.writer.stop()
        self.restart_writer()
        return str(self.results[entry]["checkpoint"]["id"])

    def restart_writer(self) -> None:
        self.writer = new_writer(self.checkpoints, self.journal)
        self.writer.start()
        self.loop._writer = self.writer

    @property
    def watching(self) -> Watching:
        assert self.applier.watching is not None
        return self.applier.watching

    def offer(
        self,
        stream: str,
        count: int,
        *,
        sequence: str | None = None,
        size: int = CONFIG.features,
        seen: np.ndarray | None = None,
    ) -> None:
        """The next ``count`` fixations of a stream, their features drawn from name and seq, or ``seen[seq]``."""
        cursors = {cursor.name: cursor for cursor in self.journal.cursors()}
        if stream not in cursors:
            self.journal.claim(stream, 1, time.time())
        first = cursors[stream].next_seq if stream in cursors else 0
        batch = []
        for seq in range(first, first + count):
            body = fixation_body(stream, seq)
            if sequence is not None and seq == first:
                body["sequence"] = {"id": sequence, "start": True}
            text, now_s = json.dumps(body), time.time()
            patch = bytes([seq % 256]) * PATCH_BYTES
            known = digest(body["onset"], body["duration"], Gaze(**body["gaze"]), patch)
            batch.append(Admitted(stream, seq, now_s, text, known, patch, padded=False, frame_deg_assumed=True))
        self.journal.append(batch)
        last = self.journal.last_id()
        made = [features(stream, first + n, size) if seen is None else seen[first + n] for n in range(count)]
        self.journal.put_features((last - count + 1 + n, z) for n, z in enumerate(made))

    def records(self) -> list[tuple[Any, ...]]:
        """Every record but its times, by journal id."""
        columns = "id, stream, seq, position, sequence_id, prediction_error, trivial_ar1, skipped, timeline, embedding"
        return self.journal._read(f"SELECT {columns} FROM records ORDER BY id")

    def alarms(self) -> list[str]:
        return [row[0] for row in self.journal._read("SELECT kind FROM alarms ORDER BY id")]


def features(stream: str, seq: int, size: int) -> np.ndarray:
    generator = np.random.default_rng([seq, *stream.encode()])
    return generator.standard_normal(size).astype(np.float32)


def new_writer(checkpoints: Checkpoints, journal: Journal) -> CheckpointWriter:
    return CheckpointWriter(
        checkpoints, Alarms(journal), IDENTITY, "cpu", keep=3, needed=journal.begun_from, tell=journal.put_checkpoints
    )


@contextmanager
def life(
    folder: Path,
    *,
    before_commit: Callable[[str], None] | None = None,
    fault: Callable[[str], None] = lambda point: None,
    recover: bool = True,
    identity: dict[str, Any] = IDENTITY,
    learner: Callable[[], Learner] = lambda: Learner(CONFIG, seed=0),
    watched: bool = False,
) -> Iterator[Bench]:
    """A worker on ``folder`` from its start to a crash: nothing is finished at the end."""
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    journal = Journal(folder / "rjepa.db", before_commit=before_commit)
    mark = StepMark(folder / "step")
    if mark.entry > journal.learned_id():
        journal.count_crash(mark.entry)
    mark.end()
    alarms = Alarms(journal)
    checkpoints = Checkpoints(folder / "checkpoints", fault=fault)
    writer = new_writer(checkpoints, journal)
    wake: Mailbox[None] = Mailbox()
    stop = Stop(wake)
    made = learner()
    watching = Watching(Diagnostics(made, seed=0), alarms, journal.looks()) if watched else None
    applier = Applier(made, mark, journal.quarantined(), watching=watching)
    retina = None  # every fixation has its features
    seeing = Features(retina, journal, alarms, batch=8, threads=1)  # type: ignore[arg-type]
    recovery = Recovery(applier, journal, checkpoints, seeing, alarms, identity)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.bind("inproc://records")
        bench = Bench(folder, journal, applier.learner, applier, checkpoints, writer, recovery, None, stop)  # type: ignore[arg-type]
        told = Told(Publisher(publisher, embeddings=False), bench.told.extend, bench, lambda: "{}")
        bench.loop = LearningLoop(
            applier, seeing, journal, checkpoints, writer, alarms, told, wake=wake, stop=stop, checkpoint_every_s=3600.0
        )
        writer.start()
        try:
            if recover:
                bench.recover()
            yield bench
        finally:
            bench.writer.stop()
            if applier.watching is not None:
                applier.watching.close()
            journal.close()
            mark.close()
            wake.close()


def same_bits(one: Snapshot, other: Snapshot) -> bool:
    """Whether two snapshots are the same to the last bit."""
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.numpy().tobytes() == other.tensors[name].numpy().tobytes(), name
    return one.meta == other.meta
