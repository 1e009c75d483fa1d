"""The data directory: where things lie, and one worker at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from service.errors import DirectoryInUse, DirectoryRefused
from service.storage import sync_folder

DATABASE = "rjepa.db"


class DataDirectory:
    """``settings.data_dir``, locked by this process until :meth:`close`; made durably if it is not there.

    Raises :class:`DirectoryInUse` where another worker holds it, :class:`DirectoryRefused` where it can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)

    @property
    def database(self) -> Path:
        """``rjepa.db``."""
        return self.path / DATABASE

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def calibration(self) -> Path:
        """Whitening and batch-norm statistics."""
        return self.path / "calibration.safetensors"

    @property
    def step(self) -> Path:
        """The mark of :class:`~service.stepmark.StepMark`."""
        return self.path / "step"

    def close(self) -> None:
        """Let the next worker have it."""
        self._lock.close()


def _lock(path: Path) -> IO[str]:
    """An open, locked ``DIR/lock`` that holds this process's number."""
    try:
        _make(path)
        file = (path / "lock").open("a+")
    except OSError as error:
        raise DirectoryRefused(
            f"{path} can't be used as a data directory: {error.strerror}; name another one"
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise DirectoryInUse(
            f"{path} is in use by another worker (process {holder}); stop that one, or name another --data-dir"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _make(path: Path) -> None:
    """Make ``path`` and what is missing above it. Their names are durable before anything is kept there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)
    if not missing and not (path / DATABASE).exists():  # made just now by another command, or by a start that was ended
        with suppress(PermissionError):  # made by somebody else, in a folder that is not ours to look into
            sync_folder(path.parent)
