"""A fresh DEALER to the worker: no identity, CURVE where there is a key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from clients import wire
from clients.errors import KeyRefused, WorkerUnreachable

_ADDRESS = re.compile(r"^(tcp://(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):([0-9]{1,5})|ipc://.+)$")
_KEY_LENGTH = 40


@dataclass(frozen=True)
class Keys:
    """A client's CURVE keys and the worker's public one, 40 characters each (Z85)."""

    public: bytes
    secret: bytes
    server: bytes


def read_keys(path: Path) -> Keys:
    """A key file of ``rjepa keys client``: JSON with public, secret and server. Raises :class:`KeyRefused`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        keys = [str(found[name]) for name in ("public", "secret", "server")]
    except OSError as error:
        raise KeyRefused(f"key file {path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise KeyRefused(f"key file {path} is none: JSON with public, secret and server is wanted") from None
    if not all(key.isascii() and len(key) == _KEY_LENGTH for key in keys):
        raise KeyRefused(f"key file {path}: every key has {_KEY_LENGTH} characters; make one with rjepa keys client")
    return Keys(*(key.encode() for key in keys))


def check_address(address: str) -> str:
    """``address`` if it can be connected to; :class:`WorkerUnreachable` otherwise."""
    found = _ADDRESS.match(address)
    if found is None or (found.group(3) is not None and not 0 < int(found.group(3)) < 65536):
        raise WorkerUnreachable(f"{address!r} is no address of a worker; one looks like tcp://127.0.0.1:5555")
    return address


def dealer(context: zmq.Context[Any], address: str, keys: Keys | None) -> zmq.Socket[bytes]:
    """A DEALER connected (or still connecting) to ``address``: :func:`new_dealer`, connected."""
    socket = new_dealer(context, address, keys)
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        socket.close()
        raise WorkerUnreachable(f"{address} can't be connected to: {error.strerror}") from None
    return socket


def new_dealer(context: zmq.Context[Any], address: str, keys: Keys | None) -> zmq.Socket[bytes]:
    """A DEALER for ``address``, not connected yet. It sends no identity and lingers never.

    It does not reconnect: one socket is one connection, whose messages arrive in order and without a gap until
    there are none. A silent reconnection would break that in the middle; a fresh socket begins with hello.
    """
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.maxmsgsize = wire.MAX_MESSAGE_BYTES
    socket.reconnect_ivl = -1
    socket.heartbeat_ivl = 5_000
    socket.heartbeat_timeout = 20_000
    socket.ipv6 = "[" in address
    if keys is not None:
        socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = keys.public, keys.secret, keys.server
    return socket
