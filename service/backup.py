"""A copy of a data directory that is one moment of it, also while its worker writes.

Checkpoints are copied first, then the database in one snapshot: what a copied checkpoint has learned is in the copied
journal. The copy lies under a temporary name until everything of it is on the disk, and is then renamed; one that was
cut short is removed by the next with the same target.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from service.check import check
from service.checkpoints import Checkpoints
from service.datadir import DataDirectory
from service.errors import CheckpointBad, CopyRefused, RequestRefused, StorageFailed
from service.storage import check_readable, open_reader, sync_folder

PAGES = 512
"""Of the database, copied between two words of progress: 2 MB."""
_OF_THE_WORKER = frozenset({"lock", "control.sock", "step", "checkpoints", "rjepa.db", "rjepa.db-wal", "rjepa.db-shm"})
"""What is not copied as it lies there."""

Tell = Callable[[str, int, int], None]
"""Hears what is being copied, and how many of how many bytes of it."""


@contextmanager
def coming_to_be(target: Path) -> Iterator[DataDirectory]:
    """A new, locked data directory that gets the name ``target`` when the block was left well, and else is removed.

    Raises :class:`CopyRefused` where ``target`` exists, :class:`~service.errors.DirectoryInUse` where another command
    makes it, :class:`StorageFailed` where it can't be written.
    """
    _free(target)
    part = target.with_name(f".{target.name}.part")
    directory = DataDirectory(part)
    try:
        for left in part.iterdir():
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        yield directory
        _settle(part)
        _free(target)
        part.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StorageFailed(f"{target} could not be written: {error.strerror}; nothing of it is there") from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        directory.close()


def backup(source: Path, target: Path, tell: Tell = lambda what, done, whole: None) -> list[str]:
    """Copy the data directory ``source`` to ``target``, which must not exist. What is wrong with the copy, if anything.

    Raises as :func:`coming_to_be`, and :class:`~service.errors.DirectoryRefused` where ``source`` is none.
    """
    wrong: list[str] = []
    with closing(open_reader(source / "rjepa.db")) as reader:
        check_readable(source / "rjepa.db", reader)
    with coming_to_be(target) as directory:
        there, here = Checkpoints(source / "checkpoints"), Checkpoints(directory.checkpoints)
        for number, manifest in enumerate(every := there.list()):
            tell("checkpoints", number, len(every))
            wrong += copy_checkpoint(there, here, manifest.id)
        wrong += [f"checkpoints: {told}; it is left out" for told in there.unreadable()]
        copy_database(source, directory.database, tell)
        wrong += _agree(there, here, directory.database)
        for entry in sorted(source.iterdir()):
            if entry.name in _OF_THE_WORKER or entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir():
                shutil.copytree(entry, directory.path / entry.name)
            elif entry.is_file():
                shutil.copy2(entry, directory.path / entry.name)
        tell("check", 0, 1)
        wrong += check(directory.path).said()
        tell("check", 1, 1)
    return wrong


def copy_database(source: Path, target: Path, tell: Tell = lambda what, done, whole: None) -> None:
    """One snapshot of the database of the data directory ``source``. Raises StorageFailed, DirectoryRefused."""
    try:
        with closing(open_reader(source / "rjepa.db")) as reader, closing(sqlite3.connect(target)) as writer:
            (size,) = reader.execute("PRAGMA page_size").fetchone()
            # An open read holds the snapshot: without it each write of the worker would begin the copy anew.
            reader.execute("BEGIN")
            reader.execute("SELECT value FROM meta").fetchone()

            def progress(status: int, left: int, pages: int) -> None:
                tell("database", (pages - left) * size, pages * size)

            reader.backup(writer, pages=PAGES, progress=progress)
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StorageFailed(f"{source / 'rjepa.db'} could not be copied to {target.parent}: {error}") from error


def copy_checkpoint(there: Checkpoints, here: Checkpoints, checkpoint: str) -> list[str]:
    """Copy one checkpoint; what is wrong where it is damaged. One that retention removes meanwhile is left out."""
    part, old = here.folder / f".part-{checkpoint}", there.folder / checkpoint
    here.folder.mkdir(exist_ok=True)
    try:
        shutil.copytree(old, part)
        part.rename(here.folder / checkpoint)
        here.verified(checkpoint)
    except (OSError, shutil.Error, CheckpointBad, RequestRefused) as error:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(here.folder / checkpoint, ignore_errors=True)
        if old.exists():
            if not isinstance(error, CheckpointBad):
                raise StorageFailed(f"checkpoint {checkpoint} could not be copied: {error}") from error
            return [f"checkpoints: {error}; it is left out"]
    return []


def _agree(there: Checkpoints, here: Checkpoints, database: Path) -> list[str]:
    """Bring the copied checkpoints to the moment of the copied database."""
    with closing(open_reader(database)) as reader:
        timelines = dict(reader.execute("SELECT id, checkpoint FROM timelines").fetchall())
    known = {manifest.id for manifest in here.list()}
    wrong: list[str] = []
    for name in {*timelines.values()} - known - {None}:  # gone back to since: it may be newer than the list
        if (there.folder / name).exists():
            wrong += copy_checkpoint(there, here, name)
    here.clean(set(timelines))
    return wrong


def _free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise CopyRefused(f"{target} exists already; name another folder")
    if not target.parent.is_dir():
        raise CopyRefused(f"{target.parent} is no folder; make it, or name another")


def _settle(folder: Path) -> None:
    """Make everything in ``folder`` durable."""
    for place, _, files in os.walk(folder):
        for name in files:
            with (Path(place) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))
