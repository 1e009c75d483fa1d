"""A pair file of ``rjepa pair``: the worker's address, this client's keys, and the streams it may write."""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from pathlib import Path

from clients.connection import check_address, read_keys
from clients.errors import KeyRefused, OptionError, WorkerUnreachable


@dataclass(frozen=True)
class Pairing:
    """``streams`` are patterns: ``*`` stands for any characters, ``?`` for one."""

    path: Path
    ingest: str
    streams: tuple[str, ...]

    def only_stream(self) -> str | None:
        """The one stream this client may write, if there is just one."""
        plain = len(self.streams) == 1 and not set("*?") & set(self.streams[0])
        return self.streams[0] if plain else None

    def check(self, stream: str) -> str:
        """``stream`` if this client may write it; :class:`OptionError` otherwise."""
        if not any(fnmatch.fnmatchcase(stream, pattern) for pattern in self.streams):
            raise OptionError(
                f"--pair {self.path} is for streams {' '.join(self.streams)}, not {stream}; name one with --stream"
            )
        return stream


def read_pairing(path: Path) -> Pairing:
    """The pair file at ``path``. Raises :class:`KeyRefused`."""
    read_keys(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    ingest, streams = found.get("ingest"), found.get("streams")
    listed = isinstance(streams, list) and streams and all(isinstance(one, str) for one in streams)
    if not isinstance(ingest, str) or not listed:
        raise KeyRefused(f"{path} is no pair file, with ingest and streams; make one with rjepa pair, or say --key")
    try:
        return Pairing(path, check_address(ingest), tuple(streams))
    except WorkerUnreachable as error:
        raise KeyRefused(f"pair file {path}: {error}") from None
