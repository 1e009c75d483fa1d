"""``GET /v1/events``: records, checkpoints and alarms as they become durable, as server-sent events."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from service.access import NAME_PATTERN
from service.api.broadcast import Broadcast
from service.api.problems import Problem
from service.api.site import Site, check_stream
from service.events import forgotten_up_to, newest_event

MEDIA_TYPE = "text/event-stream"
_TOLD = (
    "each with `id`, `event` (record, checkpoint or alarm) and `data`: the record as /records has it, the checkpoint as"
    " it was when it was new, or the alarm; comments in between. `event: end` says why it ends"
)

_EXAMPLE = 'id: 1204\nevent: record\ndata: {"stream":"s1","seq":1199}\n\n'


def router(site: Site, broadcast: Broadcast) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(tags=["events"])

    @routes.get(
        "/v1/events",
        response_class=StreamingResponse,
        responses={
            200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}}, "description": _TOLD}
        },
        summary="Server-sent events: record, checkpoint, alarm; resumes with Last-Event-ID",
        dependencies=[Depends(broadcast.place)],
    )
    async def get_events(
        request: Request,
        stream: Annotated[
            str | None,
            Query(
                pattern=NAME_PATTERN,
                description="this stream's records and alarms, and what concerns the whole",
                examples=["s1"],
            ),
        ] = None,
        last_event_id: Annotated[
            str | None,
            Header(
                pattern=r"^[0-9]{1,18}$", description="go on after this event; without it, begin now", examples=["1204"]
            ),
        ] = None,
    ) -> StreamingResponse:
        """It does not end by itself. 410 where events since have been forgotten, 404 for an id that is yet to come."""
        after = await anyio.to_thread.run_sync(_begin, site, stream, last_event_id)
        body = broadcast.listen(after, stream, request.state.still_allowed)
        return StreamingResponse(body, media_type=MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})

    return routes


def _begin(site: Site, stream: str | None, last_event_id: str | None) -> int:
    """The id of the last event the listener has had. Raises the problem where it can't go on after the one it names."""
    with site.read() as connection:
        if stream is not None:
            check_stream(connection, stream)
        newest, forgotten = newest_event(connection), forgotten_up_to(connection)
    after = newest if last_event_id is None else int(last_event_id)
    again = "take what you need from /records, and begin without Last-Event-ID"
    if after > newest:
        told = f"there is no event {after} yet, the newest is {newest}: this is another database, or an older one"
        raise Problem(404, "unknown_event", f"{told}; {again}")
    if after < forgotten:
        raise Problem(410, "events_gone", f"events after {after} up to {forgotten} are not all kept any more; {again}")
    return after
