"""One life of a worker, from opening the journal to the last checkpoint: who does what, in which thread."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from tqdm import tqdm

from clients.wire import ModelOffer
from model.config import ModelConfig
from model.diagnostics import Diagnostics
from model.learner import Learner
from model.retina import Retina
from model.weights import parse_weights
from service import collector
from service.alarms import Alarms
from service.checkpointing import CheckpointWriter
from service.checkpoints import Checkpoints
from service.control import ControlServer
from service.datadir import DataDirectory
from service.desk import Desk
from service.dropped import Drops
from service.entries import Applier
from service.errors import SettingsError
from service.features import LEARNING_THREADS, Features
from service.identity import open_retina
from service.ingest import Ingest
from service.journal import Journal
from service.learning import LearningLoop, Told
from service.mailbox import Mailbox, Stop
from service.outside import Outside
from service.publish import Publisher
from service.recovery import Progress, Recovery
from service.retained import DAY_S, Limits
from service.retention import Retention
from service.settings import Settings, chosen_weights
from service.stepmark import StepMark
from service.vigil import Bounds, Vigil
from service.watching import Watching

GB = 1e9
LONG_RECOVERY_S = 10.0
"""After a recovery longer than this a checkpoint is taken at once."""

log = logging.getLogger("rjepa.worker")


class _Stopped(Exception):
    """Asked to end before there was anything to end."""


class Life:
    """One worker's life: :meth:`run`.

    ``config``: another model than the settings' preset. ``fault`` is called with the name of a point as the worker gets
    there, in whatever thread: ``commit WHAT`` (all written, nothing committed), ``journalled`` (committed, nothing
    acked), ``checkpoint POINT``, ``taking`` (the door is open, nothing recovered), ``recovery`` (before an entry).
    """

    def __init__(
        self,
        settings: Settings,
        outside: Outside,
        wake: Mailbox[None],
        stop: Stop,
        *,
        config: ModelConfig | None = None,
        fault: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._settings = settings
        self._outside = outside
        self._wake = wake
        self._stop = stop
        self._config = config or _model_config(settings)
        self._fault = fault
        self._source = parse_weights(chosen_weights(settings))
        self._started_s = time.time()
        self._model: dict[str, Any] = {}

    def run(self) -> int:
        """Open, recover, learn, and end: everything opened is closed again, whatever happens.

        The exit code: 0 after an orderly end, 1 where a thread failed.
        """
        with ExitStack() as stack:
            journal = Journal(
                self._outside.directory.database, before_commit=lambda what: self._fault(f"commit {what}")
            )
            stack.callback(journal.close)
            try:
                with _bar() as tell:
                    retina, identity = open_retina(
                        self._outside.directory,
                        journal,
                        self._config,
                        self._source,
                        self._settings,
                        self._unless_stopped(tell),
                    )
            except _Stopped:
                return 0
            return self._work(stack, journal, retina, identity)

    def _work(self, stack: ExitStack, journal: Journal, retina: Retina, identity: dict[str, Any]) -> int:
        settings, outside = self._settings, self._outside
        torch.set_num_threads(LEARNING_THREADS)
        alarms = Alarms(journal)
        learner = Learner(self._config, seed=settings.seed, device=settings.device)
        checkpoints = Checkpoints(outside.directory.checkpoints, fault=lambda point: self._fault(f"checkpoint {point}"))
        batch, threads = identity["batch_shape"], identity["threads"]
        features = Features(retina, journal, alarms, batch=batch, threads=threads)
        writer = CheckpointWriter(
            checkpoints, alarms, identity, settings.device,
            keep=settings.keep_checkpoints, hours=settings.keep_hourly_checkpoints, needed=journal.begun_from,
            tell=journal.put_checkpoints,
        )  # fmt: skip
        watching = self._watching(learner, journal, alarms, stack)
        applier = Applier(learner, self._mark(outside.directory, journal, stack), watching=watching)
        applier.quarantined = journal.quarantined()
        recovery = Recovery(applier, journal, checkpoints, features, alarms, identity)
        journal.put_meta("model", self._describe(learner, retina))

        def ring() -> None:
            self._wake.put(None)

        def appended() -> None:
            self._fault("journalled")
            ring()

        offer = ModelOffer(name=self.model["name"], embedding_size=self.model["embedding_size"])
        drops = Drops(journal, alarms)
        ingest = Ingest(
            outside.router, journal, outside.access, offer,
            on_append=appended, on_dropped=drops.heard, on_end=self._stop.ask,
        )  # fmt: skip
        status = _Status(self, ingest, journal, writer, recovery.progress)
        desk = Desk(journal, checkpoints, learner, features, status=status, wake=ring, watching=watching)
        publisher = Publisher(outside.publisher, embeddings=settings.publish_embeddings)
        told = Told(publisher, ingest.tell, desk, lambda: self._describe(learner, retina))
        loop = status.loop = LearningLoop(
            applier, features, journal, checkpoints, writer, alarms, told,
            wake=self._wake, stop=self._stop, checkpoint_every_s=settings.checkpoint_every,
        )  # fmt: skip
        control = ControlServer(outside.context, settings.data_dir, desk, on_end=self._stop.ask)
        collector.leave_out()
        for thread in (control, writer, ingest, *self._care(journal, checkpoints, alarms, drops)):
            thread.start()
            stack.callback(thread.stop)
        log.info("taking fixations on %s, process %d", settings.ingest, os.getpid())
        self._fault("taking")
        begun_s = time.monotonic()
        begun = recovery.run(self._stop_recovery)
        writer.last = begun.id if begun else None
        self._describe(learner, retina)
        if not recovery.progress.recovering:
            log.info("ready: %d entries learned again", recovery.progress.recovered)
        loop.run(begun, checkpoint_now=time.monotonic() - begun_s > LONG_RECOVERY_S)
        return self._end(ingest, control, loop, desk)

    def _stop_recovery(self) -> bool:
        self._fault("recovery")
        return self._stop()

    def _end(self, ingest: Ingest, control: ControlServer, loop: LearningLoop, desk: Desk) -> int:
        failed = not (ingest.is_alive() and control.is_alive())
        log.info("ending: what is acked is learned or stays in the journal")
        ingest.stop()
        desk.close()
        loop.finish()
        return 1 if failed else 0

    def _care(
        self, journal: Journal, checkpoints: Checkpoints, alarms: Alarms, drops: Drops
    ) -> tuple[Retention, Vigil]:
        """What goes on beside learning."""
        settings = self._settings
        limits = Limits(settings.keep_patches_days * DAY_S, settings.keep_patches_gb * GB)
        bounds = Bounds(settings.lag_limit, settings.disk_low_gb * GB, settings.idle_after)
        return Retention(journal, checkpoints, limits), Vigil(journal, alarms, drops, settings.data_dir, bounds)

    def _watching(self, learner: Learner, journal: Journal, alarms: Alarms, stack: ExitStack) -> Watching | None:
        """The diagnostics beside the learner; None where they are off."""
        if not self._settings.diagnostics:
            journal.drop_looks()
            return None
        watching = Watching(Diagnostics(learner, seed=self._settings.seed), alarms, journal.looks())
        stack.callback(watching.close)
        return watching

    def _mark(self, directory: DataDirectory, journal: Journal, stack: ExitStack) -> StepMark:
        """The step mark; what the last process left in it is counted."""
        mark = StepMark(directory.step)
        stack.callback(mark.close)
        if mark.entry > journal.learned_id():
            count = journal.count_crash(mark.entry)
            log.warning("the last process ended while it learned journal id %d (%d times so far)", mark.entry, count)
        mark.end()
        return mark

    def _describe(self, learner: Learner, retina: Retina) -> str:
        """Keep the model's description for whoever asks; as JSON text."""
        self._model = {
            **learner.describe(),
            "device": self._settings.device,
            "weights": str(self._source),
            "retina": retina.describe(),
        }
        return json.dumps(self._model)

    @property
    def model(self) -> dict[str, Any]:
        """The model's description as of the last command."""
        return self._model

    @property
    def started_s(self) -> float:
        """When this process began, unix s."""
        return self._started_s

    def _unless_stopped(self, tell: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def check(done: int, total: int) -> None:
            tell(done, total)
            if self._stop():
                raise _Stopped

        return check


class _Status:
    """The answer to ``status``."""

    def __init__(
        self, life: Life, ingest: Ingest, journal: Journal, writer: CheckpointWriter, progress: Progress
    ) -> None:
        self._life = life
        self._ingest = ingest
        self._journal = journal
        self._writer = writer
        self._progress = progress
        self.loop: LearningLoop | None = None

    def __call__(self) -> dict[str, Any]:
        waiting, oldest_s = self._journal.waiting()
        return {
            "pid": os.getpid(),
            "started": self._life.started_s,
            "recovering": self._progress.recovering,
            "recovered": self._progress.recovered,
            "to_recover": self._progress.to_recover,
            "waiting": waiting,
            "oldest_wait_s": None if oldest_s is None else max(0.0, time.time() - oldest_s),
            "storage": self._ingest.storage or (self.loop.storage if self.loop else None),
            "last_checkpoint": self._writer.last,
            "owners": self._ingest.owners(),
            "model": self._life.model,
        }


def _model_config(settings: Settings) -> ModelConfig:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; say --device cpu")
    overrides = {} if settings.gates is None else {"gates": settings.gates}
    return ModelConfig.preset(settings.preset, **overrides, dense_step=settings.dense_step)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr that appears when there is progress."""
    bars: list[tqdm[Any]] = []

    def tell(done: int, total: int) -> None:
        if not bars:
            bars.append(tqdm(desc="calibrating", unit="patch", total=total, disable=None))
        bars[0].update(done - bars[0].n)

    try:
        yield tell
    finally:
        for bar in bars:
            bar.close()
