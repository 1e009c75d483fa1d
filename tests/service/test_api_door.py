"""The door of the HTTP interface: every call there is with every token, the browser's login, and how much is let in."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access import Access
from service.access_cli import main, make_token
from service.api import connections, security
from service.api.app import create_app
from service.api.rate import BURST_S, MAX_ADDRESSES, Rates
from service.api.security import FORM_PATHS, HEALTH_PATHS, LOOKING, LOOKING_PATHS
from service.api.sessions import COOKIE, MAX_SESSIONS, SESSION_S, Sessions, set_cookie
from service.settings import Settings
from tests.helpers import patches, wait_until
from tests.service.test_api_guard import Site, made, problem

FILLED = {"{stream}": "s1", "{seq}": "0", "{checkpoint}": "c1", "{digest}": "0" * 16, "{name}": "main.js"}
PATCH = patches(1)[0].tobytes()
ENDLESS = "/v1/events"
"""Of an answer that does not end the head is enough."""


def route_table() -> list[tuple[str, str]]:
    """Every method and path there is, read from the application's own table, those outside the document too."""
    app = create_app(Settings(), Access.load(Path("/nowhere")))
    found: set[tuple[str, str]] = set()
    waiting = list(app.routes)
    while waiting:
        route: Any = waiting.pop()
        inner = getattr(route, "original_router", None)
        if inner is not None:
            waiting += inner.routes
            continue
        path = route.path
        for name, value in FILLED.items():
            path = path.replace(name, value)
        assert "{" not in path, f"{route.path}: say in FILLED what stands for its parameter"
        found |= {(method, path) for method in route.methods}
    documented = {(m.upper(), p) for p, methods in app.openapi()["paths"].items() for m in methods}
    assert len(documented) <= len(found)
    return sorted(found)


TABLE = route_table()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, str]]]:
    """An interface with tokens, and each role's token."""
    folder = tmp_path_factory.mktemp("door")
    tokens = {role: make_token(folder / "access", role, role) for role in ("read", "admin")}
    with made(folder) as site:
        site.desk.result = {"checkpoint": {"id": "c2"}, "diagnostics": {}}
        yield site, tokens


def ask(site: Site, method: str, path: str, **headers: str) -> httpx.Response:
    """The call with a body it takes."""
    content, kind = (PATCH, "application/octet-stream") if path == "/v1/embed" else (b"{}", "application/json")
    if path == "/v1/model":
        content = b'{"learning": true}'
    elif method == "PATCH":
        content = b'{"pinned": true}'
    if method in LOOKING:
        with site.client.stream(method, path, headers=headers) as response:
            if path != ENDLESS or response.status_code != 200:
                response.read()
        return response
    return site.client.request(method, path, content=content, headers=headers | {"Content-Type": kind})


def test_the_table_has_every_call() -> None:
    assert len(TABLE) > 20
    assert ("POST", "/login") in TABLE
    assert ("DELETE", "/v1/checkpoints/c1") in TABLE


@pytest.mark.parametrize(("method", "path"), TABLE)
def test_each_call_with_no_token_a_wrong_one_a_read_one_and_an_admin_one(
    locked: tuple[Site, dict[str, str]], method: str, path: str
) -> None:
    site, tokens = locked
    if path in HEALTH_PATHS | FORM_PATHS:
        assert ask(site, method, path, Origin=own(site)).status_code not in (401, 500)
        return
    changes = method not in LOOKING and path not in LOOKING_PATHS
    site.desk.asked.clear()
    for headers in ({}, {"Authorization": f"Bearer {tokens['read']}x"}, {"Cookie": f"{COOKIE}=x"}):
        told = ask(site, method, path, **headers)
        assert told.status_code == 401
        if method != "HEAD":
            problem(told, 401, "unauthorized")
    read = ask(site, method, path, Authorization=f"Bearer {tokens['read']}")
    if changes:
        problem(read, 403, "forbidden")
        assert site.desk.commands() == []
    else:
        assert read.status_code not in (401, 403, 500)
    admin = ask(site, method, path, Authorization=f"Bearer {tokens['admin']}")
    assert admin.status_code not in (401, 403, 500)
    assert len(site.desk.commands()) == (1 if changes else 0), admin.text


@pytest.mark.parametrize(("method", "path"), TABLE)
def test_a_foreign_page_and_a_foreign_host_are_refused_with_any_token(
    locked: tuple[Site, dict[str, str]], method: str, path: str
) -> None:
    site, tokens = locked
    admin = {"Authorization": f"Bearer {tokens['admin']}"}
    site.desk.asked.clear()
    for foreign in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
        got = ask(site, method, path, **admin, **foreign)
        assert got.status_code == 403
        if method != "HEAD":
            problem(got, 403, "foreign_host" if "Host" in foreign else "foreign_origin")
    assert site.desk.asked == []


