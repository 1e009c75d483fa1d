"""Who may ask what, and that every refusal is a problem."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest

from service.access_cli import make_token
from service.api.security import MAX_BODY_BYTES
from service.errors import RequestRefused
from tests.helpers import patches
from tests.service.api_support import MODEL, Desk, Lab, interface, working

CHANGING = [
    ("PATCH", "/v1/model", {"learning": False}),
    ("POST", "/v1/streams/s1/reset", {}),
    ("DELETE", "/v1/streams/s1", None),
    ("POST", "/v1/checkpoints", {}),
    ("POST", "/v1/checkpoints/c1/restore", {}),
    ("DELETE", "/v1/checkpoints/c1", None),
]
LOOKING = ["/", "/docs", "/openapi.json", "/metrics", "/v1/model", "/v1/streams", "/v1/streams/s1", "/v1/checkpoints"]
PATCH = patches(1)[0]
JSON = {"Content-Type": "application/json"}


class Site:
    """An interface with a worker's desk behind it."""

    def __init__(self, client: httpx.Client, desk: Desk, folder: Path) -> None:
        self.client = client
        self.desk = desk
        self.folder = folder

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.client.request(method, path, json=body, headers=headers)


@contextmanager
def made(folder: Path, **settings: Any) -> Iterator[Site]:
    lab = Lab(folder)
    lab.claim("s1")
    try:
        with working(folder) as desk, interface(folder, **settings) as client:
            yield Site(client, desk, folder)
    finally:
        lab.journal.close()


@pytest.fixture(scope="module")
def module_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with made(tmp_path_factory.mktemp("open")) as site:
        yield site


@pytest.fixture
def site(module_site: Site) -> Iterator[Site]:
    """An interface without tokens; what the worker is asked is counted anew for each test."""
    module_site.desk.asked.clear()
    module_site.desk.result = {}
    yield module_site
    module_site.desk.refusal = None


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, str]]]:
    """An interface with tokens, and what each role sends."""
    folder = tmp_path_factory.mktemp("locked")
    shown = {role: f"Bearer {make_token(folder / 'access', role, role)}" for role in ("read", "admin")}
    with made(folder) as site:
        yield site, shown


def problem(got: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert got.status_code == status, got.text
    assert got.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = got.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["detail"]
    assert body["title"]
    return body


def test_commands_reach_the_worker(site: Site) -> None:
    assert (
        site.call("PATCH", "/v1/model", {"learning": False, "rates": {"gates": 0.001}}).json()["gates"] == "two-point"
    )
    assert site.call("PATCH", "/v1/model", {"learning": True}).status_code == 200
    assert site.call("POST", "/v1/streams/s1/reset", {}).json() == {"stream": "s1", "done": "reset", "applied": True}
    assert site.call("DELETE", "/v1/streams/s1").json() == {"stream": "s1", "done": "deleted", "applied": True}
    assert site.call("DELETE", "/v1/checkpoints/c1").json() == {"id": "c1", "done": "deleted"}
    site.desk.result = {"checkpoint": {"id": "c1"}}
    kept = site.call("PATCH", "/v1/checkpoints/c1", {"pinned": True, "label": "mine"})
    assert (kept.status_code, kept.json()["id"]) == (200, "c1")
    assert site.desk.commands() == [
        ("rates", None, {"rates": {"gates": 0.001}}),
        ("pause", None, {}),
        ("resume", None, {}),
        ("reset", "s1", {}),
        ("delete", "s1", {}),
        ("delete_checkpoint", None, {"checkpoint": "c1"}),
        ("keep_checkpoint", None, {"checkpoint": "c1", "pinned": True, "label": "mine"}),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"learning": "perhaps"},
        {"learning": "yes"},
        {"learning": 1},
        {"rates": {"gates": -1}},
        {"rates": {"gates": "x"}},
        {"rates": {"gates": "0.1"}},
        {"rates": {"gates": True}},
        {"wrong": 1},
        [],
        7,
        None,
    ],
)
def test_a_wrong_change_is_refused_before_the_worker_hears_of_it(site: Site, body: Any) -> None:
    problem(site.call("PATCH", "/v1/model", body, **JSON), 422, "invalid")
    assert site.desk.commands() == []


def test_what_is_no_json_is_refused(site: Site) -> None:
    for content in (b"{", b'{"learning": NaN}', b"\xff", b'"' + b"[" * 100_000):
        got = site.client.patch("/v1/model", content=content, headers=JSON)
        problem(got, got.status_code, "bad_request" if got.status_code == 400 else "invalid")
    assert site.desk.commands() == []


