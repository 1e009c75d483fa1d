from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from clients.errors import KeyRefused, OptionError
from clients.session import stream_name
from clients.settings import SimulatedSettings, load
from service.access import Access, Authenticator, check_bind, check_http_bind, secure_server, user_id
from service.access_cli import main, make_client, make_server_keys, make_token
from service.errors import AccessRefused

NOTHING_MS = 700
"""How long a door is watched that must stay shut; an open one lets a message through in a few milliseconds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An access folder with CURVE on and one client, who may write demo*; its key file lies beside it."""
    folder = tmp_path / "access"
    make_server_keys(folder)
    make_client(folder, "lab", ["demo*"], tmp_path / "lab.key.json")
    return folder


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as context:
        yield context


class Door:
    """A ROUTER as the worker has it, CURVE as its folder says, and the ZAP handler."""

    def __init__(self, access: Access, handler: bool = True) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.authenticator = Authenticator(self.context, access) if handler else None
        if self.authenticator:
            self.authenticator.start()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        secure_server(self.router, access)
        self.address = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"

    def got(self, limit_ms: int) -> tuple[bytes, str | None] | None:
        """What came in and the user id it carried; None if nothing came."""
        if not self.router.poll(limit_ms):
            return None
        frame = self.router.recv_multipart(copy=False)[-1]
        return frame.bytes, user_id(frame)

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self.router.close()
        if self.authenticator:
            self.authenticator.stop()
        self.context.term()


def knock(context: zmq.Context[Any], address: str, key: dict[str, str] | None, text: bytes) -> zmq.Socket[Any]:
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if key is not None:
        dealer.curve_publickey = key["public"].encode()
        dealer.curve_secretkey = key["secret"].encode()
        dealer.curve_serverkey = key["server"].encode()
    dealer.connect(address)
    dealer.send(text)
    return dealer


def stranger(server: str) -> dict[str, str]:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    return {"public": public, "secret": secret, "server": server}


def test_only_a_listed_key_gets_in(folder: Path, context: zmq.Context[Any]) -> None:
    access = Access.load(folder)
    assert access.curve
    key = json.loads((folder.parent / "lab.key.json").read_text())
    with (
        Door(access) as door,
        knock(context, door.address, None, b"no key"),
        knock(context, door.address, stranger(access.curve.public), b"unlisted"),
    ):
        assert door.got(NOTHING_MS) is None
        with knock(context, door.address, key, b"listed"):
            text, user_id = door.got(10_000) or (b"", "")
            assert text == b"listed"
            assert user_id == key["public"]
            assert access.may_write(user_id, "demo-7")
            assert not access.may_write(user_id, "other")
            assert not access.may_write(None, "demo-7")
        assert door.got(50) is None


def test_without_its_handler_a_secured_socket_lets_nobody_in(folder: Path, context: zmq.Context[Any]) -> None:
    access = Access.load(folder)
    key = json.loads((folder.parent / "lab.key.json").read_text())
    with Door(access, handler=False) as door, knock(context, door.address, key, b"listed"):
        assert door.got(NOTHING_MS) is None


def test_without_keys_the_door_is_open(tmp_path: Path, context: zmq.Context[Any]) -> None:
    access = Access.load(tmp_path / "nothing")
    with Door(access) as door, knock(context, door.address, None, b"anyone"):
        assert door.got(10_000) == (b"anyone", None)
    assert access.may_write(None, "any")
    assert access.tokens is None


def test_a_revoked_client_writes_no_more_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    access = Access.load(folder)
    public = json.loads((folder.parent / "lab.key.json").read_text())["public"]
    assert access.may_write(public, "demo")
    assert main(["keys", "revoke", "lab", "--access-dir", str(folder)]) == 0
    assert not access.may_write(public, "demo")
    assert "lab" in capsys.readouterr().out


