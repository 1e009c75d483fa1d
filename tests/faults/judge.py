"""What is read of a data directory afterwards, and whether it is what was promised."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import wire
from model.snapshot import Snapshot
from service.checkpoints import Checkpoints
from service.storage import open_reader
from tests.faults import mortal

RECORD = (
    "stream, seq, position, sequence_id, prediction_error, trivial_copy_last, trivial_ar1, effective_rank, "
    "update_norm, skipped, timeline, embedding, onset"
)
"""All of a record but its journal id and what a clock said."""


@dataclass(frozen=True)
class Found:
    """The journal and the records of a directory, in journal order. A fixation is (stream, seq, onset)."""

    fixations: list[tuple[str, int, float]]
    records: list[tuple[Any, ...]]
    next_seq: dict[str, int]
    learned_id: int
    last_id: int


def read(data_dir: Path) -> Found:
    """What a directory holds; every fixation is what was offered, and learned once if at all.

    Raises AssertionError for a seq that is missing or there twice, for content that is not what was offered under it,
    for anything lost or skipped, for a record without its fixation or a learned fixation without its record, and for an
    event that is missing or there twice.
    """
    with closing(open_reader(data_dir / "rjepa.db")) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        rows = reader.execute("SELECT id, kind, stream, seq, body, digest FROM journal ORDER BY id").fetchall()
        records = [tuple(row) for row in reader.execute(f"SELECT id, {RECORD} FROM records ORDER BY id")]
        streams = {row[0]: row[1] for row in reader.execute("SELECT name, next_seq FROM streams")}
        learned_id = int(_meta(reader, "learned_id") or 0)
        told = [row[0] for row in reader.execute("SELECT ref FROM events WHERE kind = 'record' ORDER BY id")]
        checkpoints = [row[0] for row in reader.execute("SELECT checkpoint FROM checkpoints ORDER BY id")]
        kept = {row[0]: bytes(row[1]) for row in reader.execute("SELECT id, bytes FROM patches")}
    fixations, seqs = [], Counter[str]()
    for entry, kind, stream, seq, body, digest in rows:
        assert kind == "fixation", f"journal id {entry} is {kind}"
        assert seq == seqs[stream], f"seq {seqs[stream]} of {stream} is followed by {seq}"
        seqs[stream] += 1
        message = json.loads(body)
        number = round(message["onset"] / 0.25)
        patch = mortal.patch_of(stream, number).tobytes()
        assert digest == wire.digest(message["onset"], message["duration"], wire.Gaze(**message["gaze"]), patch)
        assert kept[entry] == patch, f"the patch of journal id {entry} is not what was offered"
        fixations.append((stream, seq, message["onset"]))
    assert dict(seqs) == {name: next_seq for name, next_seq in streams.items() if next_seq}
    assert [record[0] for record in records] == [row[0] for row in rows if row[0] <= learned_id]
    assert told == [record[0] for record in records], "an event of each, once, in order"
    assert len(checkpoints) == len(set(checkpoints)), "an event of each, once"
    assert [record[1:3] for record in records] == [fixation[:2] for fixation in fixations[: len(records)]]
    plain = [record[1:] for record in records]
    assert {record[9] for record in plain} <= {None, "repeat", "refused"}, "nothing else is skipped"
    return Found(fixations, plain, streams, learned_id, rows[-1][0] if rows else 0)


def newest(data_dir: Path) -> tuple[dict[str, int], Snapshot]:
    """The cursors and the learner of the newest checkpoint, its sha256 verified. It has learned from nearly all."""
    checkpoints = Checkpoints(data_dir / "checkpoints")
    manifest, snapshot = checkpoints.read(checkpoints.list()[-1].id)
    learnable = sum(manifest.cursors.values()) - mortal.CONFIG.learning.warmup
    assert snapshot.meta["optimiser_steps"] > 0.8 * learnable, "or its bits would say little"
    return manifest.cursors, snapshot


def sha256(snapshot: Snapshot) -> str:
    """Over all there is of a learner: parameters, optimiser, states, sensitivities, statistics, generator, counts."""
    digest = hashlib.sha256(json.dumps(snapshot.meta, sort_keys=True).encode())
    for name in sorted(snapshot.tensors):
        tensor = snapshot.tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _meta(reader: sqlite3.Connection, key: str) -> str | None:
    row = reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]