def own(site: Site) -> str:
    return str(site.client.base_url).rstrip("/")


def log_in(site: Site, token: str, **headers: str) -> httpx.Response:
    site.client.cookies.clear()
    return site.client.post("/login", data={"token": token}, headers={"Origin": own(site)} | headers)


def test_a_browser_logs_in_looks_changes_and_logs_out(locked: tuple[Site, dict[str, str]]) -> None:
    site, tokens = locked
    site.client.cookies.clear()
    page = site.call("GET", "/", Accept="text/html")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    form = site.call("GET", "/login")
    assert "<script" not in form.text
    assert "form-action 'self'" in form.headers["content-security-policy"]
    assert form.headers["referrer-policy"] == "same-origin"
    got = log_in(site, tokens["admin"])
    assert (got.status_code, got.headers["location"]) == (303, "/")
    set_ = got.headers["set-cookie"]
    assert set_.startswith(f"{COOKIE}=")
    assert set_.endswith(f"; Path=/; Max-Age={SESSION_S}; HttpOnly; SameSite=Strict")
    assert tokens["admin"] not in set_
    assert site.call("GET", "/", Accept="text/html").status_code == 200
    assert "look and change" in site.call("GET", "/login").text
    problem(site.call("POST", "/v1/streams/s1/reset", {}), 403, "foreign_origin")
    assert site.call("POST", "/v1/streams/s1/reset", {}, Origin=own(site)).status_code == 200
    got = site.client.post("/v1/streams/s1/reset", data={"a": "b"}, headers={"Origin": own(site)})
    problem(got, 415, "unsupported_media_type")
    problem(site.call("GET", "/v1/streams", Authorization="Bearer wrong"), 401, "unauthorized")
    cookie = dict(site.client.cookies)
    problem(site.client.post("/logout"), 403, "foreign_origin")
    assert site.client.post("/logout", headers={"Origin": own(site)}).headers["location"] == "/login"
    problem(site.call("GET", "/v1/streams"), 401, "unauthorized")
    site.client.cookies.update(cookie)
    problem(site.call("GET", "/v1/streams"), 401, "unauthorized")


def test_a_login_that_is_none(locked: tuple[Site, dict[str, str]]) -> None:
    site, tokens = locked
    wrong = log_in(site, "wrong<b>")
    assert wrong.status_code == 401
    assert "not known" in wrong.text
    assert "wrong<b>" not in wrong.text
    assert "set-cookie" not in wrong.headers
    problem(log_in(site, tokens["read"], Origin="http://evil.example"), 403, "foreign_origin")
    problem(site.client.post("/login", data={"token": tokens["read"]}), 403, "foreign_origin")
    problem(
        site.client.post("/login", json={"token": "x"}, headers={"Origin": own(site)}), 415, "unsupported_media_type"
    )
    for data in ({}, {"token": ["a", "b"]}, {"other": "x"}):
        problem(site.client.post("/login", data=data or {"a": ""}, headers={"Origin": own(site)}), 422, "invalid")
    site.client.cookies.clear()
    form = site.client.get("/login", params={"token": tokens["read"]})
    assert "Log out" not in form.text
    problem(site.client.get("/v1/streams", params={"token": tokens["read"]}), 401, "unauthorized")


def test_a_read_login_may_look_and_ends_with_its_token(tmp_path: Path) -> None:
    access = tmp_path / "access"
    make_token(access, "boss", "admin")
    text = make_token(access, "screen", "read")
    with made(tmp_path) as site:
        assert log_in(site, text).status_code == 303
        assert site.call("GET", "/v1/streams").status_code == 200
        problem(site.call("POST", "/v1/streams/s1/reset", {}, Origin=own(site)), 403, "forbidden")
        main(["token", "revoke", "screen", "--access-dir", str(access)])
        problem(site.call("GET", "/v1/streams"), 401, "unauthorized")


def test_sessions_end_by_themselves_and_are_few(tmp_path: Path) -> None:
    text = make_token(tmp_path, "screen", "read")
    now = [0.0]
    sessions = Sessions(Access.load(tmp_path), lambda: now[0])
    assert sessions.begin("no token") is None
    cookies = [set_cookie(sessions.begin(text) or "").split(";")[0] for _ in range(MAX_SESSIONS + 1)]
    assert sessions.role_of(cookies[0]) is None, "the oldest ended for one more"
    assert sessions.role_of(f"a=b; {cookies[1]}; c=d") == "read"
    for nothing in ("", f"{COOKIE}=", "=;=;", "\x00", f"{COOKIE}=x"):
        assert sessions.role_of(nothing) is None
    now[0] = float(SESSION_S)
    assert sessions.role_of(cookies[1]) is None


