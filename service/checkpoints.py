"""Checkpoints: the whole learner at one journal id, in a folder of its own.

``checkpoints/<id>/learner.safetensors``, ``diagnostics.safetensors`` where diagnostics are kept, and ``manifest.json``,
which holds the others' sha256 and its own. Without the diagnostics, or with damaged ones, a checkpoint is as good. It
is there completely or not at all: written under a temporary name, synced, renamed, the folder synced.
Journal ids only grow, through restores too, so they order all checkpoints of all timelines.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch

from model import snapshot as snapshots
from model.errors import ModelError
from model.openvino_network import openvino_version
from model.snapshot import Snapshot
from service.errors import CheckpointBad, RequestRefused, StorageFailed, StorageFull
from service.manifests import (
    DIAGNOSTICS,
    LEARNER,
    MANIFEST,
    Folder,
    Manifest,
    Part,
    SequenceState,
    digest_of,
    first_line,
)
from service.storage import sync_folder

__all__ = ["Checkpoints", "Manifest", "Place", "SequenceState"]

HOURS_KEPT = 168
"""Of so many hours in which checkpoints were written, the first of each stays."""
NEW_MANIFEST = f".new-{MANIFEST}"
"""A manifest that is to take the place of a checkpoint's."""
PIECE_BYTES = 1 << 20
"""Of a file that goes to the disk at once."""
ASIDE = ".beyond-"
"""Before the name of a folder that was set aside."""


@dataclass(frozen=True)
class Place:
    """Where in the journal a snapshot was taken, and what it is to be called."""

    journal: int
    timeline: int
    cursors: dict[str, int]
    sequences: dict[str, SequenceState]
    label: str | None = None
    pinned: bool = False
    parent: str | None = None
    created: float = field(default_factory=lambda: time.time())


