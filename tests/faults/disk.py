"""A disk after the power went: what of a program's writes is still there.

A model of the harshest file system that POSIX allows and hardware with sectors of 512 bytes gives:

- What a file holds is certain only as far as an fsync (or fdatasync) of that file covers it, that is, what was written
  before it was called, once it has come back. Of every later write each sector may be there or not, in any order; the
  file may be longer than what is there, with zeros between.
- A name is certain only once the folder it is in was fsynced: a new file, with all its synced bytes, may have no name;
  a removed one may be back; a renamed one may have either name. Each of these by itself, in any order.

- What a sync that failed should have covered the system takes for written: no later sync covers it. Each sector of it,
  each name, may be there or not; certain is what is written anew there.

Each file and each folder meets one of three ends, as a seed has it: nothing unsynced is there, everything is, or a
part. Nothing that was synced is ever harmed, and a write never harms bytes beside it (SQLite relies on both).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tests.faults.trace import Cut, Effect, Folder, Make, Move, Remove, SyncBegun, SyncDone, SyncFailed, Write

SECTOR = 512
ENDS = ("nothing", "everything", "a part")


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int | None, bytes | int]] = field(default_factory=list)
    """(number, offset, data), or (number, None, size) of a cut; by number."""
    given_up: list[tuple[int, int | None, bytes | int]] = field(default_factory=list)
    """The same, of what the system could not write and takes for written: by sectors."""
    size: int = 0
    """As the program sees it."""


@dataclass
class _Folder:
    names: dict[str, _File | _Folder] = field(default_factory=dict)
    """As the program sees them."""
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[int, dict[str, _File | _Folder | None]]] = field(default_factory=list)
    """(number, what each name is from then on), None for no longer there."""
    given_up: list[tuple[int, dict[str, _File | _Folder | None]]] = field(default_factory=list)


class Disk:
    """The folder ``root`` and everything below. ``root`` itself is there for ever, and empty at the start."""

    def __init__(self, root: Path) -> None:
        self._root = PurePosixPath(root)
        self._top = _Folder()
        self._number = 0
        self._marks: dict[int, int] = {}

    def happen(self, effects: Iterable[Effect]) -> None:
        """Let the program go on. Raises ValueError for what it can't have done here."""
        for effect in effects:
            self._number += 1
            if isinstance(effect, Make):
                self._make(effect)
            elif isinstance(effect, Folder):
                folder, name = self._place(effect.path)
                self._name(folder, {name: _Folder()})
            elif isinstance(effect, Write):
                file = self._file(effect.path)
                at = file.size if effect.offset is None else effect.offset
                file.pending.append((self._number, at, effect.data))
                file.size = max(file.size, at + len(effect.data))
            elif isinstance(effect, Cut):
                self._cut(self._file(effect.path), effect.size)
            elif isinstance(effect, Move):
                self._move(effect)
            elif isinstance(effect, Remove):
                folder, name = self._place(effect.path)
                self._name(folder, {name: None})
            elif isinstance(effect, SyncBegun):
                self._marks[effect.number] = self._number
            elif isinstance(effect, SyncDone):
                self._sync(self._at(effect.path), self._marks.pop(effect.number))
            elif isinstance(effect, SyncFailed):
                self._give_up(self._at(effect.path), self._marks.pop(effect.number))

    def as_seen(self, folder: Path) -> None:
        """Write what the program sees into ``folder``, which is made: as if the power had stayed."""
        _write(_seen(self._top), folder)

    def after_power_loss(self, folder: Path, generator: np.random.Generator) -> None:
        """Write what is left of it into ``folder``, which is made."""
        _write(_left(self._top, generator), folder)

    def _make(self, made: Make) -> None:
        try:
            folder, name = self._place(made.path)
        except ValueError:
            return  # the root itself, or something that is not there, looked for
        found = folder.names.get(name)
        if found is None and made.create:
            self._name(folder, {name: _File()})
        elif isinstance(found, _File) and made.truncate and found.size:
            self._cut(found, 0)

    def _cut(self, file: _File, size: int) -> None:
        file.pending.append((self._number, None, size))
        file.size = size

    def _move(self, move: Move) -> None:
        (folder, old), (other, new) = self._place(move.path), self._place(move.to)
        if folder is not other:
            raise ValueError(f"{move.path} went to another folder, {move.to}: that can't be in one piece")
        self._name(folder, {new: folder.names[old], old: None})

    def _name(self, folder: _Folder, names: dict[str, _File | _Folder | None]) -> None:
        folder.pending.append((self._number, names))
        _rename(folder.names, names)

    def _sync(self, what: _File | _Folder | None, mark: int) -> None:
        if what is None:
            return  # its name went meanwhile
        for change in [change for change in what.pending if change[0] <= mark]:
            if isinstance(what, _File):
                _change(what.durable, *change[1:])
                what.given_up = [left for piece in what.given_up for left in _beside(piece, *change[1:])]
            else:
                _rename(what.durable, change[1])
                for _, names in what.given_up:
                    for name in change[1]:
                        names.pop(name, None)
        what.pending = [change for change in what.pending if change[0] > mark]

    def _give_up(self, what: _File | _Folder | None, mark: int) -> None:
        if what is None:
            return
        for change in [change for change in what.pending if change[0] <= mark]:
            if isinstance(what, _File):
                what.given_up += [(change[0], *piece) for piece in _sectors(*change[1:])]
            else:
                what.given_up.append((change[0], dict(change[1])))
        what.pending = [change for change in what.pending if change[0] > mark]

    def _at(self, path: str) -> _File | _Folder | None:
        found: _File | _Folder | None = self._top
        for part in PurePosixPath(path).relative_to(self._root).parts:
            found = found.names.get(part) if isinstance(found, _Folder) else None
        return found

    def _file(self, path: str) -> _File:
        found = self._at(path)
        if not isinstance(found, _File):
            raise ValueError(f"{path} was written to and is no file")
        return found

    def _place(self, path: str) -> tuple[_Folder, str]:
        """The folder a path is in, and its name there."""
        folder = self._at(str(PurePosixPath(path).parent))
        if not isinstance(folder, _Folder):
            raise ValueError(f"{path} is in no folder")
        return folder, PurePosixPath(path).name


