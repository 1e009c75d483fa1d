"""The HTTP interface put together: one file per resource, guarded as a whole.

It is a process of its own beside the worker: it reads the database by short snapshots and asks the worker
over the control socket, so that no reader, however eager, stands in learning's way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import FastAPI

from service.access import Access
from service.api import (
    assets,
    checkpoints,
    diagnostics,
    docs,
    embed,
    embedding,
    events,
    health,
    login,
    loss,
    metrics,
    model,
    openapi,
    page,
    patch,
    problems,
    records,
    streams,
    trajectory,
)
from service.api.broadcast import Broadcast
from service.api.error_history import ErrorHistory
from service.api.rate import Rates
from service.api.security import Guard, host_list
from service.api.sessions import Sessions
from service.api.site import Site
from service.settings import Settings

THREADS = 8
"""Of which at most one computes and six wait for the worker, so a short look always finds one."""
VERSION = "1"


def create_app(settings: Settings, access: Access) -> FastAPI:
    """The application for the data directory in ``settings``; neither database nor worker need be there yet."""
    site = Site(settings, access)
    history = ErrorHistory(site.read)
    broadcast = Broadcast(site.database, settings.event_streams)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        site.open_queues()
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        async with broadcast.running():
            yield {"stopping": broadcast.stop}

    app = FastAPI(
        title="rjepa",
        version=VERSION,
        description="Learning from fixations, one after the other. Errors are RFC 9457 problems; times are seconds.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    sessions = Sessions(access)
    app.add_middleware(
        Guard,
        access=access,
        allowed_hosts=host_list(settings.allowed_hosts),
        sessions=sessions,
        rates=Rates(settings.request_rate),
    )
    for resource in (health, metrics, model, streams, embedding, records, trajectory, patch, embed):
        app.include_router(resource.router(site))
    for resource in (checkpoints, diagnostics):
        app.include_router(resource.router(site))
    app.include_router(loss.router(site, history))
    app.include_router(page.router(site, history, sessions))
    app.include_router(assets.router())
    app.include_router(events.router(site, broadcast))
    app.include_router(docs.router(app))
    app.include_router(login.router(access, sessions))
    openapi.describe(app)
    return app
