"""``GET /``: the dashboard. Its frame and first picture are made here; the rest is done by the modules it loads."""

from __future__ import annotations

import gzip
import html
import math
import time
from functools import cache
from string import Template
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from service.access import NAME_PATTERN
from service.api import page_parts as parts
from service.api.assets import digest, every_asset, text_of
from service.api.error_history import ErrorHistory
from service.api.loss import WINDOW, loss_by_time
from service.api.sampled_curve import sampled_loss
from service.api.sessions import Sessions
from service.api.site import Site
from service.api.streams import alarms_on, newest_alarms, stream_entries

POINTS = 800
STREAMS_SHOWN = 100
ALARMS_SHOWN = 5
READ_AT_ONCE = 50_000
"""With more fixations than this to read first, the picture is one of a sample, and the whole is read meanwhile."""
PLACES = 150
"""Of that sample."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # under no-referrer a form is sent with `Origin: null`
}
"""The page runs and loads what lies here, in files; nothing inside it, and nothing from anywhere else."""
LOG_OUT = '<form method="post" action="/logout"><button>Log out</button></form>'


def router(site: Site, history: ErrorHistory, sessions: Sessions) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(include_in_schema=False)

    async def note_role(request: Request) -> None:
        """Whether whoever asks may change anything; the guard has let only those in who may look."""
        authorization = request.headers.get("authorization", "")
        if authorization:
            role = site.access.role_of(authorization.partition(" ")[2].strip())
        else:
            role = sessions.role_of(request.headers.get("cookie", ""))
        request.state.may_change = site.access.tokens is None or role == "admin"

    @routes.get("/", dependencies=[Depends(note_role), site.queue("heavy")])
    def page(request: Request, stream: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None) -> Response:
        body = _page(site, history, stream, request.state.may_change).encode()
        headers = HEADERS | {"Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            body, headers["Content-Encoding"] = gzip.compress(body, 5), "gzip"
        return Response(body, media_type="text/html", headers=headers)

    return routes


def _page(site: Site, history: ErrorHistory, wanted: str | None, may: bool) -> str:
    status = site.worker.status_or_none()
    entries: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    on: list[dict[str, Any]] = []
    if site.database.is_file():
        with site.read() as connection:
            owners = None if status is None else dict(status["owners"])
            entries = stream_entries(connection, owners, time.time(), limit=STREAMS_SHOWN)
            alarms, on = newest_alarms(connection)[:ALARMS_SHOWN], alarms_on(connection)
    shown = _chosen(entries, wanted)
    entry = next((one for one in entries if one["stream"] == shown), None)
    loss = None if entry is None else _loss(site, history, entry)
    on += [told for one in entries for told in one["alarms_on"]]
    return _frame().substitute(
        assets=f"/assets/{digest()}",
        preload=_preload(),
        may="change" if may else "look",
        stream="" if shown is None else html.escape(shown),
        options=parts.options([one["stream"] for one in entries], shown),
        logout="" if site.access.tokens is None else LOG_OUT,
        state=parts.state(site, status),
        word=parts.word(None if entry is None else entry["diagnostics"]),
        curve="" if loss is None or shown is None else parts.curve(shown, loss),
        key=parts.key(loss),
        streams=parts.streams(entries, shown),
        alarms=parts.alarms(on, alarms),
        kinds=parts.kinds(),
    )


def _loss(site: Site, history: ErrorHistory, entry: dict[str, Any]) -> dict[str, Any]:
    """The curve of the whole history; of a sample of it where reading it all would take long."""
    stream = entry["stream"]
    if history.behind(stream, entry["learned_seq"]) <= READ_AT_ONCE:
        return loss_by_time(history.get(stream), POINTS, WINDOW)
    history.read_ahead(stream)
    with site.read() as connection:
        return sampled_loss(connection, stream, entry["learned_seq"], PLACES, WINDOW)


@cache
def _frame() -> Template:
    return Template(text_of("page.html"))


@cache
def _preload() -> str:
    """All modules at once: without this each is asked for only after the one that imports it has come."""
    names = [name for name in every_asset() if name.endswith(".js") and name not in ("boot.js", "main.js")]
    return "".join(f'<link rel="modulepreload" href="/assets/{digest()}/{name}">\n' for name in names)


def _chosen(entries: list[dict[str, Any]], wanted: str | None) -> str | None:
    """The stream asked for; without one, that which was seen last, or one that has sent nothing yet."""
    names = {entry["stream"]: math.inf if entry["idle_s"] is None else entry["idle_s"] for entry in entries}
    return wanted if wanted in names else min(names, key=lambda name: names[name], default=None)