def test_what_the_worker_refuses_is_told_as_it_says(site: Site) -> None:
    site.desk.refusal = RequestRefused(409, "last_checkpoint", "c1 is the only good one")
    body = problem(site.call("DELETE", "/v1/checkpoints/c1"), 409, "last_checkpoint")
    assert body["detail"] == "c1 is the only good one"
    problem(site.call("POST", "/v1/streams/nobody/reset", {}), 404, "unknown_stream")


def test_a_command_whose_turn_has_not_come_is_accepted(site: Site) -> None:
    site.desk.result = {"applied": False}
    assert site.call("POST", "/v1/streams/s1/reset", {}).status_code == 202
    assert site.call("DELETE", "/v1/streams/s1").json()["applied"] is False
    assert site.call("PATCH", "/v1/model", {"learning": False}).status_code == 202


def test_without_a_worker_changes_say_so(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.claim("s1")
    with interface(tmp_path) as client:
        for method, path, body in CHANGING:
            got = client.request(method, path, json=body)
            assert "rjepa serve" in problem(got, 503, "worker_unreachable")["detail"]
            assert got.headers["retry-after"]
    lab.journal.close()


def test_readyz_says_what_is_not_ready(tmp_path: Path) -> None:
    states: list[tuple[dict[str, Any], str]] = [
        ({"recovering": True, "recovered": 3, "to_recover": 9}, "3 of 9"),
        ({"storage": "no room"}, "no room"),
        ({"waiting": 241}, "241 fixations wait to be learned, the limit is 240"),
    ]
    for changed, told in states:
        with working(tmp_path, **changed), interface(tmp_path) as client:
            body = problem(client.get("/readyz"), 503, "not_ready")
            assert told in body["detail"]
            assert len(body["reasons"]) == 1
            assert client.get("/livez").status_code == 200
    with working(tmp_path), interface(tmp_path) as client:
        assert client.get("/readyz").json() == {"ready": True, "waiting": 0, "lag_limit": 240}


def test_however_often_one_asks_the_worker_is_asked_seldom(site: Site) -> None:
    for _ in range(30):
        assert site.client.get("/readyz").status_code == 200
        assert site.client.get("/v1/model").status_code == 200
    asked = [one for one in site.desk.asked if one["op"] == "status"]
    assert len(asked) < 30


@pytest.mark.parametrize(("method", "path", "body"), CHANGING)
def test_changing_needs_json(site: Site, method: str, path: str, body: Any) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json"):
        got = site.client.request(method, path, content=b"{}", headers={"Content-Type": content_type})
        problem(got, 415, "unsupported_media_type")
    if method != "DELETE":
        problem(site.client.request(method, path), 415, "unsupported_media_type")
    assert site.desk.commands() == []


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, _ in CHANGING] + [("GET", p) for p in LOOKING])
def test_a_foreign_page_and_a_foreign_host_are_refused(site: Site, method: str, path: str) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://["):
        problem(site.call(method, path, {}, Origin=origin), 403, "foreign_origin")
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "[::1", "127.0.0.1:80:80"):
        problem(site.call(method, path, {}, Host=host), 403, "foreign_host")
    assert site.desk.commands() == []


def test_the_own_page_and_every_listed_host_are_taken(site: Site) -> None:
    own = str(site.client.base_url).rstrip("/")
    assert site.call("GET", "/v1/streams", Origin=own).status_code == 200
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "localhost."):
        assert site.call("GET", "/v1/streams", Host=host).status_code == 200, host


def test_another_host_can_be_allowed(tmp_path: Path) -> None:
    with made(tmp_path, allowed_hosts="lab-server, 10.0.0.7") as site:
        assert site.call("GET", "/v1/streams", Host="lab-server:8000").status_code == 200
        problem(site.call("GET", "/v1/streams", Host="localhost"), 403, "foreign_host")


def test_every_call_with_no_token_a_wrong_one_a_read_one_and_an_admin_one(
    locked: tuple[Site, dict[str, str]],
) -> None:
    site, shown = locked
    for method, path, body in CHANGING + [("GET", path, None) for path in LOOKING]:
        for authorization in ("", "Bearer", "Bearer x", "Basic eDp5", shown["read"][:-1], shown["read"].upper()):
            headers = {"Authorization": authorization} if authorization else {}
            got = site.call(method, path, body, **headers)
            problem(got, 401, "unauthorized")
            assert got.headers["www-authenticate"].startswith("Bearer")
        token = shown["admin"].removeprefix("Bearer ")
        problem(site.call(method, f"{path}?token={token}&access_token={token}", body), 401, "unauthorized")
        got = site.call(method, path, body, Authorization=shown["read"])
        if method == "GET":
            assert got.status_code == 200
        else:
            problem(got, 403, "forbidden")
    assert site.desk.commands() == []
    assert site.call("POST", "/v1/streams/s1/reset", {}, Authorization=shown["admin"]).status_code == 200
    assert site.desk.commands() == [("reset", "s1", {})]


