"""Where ``rjepa learn`` puts what it learned: a data directory like a worker's, its journal empty.

    rjepa.db          the identity, so that ``rjepa serve`` takes the folder as it is; and, as ``learn`` in ``meta``,
                      what was asked for
    calibration.safetensors
    checkpoints/      as the worker writes them; the learner's meta says how far the epochs are
    epochs.json       the rows of the finished epochs

A checkpoint is all that is gone on from, so a crash at any moment leaves the last one.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from model.backbone import Engine, Precision
from model.calibration import Calibration
from model.config import ModelConfig
from model.epochs import META
from model.snapshot import Snapshot
from service.checkpoints import Checkpoints, Place
from service.datadir import DataDirectory
from service.errors import DirectoryRefused
from service.identity import MOST_THREADS
from service.journal import Journal
from service.storage import open_reader

if TYPE_CHECKING:
    from typing_extensions import Self

ROWS = "epochs.json"
_ASKED = "learn"
_KEPT = 2
_TIMELINE = 0


class Eyes(NamedTuple):
    """What made the features: a retina's weights, by name and digest, its seed, and its calibration."""

    weights: dict[str, str]
    seed: int
    calibration: Calibration
    threads: int
    engine: Engine
    precision: Precision

    def identity(self, config: ModelConfig) -> dict[str, Any]:
        """The identity of a data directory with a learner of ``config``; see :mod:`service.identity`."""
        return {
            "model": config.model_dump(mode="json"),
            "weights": self.weights,
            "seed": self.seed,
            "calibration": self.calibration.digest,
            "batch_shape": config.retina.batch_shape,
            "threads": self.threads,
            "engine": self.engine,
            "precision": self.precision,
        }


def retina_threads() -> int:
    """Threads of the retina, as a worker without ``--threads`` has them."""
    return min(os.cpu_count() or 1, MOST_THREADS)


def asked_before(path: Path) -> dict[str, Any] | None:
    """What ``path`` was begun with; None where it is new. Nothing is written or locked.

    Raises :class:`DirectoryRefused` where it is something else, or was learned in live since.
    """
    database = path / "rjepa.db"
    if not database.exists():
        if path.exists() and not path.is_dir():
            raise DirectoryRefused(f"{path} is no folder; name another one with --into")
        return None
    try:
        with closing(open_reader(database)) as connection:
            meta = {row[0]: row[1] for row in connection.execute("SELECT key, value FROM meta")}
            live = int(connection.execute("SELECT count(*) FROM journal").fetchone()[0])
    except sqlite3.Error as error:
        raise DirectoryRefused(f"{database} can't be read ({error}); name another folder with --into") from None
    if live:
        raise DirectoryRefused(
            f"{path} has a journal of its own ({live} entries): a worker was there; name another folder with --into "
            "(and learn from this one with --from)"
        )
    if _ASKED not in meta:
        if "identity" in meta:
            raise DirectoryRefused(f"{path} is a worker's data directory; name another folder with --into")
        return None
    asked: dict[str, Any] = json.loads(meta[_ASKED])
    return asked


class LearnDirectory:
    """``path``, locked and open for writing; made if it is not there. To be left as a context."""

    def __init__(self, path: Path, config: ModelConfig, eyes: Eyes, asked: dict[str, Any], device: str) -> None:
        """Begin, or go on. Raises :class:`DirectoryRefused`, naming what differs, or ``DirectoryInUse``."""
        before = asked_before(path)
        if before is not None:
            _compare(path, before, asked)
        self.path = path
        self._identity = eyes.identity(config)
        self._device = device
        self._directory = DataDirectory(path)
        self.checkpoints = Checkpoints(self._directory.checkpoints)
        try:
            self._begin(None if before is not None else eyes.calibration, asked)
        except BaseException:
            self._directory.close()
            raise

    def _begin(self, calibration: Calibration | None, asked: dict[str, Any]) -> None:
        """What a new one needs, with ``calibration``; cut short, it is done again."""
        with closing(Journal(self._directory.database)) as journal:
            kept = None if calibration is not None else journal.meta("identity")
            if calibration is not None:
                calibration.save(self._directory.calibration)
                journal.put_meta(_ASKED, json.dumps(asked))
            if kept is None:
                journal.put_meta("identity", json.dumps(self._identity))
            else:  # its checkpoints have that, word for word, whatever this program would say of the same retina
                self._identity = json.loads(kept)
        self.checkpoints.clean({_TIMELINE})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.close()

    @property
    def rows(self) -> Path:
        """``epochs.json``."""
        return self.path / ROWS

    def newest(self) -> Snapshot | None:
        """What there is to go on from; None at the beginning."""
        manifest = self.checkpoints.last_good(_TIMELINE)
        return None if manifest is None else self.checkpoints.read(manifest.id)[1]

    def write(self, snapshot: Snapshot, *, last: bool = False) -> None:
        """Make ``snapshot`` durable; with ``last`` it is never removed. Raises StorageFailed."""
        told = snapshot.meta[META]
        label = f"{len(told['rows'])} epochs from 0 finished, {told['groups']} groups of the next"
        place = Place(journal=0, timeline=_TIMELINE, cursors={}, sequences={}, label=label, pinned=last)
        written = self.checkpoints.write(snapshot, place, self._identity, self._device)
        with closing(Journal(self._directory.database)) as journal:  # a worker that goes on must not begin as new
            journal.put_meta("begun", json.dumps({"checkpoint": written.id, "journal": 0}))
        self.checkpoints.prune(_KEPT, _TIMELINE)


_UNTOLD = {
    "until": "sources: a journal or recordings",
    "fixations": "fixations: the recordings, how they are read or seen, or the journal changed",
    "calibration": "weights or another seed of the retina",
}
"""What a digest can't tell: in words, what is other."""


def _compare(path: Path, before: dict[str, Any], asked: dict[str, Any], under: str = "") -> None:
    """Raise :class:`DirectoryRefused` with the first thing that differs."""
    way = "say what it was begun with, or name another folder with --into"
    for key in {**before, **asked}:
        was, wanted = before.get(key), asked.get(key)
        if isinstance(was, dict) and isinstance(wanted, dict):
            _compare(path, was, wanted, f"{under}{key}.")
        elif was != wanted and key in _UNTOLD:
            raise DirectoryRefused(f"{path} was begun with other {_UNTOLD[key]}; {way}")
        elif was != wanted:
            raise DirectoryRefused(f"{path} was begun with {under}{key} {was}, not {wanted}; {way}")
