"""What a program did to its files and said to others, from the record that strace makes of it.

strace sees every system call of every thread, in the order in which they began and ended, with all that was written.
What goes through a mapping of a file is not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "openat,lseek,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,copy_file_range,sendfile,fsync,"
    "fdatasync,sync,syncfs,sync_file_range,rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,"
    "mkdir,mkdirat,rmdir,sendto,sendmsg"
)
"""All by which a program changes files or speaks over a socket (as far as it does: :func:`read` refuses the others)."""


def strace(log: Path) -> list[str]:
    """The words before a command that have it recorded in ``log``."""
    options = ["--follow-forks", "--decode-fds=path", "--strings-in-hex=all", "--string-limit=1000000000"]
    return ["strace", *options, "--seccomp-bpf", f"--output={log}", f"--trace={CALLS}"]


@dataclass(frozen=True)
class Make:
    """``path`` was opened; made where ``create``, emptied where ``truncate``."""

    path: str
    create: bool
    truncate: bool


@dataclass(frozen=True)
class Folder:
    """A folder was made."""

    path: str


@dataclass(frozen=True)
class Write:
    """``data`` was written at ``offset``, or at the file's end where that is None."""

    path: str
    offset: int | None
    data: bytes


@dataclass(frozen=True)
class Cut:
    """A file was made ``size`` bytes long."""

    path: str
    size: int


@dataclass(frozen=True)
class Move:
    """``path`` is ``to`` from now on."""

    path: str
    to: str


@dataclass(frozen=True)
class Remove:
    """A name is gone: of a file or an empty folder."""

    path: str


@dataclass(frozen=True)
class SyncBegun:
    """fsync or fdatasync was called: it covers what was done before."""

    path: str
    number: int


@dataclass(frozen=True)
class SyncDone:
    """It came back."""

    path: str
    number: int


@dataclass(frozen=True)
class Said:
    """``data`` was handed to the system for a socket, or for a file that is none of ours (a log)."""

    data: bytes


@dataclass(frozen=True)
class SyncFailed:
    """It came back with an error."""

    path: str
    number: int


Effect = Make | Folder | Write | Cut | Move | Remove | SyncBegun | SyncDone | SyncFailed | Said

_LINE = re.compile(rb"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)", re.DOTALL)
_STRING = rb'"((?:\\x[0-9a-f]{2})*)"'
_PATH = re.compile(rb"<((?:\\x[0-9a-f]{2})+)>(\(deleted\))?")
_RESULT = re.compile(rb"\) += (-?\d+|\?)[^=]*$")
_UNFINISHED = b" <unfinished ...>"


@dataclass
class _Call:
    name: str
    arguments: bytes
    result: int | None
    number: int = 0
    """Of a sync, which one it is."""

    def strings(self) -> list[bytes]:
        return [_bytes(found) for found in re.findall(_STRING, self.arguments)]

    def descriptor(self) -> int:
        return int(re.match(rb"-?\d+", self.arguments).group())  # type: ignore[union-attr]

    def file(self) -> str | None:
        """The path of the first argument, a descriptor; None where it is no file, or one with no name any more."""
        found = re.match(rb"\d+" + _PATH.pattern, self.arguments)
        if found is None or found.group(2):
            return None
        path = _bytes(found.group(1)).decode()
        return path if path.startswith("/") and not path.endswith(" (deleted)") else None

    def paths(self) -> list[str]:
        """The paths that are arguments. Raises ValueError for one that is relative to a folder not told."""
        found = re.findall(rb"(?:(?:AT_FDCWD|\d+)" + _PATH.pattern + rb", )?" + _STRING, self.arguments)
        paths = [os.path.normpath(os.path.join(_bytes(at).decode(), _bytes(name).decode())) for at, _, name in found]
        if not all(path.startswith("/") for path in paths):
            raise ValueError(f"{self.name} of {paths}: relative to what?")
        return paths