def _seen(folder: _Folder) -> dict[str, bytes | dict]:
    found: dict[str, bytes | dict] = {}
    for name, what in folder.names.items():
        if isinstance(what, _Folder):
            found[name] = _seen(what)
        else:
            content = bytearray(what.durable)
            for _, offset, data in sorted(what.given_up + what.pending, key=_number):
                _change(content, offset, data)
            found[name] = bytes(content)
    return found


def _left(folder: _Folder, generator: np.random.Generator) -> dict[str, bytes | dict]:
    """A folder's names and what is behind them, nested."""
    names = dict(folder.durable)
    pending = sorted(folder.given_up + folder.pending, key=_number)
    kept = _kept(len(pending), generator)
    for (_, change), keep in zip(pending, kept, strict=True):
        if keep:
            _rename(names, change)
    return {
        name: _left(found, generator) if isinstance(found, _Folder) else _content(found, generator)
        for name, found in sorted(names.items())
    }


def _content(file: _File, generator: np.random.Generator) -> bytes:
    content = bytearray(file.durable)
    changes = sorted(file.given_up + file.pending, key=_number)
    pieces = [piece for change in changes for piece in _sectors(*change[1:])]
    kept = _kept(len(pieces), generator)
    for piece, keep in zip(pieces, kept, strict=True):
        if keep:
            _change(content, *piece)
    if not all(kept) and len(content) < file.size and generator.random() < 0.5:
        content.extend(bytes(file.size - len(content)))
    return bytes(content)


def _kept(count: int, generator: np.random.Generator) -> list[bool]:
    end = generator.choice(ENDS)
    if end == "a part":
        return [bool(keep) for keep in generator.random(count) < generator.choice((0.1, 0.5, 0.9))]
    return [end == "everything"] * count


def _sectors(offset: int | None, data: bytes | int) -> Iterable[tuple[int | None, bytes | int]]:
    """A write by sectors; a cut as a whole."""
    if offset is None or isinstance(data, int):
        yield offset, data
        return
    begin = 0
    while begin < len(data):
        end = min(len(data), begin + SECTOR - (offset + begin) % SECTOR)
        yield offset + begin, data[begin:end]
        begin = end


def _beside(
    piece: tuple[int, int | None, bytes | int], offset: int | None, data: bytes | int
) -> Iterable[tuple[int, int | None, bytes | int]]:
    """What is left of a piece that was given up once ``data`` is written at ``offset``, or the file cut."""
    number, at, old = piece
    if at is None or isinstance(old, int):
        return
    begin, end = (data, at + len(old)) if isinstance(data, int) else (offset or 0, (offset or 0) + len(data))
    if begin > at:
        yield number, at, old[: begin - at]
    if end < at + len(old):
        yield number, max(at, end), old[max(0, end - at) :]


def _number(change: tuple[Any, ...]) -> int:
    return int(change[0])


def _change(content: bytearray, offset: int | None, data: bytes | int) -> None:
    size = data if isinstance(data, int) else (offset or 0) + len(data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if isinstance(data, int):
        del content[data:]
    else:
        content[offset : (offset or 0) + len(data)] = data


def _rename(names: dict[str, _File | _Folder], change: dict[str, _File | _Folder | None]) -> None:
    for name, what in change.items():
        if what is None:
            names.pop(name, None)
        else:
            names[name] = what


def _write(content: dict[str, bytes | dict], folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name, what in content.items():
        if isinstance(what, dict):
            _write(what, folder / name)
        else:
            (folder / name).write_bytes(what)