def test_health_and_embedding_need_no_admin(locked: tuple[Site, dict[str, str]]) -> None:
    site, shown = locked
    assert site.call("GET", "/livez").status_code == 200
    assert site.call("GET", "/readyz").status_code == 200
    problem(site.client.post("/v1/embed", content=PATCH.tobytes()), 401, "unauthorized")
    headers = {"Authorization": shown["read"], "Content-Type": "application/octet-stream"}
    assert site.client.post("/v1/embed", content=PATCH.tobytes(), headers=headers).status_code == 200


def test_an_unknown_path_says_nothing_without_a_token(locked: tuple[Site, dict[str, str]]) -> None:
    site, shown = locked
    problem(site.call("GET", "/v1/secret"), 401, "unauthorized")
    problem(site.call("GET", "/v1/secret", Authorization=shown["read"]), 404, "not_found")


def test_the_frameworks_own_errors_are_problems(site: Site) -> None:
    assert problem(site.call("GET", "/nothing"), 404, "not_found")["instance"] == "/nothing"
    got = site.call("PUT", "/v1/model", {})
    problem(got, 405, "method_not_allowed")
    assert set(got.headers["allow"].split(", ")) <= {"GET", "PATCH"}
    problem(site.call("POST", "/livez", {}), 405, "method_not_allowed")


def test_a_body_over_the_limit_is_refused_declared_or_not(site: Site) -> None:
    big = b" " * (MAX_BODY_BYTES + 1)
    problem(site.client.post("/v1/checkpoints", content=big, headers=JSON), 413, "too_large")

    def pieces() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * (MAX_BODY_BYTES // 16)

    problem(site.client.post("/v1/checkpoints", content=pieces(), headers=JSON), 413, "too_large")
    problem(site.client.post("/v1/embed", content=pieces(), headers={"Content-Type": "image/png"}), 413, "too_large")
    assert site.desk.commands() == []


def test_a_wrong_content_length_is_no_crash(site: Site) -> None:
    address = (site.client.base_url.host, site.client.base_url.port)
    with socket.create_connection(address, timeout=10) as raw:
        raw.sendall(b"POST /v1/checkpoints HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 4")
    assert site.call("GET", "/livez").status_code == 200


def test_every_answer_has_the_headers_that_keep_a_browser_in_check(site: Site) -> None:
    answers = [site.call("GET", path) for path in ("/", "/docs", "/v1/streams", "/nothing", "/livez", "/login")]
    answers += [site.call("PUT", "/livez"), site.call("GET", "/v1/streams", Host="elsewhere")]
    site.desk.result = {"checkpoint": None}  # nonsense from the worker: the interface's own fault shows
    answers.append(site.call("POST", "/v1/checkpoints", {}))
    assert [got.status_code for got in answers] == [200, 200, 200, 404, 200, 303, 405, 403, 500]
    for got in [*answers, no_http(site)]:
        headers = got.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy or "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "base-uri 'none'" in policy
        assert "form-action" in policy
        assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)
        assert "server" not in headers
    for got in answers[3:4] + answers[6:]:
        assert got.headers["content-type"] == "application/problem+json"


def test_a_method_there_is_not_is_told_those_there_are(site: Site) -> None:
    for path, there in (
        ("/v1/streams/s1", "GET, DELETE"),
        ("/v1/model", "GET, PATCH"),
        ("/v1/embed", "POST"),
        ("/", "GET"),
    ):
        got = site.call("PUT", path)
        problem(got, 405, "method_not_allowed")
        assert got.headers["allow"] == there


def no_http(site: Site) -> httpx.Response:
    """The answer to bytes that are no HTTP."""
    with socket.create_connection(("127.0.0.1", site.client.base_url.port or 0), timeout=10.0) as plain:
        plain.sendall(b"nonsense\r\n\r\n")
        head, _, body = b"".join(iter(lambda: plain.recv(65536), b"")).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    assert status.startswith("HTTP/1.1 400")
    return httpx.Response(400, headers=[line.split(": ", 1) for line in lines], content=body)


def encoded(kind: str) -> bytes:
    return cv2.imencode(kind, PATCH[:, :, ::-1])[1].tobytes()