def test_without_tokens_there_is_nothing_to_log_in_to(tmp_path: Path) -> None:
    with made(tmp_path) as site:
        assert site.call("GET", "/login").headers["location"] == "/"
        assert "set-cookie" not in log_in(site, "x").headers


def test_a_real_browser_logs_in_and_out(locked: tuple[Site, dict[str, str]], browser_path: str) -> None:
    from playwright.sync_api import sync_playwright

    site, tokens = locked
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(own(site) + "/")
        assert page.url.endswith("/login")
        page.fill("input[name=token]", tokens["read"])
        page.click("button")
        page.wait_for_url(own(site) + "/")
        assert "Streams" in page.content()
        assert tokens["read"] not in json.dumps(page.context.cookies())
        assert page.context.cookies()[0]["httpOnly"]
        assert page.evaluate("document.cookie") == ""
        page.goto(own(site) + "/login")
        page.click("button")
        page.wait_for_url(own(site) + "/login")
        page.goto(own(site) + "/")
        assert page.url.endswith("/login")
        browser.close()


def test_an_address_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with made(tmp_path, request_rate=0.5) as site:
        allowed = int(0.5 * BURST_S)
        assert [site.call("GET", "/v1/streams").status_code for _ in range(allowed)] == [200] * allowed
        got = site.call("GET", "/v1/streams")
        problem(got, 429, "too_many_requests")
        assert 1 <= int(got.headers["retry-after"]) <= 2
        assert site.call("GET", "/livez").status_code == 200


def test_permits_come_back_and_addresses_are_apart() -> None:
    now = [0.0]
    rates = Rates(1.0, lambda: now[0])
    assert [rates.take("10.0.0.1") for _ in range(int(BURST_S))] == [None] * int(BURST_S)
    assert rates.take("10.0.0.1") == 1.0
    assert rates.take("10.0.0.2") is None
    now[0] = 1.0
    assert rates.take("::ffff:10.0.0.1") is None, "the same address, told otherwise"
    assert rates.take("10.0.0.1") == 1.0
    now[0] = 100.0
    assert [rates.take("fe80::1:2%eth0") for _ in range(9)] == [None] * 9
    assert (rates.take("fe80::ffff:3"), rates.take("fe80::4")) == (None, 1.0), "one network of 64 bits"
    for number in range(MAX_ADDRESSES + 50):
        rates.take(f"host-{number}")
    assert len(rates) == MAX_ADDRESSES


@contextmanager
def raw(site: Site) -> Iterator[socket.socket]:
    with socket.create_connection((site.client.base_url.host, site.client.base_url.port or 0), timeout=20) as found:
        yield found


def everything(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """The whole answer until the other side closes: its status and problem."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, received
    return int(head.split()[1]), json.loads(body)


def test_one_connection_too_many_is_told_and_the_next_gets_in_when_one_has_gone(tmp_path: Path) -> None:
    with made(tmp_path, http_connections=5) as site, ExitStack() as stack:
        held = [stack.enter_context(raw(site)) for _ in range(5)]
        for connection in held:  # answered, so it is known to be counted
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        with raw(site) as sixth:
            status, told = everything(sixth)
            assert (status, told["code"]) == (503, "too_many_connections")
        for connection in held:
            connection.close()

        def answered() -> bool:
            return site.call("GET", "/livez").status_code == 200

        wait_until(answered, 10.0, "a place")


def test_a_head_or_a_body_that_does_not_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(security, "BODY_S", 0.3)
    with made(tmp_path) as site:
        for begun in (b"", b"GET /livez HTTP/1.1\r\nHost: loc"):
            with raw(site) as slow:
                slow.sendall(begun)
                status, told = everything(slow)
                assert (status, told["code"]) == (408, "too_slow")
        with raw(site) as slow:
            head = (
                b"POST /v1/embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n12"
            )
            slow.sendall(head)
            status, told = everything(slow)
            assert (status, told["code"]) == (408, "too_slow")
        got = site.client.post("/v1/embed", content=PATCH, headers={"Content-Type": "application/octet-stream"})
        assert got.status_code == 200, "no place was held"


def test_what_is_no_http_is_told_as_a_problem(tmp_path: Path) -> None:
    with made(tmp_path) as site:
        for bytes_ in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"):
            with raw(site) as connection:
                connection.sendall(bytes_)
                status, told = everything(connection)
                assert (status, told["code"]) == (400, "bad_request")
