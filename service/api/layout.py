"""The frame of the pages made here: one style sheet inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html

from starlette.responses import Response

from service.api.assets import text_of

STYLE = (
    text_of("look.css")
    + """
body{margin:0 auto;max-width:64rem;padding:1.2rem}
h1{font-size:1.4rem;margin:0 0 .4rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
pre{overflow-x:auto;margin:.2rem 0 .6rem;font-size:.85em}
"""
)
"""The dashboard's colours and type, and what these plain pages have of their own."""
_DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{_DIGEST}'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of a page: its own style, and nothing else that runs or loads."""
FORM_HEADERS = {
    "Content-Security-Policy": POLICY.replace("form-action 'none'", "form-action 'self'"),
    "Referrer-Policy": "same-origin",  # under no-referrer a form is sent with `Origin: null`
}
"""Of a page with a form, which may be sent to this interface alone."""


def page_response(
    title: str, body: str, *, refresh_s: int | None = None, form: bool = False, status: int = 200
) -> Response:
    """A whole page around ``body``, which is HTML already; loaded again every ``refresh_s`` seconds."""
    refresh = "" if refresh_s is None else f'<meta http-equiv="refresh" content="{refresh_s}">'
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'{refresh}<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
        f"<body>{body}</body></html>"
    )
    headers = FORM_HEADERS if form else {"Content-Security-Policy": POLICY}
    return Response(text, status, media_type="text/html", headers=headers)


def table(head: list[str], rows: list[list[str]], text_columns: frozenset[int] = frozenset()) -> str:
    """A table; the cells are HTML already. Columns in ``text_columns`` are read from the left and may break."""

    def mark(column: int) -> str:
        return ' class="text"' if column in text_columns else ""

    top = "".join(f'<th scope="col"{mark(i)}>{html.escape(name)}</th>' for i, name in enumerate(head))
    body = "".join(
        "<tr>" + "".join(f"<td{mark(i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