def test_embed_takes_an_image_as_it_is_raw_or_in_json(site: Site) -> None:
    def asked() -> Any:
        (patch,) = site.desk.asked[-1]["patches"]
        return patch

    def json_body(encoding: str, data: bytes) -> dict[str, Any]:
        return {"patch": {"encoding": encoding, "height": 50, "width": 50, "data": base64.b64encode(data).decode()}}

    raw = {"height": 50, "width": 50, "rgb": base64.b64encode(PATCH.tobytes()).decode()}
    for content_type, content in (
        ("application/octet-stream", PATCH.tobytes()),
        ("image/png", encoded(".png")),
        ("image/png; charset=binary", encoded(".png")),
    ):
        got = site.client.post("/v1/embed", content=content, headers={"Content-Type": content_type})
        assert got.json() == {"embedding": [0.0, 1.0]}
        assert asked() == raw
    for encoding, data in (("raw", PATCH.tobytes()), ("png", encoded(".png"))):
        assert site.call("POST", "/v1/embed", json_body(encoding, data)).status_code == 200
        assert asked() == raw
    got = site.client.post("/v1/embed", content=encoded(".jpg"), headers={"Content-Type": "image/jpeg"})
    assert got.status_code == 200
    assert site.desk.commands() == []


def wish(data: bytes, encoding: str = "png") -> dict[str, Any]:
    return {"encoding": encoding, "height": 50, "width": 50, "data": base64.b64encode(data).decode()}


def test_embed_takes_several_images_at_once(site: Site) -> None:
    pictures = patches(64)
    raw = [{"height": 50, "width": 50, "rgb": base64.b64encode(one.tobytes()).decode()} for one in pictures]
    got = site.call("POST", "/v1/embed", {"patches": [wish(one.tobytes(), "raw") for one in pictures]})
    assert got.json() == {"embeddings": [[float(i), 1.0] for i in range(64)]}
    assert site.desk.asked[-1]["patches"] == raw, "in their order, the largest number of the largest kind"
    mixed = [wish(encoded(".png")), wish(PATCH.tobytes(), "raw"), wish(encoded(".jpg"), "jpeg")]
    assert len(site.call("POST", "/v1/embed", {"patches": mixed}).json()["embeddings"]) == 3
    assert site.call("POST", "/v1/embed", {"patches": mixed[:1]}).json() == {"embeddings": [[0.0, 1.0]]}
    asked = len(site.desk.asked)
    wrong = problem(site.call("POST", "/v1/embed", {"patches": [*mixed, wish(b"no picture")]}), 422, "bad_patch")
    assert wrong["detail"].startswith("patches.3: ")
    for body in ({"patches": []}, {"patches": mixed * 22}, {"patches": mixed, "patch": mixed[0]}, {"patches": 3}):
        problem(site.call("POST", "/v1/embed", body), 422, "invalid")
    assert len(site.desk.asked) == asked, "nothing of it reaches the worker"


def test_embed_names_what_is_wrong(site: Site) -> None:
    def post(content: bytes, content_type: str) -> httpx.Response:
        return site.client.post("/v1/embed", content=content, headers={"Content-Type": content_type})

    big = cv2.imencode(".png", patches(1)[0].repeat(2, 0).repeat(2, 1))[1].tobytes()
    assert "100 x 100" in problem(post(big, "image/png"), 422, "bad_patch")["detail"]
    assert "7500" in problem(post(b"short", "application/octet-stream"), 422, "bad_patch")["detail"]
    problem(post(encoded(".png"), "image/jpeg"), 422, "bad_patch")
    problem(post(encoded(".png")[:40], "image/png"), 422, "bad_patch")
    problem(post(b"", "image/png"), 422, "bad_patch")
    problem(post(encoded(".png"), "image/webp"), 415, "unsupported_media_type")
    problem(post(b'{"patch": {}}', "application/json"), 422, "invalid")
    problem(post(b"[" * 100_000, "application/json"), 422, "invalid")
    wish = {"patch": {"encoding": "raw", "height": 50, "width": 50, "data": "not base64!"}}
    problem(site.call("POST", "/v1/embed", wish), 422, "invalid")
    wish["patch"]["height"] = 10**9
    problem(site.call("POST", "/v1/embed", wish), 422, "invalid")
    assert not [one for one in site.desk.asked if one["op"] == "embed"]


def test_the_model_told_is_the_workers(site: Site) -> None:
    assert site.call("GET", "/v1/model").json() == MODEL | {"worker": "reachable"}