def test_tokens_are_hashed_listed_and_taken_back(tmp_path: Path) -> None:
    folder = tmp_path / "access"
    text = make_token(folder, "screen", "read")
    admin = make_token(folder, "boss", "admin")
    access = Access.load(folder)
    assert access.role_of(text) == "read"
    assert access.role_of(admin) == "admin"
    assert access.role_of(text + "x") is None
    assert access.role_of("") is None
    assert access.role_of("\udcff") is None
    assert text not in (folder / "tokens.json").read_text()
    with pytest.raises(AccessRefused, match="screen is there already"):
        make_token(folder, "screen", "admin")
    main(["token", "revoke", "screen", "--access-dir", str(folder)])
    assert access.role_of(text) is None
    assert access.role_of(admin) == "admin"


def test_removing_the_token_file_under_way_opens_nothing(tmp_path: Path) -> None:
    make_token(tmp_path, "screen", "read")
    access = Access.load(tmp_path)
    (tmp_path / "tokens.json").unlink()
    assert access.tokens == ()


def test_a_file_that_turns_bad_under_way_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = make_token(tmp_path, "screen", "read")
    access = Access.load(tmp_path)
    (tmp_path / "tokens.json").write_text("{")
    assert access.role_of(text) == "read"
    assert access.role_of(text) == "read"
    assert len(caplog.records) == 1
    assert "tokens.json is not JSON" in caplog.text


def test_the_token_is_in_no_message_and_no_repr(tmp_path: Path) -> None:
    text = make_token(tmp_path, "screen", "read")
    access = Access.load(tmp_path)
    assert text not in repr(access) + repr(access.tokens)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("server.json", "{", "server.json is not JSON"),
        ("server.json", '{"public": "short", "secret": "short"}', "server.json: public"),
        ("tokens.json", '{"tokens": [{"name": "a", "role": "god"}]}', "tokens.json: tokens.0.role"),
        ("tokens.json", '{"tokens": [], "more": 1}', "tokens.json: more"),
        ("clients/lab.json", '{"public": "x"}', "lab.json: public"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, told: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(AccessRefused) as error:
        Access.load(tmp_path)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_loopback_needs_nothing(tmp_path: Path, host: str) -> None:
    access = Access.load(tmp_path)
    check_bind(f"tcp://{host}:5555", access)
    check_http_bind(host, access)


@pytest.mark.parametrize("host", ["0.0.0.0", "*", "192.168.1.5", "[::]", "lab-server", "eth0"])
def test_elsewhere_needs_keys_and_tokens(tmp_path: Path, host: str) -> None:
    access = Access.load(tmp_path)
    with pytest.raises(AccessRefused, match="rjepa keys init"):
        check_bind(f"tcp://{host}:5555", access)
    with pytest.raises(AccessRefused, match="rjepa token add"):
        check_http_bind(host, access)
    make_server_keys(tmp_path)
    make_token(tmp_path, "screen", "read")
    access = Access.load(tmp_path)
    check_bind(f"tcp://{host}:5555", access)
    check_http_bind(host, access)


def test_init_makes_everything_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["init", "--data-dir", str(tmp_path), "--client", "demo=demo*"]
    assert main(words) == 0
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    access = Access.load(tmp_path / "access")
    handout = tmp_path / "access" / "handout"
    assert access.role_of((handout / "read.token").read_text().strip()) == "read"
    assert access.role_of((handout / "admin.token").read_text().strip()) == "admin"
    key = json.loads((handout / "demo.key.json").read_text())
    assert access.may_write(key["public"], "demo")
    assert main(words) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    told = capsys.readouterr().out
    assert str(handout / "admin.token") in told
    assert (handout / "admin.token").read_text().strip() not in told


def test_init_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    handout = tmp_path / "handout"
    handout.mkdir(parents=True)
    (handout / "demo.key.json").write_text("{}")
    assert main(["init", "--access-dir", str(tmp_path), "--client", "demo=demo*"]) == 0
    key = json.loads((handout / "demo.key.json").read_text())
    assert Access.load(tmp_path).may_write(key["public"], "demo")


def test_the_command_line_says_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--access-dir", str(folder)]
    assert main(["keys", "init", *where]) == 0
    assert main(["keys", "list", *where]) == 0
    told = capsys.readouterr().out
    assert "stay" in told
    assert "streams demo*" in told
    assert json.loads((folder / "server.json").read_text())["secret"] not in told
    assert main(["token", "list", *where]) == 0
    assert "open, on loopback only" in capsys.readouterr().out
    assert main(["token", "add", "screen", "--role", "read", *where]) == 0
    printed = capsys.readouterr().out.strip()
    assert Access.load(folder).role_of(printed) == "read"
    assert main(["token", "list", *where]) == 0
    assert printed not in capsys.readouterr().out


def test_a_client_is_not_listed_twice(folder: Path) -> None:
    with pytest.raises(AccessRefused, match="lab is on the list already"):
        main(["keys", "client", "lab", "--access-dir", str(folder), "--out", str(folder.parent / "other")])
    with pytest.raises(AccessRefused, match="is there already"):
        main(["keys", "client", "two", "--access-dir", str(folder), "--out", str(folder.parent / "lab.key.json")])
    with pytest.raises(AccessRefused, match="rjepa keys init"):
        main(["keys", "client", "lab", "--access-dir", str(folder.parent / "none")])


def test_a_file_where_the_data_directory_should_be_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "access", tmp_path / "file"):
        with pytest.raises(AccessRefused, match="is no folder; name another with --data-dir"):
            Access.load(folder)


