"""``GET /v1/streams/{s}/records``: the history of a stream, page by page."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from clients.wire import MAX_SEQ
from service.api.problems import Problem
from service.api.shapes import Records
from service.api.site import Site, StreamId, answer, check_stream
from service.history import MAX_PAGE, lineage, records_page


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
            page, more = records_page(connection, stream, after=after, limit=limit, timeline=timeline)
        return answer({"records": [record.json(embedding=embeddings) for record in page], "next": more})

    return routes
