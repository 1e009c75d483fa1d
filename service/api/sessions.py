"""Browsers that have logged in: a cookie stands for the token, which the browser does not keep.

Sessions live in memory: a restart ends them, and taking a token back ends those begun with it at once. The
cookie's text is kept nowhere, only its SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from service.access import Access, Role

COOKIE = "rjepa_session"
SESSION_S = 12 * 3600
"""How long a login lasts."""
MAX_SESSIONS = 1_000
"""Sessions at a time; the oldest ends for one more."""
COOKIE_BYTES = 32


class Sessions:
    """``clock`` is any that does not step back, in seconds. For the one thread of the event loop."""

    def __init__(self, access: Access, clock: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._clock = clock
        self._begun: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def begin(self, token: str) -> str | None:
        """The text of a new session's cookie, or None for a token that is not listed."""
        entry = self._access.entry_of(token)
        if entry is None:
            return None
        text = secrets.token_urlsafe(COOKIE_BYTES)
        self._begun[_digest(text)] = (entry.sha256, self._clock() + SESSION_S)
        if len(self._begun) > MAX_SESSIONS:
            self._begun.popitem(last=False)
        return text

    def role_of(self, cookie_header: str) -> Role | None:
        """What the browser that sent this Cookie header may do; None without a session, or once its token is gone."""
        name = _digest(_text(cookie_header))
        token_sha256, ends_s = self._begun.get(name, ("", 0.0))
        if not token_sha256:
            return None
        role = self._access.role_by_digest(token_sha256) if self._clock() < ends_s else None
        if role is None:
            self._begun.pop(name, None)
        return role

    def end(self, cookie_header: str) -> None:
        """Log out; nothing to do without a session."""
        self._begun.pop(_digest(_text(cookie_header)), None)


def set_cookie(text: str) -> str:
    """The Set-Cookie header that begins a session; an empty ``text`` removes the cookie.

    HttpOnly: no script reads it. SameSite=Strict: no other site's page sends it.
    """
    kept_s = SESSION_S if text else 0
    return f"{COOKIE}={text}; Path=/; Max-Age={kept_s}; HttpOnly; SameSite=Strict"


def _text(cookie_header: str) -> str:
    try:
        morsel = SimpleCookie(cookie_header).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
