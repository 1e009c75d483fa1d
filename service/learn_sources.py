"""What ``rjepa learn`` learns from: streams of features, from a journal or from recordings."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from clients.wire import PatchHeader, WireError
from model.action import Look
from model.config import ModelConfig
from model.errors import ModelError
from model.sequences import SeenStream
from service import records
from service.entries import look_of
from service.errors import DirectoryRefused, LearnRefused
from service.experiment_features import KeptFeatures
from service.offline import recorded, recordings_in
from service.patches import decode_patch
from service.schema import READABLE_VERSIONS
from service.storage import open_reader

_AT_ONCE = 256
"""Entries of one read: short, so that a running worker's log does not grow."""
_ENTRIES = (
    "SELECT journal.id, kind, stream, body, {what} FROM journal LEFT JOIN {table} USING (id)"
    " WHERE journal.id > ? AND journal.id <= ? ORDER BY journal.id LIMIT ?"
)


class Gathered(NamedTuple):
    """What was seen, ready to be cut."""

    streams: list[SeenStream]
    until: int | None
    """The last entry of the journal that counts; None where it is no journal."""

    @property
    def digest(self) -> str:
        """The sha256 of all of it, in hex."""
        found = hashlib.sha256()
        for stream in self.streams:
            looks = [None if look is None else (look.degrees, look.frame_deg) for look in stream.looks]
            found.update(f"{stream.name} {stream.z.shape} {looks}".encode())
            found.update(np.ascontiguousarray(stream.z).data)
            found.update(np.ascontiguousarray(stream.starts).data)
        return found.hexdigest()


@dataclass
class _Row:
    """One stream while it is gathered; each thing seen is its z, or its patch."""

    seen: list[NDArray[Any]] = field(default_factory=list)
    looks: list[Look | None] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    broken: bool = False
    """What comes next does not follow on what came last."""

    def add(self, seen: NDArray[Any], look: Look, *, start: bool) -> None:
        self.seen.append(seen)
        self.looks.append(look)
        self.starts.append(start or self.broken)
        self.broken = False


class JournalSource:
    """The journal of a data directory, read and never written; a worker may be running."""

    def __init__(self, data_dir: Path) -> None:
        """Raises :class:`DirectoryRefused` where there is no journal that this program reads."""
        self.data_dir = data_dir
        self._path = data_dir / "rjepa.db"
        meta = self._meta()
        if meta.get("schema_version") not in READABLE_VERSIONS or "identity" not in meta:
            raise DirectoryRefused(
                f"{data_dir} is no data directory of this version (schema {meta.get('schema_version')}, wanted "
                f"{READABLE_VERSIONS[-1]}); name the folder that a worker was given as --data-dir"
            )
        self.identity: dict[str, Any] = json.loads(meta["identity"])
        self.learned_id = int(meta.get("learned_id", 0))

    def features(self, config: ModelConfig, until: int | None) -> Gathered:
        """z as the worker kept it, up to the entry ``until`` or as far as there is any.

        Raises :class:`LearnRefused` where the model of ``config`` sees patches otherwise.
        """
        try:
            retina = ModelConfig.parse(self.identity["model"]).retina
        except ModelError as error:
            raise DirectoryRefused(f"{self.data_dir} was made by another version of this program ({error})") from None
        if retina != config.retina:
            raise LearnRefused(
                f"the features kept in {self.data_dir} are of another retina (stages {retina.stages}, "
                f"{retina.features} numbers) than {config.name} has (stages {config.retina.stages}, "
                f"{config.retina.features} numbers): say --weights, and the patches are seen again; or another --preset"
            )
        rows, until = self._rows("z", "features", until)
        streams = [
            SeenStream(name, np.stack(row.seen).astype(np.float32), row.looks, np.array(row.starts))
            for name, row in rows.items()
        ]
        return Gathered(streams, until)

    def seen_again(self, config: ModelConfig, features: KeptFeatures, until: int | None) -> Gathered:
        """z of the patches as far as they are kept, by the retina of ``config``."""
        rows, until = self._rows("bytes", "patches", until)
        return Gathered(_featured({name: (np.stack(r.seen), r.looks, r.starts) for name, r in rows.items()},
                                  config, features), until)  # fmt: skip

    def _rows(self, what: str, table: str, until: int | None) -> tuple[dict[str, _Row], int]:
        rows: dict[str, _Row] = {}
        last = 0
        for entry, kind, stream, text, held in self._entries(what, table, until):
            if kind == "fixation" and held is None and entry > self.learned_id:
                break  # the worker has not come to it yet
            last = entry
            body = json.loads(text)
            if kind == "command":
                _command(rows, stream, body["name"])
                continue
            row = rows.setdefault(stream, _Row())
            start = bool((body.get("sequence") or {}).get("start"))
            if kind == "lost" or held is None:
                row.broken = True
                continue
            row.add(self._thing(entry, table, body, held), look_of(body), start=start)
        for stream in self._deleted(last):
            rows.pop(stream, None)
        found = {name: row for name, row in rows.items() if row.seen}
        if not found:
            raise LearnRefused(f"{self.data_dir} holds no fixation with its {table}: stream something into it first")
        return found, last if until is None else until

    def _thing(self, entry: int, table: str, body: dict[str, Any], held: bytes) -> NDArray[Any]:
        if table == "features":
            return records.numbers(held)
        try:
            return decode_patch(PatchHeader.model_validate(body["patch"]), held)
        except WireError as error:
            raise LearnRefused(f"{self._path}: the patch of entry {entry} can't be read ({error})") from None

    def _entries(self, what: str, table: str, until: int | None) -> Iterator[tuple[int, str, str, str, bytes | None]]:
        """Entries in order, without those that ended the process; each read is a transaction of its own."""
        query = _ENTRIES.format(what=what, table=table)
        with closing(open_reader(self._path)) as connection:
            skipped = {int(row[0]) for row in self._read(connection, "SELECT id FROM attempts WHERE count >= 3")}
            end = until
            if end is None:
                end = int(self._read(connection, "SELECT coalesce(max(id), 0) FROM journal")[0][0])
            after = 0
            while rows := self._read(connection, query, (after, end, _AT_ONCE)):
                after = int(rows[-1][0])
                for entry, kind, stream, body, held in rows:
                    yield entry, kind, stream, body, None if entry in skipped else held

    def _deleted(self, after: int) -> list[str]:
        """Streams that were deleted later: what they saw is not learned from, even where features are left."""
        query = (
            "SELECT stream FROM journal WHERE id > ? AND kind = 'command' AND json_extract(body, '$.name') = 'delete'"
        )
        with closing(open_reader(self._path)) as connection:
            return [str(row[0]) for row in self._read(connection, query, (after,))]

    def _meta(self) -> dict[str, str]:
        with closing(open_reader(self._path)) as connection:
            return {row[0]: row[1] for row in self._read(connection, "SELECT key, value FROM meta")}

    def _read(self, connection: sqlite3.Connection, query: str, values: Sequence[int] = ()) -> list[sqlite3.Row]:
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise DirectoryRefused(f"{self._path} can't be read: {error}; restore it from a backup") from None


