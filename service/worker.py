"""``rjepa worker``: takes fixations, learns them one after the other, and can be asked about it.

Four threads share the work: ingest (:mod:`service.ingest`) owns the door, this one the learner, one the control
socket (:mod:`service.control`), one writes checkpoints (:mod:`service.checkpointing`).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import zmq
from tqdm import tqdm

from clients.wire import ModelOffer
from model.config import ModelConfig
from model.learner import Learner
from model.retina import Retina
from model.weights import WeightsSource, parse_weights
from service import ingest as ingesting
from service import log as logs
from service import publish as publishing
from service.access import Access, Authenticator, check_bind, secure_server
from service.alarms import Alarms
from service.checkpointing import CheckpointWriter
from service.checkpoints import Checkpoints
from service.control import ControlServer
from service.datadir import DataDirectory
from service.desk import Desk
from service.entries import Applier
from service.errors import AddressInUse, SettingsError
from service.features import LEARNING_THREADS, Features
from service.ingest import Ingest
from service.journal import Journal
from service.learning import LearningLoop, Stop, Told
from service.mailbox import Mailbox
from service.parent import end_with_parent
from service.publish import Publisher
from service.recovery import Progress, Recovery
from service.settings import Settings, chosen_weights, load_settings
from service.stepmark import StepMark

LONG_RECOVERY_S = 10.0
"""After a recovery longer than this a checkpoint is taken at once."""

log = logging.getLogger("rjepa.worker")


class _Stopped(Exception):
    """Asked to end before there was anything to end."""


@dataclass(frozen=True)
class _Opened:
    """What a worker holds of the outside."""

    directory: DataDirectory
    context: zmq.Context[Any]
    router: zmq.Socket[Any]
    publisher: zmq.Socket[Any]
    access: Access
    journal: Journal
    retina: Retina
    identity: dict[str, Any]


def main(argv: list[str]) -> int:
    """Run until SIGTERM, SIGINT or the end of the parent; 0 after an orderly end, 1 where a thread failed."""
    settings = load_settings(argv, "worker")
    end_with_parent()
    wake: Mailbox[None] = Mailbox()
    stop = Stop(wake)

    def asked(number: int, frame: FrameType | None) -> None:
        stop.ask()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    logs.set_up(as_json=settings.log_json)
    source = parse_weights(chosen_weights(settings))
    config = _model_config(settings)
    try:
        return Worker(settings, config, source, wake, stop).run()
    except _Stopped:
        return 0


class Worker:
    """One worker's life: :meth:`run`."""

    def __init__(
        self, settings: Settings, config: ModelConfig, source: WeightsSource, wake: Mailbox[None], stop: Stop
    ) -> None:
        self._settings = settings
        self._config = config
        self._source = source
        self._wake = wake
        self._stop = stop
        self._started_s = time.time()
        self._model: dict[str, Any] = {}

    def run(self) -> int:
        """Open, recover, learn, and end: everything opened is closed again, whatever happens."""
        with ExitStack() as stack:
            return self._work(self._open(stack), stack)

    def _open(self, stack: ExitStack) -> _Opened:
        """The addresses first, so that a taken one is found before anything long begins."""
        settings = self._settings
        directory = DataDirectory(settings.data_dir)
        stack.callback(directory.close)
        context = stack.enter_context(zmq.Context())
        access = Access.load(settings.access_folder)
        check_bind(settings.ingest, access)
        check_bind(settings.publish, access)
        stack.enter_context(Authenticator(context, access))
        router, publisher = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
        stack.callback(router.close)
        stack.callback(publisher.close)
        ingesting.configure(router)
        publishing.configure(publisher)
        _bind(router, settings.ingest, "ingest", access)
        _bind(publisher, settings.publish, "publish", access)
        journal = Journal(directory.database)
        stack.callback(journal.close)
        with _bar() as tell:
            retina, identity = directory.open_retina(
                journal, self._config, self._source, settings, self._unless_stopped(tell)
            )
        return _Opened(directory, context, router, publisher, access, journal, retina, identity)

    def _work(self, opened: _Opened, stack: ExitStack) -> int:
        settings, journal, retina = self._settings, opened.journal, opened.retina
        torch.set_num_threads(LEARNING_THREADS)
        alarms = Alarms(journal)
        learner = Learner(self._config, seed=settings.seed, device=settings.device)
        checkpoints = Checkpoints(opened.directory.checkpoints)
        batch, threads = opened.identity["batch_shape"], opened.identity["threads"]
        features = Features(retina, journal, alarms, batch=batch, threads=threads)
        writer = CheckpointWriter(checkpoints, alarms, opened.identity, settings.device, keep=settings.keep_checkpoints)
        applier = Applier(learner, self._mark(opened.directory, journal, stack))
        applier.quarantined = journal.quarantined()
        recovery = Recovery(applier, journal, checkpoints, features, alarms, opened.identity)
        journal.put_meta("model", self._describe(learner, retina))

        def ring() -> None:
            self._wake.put(None)

        offer = ModelOffer(name=self.model["name"], embedding_size=self.model["embedding_size"])
        ingest = Ingest(opened.router, journal, opened.access, offer, on_append=ring, on_end=self._stop.ask)
        status = _Status(self, ingest, journal, writer, recovery.progress)
        desk = Desk(journal, checkpoints, learner, features, status=status, wake=ring)
        publisher = Publisher(opened.publisher, embeddings=settings.publish_embeddings)
        told = Told(publisher, ingest.tell, desk, lambda: self._describe(learner, retina))
        loop = status.loop = LearningLoop(
            applier, features, journal, checkpoints, writer, alarms, told,
            wake=self._wake, stop=self._stop, checkpoint_every_s=settings.checkpoint_every,
        )  # fmt: skip
        control = ControlServer(opened.context, settings.data_dir, desk)
        for thread in (control, writer, ingest):
            thread.start()
            stack.callback(thread.stop)
        log.info("taking fixations on %s, process %d", settings.ingest, os.getpid())
        begun_s = time.monotonic()
        begun = recovery.run(self._stop)
        writer.last = begun.id if begun else None
        self._describe(learner, retina)
        if not recovery.progress.recovering:
            log.info("ready: %d entries learned again", recovery.progress.recovered)
        loop.run(begun, checkpoint_now=time.monotonic() - begun_s > LONG_RECOVERY_S)
        return self._end(ingest, loop, desk)

    def _end(self, ingest: Ingest, loop: LearningLoop, desk: Desk) -> int:
        failed = not ingest.is_alive()
        log.info("ending: what is acked is learned or stays in the journal")
        ingest.stop()
        desk.close()
        loop.finish()
        return 1 if failed else 0

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
        self, worker: Worker, ingest: Ingest, journal: Journal, writer: CheckpointWriter, progress: Progress
    ) -> None:
        self._worker = worker
        self._ingest = ingest
        self._journal = journal
        self._writer = writer
        self._progress = progress
        self.loop: LearningLoop | None = None

    def __call__(self) -> dict[str, Any]:
        waiting, oldest_s = self._journal.waiting()
        return {
            "pid": os.getpid(),
            "started": self._worker.started_s,
            "recovering": self._progress.recovering,
            "recovered": self._progress.recovered,
            "to_recover": self._progress.to_recover,
            "waiting": waiting,
            "oldest_wait_s": None if oldest_s is None else max(0.0, time.time() - oldest_s),
            "storage": self._ingest.storage or (self.loop.storage if self.loop else None),
            "last_checkpoint": self._writer.last,
            "owners": self._ingest.owners(),
            "model": self._worker.model,
        }


def _model_config(settings: Settings) -> ModelConfig:
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError("--device cuda: torch finds no CUDA device here; say --device cpu")
    overrides = {} if settings.gates is None else {"gates": settings.gates}
    return ModelConfig.preset(settings.preset, **overrides)


def _bind(socket: zmq.Socket[Any], address: str, name: str, access: Access) -> None:
    secure_server(socket, access)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise AddressInUse(
                f"{address} is taken by another program; end that one or name another with --{name} tcp://HOST:PORT"
            ) from None
        raise SettingsError(f"--{name} {address} can't be opened: {error.strerror}; name one of this machine") from None


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
