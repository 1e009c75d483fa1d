"""A small disk that really runs full: a tmpfs in a mount namespace of its own, with workers inside.

Nobody else sees the disk, and it is gone with the last process that does. From outside its files are reached through
``/proc``; SQLite would follow that path to the wrong place, so a database is looked at in a copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.storage import Database
from tests.faults.nursery import Nursery

_PIECE = 64 << 10
_MOUNT = """
mount -t tmpfs -o "size=$1,mode=700" tmpfs "$3" &&
mkdir -p "$3/data/checkpoints" &&
{ [ "$2" = 0 ] || mount -t tmpfs -o "size=$2,mode=700" tmpfs "$3/data/checkpoints"; } &&
shift 3 && exec "$@"
"""


@dataclass(frozen=True)
class SmallDisk:
    """``path`` is the data directory's, for processes inside; ``seen`` is the same from outside."""

    nursery: Nursery
    path: Path
    seen: Path

    def fill(self, folder: Path) -> Path:
        """Write a file into ``folder`` (as seen from outside) until there is no room at all; the file."""
        filler = folder / "filler"
        size = _PIECE
        with filler.open("ab", buffering=0) as file:
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
        return filler

    def copy(self, to: Path) -> Path:
        """A copy of the data directory, its database opened once, as the next worker would."""
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(self.seen, to, ignore=shutil.ignore_patterns("control.sock", "filler", "rjepa.db-shm"))
        Database(to / "rjepa.db").close()
        return to


@contextmanager
def small_disk(folder: Path, *, size: str, checkpoints: str = "0") -> Iterator[SmallDisk]:
    """A disk of ``size`` on ``folder/disk``; its folder of checkpoints another one, where its size is not 0.

    Skips where nothing may be mounted: in a container without CAP_SYS_ADMIN, say.
    """
    place = folder / "disk"
    place.mkdir()
    words = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    words += ["sh", "-c", _MOUNT, "sh", size, checkpoints, str(place)]
    try:
        subprocess.run([*words, "true"], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system can be mounted here: {getattr(error, 'stderr', '') or error}")
    nursery = Nursery(folder / "logs", before=words)
    try:
        yield SmallDisk(nursery, place / "data", Path(f"/proc/{nursery.pid}/root{place}/data"))
    finally:
        nursery.close()
