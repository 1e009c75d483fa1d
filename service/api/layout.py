"""The frame of the pages made here: one style sheet inside, no script, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import hashlib
import html

from starlette.responses import Response

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--quiet:#59636e;--paper:#fff;--line:#d0d7de;--raw:#8c959f;
--strong:#0060a8;--other:#b34700;--good:#116329;--bad:#a40e26}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--quiet:#9aa4ae;--paper:#0d1117;--line:#30363d;
--raw:#8b949e;--strong:#6cb6ff;--other:#ffa657;--good:#7ee787;--bad:#ff9492}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.2rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.4rem;margin:0 0 .4rem}h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
.state{display:flex;flex-wrap:wrap;gap:.4rem 1.6rem;margin:0 0 1rem}
.quiet{color:var(--quiet)}.good{color:var(--good);font-weight:600}.bad{color:var(--bad);font-weight:600}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{padding:.3rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,.text{text-align:left}
.text{white-space:normal}
a{color:var(--strong)}code{font-size:.92em}
svg{width:100%;height:auto;display:block}
svg text{font:13px system-ui,sans-serif;fill:var(--quiet)}
svg .grid{stroke:var(--line);stroke-width:1}
svg polyline{fill:none;stroke-linejoin:round}
.raw{stroke:var(--raw);stroke-width:1;opacity:.45}
.smoothed{stroke:var(--strong);stroke-width:2.6}
.trivial{stroke:var(--other);stroke-width:2;stroke-dasharray:7 5}
pre{overflow-x:auto;margin:.2rem 0 .6rem;font-size:.85em}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1.6rem;margin:.3rem 0 0;padding:0;list-style:none}
.key svg{display:inline-block;width:2.4rem;height:.8rem;vertical-align:middle;margin-right:.4rem}
"""
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
