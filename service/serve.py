"""``rjepa serve``: the worker and the HTTP interface of one machine, beginning and ending together.

Both are the public commands, as child processes with the same options. They stay in this process's group, and each
watches a pipe from it (:mod:`service.parent`), so they end with it however it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from types import FrameType

from service.access import Access
from service.control import ControlClient
from service.errors import ServiceError, WorkerUnreachable
from service.listening import bind
from service.parent import VARIABLE
from service.settings import Settings, chosen_weights, load_settings

STOP_LIMIT_S = 15.0
"""How long a child may take to end before it is killed."""
TICK_S = 0.1
ASK_S = 0.5


class ChildFailed(ServiceError):
    """One of the two ended by itself; ``exit_code`` is its own."""

    code = "child_failed"


def main(argv: list[str]) -> int:
    """Serve until SIGTERM or SIGINT; 0 after an orderly end.

    Raises :class:`ChildFailed` with the child's exit code where one ends by itself; the other is ended first. What
    :func:`~service.listening.bind` refuses is refused here, before anything is started.
    """
    settings = load_settings(argv, "serve")
    chosen_weights(settings)
    bind(settings, Access.load(settings.access_folder)).close()
    pause = threading.Event()
    stopping: list[int] = []

    def asked(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
    with ExitStack() as stack:
        children = Children(stack, argv)
        ready = Readiness(settings, children.worker_pid)
        while not stopping:
            children.check()
            if ready.just_now():
                print(ready.line, flush=True)
            pause.wait(TICK_S)
    return 0


class Children:
    """The two processes; ended when ``stack`` is left."""

    def __init__(self, stack: ExitStack, argv: list[str]) -> None:
        reading, self._pipe = os.pipe()
        stack.callback(self._close_pipe)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(self.end)
        try:
            for command in ("worker", "api"):
                self._processes[command] = subprocess.Popen(
                    [sys.executable, "-m", "rjepa", command, *argv],
                    env=os.environ | {VARIABLE: str(reading)},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(reading,),
                )
        finally:
            os.close(reading)

    @property
    def worker_pid(self) -> int:
        """The process number of the worker."""
        return self._processes["worker"].pid

    def check(self) -> None:
        """Raise :class:`ChildFailed` where one has ended by itself."""
        for command, process in self._processes.items():
            code = process.poll()
            if code is not None:
                how = f"was killed by signal {-code}" if code < 0 else f"ended by itself with exit code {code}"
                error = ChildFailed(f"rjepa {command} {how}; its own message stands above")
                error.exit_code = 128 - code if code < 0 else max(code, 1)
                raise error

    def end(self) -> None:
        """Ask both to end, and kill what has not within :data:`STOP_LIMIT_S`."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        ends_s = time.monotonic() + STOP_LIMIT_S
        for command, process in self._processes.items():
            try:
                process.wait(max(0.1, ends_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"rjepa serve: {command} did not end within {STOP_LIMIT_S:g} s and is killed", file=sys.stderr)
                process.kill()
                process.wait()

    def _close_pipe(self) -> None:
        os.close(self._pipe)


class Readiness:
    """Asks ``/readyz`` in a thread of its own, until it says yes for the worker with this process number.

    Another server at the same address, or on the same directory, must not speak for ours.
    """

    def __init__(self, settings: Settings, worker_pid: int) -> None:
        self._worker_pid = worker_pid
        self._worker = ControlClient(settings.data_dir)
        host, _, port = settings.http.rpartition(":")
        reached = "127.0.0.1" if host in ("0.0.0.0", "[::]") else host
        self._url = f"http://{reached}:{port}/readyz"
        self._host = settings.allowed_hosts.split(",")[0].strip()
        self.line = (
            f"rjepa serve: ready. dashboard and HTTP http://{reached}:{port}/ , fixations {settings.ingest} , "
            f"records {settings.publish} , data directory {settings.data_dir}"
        )
        self._ready = threading.Event()
        self._told = False
        threading.Thread(target=self._ask, name="ready", daemon=True).start()

    def just_now(self) -> bool:
        """True once, when both are ready."""
        if self._told or not self._ready.is_set():
            return False
        self._told = True
        return True

    def _ask(self) -> None:
        request = urllib.request.Request(self._url, headers={"Host": f"{self._host}"})
        pause = threading.Event()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while not self._ready.is_set():
            try:
                opener.open(request, timeout=5.0).close()
                if self._worker.ask({"op": "status"}).get("pid") == self._worker_pid:
                    self._ready.set()
                    return
            except (OSError, WorkerUnreachable):  # refused, not ready (503), or no answer in time
                pass
            pause.wait(ASK_S)
