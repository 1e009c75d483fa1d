"""Who may ask what, checked before any resource is reached.

In this order: the client's address has not asked too often, the Host header is on the list (DNS rebinding), an
Origin header, where one is sent, names that same host (a foreign page), the body is within its limit, and with
tokens on the call carries a token that may do it: ``read`` to look, ``admin`` to change. A token is taken from
the Authorization header, or stands behind the cookie of a browser that has logged in; never from a URL, and it is
in no log. Then the body is read as a whole, so that a slow one holds no place in a queue.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

import anyio
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access, Role
from service.api.headers import HEADERS
from service.api.problems import Problem, problem_response
from service.api.rate import Rates
from service.api.sessions import Sessions

MAX_BODY_BYTES = 1 << 20
BODY_S = 20.0
"""How long a body may take to come."""
HEALTH_PATHS = frozenset({"/livez", "/readyz"})
"""A health check needs no token and is not counted; these say nothing of what was seen."""
FORM_PATHS = frozenset({"/login", "/logout"})
"""No token yet, or none any more; what is sent here must come from our own page."""
PAGES = frozenset({"/", "/docs"})
"""A browser without a session is sent from these to the login form."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
LOOKING_PATHS = frozenset({"/v1/embed"})
"""POST, but nothing changes by it."""


class Guard:
    """ASGI middleware: the module's checks, and :data:`~service.api.headers.HEADERS` on every answer."""

    def __init__(
        self, app: ASGIApp, access: Access, allowed_hosts: frozenset[str], sessions: Sessions, rates: Rates
    ) -> None:
        self._app = app
        self._access = access
        self._allowed = allowed_hosts
        self._sessions = sessions
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the call through to the application, or answer it with the problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            scope.setdefault("state", {})["still_allowed"] = partial(self._still_allowed, Headers(scope=scope))
            body = await _whole(receive)
        except Problem as problem:
            await _refusal(scope, problem)(scope, receive, send_guarded)
            return
        if body is not None:
            await self._app(scope, _first(body, receive), send_guarded)

    def _check(self, scope: Scope) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if path not in HEALTH_PATHS:
            wait_s = self._rates.take((scope.get("client") or ("",))[0])
            if wait_s is not None:
                told = {"Retry-After": str(math.ceil(wait_s))}
                raise Problem(429, "too_many_requests", "this address asks too often; see request_rate", told)
        host = headers.get("host", "")
        if _name(host) not in self._allowed:
            raise Problem(
                403, "foreign_host", f"Host {host[:100]!r} is not on the list; add it to the setting allowed_hosts"
            )
        origin = headers.get("origin")
        if origin is not None and _site(origin) != host.lower():
            raise Problem(403, "foreign_origin", f"a page of {origin[:100]!r} may not call this")
        if origin is None and path in FORM_PATHS and scope["method"] not in LOOKING:
            raise Problem(403, "foreign_origin", "a form is sent by its own page: the header Origin is wanted here")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        if self._access.tokens is not None and path not in HEALTH_PATHS | FORM_PATHS:
            self._check_role(scope, headers)

    def _check_role(self, scope: Scope, headers: Headers) -> None:
        authorization, changes = headers.get("authorization", ""), _changes(scope)
        role = self._role(authorization, headers.get("cookie", ""))
        if role is None:
            told = "that token is not known" if authorization else "a token is needed"
            raise Problem(
                401,
                "unauthorized",
                f"{told}: send the header `Authorization: Bearer TOKEN`; `rjepa token add` makes one",
                {"WWW-Authenticate": 'Bearer realm="rjepa"'},
            )
        if changes and not authorization and headers.get("origin") is None:
            raise Problem(403, "foreign_origin", "with a cookie, a changing call must name its page: header Origin")
        if changes and role != "admin":
            raise Problem(403, "forbidden", "this token may only look; changing needs one made with --role admin")

    def _still_allowed(self, headers: Headers) -> bool:
        """Whether one whose call was let in may still look: an answer without end asks again."""
        if self._access.tokens is None:
            return True
        return self._role(headers.get("authorization", ""), headers.get("cookie", "")) is not None

    def _role(self, authorization: str, cookie: str) -> Role | None:
        if not authorization:
            return self._sessions.role_of(cookie)
        scheme, _, token = authorization.partition(" ")
        return self._access.role_of(token.strip()) if scheme.lower() == "bearer" else None


async def json_only(request: Request) -> None:
    """A dependency of every changing call: its body is declared as JSON, which no foreign form can do.

    DELETE without a body needs no declaration: no page can send that across origins unasked.
    """
    declared = request.headers.get("content-type", "")
    if request.method == "DELETE" and not declared:
        return
    if declared.partition(";")[0].strip().lower() != "application/json":
        raise Problem(
            415, "unsupported_media_type", "send the header Content-Type: application/json (the body may be {})"
        )


def host_list(allowed_hosts: str) -> frozenset[str]:
    """The names in the setting ``allowed_hosts``."""
    return frozenset(_name(part.strip()) for part in allowed_hosts.split(",") if part.strip())


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdecimal() and not name.endswith(":") else host
    return bare.lower().rstrip(".")


def _site(origin: str) -> str | None:
    """The host and port an Origin header names; None where it is no address at all."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _changes(scope: Scope) -> bool:
    return scope["method"] not in LOOKING and scope["path"] not in LOOKING_PATHS


def _refusal(scope: Scope, problem: Problem) -> Response:
    """The problem, or for a browser that wants to see a page the way to the login form."""
    wants_page = "text/html" in Headers(scope=scope).get("accept", "")
    if problem.code == "unauthorized" and wants_page and scope["method"] == "GET" and scope["path"] in PAGES:
        return RedirectResponse("/login", 303)
    return problem_response(problem, scope["path"])


def _too_large() -> Problem:
    return Problem(413, "too_large", f"a body may have {MAX_BODY_BYTES} bytes at most")


async def _whole(receive: Receive) -> bytes | None:
    """The body, or None where the client has gone. Raises the 413 and, after :data:`BODY_S`, the 408."""
    pieces, size = [], 0
    try:
        with anyio.fail_after(BODY_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body", False):
                    return b"".join(pieces)
    except TimeoutError:
        raise Problem(408, "too_slow", f"a body may take {BODY_S:g} s", {"Connection": "close"}) from None


def _first(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """The body in one piece, then what else comes (that the client has gone)."""
    left = [body]

    async def receive_first() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return receive_first
