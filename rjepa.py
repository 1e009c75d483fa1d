"""The front door: the console script ``rjepa`` and the names a lab's script imports.

Everything is imported when it is asked for, so that a client on an acquisition computer never touches torch.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clients.api import Api as Api
    from clients.errors import ApiError as ApiError
    from clients.patches import NoPatch as NoPatch
    from clients.patches import cut as cut
    from clients.sender import Sender as Sender
    from clients.units import from_screen as from_screen
    from service.offline import Recording as Recording
    from service.offline import read_recording as read_recording
    from service.offline import recordings_in as recordings_in
    from service.study import Course as Course
    from service.study import Study as Study
    from service.study import features as features

__version__ = "0.1.0"
__all__ = [
    "Api",
    "ApiError",
    "Course",
    "NoPatch",
    "Recording",
    "Sender",
    "Study",
    "__version__",
    "cut",
    "features",
    "from_screen",
    "main",
    "read_recording",
    "recordings_in",
]

COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("service.serve", "worker and HTTP interface on this machine"),
    "worker": ("service.worker", "the half that takes fixations and learns"),
    "api": ("service.api.main", "the half that answers over HTTP"),
    "stream": ("clients.main", "gaze and video to fixation patches to the worker"),
    "doctor": ("clients.doctor_cli", "what can be reached from here, and what to do where not"),
    "demo": ("service.demo", "serve, and a simulated observer of a sample video"),
    "learn": ("service.learn_cli", "offline: recordings or a journal, in epochs, with a part held out"),
    "replay": ("service.replay_cli", "learn a journal again, from any checkpoint, into another directory"),
    "check": ("service.check_cli", "verify a data directory"),
    "backup": ("service.backup_cli", "copy a data directory, also while its worker runs"),
    "experiment": ("service.experiment_cli", "the truth about learning, as numbers and pictures"),
    "bench": ("service.bench_cli", "how fast, beside what can't be beaten, in one run"),
    "keys": ("service.access_cli", "CURVE keys"),
    "pair": ("service.access_cli", "one file that pairs an acquisition computer"),
    "token": ("service.access_cli", "tokens of the HTTP interface"),
    "init": ("service.access_cli", "keys and tokens at a first start, in one go"),
}
"""Word, the module whose ``main(argv)`` does it, and one line of help."""

TAKES_ITS_WORD = frozenset({"keys", "pair", "token", "init"})
"""Commands that share a module and so are told which of them was typed."""

EXIT_FAILED = 1
"""Exit codes: 0 done, 1 failed, 2 refused input or settings, 3 data directory refused or in use, 4 address in use or
not reached; 130 interrupted. Errors of the rooms carry their own."""

_EXPORTS = {
    "Api": "clients.api",
    "ApiError": "clients.errors",
    "Course": "service.study",
    "NoPatch": "clients.patches",
    "Recording": "service.offline",
    "Sender": "clients.sender",
    "Study": "service.study",
    "cut": "clients.patches",
    "features": "service.study",
    "from_screen": "clients.units",
    "read_recording": "service.offline",
    "recordings_in": "service.offline",
}


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'rjepa' has no attribute {name!r}")


def usage() -> str:
    """The text of ``rjepa --help``."""
    lines = ["usage: rjepa COMMAND [OPTIONS]        rjepa COMMAND --help tells the options", ""]
    lines += [f"  {word:<10} {text}" for word, (_, text) in COMMANDS.items()]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(__version__)
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        print(f"rjepa: unknown command {command!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # torch's threads wait asleep: they are not alone on the machine
    try:
        module = importlib.import_module(COMMANDS[command][0])
        return int(module.main(words if command in TAKES_ITS_WORD else rest))
    except ModuleNotFoundError as error:  # some are imported late
        if error.name is None or error.name.split(".")[0] in ("clients", "model", "service"):
            raise
        print(f"rjepa {command}: {error.name} is not installed; {_extra_of(command)}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"rjepa {command}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        print(f"rjepa {command}: {error}", file=sys.stderr)
        return int(code)


def _extra_of(command: str) -> str:
    if command in ("stream", "doctor"):
        return "pip install rjepa"
    extra = "demo" if command == "demo" else "service"
    return f"pip install 'rjepa[{extra}]'"


if __name__ == "__main__":
    sys.exit(main())
