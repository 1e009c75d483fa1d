"""The parts of the dashboard's page that are drawn here, so that it shows something before, and without, any script."""

from __future__ import annotations

import html
import time
from typing import Any

from service import alarms as kinds_of_alarms
from service.api.drawing import loss_picture
from service.api.layout import table
from service.api.loss import WINDOW
from service.api.model import describe
from service.api.site import Site
from service.errors import ServiceError


def state(site: Site, status: dict[str, Any] | None) -> str:
    """Whether the worker learns, and what."""
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
    return "".join(f"<span>{part}</span>" for part in parts)


def curve(stream: str, loss: dict[str, Any]) -> str:
    """The loss curve; told as a sample where it is one."""
    count = f"{loss['count']:,} fixations"
    if "sampled" in loss:
        count += f"; drawn from {loss['sampled']:,} of them, spread evenly, while all are being read"
    return f'<p class="quiet">{count}</p>{loss_picture(loss, stream)}'


def key(loss: dict[str, Any] | None) -> str:
    """What the three lines are."""
    trivial = ((loss or {}).get("trivial_name") or "none yet").replace("_", " ")
    lines = [
        ("raw", "error of each fixation (least and greatest of a run)"),
        ("smoothed", f"mean of the last {WINDOW} fixations"),
        ("trivial", f'best trivial predictor (<span id="trivial-name">{html.escape(trivial)}</span>), the same mean'),
    ]
    return "".join(
        f'<li><svg viewBox="0 0 40 10" aria-hidden="true"><polyline class="{kind}" points="0,5 40,5"/></svg>{text}</li>'
        for kind, text in lines
    )


def options(names: list[str], shown: str | None) -> str:
    """The streams to choose from."""
    return "".join(f"<option{' selected' if name == shown else ''}>{html.escape(name)}</option>" for name in names)


def kinds() -> str:
    """What each kind of alarm means."""
    return "".join(f"<dt>{kind}</dt><dd>{html.escape(told)}</dd>" for kind, told in kinds_of_alarms.KINDS.items())


def word(look: dict[str, Any] | None) -> str:
    """Whether it learns, as of the last regular look."""
    if look is None:
        return '<p class="quiet">Not learning yet, or not known: too few fixations.</p>'
    kind = "good" if look["learning"] else "bad"
    said = f'<p><span class="{kind}">{html.escape(look["verdict"])}</span> {html.escape(look["why"])}'
    said += f", as of seq {look['seq']:,}"
    for alarm in look["alarms"]:
        said += f'<br><span class="bad">{html.escape(alarm["kind"])}</span> {html.escape(alarm["detail"])}'
    return f"{said}</p>"


def streams(entries: list[dict[str, Any]], shown: str | None) -> str:
    """Where each stream stands."""
    if not entries:
        return "<p>None yet. <code>rjepa stream</code> sends fixations.</p>"
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
    return table(head, rows)


def _span(seconds: float) -> str:
    """A time span in the unit one would say it in."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def alarms(on: list[dict[str, Any]], newest: list[dict[str, Any]]) -> str:
    """Those that are on, then the newest ever raised."""
    told = "".join(
        f'<li><span class="bad">{html.escape(alarm["kind"])}</span> {_told(alarm, "since")}</li>' for alarm in on
    )
    past = "".join(f'<li class="past">{html.escape(alarm["kind"])} {_told(alarm, "time")}</li>' for alarm in newest)
    none = "" if told else '<p class="quiet">None is on.</p>'
    return f'{none}<ul class="alarms">{told}{past}</ul>'


def _told(alarm: dict[str, Any], when: str) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(alarm[when]))
    return f"{html.escape(alarm['stream'] or 'all')}, {at}: {html.escape(alarm['detail'])}"