def test_pair_writes_one_file_that_a_client_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = tmp_path / "access", tmp_path / "anna.pair.json"
    address = "tcp://lab-server:5555"
    words = ["pair", "anna", "--streams", "anna", "--access-dir", str(folder), "--out", str(out)]
    with pytest.raises(AccessRefused, match="say --ingest tcp://"):
        main(words)
    for nowhere in ("tcp://0.0.0.0:5555", "tcp://[::]:5555", "tcp://127.0.0.1:0"):
        with pytest.raises(AccessRefused, match="is not where another computer reaches"):
            main([*words, "--ingest", nowhere])
    assert not out.exists()
    assert main([*words, "--ingest", address]) == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files), files
    access, told = Access.load(folder), json.loads(out.read_text())
    assert access.curve
    assert (told["ingest"], told["streams"], told["server"]) == (address, ["anna"], access.curve.public)
    assert access.may_write(told["public"], "anna")
    assert not access.may_write(told["public"], "anna2")
    printed = capsys.readouterr().out
    for secret in (told["secret"], access.curve.secret):
        assert secret not in printed + repr(access.curve) + repr(access.clients)
    settings = load(SimulatedSettings, ["--pair", str(out)], "prog", "about")
    assert (settings.ingest, settings.key, settings.stream) == (address, out, "anna")
    given = load(SimulatedSettings, ["--pair", str(out), "--ingest=tcp://10.0.0.1:1", "--stream=bob"], "prog", "about")
    assert given.ingest == "tcp://10.0.0.1:1"
    with pytest.raises(OptionError, match="is for streams anna, not bob"):
        stream_name("source", given)
    assert main(["keys", "revoke", "anna", "--access-dir", str(folder)]) == 0
    assert not access.may_write(told["public"], "anna")


def test_a_pairing_for_many_streams_leaves_the_name_to_the_source(tmp_path: Path) -> None:
    folder, out = tmp_path / "access", tmp_path / "lab.json"
    make_server_keys(folder)
    make_client(folder, "lab", ["lab-*", "x"], out, "tcp://lab:5555")
    settings = load(SimulatedSettings, ["--pair", str(out)], "prog", "about")
    assert settings.stream is None
    assert stream_name("lab-7", settings) == "lab-7"
    with pytest.raises(OptionError, match=r"is for streams lab-\* x, not other"):
        stream_name("other", settings)


@pytest.mark.parametrize(
    "change", [{"ingest": 7}, {"ingest": "lab"}, {"streams": []}, {"streams": [1]}, {"secret": "x"}]
)
def test_a_pair_file_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    folder, out = tmp_path / "access", tmp_path / "lab.json"
    make_server_keys(folder)
    make_client(folder, "lab", ["lab"], out, "tcp://lab:5555")
    out.write_text(json.dumps(json.loads(out.read_text()) | change))
    with pytest.raises(KeyRefused):
        load(SimulatedSettings, ["--pair", str(out)], "prog", "about")
