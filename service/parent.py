"""A child process ends with its parent, also where that is killed without a word.

The parent keeps the writing end of a pipe open and tells the child the reading end by a private variable of
the environment, which is no setting. When the parent is gone the pipe ends, and the child ends as if asked to.
"""

from __future__ import annotations

import os
import signal
import threading

VARIABLE = "_RJEPA_PARENT_PIPE"


def end_with_parent() -> None:
    """Where a parent has told a pipe, send SIGTERM to this process when it ends. Call once, early in main."""
    told = os.environ.pop(VARIABLE, "")
    if not told.isdigit():
        return
    descriptor = int(told)
    os.set_inheritable(descriptor, False)
    threading.Thread(target=_watch, args=(descriptor,), name="parent", daemon=True).start()


def _watch(descriptor: int) -> None:
    while os.read(descriptor, 1):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
