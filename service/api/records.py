"""``GET /v1/streams/{s}/records``: the history of a stream, as JSON or CSV page by page, or whole as an Arrow stream.

An answer is the history as it stood when it began. It is read and sent in pieces, each by a short read of its own and
the next once the one before was taken: a slow reader of a long history holds one piece of it here, no place in the
queue, and no transaction that would keep the write-ahead log from being brought into the database.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from clients.wire import MAX_SEQ
from service.api.accept import chosen
from service.api.arrow import ArrowStream
from service.api.forms import ARROW_TYPE, CSV_TYPE, JSON_TYPE, CsvPage, Form, JsonPage, example_page
from service.api.problems import Problem
from service.api.shapes import Records
from service.api.site import Site, StreamId, check_stream
from service.api.streaming import Streamed
from service.errors import HistoryGone
from service.history import MAX_PAGE, View, view
from service.schema import TRIVIAL_ERRORS

FORMS = (JSON_TYPE, CSV_TYPE, ARROW_TYPE)
MEDIA_TYPES = {CSV_TYPE: f"{CSV_TYPE}; charset=utf-8; header=present"}

_ROW = ("s1", 1199, 1764115200.5, 312.482, 0.236, 0.4871, 0.5204, 39, None, 0.4127, *(0.47,) * len(TRIVIAL_ERRORS))
_LINK = '</v1/streams/s1/records?after=1199&limit=1000&timeline=0>; rel="next"'
_TOLD: dict[str, Any] = {
    "description": "a page of JSON or of CSV, or all of it as an Arrow IPC stream, as the header Accept asks",
    "content": {
        CSV_TYPE: {"schema": {"type": "string"}, "example": example_page([(*_ROW, 41.7, 0.0031, 61.4, None, 0)])},
        ARROW_TYPE: {"schema": {"type": "string", "format": "binary"}},
    },
    "headers": {
        "Link": {
            "description": "CSV: the next page, of the same timeline; none at the end",
            "schema": {"type": "string", "examples": [_LINK]},
        },
        "Vary": {"description": "Accept", "schema": {"type": "string", "const": "Accept"}},
    },
}


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams/{stream}/records",
        response_model=Records,
        responses={200: _TOLD},
        summary="What each fixation came to, ascending by seq",
        dependencies=[site.queue("heavy")],
    )
    def get_records(
        stream: StreamId,
        after: Annotated[int, Query(ge=-1, le=MAX_SEQ, description="records above this seq")] = -1,
        limit: Annotated[
            int,
            Query(ge=1, le=MAX_PAGE, description="records a page; an Arrow stream has no pages and no limit"),
        ] = 1000,
        timeline: Annotated[
            int | None,
            Query(ge=0, le=MAX_SEQ, description="another timeline, with its ancestors up to the fork", examples=[0]),
        ] = None,
        embeddings: Annotated[bool, Query(description="with the embedding of each")] = False,
        accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        """The present timeline and its ancestors up to the fork, each seq once, as they were when the answer began."""
        form = chosen(accept, FORMS)
        with site.read() as connection:
            check_stream(connection, stream)
            found = view(connection, stream, timeline)
            if found is None:
                raise Problem(404, "unknown_timeline", f"there is no timeline {timeline}")
            paged = form != ARROW_TYPE
            end = found.page_end(connection, after=after, limit=limit) if paged else None
            made = _made(form, connection, embeddings, end)
        headers = {"Vary": "Accept"}
        if form == CSV_TYPE and end is not None:
            headers["Link"] = _link(found, end, limit, embeddings)
        reading = _Reading(site, found, made, after, MAX_SEQ if end is None else end)
        first = reading.piece()
        media_type = MEDIA_TYPES.get(form, form)
        if reading.over:
            return Response(first, media_type=media_type, headers=headers)
        return Streamed(reading.rest(first), media_type=media_type, headers=headers)

    return routes


def _made(form: str, connection: sqlite3.Connection, embeddings: bool, end: int | None) -> Form:
    if form == JSON_TYPE:
        return JsonPage(embeddings, end)
    size = _embedding_size(connection) if embeddings else None
    return CsvPage(size) if form == CSV_TYPE else ArrowStream(size)


class _Reading:
    """A history as it is being read: the records above seq ``after`` up to seq ``until``.

    Not for two threads at a time. ``over`` once all of it was given.
    """

    def __init__(self, site: Site, found: View, form: Form, after: int, until: int) -> None:
        self._site = site
        self._view = found
        self._form = form
        self._after = after
        self._until = until
        self._looked = found.moment
        self._begun = False
        self.over = False

    def piece(self) -> bytes:
        """The next piece of the answer. Raises :class:`HistoryGone` where the stream was deleted meanwhile."""
        with self._site.read() as connection:
            gone, self._looked = self._view.forgotten(connection, self._looked)
            if gone:
                raise HistoryGone(f"stream {self._view.stream!r} was deleted while its records were read")
            rows = self._view.rows(
                connection, self._form.columns, after=self._after, until=self._until, limit=self._form.piece
            )
        if rows:
            self._after = rows[-1][self._form.columns.index("seq")]
        self.over = len(rows) < self._form.piece or self._after >= self._until
        head = b"" if self._begun else self._form.head()
        self._begun = True
        return head + (self._form.rows(rows) if rows else b"") + (self._form.tail() if self.over else b"")

    async def rest(self, first: bytes) -> AsyncIterator[bytes]:
        """The piece already made, and all that follow it."""
        yield first
        while not self.over:
            yield await self._site.queues["heavy"].piece(self.piece)


def _link(found: View, end: int, limit: int, embeddings: bool) -> str:
    """The Link header to the next page, of the timeline this page was of."""
    asked = {"after": end, "limit": limit, "timeline": found.timeline} | ({"embeddings": "true"} if embeddings else {})
    return f'</v1/streams/{found.stream}/records?{urlencode(asked)}>; rel="next"'


def _embedding_size(connection: sqlite3.Connection) -> int:
    """How many numbers an embedding has, as the worker wrote it down."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'model'").fetchone()
    if row is None:
        raise Problem(503, "directory_refused", "no model has been made yet; the worker makes it when it starts")
    return int(json.loads(row[0])["embedding_size"])
