"""The bytes of docs/wire.md, sent as they stand there over a plain TCP connection, are a hello that is welcomed."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pytest

from clients import wire
from tests.clients.peer import Peer
from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "wire.md").read_text()


def steps() -> list[tuple[str, bytes]]:
    """The page's dialogue: arrow, and the bytes in a row under it (none for what it only describes)."""
    rows = re.findall(r"(?m)^(->|<-|<=) (?:((?:[0-9a-f]{2} ?)+)(?= |$))?", PAGE)
    found: list[tuple[str, bytes]] = []
    for arrow, shown in rows:
        if found and found[-1][0] == arrow != "<=":
            found[-1] = arrow, found[-1][1] + bytes.fromhex(shown)
        else:
            found.append((arrow, bytes.fromhex(shown)))
    return found


def read(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = connection.recv(count - len(got))
        assert part, f"cut after {got!r}"
        got += part
    return got


def message(connection: socket.socket) -> list[bytes]:
    """The frames of the next message, as they came off the connection; commands are passed over."""
    frames: list[bytes] = []
    while True:
        flags = read(connection, 1)[0]
        length = int.from_bytes(read(connection, 8 if flags & 2 else 1), "big")
        body = read(connection, length)
        if flags & 4:
            continue
        frames.append(body)
        if not flags & 1:
            return frames


def test_the_bytes_of_the_page_are_welcomed(peer: Peer) -> None:
    assert [arrow for arrow, _ in steps()] == ["->", "<=", "->", "<=", "->", "<-"]
    with socket.create_connection(("127.0.0.1", peer.port), 20) as connection:
        connection.settimeout(20)
        (_, greeting), _, (_, ready), _, (_, hello), (_, answered) = steps()
        connection.sendall(greeting)
        its = read(connection, 64)
        assert (its[0], its[9], its[10] >= 3, its[12:16]) == (greeting[0], greeting[9], True, b"NULL")
        connection.sendall(ready)
        flags, length = read(connection, 2)
        assert flags == 4
        assert read(connection, length).startswith(b"\x05READY")
        connection.sendall(hello)
        frames = message(connection)
    welcome, _ = wire.decode(frames)
    assert isinstance(welcome, wire.Welcome)
    assert (welcome.stream, welcome.epoch, welcome.next_seq) == ("s1", 1, 0)
    assert [told.notify for told in peer.hellos] == ["learned"]
    assert answered == b"".join(bytes([1, len(frame)]) + frame for frame in frames[:2]), "as the page shows it"


def test_the_length_of_a_patch_as_the_page_says() -> None:
    (shown,) = re.findall(r"`02 ([0-9a-f ]+)`", PAGE)
    assert int.from_bytes(bytes.fromhex(shown), "big") == wire.PATCH_HEIGHT_PX * wire.PATCH_WIDTH_PX * 3


GOOD: dict[str, Any] = {
    "stream": "s", "seq": 7, "onset": 0.5, "duration": 0.25, "gaze": {"x": 0.25, "y": 0.5},
    "patch": {"encoding": "raw", "height": 50, "width": 50, "channels": 3, "color": "rgb", "degrees": 5.0},
}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(GOOD),
        json.dumps(GOOD | {"onset": 3, "gaze": {"x": 0, "y": 1}}, indent=1),
        json.dumps(GOOD | {"frame_deg": None, "sequence": {"id": "\u00e9\U0001f441", "start": True}}),
        json.dumps(GOOD).replace('"seq": 7', '"seq": 7, "seq": 8'),
        json.dumps(GOOD).replace('"onset": 0.5', '"onset": -0'),
        json.dumps(GOOD).replace('"x": 0.25', '"x": -0.0'),
        json.dumps(GOOD).replace('"onset": 0.5', '"onset": 0.1234567890123456789012345'),
        json.dumps(GOOD).replace('"onset": 0.5', '"onset": 123456789012345678901234567890'),
        json.dumps(GOOD).replace('"onset": 0.5', '"onset": 4.9e-324'),
    ],
)
def test_a_fixation_read_the_short_way_is_the_one_read_the_long_way(body: str) -> None:
    short = wire._fixation([wire.VERSION, b"fixation", body.encode(), b""])
    long = wire.FixationMessage.model_validate(wire._parse(body.encode()))
    assert short == long
    assert repr(short) == repr(long), "with the sign of a zero"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (json.dumps(GOOD).replace('"onset": 0.5', '"onset": NaN'), "bad_message"),
        (json.dumps(GOOD).replace('"onset": 0.5', '"onset": 1e999'), "bad_message"),
        (json.dumps(GOOD).replace('"seq": 7', '"seq": 7.0'), "bad_message"),
        (json.dumps(GOOD | {"more": 1}), "bad_message"),
        (json.dumps(GOOD) + " x", "bad_message"),
        (json.dumps(GOOD | {"stream": "../s"}), "bad_stream"),
    ],
)
def test_what_is_not_a_fixation_is_told_as_ever(body: str, code: str) -> None:
    with pytest.raises(wire.WireError) as told:
        wire.decode([wire.VERSION, b"fixation", body.encode(), b""])
    assert told.value.code == code