def read(log: Path, root: Path) -> list[Effect]:
    """The effects under ``root``, and everything said, in order. A call that never came back may have done anything.

    Raises ValueError for a call by which a file under ``root`` was changed in a way not known here.
    """
    effects: list[Effect] = []
    offsets: dict[int, int | None] = {}
    number = 0
    inside = f"{root}/"
    for call, ends in _calls(log):
        if ends and call.name in ("fsync", "fdatasync"):
            if call.result is not None and (path := call.file()) and f"{path}/".startswith(inside):
                effects.append((SyncFailed if call.result else SyncDone)(path, call.number))
        elif ends:
            continue
        elif call.name in ("fsync", "fdatasync"):
            if (path := call.file()) and f"{path}/".startswith(inside):
                number += 1
                call.number = number
                effects.append(SyncBegun(path, number))
        elif call.result is None or call.result >= 0:
            for effect in _effects(call, offsets):
                if isinstance(effect, Said) or f"{effect.path}/".startswith(inside):
                    effects.append(effect)
                elif isinstance(effect, Write):
                    effects.append(Said(effect.data))
    return effects


def _effects(call: _Call, offsets: dict[int, int | None]) -> Iterator[Effect]:
    """What a call did. ``offsets`` are the places of open files by descriptor, None for such as are appended to."""
    name = call.name
    if name == "openat":
        flags = call.arguments.rpartition(b'"')[2]
        yield Make(call.paths()[0], b"O_CREAT" in flags, b"O_TRUNC" in flags)
        if call.result is not None:
            offsets[call.result] = None if b"O_APPEND" in flags else 0
    elif name == "lseek":
        if offsets.get(call.descriptor()) is not None and call.result is not None:
            offsets[call.descriptor()] = call.result
    elif name in ("write", "pwrite64", "sendto"):
        path, data = call.file(), (call.strings() or [b""])[0]
        data = data if call.result is None else data[: call.result]
        at = offsets.get(call.descriptor(), 0)
        if path is None or name == "sendto":
            yield Said(data)
        elif name == "pwrite64":
            yield Write(path, int(call.arguments.rpartition(b", ")[2]), data)
        else:
            yield Write(path, at, data)
            if at is not None:
                offsets[call.descriptor()] = at + len(data)
    elif name == "sendmsg":
        for data in call.strings():
            yield Said(data)
    elif name == "ftruncate" and (path := call.file()):
        yield Cut(path, int(call.arguments.rpartition(b", ")[2]))
    elif name in ("rename", "renameat", "renameat2"):
        yield Move(*call.paths())
    elif name in ("unlink", "unlinkat", "rmdir"):
        yield Remove(call.paths()[0])
    elif name in ("mkdir", "mkdirat"):
        yield Folder(call.paths()[0])
    elif path := call.file():
        if path.startswith("/dev/"):
            return
        raise ValueError(f"{name} of {path} is not known here")


def _calls(log: Path) -> Iterator[tuple[_Call, bool]]:
    """Every call twice: where it began, its result (None where it has none) known already, and where it ended."""
    lines = [found.groups() for line in log.read_bytes().split(b"\n") if (found := _LINE.match(line))]
    rest: dict[bytes, tuple[int, bytes]] = {}
    for number in range(len(lines) - 1, -1, -1):  # where each unfinished call goes on
        thread, resumed, _, text = lines[number]
        if resumed:
            rest[thread] = number, text
        elif text.endswith(_UNFINISHED):
            found = rest.pop(thread, None)
            lines[number] = (thread, found, lines[number][2], text.removesuffix(_UNFINISHED))  # type: ignore[assignment]
    open_calls: dict[bytes, _Call] = {}
    for thread, other, name, text in lines:
        if name is None:
            if thread in open_calls:
                yield open_calls.pop(thread), True
            continue
        whole = text + other[1] if other else text
        result = _RESULT.search(whole)
        told = None if result is None or result.group(1) == b"?" else int(result.group(1))
        call = _Call(name.decode(), whole[: result.start()] if result else whole, told)
        yield call, False
        if other:
            open_calls[thread] = call
        elif result is not None and told is not None:
            yield call, True


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())
