"""The real worker under strace, which makes some of its calls fail, for real as far as the worker can tell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.faults import trace
from tests.faults.story import WAIT_S, Home
from tests.helpers import ROOT, environment, wait_until

_CALL = re.compile(rb"(\d+) +(?:<\.\.\. \w+ resumed>|(\w+)\((?:\d+<((?:\\x[0-9a-f]{2})+)>)?)(.*)")
"""Its thread, and (where it begins) its name and its file."""


@dataclass(frozen=True)
class Failing:
    """A worker; ``record`` is what strace wrote of it, ``errors`` what it said itself."""

    process: subprocess.Popen[bytes]
    home: Home
    record: Path
    errors: Path

    def said(self, text: str) -> bool:
        return text in self.errors.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: self.said(text), WAIT_S, text)

    def signal(self, number: int) -> int:
        """Send it to the worker, not to strace; the exit code."""
        os.kill(int((self.home.data_dir / "lock").read_text()), number)
        return self.process.wait(WAIT_S)

    def failures(self) -> set[tuple[str, str]]:
        """Which calls were made to fail, on which files: (call, the file's name; a folder's for a rename: empty).

        A call that another thread's came between is told in two lines.
        """
        found: set[tuple[str, str]] = set()
        begun: dict[bytes, tuple[bytes, bytes]] = {}
        for told in map(_CALL.match, self.record.read_bytes().splitlines()):
            if told is None:
                continue
            thread, name, path, rest = told.groups()
            if name is not None:
                begun[thread] = name, path or b""
            if rest.endswith(b"(INJECTED)") and thread in begun:
                call, of = begun[thread]
                found.add((call.decode(), Path(trace._bytes(of).decode()).name))
        return found


@contextmanager
def failing(home: Home, folder: Path, failures: Sequence[str] = (), only: Sequence[Path] = ()) -> Iterator[Failing]:
    """A worker on ``home``, recorded in ``folder``, whose calls fail as ``failures`` say (strace's ``--inject``).

    ``when`` counts the calls of each thread by itself. ``only``: of these files alone, and so is the record.
    """
    folder.mkdir()
    arguments = {"data_dir": str(home.data_dir), "ingest": home.ingest, "publish": home.publish}
    words = [*trace.strace(folder / "record"), *(f"--inject={each}" for each in failures)]
    words += [f"--trace-path={path}" for path in only]
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [*words, sys.executable, "-m", "tests.faults.mortal", "worker", json.dumps(arguments)],
            cwd=ROOT,
            env=environment({"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
        )
    worker = Failing(process, home, folder / "record", folder / "errors")
    try:
        wait_until(lambda: worker.said("rjepa.worker: ready") or process.poll() is not None, WAIT_S, "the worker")
        yield worker
    finally:
        process.kill()
        process.wait(WAIT_S)
