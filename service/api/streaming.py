"""An answer in pieces, of which nobody can take a part for the whole: where one can't be made, its connection is cut.

By then the status is sent and can't be taken back. A reset of the connection is an error to every client, also to one
that can't tell the end of an answer from its middle otherwise (HTTP/1.0).
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError

CUT = "rjepa.cut"
"""Name of the scope's extension that cuts the connection."""
FAULTS = (ServiceError, sqlite3.Error, OSError)
"""What may go wrong while an answer is made, the program being right."""

log = logging.getLogger("rjepa.api")


def cuttable(app: ASGIApp, cut: Callable[[], None]) -> Any:
    """``app``, told how to cut the connection it answers on."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "extensions": {**scope.get("extensions", {}), CUT: cut}}, receive, send)

    return called


class Streamed(StreamingResponse):
    """The pieces, one after the other, as fast as they are taken; given up once the client is gone."""

    _whole = False

    async def stream_response(self, send: Send) -> None:
        """All pieces and the end."""
        await super().stream_response(send)
        self._whole = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, and see that what is not whole does not look so."""
        try:
            await super().__call__(scope, receive, send)
        except FAULTS as error:
            log.error("the answer to %s was cut: %s", scope["path"], error)
            scope["extensions"][CUT]()
            await self.listen_for_disconnect(receive)
        except BaseException:
            scope["extensions"][CUT]()
            raise
        else:
            if not self._whole:
                log.info("the answer to %s was given up, its client is gone", scope["path"])
