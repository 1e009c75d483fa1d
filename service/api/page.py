"""``GET /``: one plain page made on the server, with the loss curve and where each stream stands."""

from __future__ import annotations

import html
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from service.access import NAME_PATTERN
from service.api.drawing import loss_picture
from service.api.error_history import ErrorHistory
from service.api.layout import page_response, table
from service.api.loss import WINDOW, loss_by_time
from service.api.model import describe
from service.api.site import Site
from service.api.streams import newest_alarms, stream_entries
from service.errors import ServiceError

REFRESH_S = 5
POINTS = 800
STREAMS_SHOWN = 100
ALARMS_SHOWN = 5


def router(site: Site, history: ErrorHistory) -> APIRouter:
    """The routes of this module."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/", dependencies=[site.queue("heavy")])
    def page(stream: Annotated[str | None, Query(pattern=NAME_PATTERN)] = None) -> Response:
        status = site.worker.status_or_none()
        entries: list[dict[str, Any]] = []
        alarms: list[dict[str, Any]] = []
        if site.database.is_file():
            with site.read() as connection:
                owners = None if status is None else dict(status["owners"])
                entries = stream_entries(connection, owners, time.time(), limit=STREAMS_SHOWN)
                alarms = newest_alarms(connection)[:ALARMS_SHOWN]
        shown = _chosen(entries, stream)
        body = [f"<h1>rjepa</h1>{_state(site, status)}"]
        if shown is not None:
            loss = loss_by_time(history.get(shown), POINTS, WINDOW)
            look = next(entry["diagnostics"] for entry in entries if entry["stream"] == shown)
            body.append(_curve(shown, loss) + _word(look))
        body.append(_streams(entries, shown))
        body.append(_alarms(alarms))
        body.append('<p class="quiet">The same as numbers: <a href="/docs">all calls of the HTTP interface</a>.</p>')
        return page_response("rjepa", "".join(body), refresh_s=REFRESH_S)

    return routes


def _chosen(entries: list[dict[str, Any]], wanted: str | None) -> str | None:
    """The stream asked for; without one, that which was seen last."""
    names = {entry["stream"]: entry["idle_s"] for entry in entries}
    if wanted in names:
        return wanted
    seen = {name: idle for name, idle in names.items() if idle is not None}
    return min(seen, key=lambda name: seen[name]) if seen else None


def _state(site: Site, status: dict[str, Any] | None) -> str:
    if status is None:
        said = '<span class="bad">the worker is not reachable</span>'
    elif status["recovering"]:
        done, all_ = status["recovered"], status["to_recover"]
        said = f'<span class="bad">recovering</span> {done} of {all_} entries learned again'
    elif status["storage"]:
        said = f'<span class="bad">the journal can\'t be written: {html.escape(str(status["storage"]))}</span>'
    elif not status["model"]["learning"]:
        said = '<span class="bad">learning is paused</span>'
    else:
        said = '<span class="good">learning is on</span>'
    parts = [said]
    if status is not None:
        parts.append(f"{status['waiting']} fixations wait")
    try:
        model = describe(site)
    except ServiceError:
        parts.append("no model has been made yet")
    else:
        total = model["parameters"].get("total")
        count = f", {total:,} parameters" if isinstance(total, int) else ""
        exact = "exact" if model["rfp_exact"] else "approximate"
        parts.append(
            html.escape(
                f"{model['gates']} gates, {model['units']} units{count}, gradient {exact}, on {model['device']}"
            )
        )
    return '<p class="state">' + "".join(f"<span>{part}</span>" for part in parts) + "</p>"


def _curve(stream: str, loss: dict[str, Any]) -> str:
    name = html.escape(stream)
    head = f"<h2>Prediction error of {name}, {loss['count']:,} fixations</h2>"
    trivial = (loss["trivial_name"] or "none yet").replace("_", " ")
    keys = [
        ("raw", "each fixation (least and greatest of a run)"),
        ("smoothed", f"mean of the last {loss['window']}"),
        ("trivial", f"best trivial predictor ({html.escape(trivial)}), the same mean"),
    ]
    legend = "".join(
        f'<li><svg viewBox="0 0 40 10" aria-hidden="true"><polyline class="{kind}" points="0,5 40,5"/></svg>{text}</li>'
        for kind, text in keys
    )
    return f'{head}{loss_picture(loss, stream)}<ul class="key">{legend}</ul>'


def _word(look: dict[str, Any] | None) -> str:
    """Whether it learns, as of the last regular look."""
    if look is None:
        return '<p class="quiet">Not learning yet, or not known: too few fixations.</p>'
    kind = "good" if look["learning"] else "bad"
    said = f'<p><span class="{kind}">{html.escape(look["verdict"])}</span> {html.escape(look["why"])}'
    said += f", as of seq {look['seq']:,}"
    for alarm in look["alarms"]:
        said += f'<br><span class="bad">{html.escape(alarm["kind"])}</span> {html.escape(alarm["detail"])}'
    return f"{said}</p>"


def _streams(entries: list[dict[str, Any]], shown: str | None) -> str:
    if not entries:
        return "<h2>Streams</h2><p>None yet. <code>rjepa stream</code> sends fixations.</p>"
    rows = []
    for entry in entries:
        name = html.escape(entry["stream"])
        link = f'<a href="/?stream={name}"{" aria-current=page" if entry["stream"] == shown else ""}>{name}</a>'
        dropped = ", ".join(f"{count} {reason}" for reason, count in entry["dropped"].items()) or "0"
        rows.append(
            [
                link,
                {True: "yes", False: "no", None: "?"}[entry["connected"]],
                f"{entry['learned']:,}",
                str(entry["lag"]),
                f"{entry['rate']:.2f}",
                "–" if entry["last_error"] is None else f"{entry['last_error']:.4g}",
                html.escape(dropped),
                str(entry["padded"]),
                "–" if entry["idle_s"] is None else _span(entry["idle_s"]),
            ]
        )
    head = ["stream", "client seen", "learned", "waiting", "per s", "last error", "not learned", "padded", "idle"]
    return f"<h2>Streams</h2>{table(head, rows)}"


def _span(seconds: float) -> str:
    """A time span in the unit one would say it in."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def _alarms(alarms: list[dict[str, Any]]) -> str:
    if not alarms:
        return '<h2>Alarms</h2><p class="quiet">None.</p>'
    rows = [
        [
            time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(alarm["time"])),
            html.escape(alarm["kind"]),
            html.escape(alarm["stream"] or "all"),
            html.escape(alarm["detail"]),
        ]
        for alarm in alarms
    ]
    return f"<h2>Alarms</h2>{table(['time', 'kind', 'stream', 'detail'], rows, frozenset({1, 2, 3}))}"
