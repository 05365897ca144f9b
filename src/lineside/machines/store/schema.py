"""The tables of the store. Times are whole microseconds since 1970: the key of a snapshot.

The names of tables and columns and the stored words are a file format: they are older than some
of the names in the code (`STORED_STATUS`, `ORPHAN_FILES`, `WAVES`) and stay as they are.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

VERSION = 1
METADATA = MetaData()
STORED_STATUS = {
    "judged": "judged",
    "out_of_order": "late",
    "unknown_machine": "never learned",
    "refused": "refused",
}
"""How the column `snapshots.status` spells each status of an `IngestResult`."""


def _machine() -> Column[int]:
    return Column("machine", Integer, ForeignKey("machines.id"), nullable=False)


def _time() -> Column[int]:
    return Column("time_us", BigInteger, nullable=False)


# One row per machine: the state of its session after the last judged snapshot. Every change of
# the row raises `sequence`; a writer names the sequence that it judged from, and loses if it is
# no longer the same (optimistic concurrency, see `writes.write_entry`).
MACHINES = Table(
    "machines",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("sequence", BigInteger, nullable=False, default=0),
    Column("model", Text, nullable=False, default=""),  # `journal.identity_of` what judged last
    Column("memory", Text, nullable=False, default=""),  # `Session.state` as JSON
    Column("layout", Integer, ForeignKey("layouts.id")),
    Column("last_us", BigInteger),  # of the last judged snapshot
    Column("state", Text, nullable=False, default=""),
    Column("novelty", Double),
    Column("novelty_limit", Double),
)

# Names of the features, as JSON lists in the order of the row, for each of the two blobs.
LAYOUTS = Table(
    "layouts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("levels", Text, nullable=False),
    Column("spectrum", Text, nullable=False),
)

# The primary key (machine, time_us) is what makes ingest idempotent. It is also the order on the
# disk (WITHOUT ROWID), so that a span of time of one machine is read in one go.
SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    _machine(),
    _time(),
    Column("seconds", Double, nullable=False),  # the time as it was sent: `time_us` is rounded
    Column("status", Text, nullable=False),  # see `STORED_STATUS`
    Column("state", Text, nullable=False, default=""),
    Column("novelty", Double),
    Column("novelty_limit", Double),
    Column("note", Text, nullable=False, default=""),
    Column("more", Text, nullable=False, default=""),  # other fields of the verdict, as JSON
    Column("source", Text, nullable=False, default=""),
    Column("digest", Text, nullable=False),  # `packing.fingerprint` of the content
    Column("stored", Double, nullable=False),  # seconds since 1970 by the computer's clock
    PrimaryKeyConstraint("machine", "time_us"),
    sqlite_with_rowid=False,
)
# A partial index: nearly all snapshots are judged, and the others are counted for every status.
Index(
    "snapshots_not_judged",
    SNAPSHOTS.c.machine,
    SNAPSHOTS.c.status,
    sqlite_where=SNAPSHOTS.c.status != "judged",
    postgresql_where=SNAPSHOTS.c.status != "judged",
)


def _feature_table(name: str, *, with_rowid: bool) -> Table:
    return Table(
        name,
        METADATA,
        _machine(),
        _time(),
        Column("layout", Integer, ForeignKey("layouts.id"), nullable=False),
        Column("row", LargeBinary, nullable=False),  # float32, little-endian
        PrimaryKeyConstraint("machine", "time_us"),
        sqlite_with_rowid=with_rowid,
    )


# The few features that people trend are apart from the long spectra: a year of one machine is
# then a few MB that lie together.
LEVELS = _feature_table("levels", with_rowid=False)
SPECTRA = _feature_table("spectra", with_rowid=True)

# `origin`: "verdict" for events of a verdict, "journal" for what was done to the session just
# before it (acknowledged, muted, another model).
EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    _machine(),
    _time(),
    Column("origin", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("episode", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
    Index("events_in_time", "machine", "time_us"),
)

# What operators asked for; `applied` is the time of the snapshot before which it took effect.
ACTIONS = Table(
    "actions",
    METADATA,
    Column("id", Integer, primary_key=True),
    _machine(),
    Column("kind", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("until", Double),
    Column("asked", Double, nullable=False),
    Column("applied", Double),
    Index("actions_in_order", "machine", "id"),
)

# Bad input that has no machine and time to be stored under.
REFUSALS = Table(
    "refusals",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("item", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("stored", Double, nullable=False),
)

# Files of watched folders that were ingested completely; the stamp changes with the content.
FINISHED = Table(
    "finished",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("stamp", Text, nullable=False),
)

# Waveforms as the journal wrote them (`packing.pack`), until they are moved into a segment.
PENDING = Table(
    "pending",
    METADATA,
    _machine(),
    _time(),
    Column("size", Integer, nullable=False),  # bytes
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("machine", "time_us"),
)

SEGMENTS = Table(
    "segments",
    METADATA,
    Column("id", Integer, primary_key=True),
    _machine(),
    Column("path", Text, nullable=False, unique=True),  # relative to the store's folder
    Column("size", BigInteger, nullable=False),  # bytes
    Column("thinned", Integer, nullable=False, default=0),  # 1: retention keeps all that is left
)

# Index of the waveforms that lie in segments; `place` is the row group of the Parquet file.
WAVES = Table(
    "waves",
    METADATA,
    _machine(),
    _time(),
    Column("segment", Integer, ForeignKey("segments.id"), nullable=False, index=True),
    Column("place", Integer, nullable=False),
    PrimaryKeyConstraint("machine", "time_us"),
    sqlite_with_rowid=False,
)

# Write-ahead record of files: a path is entered before its file is created, and in the transaction
# that drops a segment. Only files that are listed here, and in no segment, are ever deleted.
ORPHAN_FILES = Table("litter", METADATA, Column("path", Text, primary_key=True))
