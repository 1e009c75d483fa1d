"""``python -m service.health``: exit code 0 while the worker of RJEPA_DATA_DIR is ready, 1 otherwise.

For a container's health check: no HTTP, no torch, one question over the control socket.
"""

from __future__ import annotations

import sys

from service.control import ControlClient
from service.errors import ServiceError
from service.settings import load_settings


def main() -> int:
    """Ask once; say on stderr what is not well."""
    try:
        status = ControlClient(load_settings([], "worker").data_dir).ask({"op": "status"}, timeout_s=5.0)
    except ServiceError as error:
        print(error, file=sys.stderr)
        return 1
    for trouble, told in ((status["recovering"], "recovering"), (status["storage"], "storage")):
        if trouble:
            print(f"{told}: {trouble}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
