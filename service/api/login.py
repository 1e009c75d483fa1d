"""``/login`` and ``/logout``: a page without scripts where a browser shows a token once and is given a cookie."""

from __future__ import annotations

import html
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from service.access import Access
from service.api.layout import page_response
from service.api.problems import Problem
from service.api.sessions import Sessions, set_cookie

FORM_TYPE = "application/x-www-form-urlencoded"


def router(access: Access, sessions: Sessions) -> APIRouter:
    """The routes of this module; without tokens there is nothing to log in to, and both lead to the dashboard."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/login")
    async def form(request: Request) -> Response:
        if access.tokens is None:
            return RedirectResponse("/", 303)
        role = sessions.role_of(request.headers.get("cookie", ""))
        return _page("") if role is None else _logged_in(role)

    @routes.post("/login")
    async def login(request: Request) -> Response:
        token = await _token(request)
        if access.tokens is None:
            return RedirectResponse("/", 303)
        cookie = sessions.begin(token)
        if cookie is None:
            return _page("That token is not known.", 401)
        return RedirectResponse("/", 303, {"Set-Cookie": set_cookie(cookie)})

    @routes.post("/logout")
    async def logout(request: Request) -> Response:
        sessions.end(request.headers.get("cookie", ""))
        return RedirectResponse("/login", 303, {"Set-Cookie": set_cookie("")})

    return routes


async def _token(request: Request) -> str:
    """The field ``token`` of a form. Raises a :class:`Problem`, 415 or 422."""
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared != FORM_TYPE:
        raise Problem(415, "unsupported_media_type", f"a form is wanted here: {FORM_TYPE}, with the field token")
    try:
        found = parse_qs((await request.body()).decode("ascii"), max_num_fields=10).get("token", [])
    except ValueError:
        found = []
    if len(found) != 1:
        raise Problem(422, "invalid", "the form has one field, token")
    return found[0].strip()


def _page(said: str, status: int = 200) -> Response:
    told = f'<p class="bad">{html.escape(said)}</p>' if said else ""
    return page_response(
        "rjepa: login",
        f"<h1>rjepa</h1>{told}"
        '<form method="post" action="/login"><p><label>Token <input name="token" type="password" '
        'autocomplete="current-password" required autofocus></label> <button>Log in</button></p></form>'
        '<p class="quiet"><code>rjepa token add NAME --role read</code> makes one, on the machine of the worker.</p>',
        form=True,
        status=status,
    )


def _logged_in(role: str) -> Response:
    may = "look and change" if role == "admin" else "look"
    return page_response(
        "rjepa: logged in",
        f'<h1>rjepa</h1><p>Logged in: this browser may {may}. <a href="/">The dashboard</a></p>'
        '<form method="post" action="/logout"><p><button>Log out</button></p></form>',
        form=True,
    )
