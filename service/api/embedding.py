"""``GET /v1/streams/{s}/embedding``: what the learner last made of what was seen."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.api.problems import Problem
from service.api.shapes import Embedding
from service.api.site import Site, StreamId, answer, check_stream
from service.history import lineage, where_lineage
from service.records import numbers


def router(site: Site) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["streams"])

    @routes.get("/v1/streams/{stream}/embedding", response_model=Embedding, summary="The current embedding and its seq")
    def get_embedding(stream: StreamId) -> Response:
        """A repeat keeps the embedding and moves its seq. 404 while nothing has been learned."""
        with site.read() as connection:
            check_stream(connection, stream)
            condition, values = where_lineage(lineage(connection))
            newest = f"FROM records WHERE stream = ? AND {condition} AND"
            held = connection.execute(
                f"SELECT seq, embedding {newest} embedding IS NOT NULL ORDER BY seq DESC LIMIT 1", (stream, *values)
            ).fetchone()
            seen = connection.execute(
                f"SELECT seq {newest} (skipped IS NULL OR skipped = 'repeat') ORDER BY seq DESC LIMIT 1",
                (stream, *values),
            ).fetchone()
        if held is None:
            raise Problem(404, "no_embedding", f"stream {stream!r} has no embedding yet: nothing of it was learned")
        seq = max(held["seq"], seen["seq"] if seen is not None else -1)
        return answer({"stream": stream, "seq": seq, "embedding": numbers(held["embedding"]).tolist()})

    return routes
