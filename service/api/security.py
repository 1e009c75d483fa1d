"""Who may ask what, checked before any resource is reached.

In this order: the Host header is on the list (DNS rebinding), an Origin header, where one is sent, names
that same host (a foreign page), the body is within its limit, and with tokens on the call carries a token
that may do it: ``read`` to look, ``admin`` to change. A token is taken from the Authorization header alone,
never from a URL, and is in no log.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access
from service.api.problems import Problem, problem_response

MAX_BODY_BYTES = 1 << 20
OPEN_PATHS = frozenset({"/livez", "/readyz"})
"""A health check needs no token; these say nothing of what was seen."""
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
LOOKING_PATHS = frozenset({"/v1/embed"})
"""POST, but nothing changes by it."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""On every answer; a page has a policy of its own."""


class Guard:
    """ASGI middleware: the module's checks, and :data:`HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, access: Access, allowed_hosts: frozenset[str]) -> None:
        self._app = app
        self._access = access
        self._allowed = allowed_hosts

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
        except Problem as problem:
            await problem_response(problem, scope["path"])(scope, receive, send_guarded)
            return
        await self._app(scope, _limited(receive), send_guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(host) not in self._allowed:
            raise Problem(
                403, "foreign_host", f"Host {host[:100]!r} is not on the list; add it to the setting allowed_hosts"
            )
        origin = headers.get("origin")
        if origin is not None and _site(origin) != host.lower():
            raise Problem(403, "foreign_origin", f"a page of {origin[:100]!r} may not call this")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > MAX_BODY_BYTES:
            raise _too_large()
        if self._access.tokens is not None and scope["path"] not in OPEN_PATHS:
            self._check_token(scope, headers.get("authorization", ""))

    def _check_token(self, scope: Scope, authorization: str) -> None:
        scheme, _, token = authorization.partition(" ")
        role = self._access.role_of(token.strip()) if scheme.lower() == "bearer" else None
        if role is None:
            told = "that token is not known" if authorization else "a token is needed"
            raise Problem(
                401,
                "unauthorized",
                f"{told}: send the header `Authorization: Bearer TOKEN`; `rjepa token add` makes one",
                {"WWW-Authenticate": 'Bearer realm="rjepa"'},
            )
        if role != "admin" and scope["method"] not in LOOKING and scope["path"] not in LOOKING_PATHS:
            raise Problem(403, "forbidden", "this token may only look; changing needs one made with --role admin")


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


def _too_large() -> Problem:
    return Problem(413, "too_large", f"a body may have {MAX_BODY_BYTES} bytes at most")


def _limited(receive: Receive) -> Receive:
    read = 0

    async def receive_limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return receive_limited
