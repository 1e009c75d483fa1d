"""``rjepa keys``, ``rjepa pair``, ``rjepa token`` and ``rjepa init``: making and taking back keys and tokens.

Secrets are written to files of mode 0600, whole or not at all; a token is shown once, when it is made.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

import zmq
from pydantic import BaseModel

from service.access import (
    NAME_PATTERN,
    STREAM_PATTERN,
    Access,
    ClientEntry,
    ClientKeyFile,
    PairFile,
    Role,
    ServerKeys,
    TokenEntry,
    TokenFile,
    is_loopback,
)
from service.errors import AccessRefused, SettingsError
from service.settings import load_settings

TOKEN_BYTES = 32


def main(argv: list[str]) -> int:
    """Run ``rjepa keys ...``, ``pair ...``, ``token ...`` or ``init ...``; ``argv[0]`` is that word."""
    arguments = _parser().parse_args(argv)
    words: list[str] = []
    for option in ("data_dir", "access_dir", "config", "ingest"):
        if getattr(arguments, option, None) is not None:
            words += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    settings = load_settings(words, argv[0])
    folder = settings.access_folder
    if arguments.command == "pair":
        arguments.address = _reachable(settings.ingest, given=arguments.ingest is not None)
    run = {
        ("keys", "init"): _keys_init,
        ("keys", "client"): _keys_client,
        ("keys", "list"): _keys_list,
        ("keys", "revoke"): _keys_revoke,
        ("pair", None): _pair,
        ("token", "add"): _token_add,
        ("token", "list"): _token_list,
        ("token", "revoke"): _token_revoke,
        ("init", None): _init,
    }[arguments.command, getattr(arguments, "action", None)]
    with nullcontext() if getattr(arguments, "action", None) == "list" else _locked(folder):
        run(folder, arguments)
    return 0


def make_server_keys(folder: Path) -> ServerKeys | None:
    """Make the worker's CURVE pair in ``folder``; None where there is one already, which stays."""
    path = folder / "server.json"
    if path.exists():
        return None
    public, secret = (key.decode() for key in zmq.curve_keypair())
    keys = ServerKeys(public=public, secret=secret)
    _write(path, keys)
    return keys


def make_client(folder: Path, name: str, streams: Sequence[str], out: Path, ingest: str | None = None) -> None:
    """List a new client and write its key file to ``out``; its pair file where ``ingest`` is given.

    Raises :class:`AccessRefused` without the worker's pair, for a name that is taken and where ``out`` exists.
    """
    access = Access.load(folder)
    if access.curve is None:
        raise AccessRefused(f"no CURVE keys in {folder}; make them first with `rjepa keys init`")
    listed = folder / "clients" / f"{name}.json"
    if listed.exists():
        raise AccessRefused(
            f"client {name} is on the list already; take another name or `rjepa keys revoke {name}` first"
        )
    if out.exists():
        raise AccessRefused(f"{out} is there already; name another file with --out")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    keys = ClientKeyFile(public=public, secret=secret, server=access.curve.public)
    _write(out, keys if ingest is None else PairFile(**dict(keys), ingest=ingest, streams=list(streams)))
    _write(listed, ClientEntry(public=public, streams=list(streams)))


def make_token(folder: Path, name: str, role: Role, out: Path | None = None) -> str:
    """List a new token and return its text, which is nowhere else but in ``out``, if that is given.

    Raises :class:`AccessRefused` for a taken name.
    """
    tokens = Access.load(folder).tokens or ()
    if any(entry.name == name for entry in tokens):
        raise AccessRefused(f"token {name} is there already; take another name or `rjepa token revoke {name}` first")
    text = secrets.token_urlsafe(TOKEN_BYTES)
    entry = TokenEntry(name=name, role=role, sha256=hashlib.sha256(text.encode()).hexdigest(), created=time.time())
    if out is not None:
        _write_text(out, text + "\n")
    _write(folder / "tokens.json", TokenFile(tokens=[*tokens, entry]))
    return text


def _keys_init(folder: Path, _: argparse.Namespace) -> None:
    keys = make_server_keys(folder)
    if keys is None:
        print(f"the keys in {folder / 'server.json'} stay; CURVE is on")
    else:
        print(f"wrote {folder / 'server.json'} (keep it secret); CURVE is on from the worker's next start")
        print("now list the clients: rjepa keys client NAME --streams PATTERN")


