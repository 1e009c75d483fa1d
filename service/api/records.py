"""``GET /v1/streams/{s}/records``: the history of a stream, page by page.

A page is read and sent in pieces, the next once the one before was taken: a slow reader of a large page holds one
piece of it here, and no place in the queue.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response, StreamingResponse

from clients.wire import MAX_SEQ
from service.api.problems import Problem
from service.api.shapes import Records
from service.api.site import Site, StreamId, check_stream
from service.history import MAX_PAGE, lineage, present_timeline, records_page
from service.records import Record

PIECE = 100
"""Records of one piece: 0.6 MB with their embeddings."""


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get(
        "/v1/streams/{stream}/records",
        response_model=Records,
        summary="What each fixation came to, ascending by seq",
        dependencies=[site.queue("heavy")],
    )
    def get_records(
        stream: StreamId,
        after: Annotated[int, Query(ge=-1, le=MAX_SEQ, description="records above this seq")] = -1,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="records a page")] = 1000,
        timeline: Annotated[
            int | None, Query(ge=0, le=MAX_SEQ, description="another timeline, with its ancestors up to the fork")
        ] = None,
        embeddings: Annotated[bool, Query(description="with the embedding of each")] = False,
    ) -> Response:
        """The present timeline and its ancestors up to the fork, each seq once."""
        with site.read() as connection:
            check_stream(connection, stream)
            if timeline is not None and not lineage(connection, timeline):
                raise Problem(404, "unknown_timeline", f"there is no timeline {timeline}")
            chosen = present_timeline(connection) if timeline is None else timeline
        page = _Page(site, stream, chosen, embeddings, after, limit)
        first = page.piece()
        if page.over:
            return Response(first, media_type="application/json")
        return StreamingResponse(_rest(page, first), media_type="application/json")

    return routes


@dataclass
class _Page:
    """A page as it is being read: the ``left`` records above seq ``after``."""

    site: Site
    stream: str
    timeline: int
    embeddings: bool
    after: int
    left: int
    begun: bool = False
    over: bool = False

    def piece(self) -> str:
        """The next piece of the answer's JSON."""
        with self.site.read() as connection:
            records, more = records_page(
                connection, self.stream, after=self.after, limit=min(PIECE, self.left), timeline=self.timeline
            )
        self.left -= len(records)
        self.over = more is None or self.left == 0
        head = "" if self.begun else '{"records":['
        between = "," if self.begun and records else ""
        tail = f'],"next":{"null" if more is None else more}}}' if self.over else ""
        self.begun, self.after = True, self.after if more is None else more
        return head + between + ",".join(self._json(record) for record in records) + tail

    def _json(self, record: Record) -> str:
        return json.dumps(record.json(embedding=self.embeddings), allow_nan=False, separators=(",", ":"))


async def _rest(page: _Page, first: str) -> AsyncIterator[str]:
    yield first
    while not page.over:
        yield await page.site.queues["heavy"].piece(page.piece)
