"""Processes by the hundred: one that has loaded everything once (three seconds) forks the others off.

A forked worker shares no thread, socket, file or connection with another: the nursery has none of them. Asked by JSON
lines on its standard input; when that ends, so does every process it began.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import ROOT, environment, wait_until


@dataclass
class Child:
    """A process of the nursery's. Its standard output and error are in ``log``."""

    pid: int
    log: Path
    nursery: Nursery

    def ended(self) -> int | None:
        """None while it runs; then its exit code, or minus the signal that ended it."""
        return self.nursery.ask({"ended": self.pid})

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        if self.ended() is None:
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def terminate(self, limit_s: float = 60.0) -> int:
        """SIGTERM; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait(limit_s)

    def wait(self, limit_s: float = 60.0) -> int:
        """Wait for its end; the exit code, or minus the signal."""
        (code,) = wait_until(lambda: () if (c := self.ended()) is None else (c,), limit_s, f"the end of {self.log}")
        return int(code)

    def said(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-3000:]


class Nursery:
    """Started by the constructor; :meth:`close` ends it with all its children.

    ``before``: words before its command, that end by executing it.
    """

    def __init__(self, logs: Path, before: Sequence[str] = ()) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self._count = 0
        # One thread, so that nothing is lost in a fork; the workers of these tests use one as well.
        env = environment({"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
        with (logs / "nursery.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*before, sys.executable, "-m", "tests.faults.nursery"],
                cwd=ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def start(self, role: str, **arguments: Any) -> Child:
        """Begin a process of :data:`tests.faults.mortal.ROLES`."""
        self._count += 1
        log = self.logs / f"{self._count:03d}-{role}.log"
        pid = self.ask({"start": role, "arguments": arguments, "log": str(log)})
        return Child(pid, log, self)

    def ask(self, what: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, (self.logs / "nursery.log").read_text()[-3000:]
        return json.loads(line)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(300)
        self._process.stdout.close()


def main() -> None:
    from tests.faults import mortal

    ended: dict[int, int | None] = {}
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if "start" in asked:
            pid = os.fork()
            if pid == 0:
                _become(mortal.ROLES[asked["start"]], asked["arguments"], asked["log"])
            ended[pid] = None
            answer: int | None = pid
        else:
            pid = asked["ended"]
            if ended[pid] is None:
                found, status = os.waitpid(pid, os.WNOHANG)
                ended[pid] = os.waitstatus_to_exitcode(status) if found else None
            answer = ended[pid]
        os.write(1, json.dumps(answer).encode() + b"\n")
    for pid, code in ended.items():
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _become(role: Any, arguments: dict[str, Any], log: str) -> None:
    """The forked process: ``role``, its standard streams in ``log``; it does not come back."""
    code = 70
    try:
        nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for number, descriptor in ((0, nothing), (1, file), (2, file)):
            os.dup2(descriptor, number)
        code = role(**arguments)
    except BaseException:  # noqa: BLE001 - the process's boundary: whatever it was is told, and the process ends
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
