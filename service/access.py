"""Who gets in: CURVE keys for ZeroMQ, tokens for HTTP, and no address opened without them.

What lies in the access folder is in force; an empty or missing folder means open, on loopback only::

    server.json            the worker's CURVE pair {public, secret}, 0600; there: CURVE is on
    clients/<name>.json    a listed client {public, streams: [patterns]}; its secret is in a file of its own
    tokens.json            {tokens: [{name, role, sha256, created}]}; there: HTTP asks for a token

Clients and tokens are looked at anew whenever their files have changed, so taking a key or a token back
works at once. The server's pair is read once: sockets keep the one they were bound with. Removing
tokens.json under a running interface does not open it; a restart is needed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import ipaddress
import json
import logging
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypeVar

import zmq
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from zmq.auth.thread import ThreadAuthenticator

from service.errors import AccessRefused

ZAP_DOMAIN = "rjepa"
NAME_PATTERN = r"^[A-Za-z0-9_\-][A-Za-z0-9_.\-]{0,63}$"
"""An id, as clients.wire has it, for engines without look-ahead."""
STREAM_PATTERN = r"^[A-Za-z0-9_\-*?][A-Za-z0-9_.\-*?]{0,63}$"
"""A stream id in which ``*`` stands for any characters and ``?`` for one."""

log = logging.getLogger("rjepa.access")

Id = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Z85Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}$")]
Secret = Annotated[Z85Key, Field(repr=False)]
StreamPattern = Annotated[str, StringConstraints(pattern=STREAM_PATTERN)]
Role = Literal["read", "admin"]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


F = TypeVar("F", bound=_File)


class ServerKeys(_File):
    """The worker's CURVE pair, Z85 text as ZeroMQ takes it."""

    public: Z85Key
    secret: Secret


class ClientEntry(_File):
    """A client on the list: its public key and patterns of the streams it may write (none: it may only listen)."""

    public: Z85Key
    streams: list[StreamPattern]


class ClientKeyFile(_File):
    """What a client is handed: its own pair and the public key of the worker it belongs to."""

    public: Z85Key
    secret: Secret
    server: Z85Key


class PairFile(ClientKeyFile):
    """What pairs an acquisition computer: its keys, the address it reaches the worker at, the streams it may write."""

    ingest: str
    streams: list[StreamPattern]


class TokenEntry(_File):
    """A token, known only by the SHA-256 (hex) of its text. ``created`` is in unix seconds."""

    name: Id
    role: Role
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    created: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class TokenFile(_File):
    """``tokens.json``."""

    tokens: list[TokenEntry]


@dataclass(frozen=True)
class _Listed:
    """What was read at one moment, and the look of the files it was read from."""

    look: tuple[object, ...]
    clients: dict[str, ClientEntry] = field(repr=False)
    tokens: tuple[TokenEntry, ...] | None = field(repr=False)


class Access:
    """The keys and tokens of one access folder; safe to use from several threads.

    ``curve`` is the worker's pair, or None where CURVE is off.
    """

    def __init__(self, folder: Path, curve: ServerKeys | None) -> None:
        """Use :meth:`load`."""
        self.folder = folder
        self.curve = curve
        self._lock = threading.Lock()
        self._refused_look: tuple[object, ...] | None = None
        self._listed = _read_listed(folder)

    @classmethod
    def load(cls, folder: Path) -> Access:
        """Read ``folder``, which need not exist. Raises :class:`AccessRefused` naming a file that can't be used."""
        server = folder / "server.json"
        curve = _read(server, ServerKeys) if _there(server) else None
        if curve is not None and server.stat().st_mode & 0o077:
            log.warning("%s can be read by others; chmod 600 it", server)
        return cls(folder, curve)

    @property
    def clients(self) -> dict[str, ClientEntry]:
        """Listed clients by public key (Z85 text)."""
        return self._now().clients

    @property
    def tokens(self) -> tuple[TokenEntry, ...] | None:
        """The tokens HTTP takes; None where it asks for none."""
        return self._now().tokens

    def may_write(self, user_id: str | None, stream: str) -> bool:
        """Whether the connection with this :func:`user_id` may write ``stream``. Without CURVE everyone may."""
        if self.curve is None:
            return True
        entry = self.clients.get(user_id or "")
        return entry is not None and any(fnmatch.fnmatchcase(stream, pattern) for pattern in entry.streams)

    def role_of(self, token: str) -> Role | None:
        """What ``token`` may do, or None for one that is not listed."""
        entry = self.entry_of(token)
        return None if entry is None else entry.role

    def entry_of(self, token: str) -> TokenEntry | None:
        """The entry of ``token``, or None for one that is not listed. Takes the same time for any token of a length."""
        return self._entry(hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest())

    def role_by_digest(self, sha256: str) -> Role | None:
        """What the token with this SHA-256 (hex) may do now, or None once it is not listed."""
        entry = self._entry(sha256)
        return None if entry is None else entry.role

    def _entry(self, sha256: str) -> TokenEntry | None:
        found: TokenEntry | None = None
        for entry in self.tokens or ():
            if hmac.compare_digest(sha256, entry.sha256):
                found = entry
        return found

    def _now(self) -> _Listed:
        """What the files say now. Files that turn bad under way are told once, and what was read before stays."""
        look = _look(self.folder)
        with self._lock:
            if look not in (self._listed.look, self._refused_look):
                try:
                    before, self._listed = self._listed, _read_listed(self.folder)
                    if before.tokens is not None and self._listed.tokens is None:
                        self._listed = replace(self._listed, tokens=())
                        log.error("%s is gone: nobody gets in any more", self.folder / "tokens.json")
                except AccessRefused as error:
                    self._refused_look = look
                    log.error("%s; what was read before stays in force", error)
            return self._listed


