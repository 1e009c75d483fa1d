"""The database under a data directory: ``rjepa.db`` (SQLite, WAL, synchronous=FULL).

One table, ``journal``, holds everything that changes the learner, in the one order that counts
(``journal.id``): fixations, fixations reported lost, and commands. All else hangs on that id: what is
at or below ``meta.learned_id`` was learned and has its record or its result. Only the worker writes; the
HTTP interface reads, in short transactions by id.
"""

from __future__ import annotations

SCHEMA_VERSION = 4
READABLE_VERSIONS = ("1", "2", "3", "4")
"""What may be read without being opened by a worker first, which brings it to :data:`SCHEMA_VERSION`."""

TRIVIAL_ERRORS = (
    "copy_last",
    "running_mean",
    "ar1",
    "carry_mean",
    "carry_ar1",
    "carry_mean_recent",
    "carry_ar1_recent",
    "carry_scene",
)
"""The trivial predictors whose error every record carries, as columns ``trivial_<name>``."""

HELD = (
    "CREATE TABLE held (what TEXT PRIMARY KEY, count INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TRIGGER patch_went AFTER DELETE ON patches BEGIN"
    " UPDATE held SET count = count - 1, bytes = bytes - length(old.bytes) WHERE what = 'patches'; END",
    "INSERT INTO held SELECT 'patches', count(*), coalesce(sum(length(bytes)), 0) FROM patches",
)
"""How many patches are held and how large they are together: service/appending.py counts them in, a batch at once, the
database itself counts them out."""

COUNTED_BY_ONE = ("DROP TRIGGER IF EXISTS patch_came",)
"""Up to version 3 the database counted them in too, one by one."""

EVENTS = (
    "CREATE TABLE checkpoints (id INTEGER PRIMARY KEY AUTOINCREMENT, checkpoint TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE INDEX checkpoints_name ON checkpoints (checkpoint)",
    "CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT,"
    " kind TEXT NOT NULL CHECK (kind IN ('record', 'checkpoint', 'alarm')), ref INTEGER NOT NULL)",
    "CREATE INDEX events_rare ON events (kind, ref) WHERE kind <> 'record'",
    *(
        f"CREATE TRIGGER {kind}_came AFTER INSERT ON {kind}s BEGIN"
        f" INSERT INTO events (kind, ref) VALUES ('{kind}', new.id); END"
        for kind in ("record", "checkpoint", "alarm")
    ),
)
"""What happened, in the order it was written, kept by the database itself: ``ref`` is the id of the record, of the
alarm, or of the line in ``checkpoints``, which has each as HTTP told it when it was new, for ever."""

MIGRATIONS: dict[str, tuple[str, ...]] = {"1": HELD, "2": EVENTS, "3": COUNTED_BY_ONE}
"""From a version to the next: the statements, done in one transaction with the version's new number."""

STANDING = "standing/"
"""Before a kind, a slash and a stream's name (or nothing): the key of ``meta`` of an alarm that is on."""

DROPPED = "dropped/"
"""Before a stream's name: the key of ``meta`` of what its clients said they dropped (service/dropped.py)."""

LOOK = "look/"
"""Before a stream's name: the key of ``meta`` its last look is kept under."""

DDL = f"""
CREATE TABLE meta (                 -- schema_version, identity, model (JSON), timeline, learned_id,
                                    -- look/STREAM (JSON): the last look at a stream's diagnostics
                                    -- dropped/STREAM (JSON): what its clients said they dropped
                                    -- standing/KIND/STREAM (JSON): an alarm that is on; begun: see recovery
    key TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE streams (              -- a stream's place on the wire; outlives DELETE (next_seq stays)
    name TEXT PRIMARY KEY,
    created REAL NOT NULL,          -- unix s
    epoch INTEGER NOT NULL,         -- of the present owner
    next_seq INTEGER NOT NULL,      -- first seq not yet durable
    learned_seq INTEGER NOT NULL DEFAULT -1,  -- highest seq with a record
    learned INTEGER NOT NULL DEFAULT 0,       -- fixations learned (records without skipped)
    padded INTEGER NOT NULL DEFAULT 0,        -- fixations whose patch was padded
    frame_deg_assumed INTEGER NOT NULL DEFAULT 0,  -- fixations without frame_deg
    last_time REAL                  -- arrival of the newest fixation, unix s
) WITHOUT ROWID;

CREATE TABLE journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,             -- arrival, unix s
    kind TEXT NOT NULL CHECK (kind IN ('fixation', 'lost', 'command')),
    stream TEXT,                    -- null for a command about the whole learner
    seq INTEGER,                    -- null for commands
    body TEXT NOT NULL,             -- fixation: the message's JSON; command: name and arguments; lost: empty object
    digest BLOB,                    -- fixation: wire.digest, kept for ever
    result TEXT                     -- command: the JSON it was answered with, once applied
);
CREATE UNIQUE INDEX journal_stream_seq ON journal (stream, seq) WHERE seq IS NOT NULL;

CREATE TABLE patches (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);   -- frame 3 as it came
CREATE TABLE features (id INTEGER PRIMARY KEY, z BLOB NOT NULL);      -- float32 little-endian, m numbers

CREATE TABLE records (
    id INTEGER PRIMARY KEY,         -- journal.id
    stream TEXT NOT NULL,
    seq INTEGER NOT NULL,
    time REAL NOT NULL,             -- arrival, unix s
    onset REAL, duration REAL,      -- s, source clock; null for lost
    gaze_x REAL, gaze_y REAL,
    position INTEGER,               -- in the sequence, from 0
    sequence_id TEXT,
    prediction_error REAL,
    {", ".join(f"trivial_{name} REAL" for name in TRIVIAL_ERRORS)},
    effective_rank REAL,
    update_norm REAL,
    latency_ms REAL,                -- arrival to learned
    skipped TEXT CHECK (skipped IN ('lost', 'refused', 'quarantined', 'repeat')),
    timeline INTEGER NOT NULL,
    embedding BLOB                  -- float32 little-endian, q numbers; null where there is none
);
CREATE INDEX records_stream_seq ON records (stream, seq);
CREATE INDEX records_skipped ON records (stream, skipped) WHERE skipped IS NOT NULL;   -- counts by reason

CREATE TABLE timelines (            -- 0 is the first; a restore begins another
    id INTEGER PRIMARY KEY,
    created REAL NOT NULL,
    parent INTEGER,                 -- timeline of the restored checkpoint
    checkpoint TEXT,                -- the restored checkpoint's id
    fork INTEGER,                   -- last journal.id that checkpoint had learned
    start INTEGER NOT NULL          -- journal.id of the restore; 0 for the first
);

CREATE TABLE alarms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time REAL NOT NULL,
    kind TEXT NOT NULL,             -- data_lost, refused, quarantined, checkpoint_failed, ...
    stream TEXT,
    detail TEXT NOT NULL
);

CREATE TABLE attempts (             -- crashes at one journal entry; from the third on it is quarantined, for ever
    id INTEGER PRIMARY KEY, count INTEGER NOT NULL
);
{";".join([*HELD, *EVENTS])};
"""