def _command(rows: dict[str, _Row], stream: str | None, name: str) -> None:
    """What a command of the journal means for what can be learned from."""
    if name == "delete" and stream is not None:
        rows.pop(stream, None)
    elif name == "reset" and stream is not None:
        rows.setdefault(stream, _Row()).broken = True
    elif name == "restore":
        for row in rows.values():
            row.broken = True


def from_recordings(
    pairs: Sequence[tuple[Path, Path]], options: Mapping[str, object], config: ModelConfig, features: KeptFeatures,
    *, quiet: bool,
) -> Gathered:  # fmt: skip
    """z of every fixation in recordings, (video, gaze) each, one stream for each. Raises as
    :func:`~service.offline.recorded`."""
    seen: dict[str, tuple[NDArray[np.uint8], Sequence[Look | None], list[bool]]] = {}
    for number, (video, gaze) in enumerate(tqdm(pairs, desc="reading", unit="recording", disable=quiet, leave=False)):
        found, _ = recorded(video, gaze, options)
        looks = [Look((float(x), float(y)), frame_deg=found.frame_deg) for x, y in found.gaze]
        seen[f"{number}-{gaze.stem}"] = (found.patches, looks, [False] * len(looks))
    return Gathered(_featured(seen, config, features), None)


def pairs_of(folders: Sequence[Path], videos: Sequence[Path], gazes: Sequence[Path]) -> list[tuple[Path, Path]]:
    """(video, gaze) of all recordings that were named. Raises :class:`LearnRefused`."""
    if len(videos) != len(gazes):
        raise LearnRefused(
            f"{len(videos)} --video and {len(gazes)} --gaze: each recording needs both, in the same order"
        )
    found = [pair for folder in folders for pair in recordings_in(folder)]
    return found + list(zip(videos, gazes, strict=True))


def _featured(
    seen: Mapping[str, tuple[NDArray[np.uint8], Sequence[Look | None], Sequence[bool]]],
    config: ModelConfig,
    features: KeptFeatures,
) -> list[SeenStream]:
    z = features.features(config.retina, np.concatenate([patches for patches, _, _ in seen.values()]))
    streams, first = [], 0
    for name, (patches, looks, starts) in seen.items():
        streams.append(SeenStream(name, z[first : first + len(patches)], looks, np.array(starts, bool)))
        first += len(patches)
    return streams