def secure_server(socket: zmq.Socket[Any], access: Access) -> None:
    """Let ``socket`` speak CURVE only, if keys are there; to be called before it is bound.

    A socket in the domain refuses everyone while no :class:`Authenticator` runs in its context.
    """
    if access.curve is None:
        return
    socket.curve_server = True
    socket.curve_publickey = access.curve.public.encode()
    socket.curve_secretkey = access.curve.secret.encode()
    socket.zap_domain = ZAP_DOMAIN.encode()
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def user_id(frame: zmq.Frame) -> str | None:
    """The public key (Z85) of the connection a received frame came by; None where CURVE is off."""
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:
        return None


class Authenticator:
    """The ZAP handler of a context: lets in the clients on the list and nobody else. Nothing to do without CURVE.

    One per ZeroMQ context, started before the sockets of :func:`secure_server` are bound and stopped
    after they are closed.
    """

    def __init__(self, context: zmq.Context[Any], access: Access) -> None:
        self._access = access
        self._handler = (
            ThreadAuthenticator(context, log=logging.getLogger("rjepa.access.zap")) if access.curve else None
        )

    def start(self) -> None:
        """Begin to answer."""
        if self._handler is not None:
            self._handler.configure_curve_callback(ZAP_DOMAIN, self)
            self._handler.start()

    def stop(self) -> None:
        """End; from now on nobody new gets in."""
        if self._handler is not None:
            self._handler.stop()

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the client with this public key (Z85) is on the list; pyzmq calls it for every connection."""
        known = domain == ZAP_DOMAIN and key.decode("ascii", "replace") in self._access.clients
        if not known:
            log.warning("a client with a key that is not on the list was refused")
        return known

    def __enter__(self) -> Authenticator:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def check_bind(address: str, access: Access) -> None:
    """Raise :class:`AccessRefused` if ``address`` (tcp://HOST:PORT) is not loopback and there are no CURVE keys."""
    host = address.removeprefix("tcp://").rpartition(":")[0]
    if access.curve is None and not is_loopback(host):
        raise AccessRefused(
            f"{address} can be reached from other machines and there are no CURVE keys in {access.folder}: "
            "make them with `rjepa keys init` and one for each client with `rjepa keys client NAME --streams PATTERN`, "
            "or bind to tcp://127.0.0.1"
        )


def check_http_bind(host: str, access: Access) -> None:
    """Raise :class:`AccessRefused` if ``host`` is not loopback and there are no tokens."""
    if access.tokens is None and not is_loopback(host):
        raise AccessRefused(
            f"{host} can be reached from other machines and there are no tokens in {access.folder}: "
            "make one with `rjepa token add NAME --role read|admin`, or bind to 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; a name other than localhost counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read_listed(folder: Path) -> _Listed:
    look = _look(folder)
    clients: dict[str, ClientEntry] = {}
    for path in _client_files(folder):
        entry = _read(path, ClientEntry)
        if entry.public in clients:
            raise AccessRefused(f"{path}: its public key is on the list already; remove one of the two files")
        clients[entry.public] = entry
    tokens = folder / "tokens.json"
    listed = tuple(_read(tokens, TokenFile).tokens) if _there(tokens) else None
    return _Listed(look, clients, listed)


def _client_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in (folder / "clients").iterdir() if path.suffix == ".json")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise AccessRefused(f"{folder / 'clients'} can't be listed: {error.strerror}; make it readable") from None


def _look(folder: Path) -> tuple[object, ...]:
    """What changes when a client or token file does: name, inode, size and time of each."""
    try:
        paths = [*_client_files(folder), folder / "tokens.json"]
    except AccessRefused:
        return ("unreadable",)
    looks: list[object] = []
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            continue
        looks.append((path.name, found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(looks)


def _there(path: Path) -> bool:
    """Whether the file exists; one that can't be looked at is an error, never "not there"."""
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        raise AccessRefused(f"{path.parent} is no folder; name another with --data-dir or --access-dir") from None
    except OSError as error:
        raise AccessRefused(f"{path} can't be read: {error.strerror}; make it readable for this user") from None
    return True


def _read(path: Path, model: type[F]) -> F:
    try:
        value = json.loads(path.read_bytes())
        return model.model_validate(value)
    except OSError as error:
        raise AccessRefused(f"{path} can't be read: {error.strerror}; make it readable for this user") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise AccessRefused(f"{path}: {where}: {first['msg']}; mend it or remove it") from None
    except ValueError:
        raise AccessRefused(f"{path} is not JSON; mend it or remove it") from None