def _keys_client(folder: Path, arguments: argparse.Namespace) -> None:
    out = Path(arguments.out or f"{arguments.name}.key.json")
    make_client(folder, arguments.name, arguments.streams, out)
    print(f"client {arguments.name} may write {_told(arguments.streams)}")
    print(f"wrote {out}: give it to that client alone (rjepa stream ... --key {out})")


def _keys_list(folder: Path, _: argparse.Namespace) -> None:
    access = Access.load(folder)
    if access.curve is None:
        print(f"no CURVE keys in {folder}: the worker is open, on loopback only")
        return
    print(f"server      {access.curve.public}")
    for path in sorted((folder / "clients").glob("*.json")):
        entry = ClientEntry.model_validate_json(path.read_bytes())
        print(f"{path.stem:<12}{entry.public}  {_told(entry.streams)}")


def _keys_revoke(folder: Path, arguments: argparse.Namespace) -> None:
    listed = folder / "clients" / f"{arguments.name}.json"
    if not listed.exists():
        raise AccessRefused(f"no client {arguments.name} on the list in {folder}; see `rjepa keys list`")
    listed.unlink()
    print(f"client {arguments.name} gets in no more and writes no more, at once")


def _pair(folder: Path, arguments: argparse.Namespace) -> None:
    if make_server_keys(folder) is not None:
        print(f"wrote {folder / 'server.json'} (keep it secret); CURVE is on from the worker's next start")
    out = Path(arguments.out or f"{arguments.name}.pair.json")
    make_client(folder, arguments.name, arguments.streams, out, arguments.address)
    print(f"client {arguments.name} reaches the worker at {arguments.address} and may write {_told(arguments.streams)}")
    print(f"wrote {out}: move it to that computer alone (there: rjepa stream ... --pair {out.name})")


def _reachable(ingest: str, *, given: bool) -> str:
    """The address a client is told. Raises :class:`AccessRefused` for one that leads it nowhere."""
    host, _, port = ingest.removeprefix("tcp://").rpartition(":")
    if host in ("0.0.0.0", "*", "[::]") or port == "0" or (is_loopback(host) and not given):
        raise AccessRefused(
            f"{ingest} is not where another computer reaches this worker; say --ingest tcp://NAME-OR-ADDRESS:PORT"
        )
    return ingest


def _token_add(folder: Path, arguments: argparse.Namespace) -> None:
    print(make_token(folder, arguments.name, arguments.role))
    print(
        f"token {arguments.name} ({arguments.role}); it is not shown again. Send it as: Authorization: Bearer TOKEN",
        file=sys.stderr,
    )


def _token_list(folder: Path, _: argparse.Namespace) -> None:
    tokens = Access.load(folder).tokens
    if tokens is None:
        print(f"no tokens in {folder}: the HTTP interface is open, on loopback only")
        return
    for entry in tokens:
        made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(entry.created))
        print(f"{entry.name:<12}{entry.role:<7}made {made}")
    if not tokens:
        print(_nobody(folder))


def _token_revoke(folder: Path, arguments: argparse.Namespace) -> None:
    tokens = Access.load(folder).tokens or ()
    left = [entry for entry in tokens if entry.name != arguments.name]
    if len(left) == len(tokens):
        raise AccessRefused(f"no token {arguments.name} in {folder}; see `rjepa token list`")
    _write(folder / "tokens.json", TokenFile(tokens=left))
    print(f"token {arguments.name} is taken back, at once")
    if not left:
        print(_nobody(folder))


def _init(folder: Path, arguments: argparse.Namespace) -> None:
    """What a first start needs; what is there already stays, so every later start may call it again."""
    made = make_server_keys(folder)
    print(f"{'wrote' if made else 'kept '}  {folder / 'server.json'}")
    handout = Path(arguments.handout) if arguments.handout else folder / "handout"
    for name, streams in arguments.client:
        out = handout / f"{name}.key.json"
        listed = (folder / "clients" / f"{name}.json").exists()
        if not listed:
            out.unlink(missing_ok=True)  # of a start that was cut off; a key that is not listed opens nothing
            make_client(folder, name, streams, out)
        print(f"{_state(listed, out)}  {out}: key of client {name}, may write {_told(streams)}")
    present = {entry.name for entry in Access.load(folder).tokens or ()}
    roles: tuple[Role, ...] = ("read", "admin")
    for role in roles:
        out = handout / f"{role}.token"
        if role not in present:
            make_token(folder, role, role, out)
        print(f"{_state(role in present, out)}  {out}: token that may {'look' if role == 'read' else 'change'}")


