"""The tables of the store. Times are integer microseconds since 1970, the key of a snapshot."""

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


def _machine() -> Column[int]:
    return Column("machine", Integer, ForeignKey("machines.id"), nullable=False)


def _time() -> Column[int]:
    return Column("time_us", BigInteger, nullable=False)


# `sequence` counts changes of a machine's memory: whoever judged from an older one has lost.
MACHINES = Table(
    "machines",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("sequence", BigInteger, nullable=False, default=0),
    Column("model", Text, nullable=False, default=""),
    Column("memory", Text, nullable=False, default=""),
    Column("layout", Integer, ForeignKey("layouts.id")),
    Column("last_us", BigInteger),
    Column("state", Text, nullable=False, default=""),
    Column("novelty", Double),
    Column("novelty_limit", Double),
)

# The names of the features, in the order of the row, for each of the two blobs.
LAYOUTS = Table(
    "layouts",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    Column("levels", Text, nullable=False),
    Column("spectrum", Text, nullable=False),
)

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    _machine(),
    _time(),
    Column("seconds", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("state", Text, nullable=False, default=""),
    Column("novelty", Double),
    Column("novelty_limit", Double),
    Column("note", Text, nullable=False, default=""),
    Column("more", Text, nullable=False, default=""),  # what else a verdict says, as JSON
    Column("source", Text, nullable=False, default=""),
    Column("digest", Text, nullable=False),
    Column("stored", Double, nullable=False),
    PrimaryKeyConstraint("machine", "time_us"),
    sqlite_with_rowid=False,
)
Index(
    "snapshots_not_judged",
    SNAPSHOTS.c.machine,
    SNAPSHOTS.c.status,
    sqlite_where=SNAPSHOTS.c.status != "judged",
    postgresql_where=SNAPSHOTS.c.status != "judged",
)

# The few features that people trend lie together: a year of one machine is read in one go.
LEVELS = Table(
    "levels",
    METADATA,
    _machine(),
    _time(),
    Column("layout", Integer, ForeignKey("layouts.id"), nullable=False),
    Column("row", LargeBinary, nullable=False),
    PrimaryKeyConstraint("machine", "time_us"),
    sqlite_with_rowid=False,
)

SPECTRA = Table(
    "spectra",
    METADATA,
    _machine(),
    _time(),
    Column("layout", Integer, ForeignKey("layouts.id"), nullable=False),
    Column("row", LargeBinary, nullable=False),
    PrimaryKeyConstraint("machine", "time_us"),
)

# `origin`: "verdict" for what the judging said, "journal" for what was done to it.
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
    Column("evidence", Text, nullable=False),
    Index("events_in_time", "machine", "time_us"),
)

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

FINISHED = Table(
    "finished",
    METADATA,
    Column("source", Text, primary_key=True),
    Column("stamp", Text, nullable=False),
)

# Waveforms wait here until they are moved into a segment.
PENDING = Table(
    "pending",
    METADATA,
    _machine(),
    _time(),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
    UniqueConstraint("machine", "time_us"),
)

SEGMENTS = Table(
    "segments",
    METADATA,
    Column("id", Integer, primary_key=True),
    _machine(),
    Column("path", Text, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("thinned", Integer, nullable=False, default=0),
)

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

# Files that may lie about without belonging to the store: written down before a file is made, and
# with the transaction that replaces one; no other file is ever deleted.
LITTER = Table("litter", METADATA, Column("path", Text, primary_key=True))