class Checkpoints(Folder):
    """The folder of checkpoints, with the pen. Safe from several threads of one process; other processes may read.

    ``fault`` is called with ``write``, ``sync``, ``rename`` and ``done`` as :meth:`write` gets there.
    """

    def __init__(self, folder: Path, *, fault: Callable[[str], None] = lambda point: None) -> None:
        super().__init__(folder)
        self._fault = fault
        self._lock = threading.RLock()

    def read(self, checkpoint: str) -> tuple[Manifest, Snapshot]:
        """A checkpoint, its sha256 verified. Raises :class:`RequestRefused` (404) or :class:`CheckpointBad`."""
        with self._lock:
            manifest = self.verified(checkpoint)
            try:
                return manifest, snapshots.read(self.folder / checkpoint / LEARNER)
            except (ModelError, OSError) as error:
                raise CheckpointBad(f"checkpoint {checkpoint} can't be read: {first_line(error)}") from None

    def diagnostics(self, checkpoint: str) -> Snapshot | None:
        """The diagnostics kept with a checkpoint, their sha256 verified; None where there are none (any more).

        Raises :class:`RequestRefused` (404), or :class:`CheckpointBad` where they are damaged: the learner may be good.
        """
        with self._lock:
            part = self.manifest(checkpoint).diagnostics
            path = self.folder / checkpoint / DIAGNOSTICS
            if part is None or not path.exists():
                return None
            try:
                with path.open("rb") as file:
                    if _sha256(file) != part.sha256:
                        raise CheckpointBad(f"{DIAGNOSTICS} is not what was written")
                return snapshots.read(path)
            except (ModelError, OSError) as error:
                raise CheckpointBad(f"{DIAGNOSTICS} can't be read: {first_line(error)}") from None

    def verified(self, checkpoint: str) -> Manifest:
        """The manifest, if the parameters are what it says. Raises as :meth:`read`."""
        manifest = self.manifest(checkpoint)
        try:
            with (self.folder / checkpoint / LEARNER).open("rb") as file:
                found = _sha256(file)
        except OSError as error:
            raise CheckpointBad(f"checkpoint {checkpoint}: {LEARNER}: {error.strerror}") from None
        if found != manifest.sha256:
            raise CheckpointBad(f"checkpoint {checkpoint}: {LEARNER} has sha256 {found[:12]}..., not what was written")
        return manifest

    def write(
        self,
        snapshot: Snapshot,
        place: Place,
        identity: dict[str, Any],
        device: str,
        diagnostics: Snapshot | None = None,
    ) -> Manifest:
        """Write a checkpoint; durable when this returns. Raises :class:`StorageFull` or :class:`StorageFailed`."""
        with self._lock, _disk_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)
            name = self._new_id(place)
            part = self.folder / f".part-{name}"
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            try:
                manifest = self._fill(part, name, snapshot, place, identity, device, diagnostics)
                self._fault("rename")
                part.rename(self.folder / name)
                try:
                    sync_folder(self.folder)
                except OSError:
                    (self.folder / name).rename(part)  # its name may not last: it is told to have failed, and is gone
                    raise
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            self._fault("done")
            return manifest

    def keep(self, checkpoint: str, *, pinned: bool, label: str | None = None) -> Manifest:
        """Pin a checkpoint or leave it to retention; ``label`` is its new one, None leaves it the one it has.

        Durable when this returns, whole or not at all. Raises :class:`RequestRefused` (404), :class:`CheckpointBad`,
        :class:`StorageFull` or :class:`StorageFailed`.
        """
        with self._lock:
            manifest = self.manifest(checkpoint)
            changed = {"pinned": pinned} | ({} if label is None else {"label": label})
            manifest = manifest.model_copy(update=changed)
            folder = self.folder / checkpoint
            new = folder / NEW_MANIFEST
            with _disk_errors(self.folder):
                try:
                    _tell(manifest, new)
                    self._fault("rename")
                    new.replace(folder / MANIFEST)
                    sync_folder(folder)
                finally:
                    new.unlink(missing_ok=True)
            return manifest

    def delete(self, checkpoint: str) -> None:
        """Delete a checkpoint. Raises :class:`RequestRefused` (404), :class:`StorageFailed`."""
        with self._lock:
            folder = self._known(checkpoint)
            gone = self.folder / f".gone-{checkpoint}"
            with _disk_errors(self.folder):
                folder.rename(gone)
                sync_folder(self.folder)
            shutil.rmtree(gone, ignore_errors=True)

    def set_aside(self, checkpoint: str) -> Path:
        """Take a checkpoint out of use for ever and keep its folder under another name, which is returned.

        Raises :class:`RequestRefused` (404), :class:`StorageFailed`.
        """
        with self._lock, _disk_errors(self.folder):
            aside = self.folder / f"{ASIDE}{checkpoint}"
            shutil.rmtree(aside, ignore_errors=True)
            self._known(checkpoint).rename(aside)
            sync_folder(self.folder)
            return aside

    def clean(self, timelines: set[int]) -> None:
        """Remove what a crash left half written, and checkpoints of a timeline that never came to be."""
        with self._lock:
            if not self.folder.is_dir():
                return
            for entry in self.folder.iterdir():
                if entry.name.startswith((".part-", ".gone-")):
                    shutil.rmtree(entry, ignore_errors=True)
            for manifest in self.list():
                (self.folder / manifest.id / NEW_MANIFEST).unlink(missing_ok=True)
                if manifest.timeline not in timelines:
                    self.delete(manifest.id)

    def prune(
        self,
        keep: int,
        timeline: int,
        *,
        hours: int = HOURS_KEPT,
        needed: Collection[str] = (),
        good: str | None = None,
    ) -> builtins.list[str]:
        """Delete all but the newest ``keep`` unpinned ones, the first of each hour, the pinned, the last good one, and
        those ``needed``: a restore that recovery may have to make again.

        Of the hours in which any was written the last ``hours`` count. The last good one is the newest of ``timeline``
        whose parameters are verified, or ``good``, just written and read back. Diagnostics stay with the newest
        ``keep`` and the pinned ones alone: they are several times the learner's size. Returns what was deleted.
        """
        with self._lock:
            every = self.list()
            unpinned = [manifest for manifest in every if not manifest.pinned]
            kept = {manifest.id for manifest in every if manifest.pinned} | {m.id for m in unpinned[-keep:]}
            whole = set(kept)
            hourly: dict[int, str] = {}
            for manifest in unpinned:
                hourly.setdefault(int(manifest.created // 3600), manifest.id)
            if good is None and (last := self.last_good(timeline)) is not None:
                good = last.id
            # By journal, not by the clock: a clock that was wrong for a while dooms nothing.
            kept |= (
                set(list(hourly.values())[max(0, len(hourly) - hours) :]) | ({good} if good else set()) | set(needed)
            )
            doomed = [manifest.id for manifest in every if manifest.id not in kept]
            for name in doomed:
                self.delete(name)
            with _disk_errors(self.folder):
                for manifest in every:
                    if manifest.id in kept - whole:
                        (self.folder / manifest.id / DIAGNOSTICS).unlink(missing_ok=True)
            return doomed

    def last_good(self, timeline: int, *, but: str | None = None) -> Manifest | None:
        """The newest checkpoint of a timeline whose parameters are what its manifest says; ``but`` one."""
        for manifest in reversed(self.list()):
            if manifest.timeline == timeline and manifest.id != but:
                try:
                    return self.verified(manifest.id)
                except (CheckpointBad, RequestRefused):
                    continue
        return None

    def _fill(
        self,
        part: Path,
        name: str,
        snapshot: Snapshot,
        place: Place,
        identity: dict[str, Any],
        device: str,
        diagnostics: Snapshot | None,
    ) -> Manifest:
        learner = part / LEARNER
        self._fault("write")
        size_bytes, sha256 = _write(snapshot, learner)
        beside = None
        if diagnostics is not None:
            size, digest = _write(diagnostics, part / DIAGNOSTICS)
            beside = Part(size_bytes=size, sha256=digest)
        self._fault("sync")
        manifest = Manifest(
            id=name,
            created=place.created,
            label=place.label,
            pinned=place.pinned,
            timeline=place.timeline,
            parent=place.parent,
            journal=place.journal,
            cursors=place.cursors,
            sequences=place.sequences,
            identity=identity,
            device=device,
            torch_version=str(torch.__version__),
            openvino_version=openvino_version() if identity.get("engine") == "openvino" else None,
            size_bytes=size_bytes,
            sha256=sha256,
            diagnostics=beside,
        )
        _tell(manifest, part / MANIFEST)
        sync_folder(part)
        return manifest

    def _new_id(self, place: Place) -> str:
        at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(place.created))
        name = plain = f"{at}-{place.journal:012d}"
        number = 1
        while (self.folder / name).exists():
            number += 1
            name = f"{plain}-{number}"
        return name


def _tell(manifest: Manifest, path: Path) -> None:
    """Write a manifest with its own sha256; the file's content is durable, its name is not yet."""
    body = manifest.model_dump(mode="json")
    with path.open("w") as file:
        file.write(json.dumps(body | {"manifest_sha256": digest_of(body)}, indent=1))
        _sync(file)


def _write(snapshot: Snapshot, path: Path) -> tuple[int, str]:
    """Write a file and make its content durable; its size and its sha256.

    It goes to the disk a piece at a time: a commit of the journal meanwhile waits for one piece and not for the file.
    """
    size, waiting, digest = 0, 0, hashlib.sha256()
    with path.open("wb") as file:
        for piece in snapshots.pieces(snapshot):
            file.write(piece)
            digest.update(piece)
            size, waiting = size + len(piece), waiting + len(piece)
            if waiting >= PIECE_BYTES:
                _sync(file)
                waiting = 0
        _sync(file)
    return size, digest.hexdigest()


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no room for a checkpoint in {folder}; make room, it is tried again") from error
        raise StorageFailed(f"a checkpoint could not be written to {folder}: {first_line(error)}") from error