def _state(listed_before: bool, handed: Path) -> str:
    if not listed_before:
        return "wrote"
    return "kept " if handed.exists() else "moved"


def _nobody(folder: Path) -> str:
    return (
        "no token is left: nobody gets in over HTTP until `rjepa token add`; to ask for none again, on loopback, "
        f"remove {folder / 'tokens.json'} and restart"
    )


def _told(streams: Sequence[str]) -> str:
    return f"streams {' '.join(streams)}" if streams else "no stream (it may only listen)"


def _write(path: Path, value: BaseModel) -> None:
    _write_text(path, json.dumps(value.model_dump(mode="json"), indent=1) + "\n")


def _write_text(path: Path, text: str) -> None:
    """Write a file of mode 0600 whole or not at all, in a folder of mode 0700 where that has to be made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time; the lock ends with the process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise AccessRefused(f"{folder} can't be written: {error.strerror}; name another with --access-dir") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    where = _Parser(add_help=False)
    where.add_argument("--data-dir", metavar="DIR", help="data directory; the access folder is DIR/access")
    where.add_argument("--access-dir", metavar="DIR", help="the access folder itself")
    where.add_argument("--config", metavar="FILE", help="TOML file with settings by name")
    parser = _Parser(prog="rjepa")
    commands = parser.add_subparsers(dest="command", required=True)
    keys = commands.add_parser("keys", help="CURVE keys").add_subparsers(dest="action", required=True)
    keys.add_parser("init", parents=[where], help="make the worker's pair")
    client = keys.add_parser("client", parents=[where], help="list a client and write its key file")
    client.add_argument("name", type=_id)
    client.add_argument("--streams", type=_pattern, nargs="*", default=[], metavar="PATTERN", help="demo, 's1-*', ...")
    client.add_argument("--out", metavar="FILE", help="default: NAME.key.json in this folder")
    keys.add_parser("list", parents=[where], help="public keys and their streams")
    keys.add_parser("revoke", parents=[where], help="strike a client off").add_argument("name", type=_id)
    pair = commands.add_parser("pair", parents=[where], help="one file that pairs an acquisition computer")
    pair.add_argument("name", type=_id)
    pair.add_argument("--streams", type=_pattern, nargs="+", required=True, metavar="PATTERN", help="demo, 's1-*', ...")
    pair.add_argument("--ingest", metavar="ADDRESS", help="tcp://HOST:PORT where that computer reaches the worker")
    pair.add_argument("--out", metavar="FILE", help="default: NAME.pair.json in this folder")
    token = commands.add_parser("token", help="HTTP tokens").add_subparsers(dest="action", required=True)
    add = token.add_parser("add", parents=[where], help="make a token and print it once")
    add.add_argument("name", type=_id)
    add.add_argument("--role", choices=("read", "admin"), required=True)
    token.add_parser("list", parents=[where], help="names and roles")
    token.add_parser("revoke", parents=[where], help="take a token back").add_argument("name", type=_id)
    init = commands.add_parser("init", parents=[where], help="keys and tokens at a first start, in one go")
    init.add_argument(
        "--client", type=_named_pattern, action="append", default=[], metavar="NAME=PATTERN", help="a client to list"
    )
    init.add_argument("--handout", metavar="DIR", help="where what is to be handed out goes; default: handout/ there")
    return parser


def _id(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: 1 to 64 of A-Z a-z 0-9 _ . -, not starting with a dot")
    return text


def _pattern(text: str) -> str:
    if not re.fullmatch(STREAM_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no pattern of stream names like 'demo*'")
    return text


def _named_pattern(text: str) -> tuple[str, list[str]]:
    name, equals, pattern = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATTERN")
    return _id(name), [_pattern(pattern)]
