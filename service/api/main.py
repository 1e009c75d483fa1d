"""``rjepa api``: the HTTP interface as a process."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service import log
from service.access import Access
from service.api.app import create_app
from service.api.connections import limited
from service.listening import bind
from service.parent import end_with_parent
from service.settings import Settings, load_settings

NICENESS = 10
"""How far learning goes before reading when both want the same core."""
GRACE_S = 3
"""How long answers under way may take once the end has been asked for."""

logger = logging.getLogger("rjepa.api")


def main(argv: list[str]) -> int:
    """Serve until SIGTERM, SIGINT or the end of the parent; 0 after an orderly end."""
    settings = load_settings(argv, "api")
    end_with_parent()
    log.set_up(as_json=settings.log_json)
    access = Access.load(settings.access_folder)
    listening = bind(settings, access)
    os.nice(NICENESS)
    server = _Server(server_config(create_app(settings, access), settings))
    with listening:
        logger.info("listening on http://%s:%d", *listening.getsockname()[:2])
        server.run(sockets=[listening])
    return 0


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How ``app`` is served."""
    return uvicorn.Config(
        app,
        http=limited(settings.http_connections),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
        lifespan="on",
    )


class _Server(uvicorn.Server):
    """Ends with exit code 0 when it is told to (uvicorn's own would raise the signal again after the end)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as long as it serves."""
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)
