"""Access to SQL databases: a SQLite file by default, PostgreSQL by URL.

Durability. SQLite runs in WAL mode with ``synchronous=NORMAL``: a committed transaction survives
the death of the process (SIGKILL, out of memory); a power cut may take back the last few
transactions, whole ones and newest first, and never damages the file. ``synchronous=FULL``
(``durable=True``) survives the power cut as well, for one flush of the disk per transaction.
PostgreSQL keeps its own default, which survives both.

There is one version of every schema so far, so nothing migrates; with the second one alembic
will.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Executable,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from lineside.core.errors import UserError

__all__ = [
    "Connection", "Engine", "checkpoint", "fetch_all", "insert_once", "open_engine",
    "read_transaction", "write_transaction",
]  # fmt: skip

BUSY_SECONDS = 30.0
"""How long a writer waits for another process to finish its transaction."""
WAL_LIMIT_BYTES = 64 * 2**20
"""The write-ahead log is truncated to this after a checkpoint."""
CHECKPOINT_PAGES = 16384
"""A commit moves the log (64 MiB of it) into the file itself only if no `checkpoint` has."""

_VERSION_METADATA = MetaData()
_VERSIONS = Table(
    "schema_versions",
    _VERSION_METADATA,
    Column("application", Text, primary_key=True),
    Column("version", Integer, nullable=False),
)


def open_engine(
    where: str | Path, metadata: MetaData, *, application: str, version: int, durable: bool = False
) -> Engine:
    """Open a database and create its tables where there are none.

    Args:
        where: A path (SQLite), or a URL: ``sqlite:///...``, ``postgresql://...``.
        metadata: The tables of the application.
        application: Whose tables they are; several applications may share a database.
        version: Of their schema.
        durable: SQLite only: flush the disk with every transaction, see above.

    Raises:
        UserError: if it cannot be opened, a driver is missing, or a newer program wrote it.
    """
    url = _parse_url(where)
    engine = _create_engine(url, durable)
    try:
        with _driver_errors(url), write_transaction(engine) as connection:
            if engine.dialect.name == "postgresql":  # two processes may create the tables at once
                connection.execute(text("SELECT pg_advisory_xact_lock(5141414)"))
            _VERSION_METADATA.create_all(connection)
            stored = connection.execute(
                select(_VERSIONS.c.version).where(_VERSIONS.c.application == application)
            ).scalar()
            if stored is None:
                metadata.create_all(connection)
                connection.execute(
                    insert(_VERSIONS).values(application=application, version=version)
                )
            elif stored != version:
                raise UserError(
                    f"{_display(url)} holds {application} in version {stored} of its tables, "
                    f"this program knows version {version}",
                    "use the program that wrote it" if stored > version else "start a new store",
                )
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def write_transaction(engine: Engine, *, durable: bool = False) -> Iterator[Connection]:
    """One transaction that writes: committed at the end, rolled back on any exception.

    It takes SQLite's write lock when it begins, so that it never fails half-way because another
    process wrote meanwhile. With `durable` it survives a power cut, see above, and so does
    everything that was committed before it.
    """
    with _driver_errors(engine.url), engine.connect() as connection:
        connection = connection.execution_options(writes=True)
        with _flush_disk(connection, durable), connection.begin():
            yield connection


@contextmanager
def _flush_disk(connection: Connection, durable: bool) -> Iterator[None]:
    if not durable or connection.dialect.name != "sqlite":
        yield
        return
    raw: Any = connection.connection.driver_connection
    before = raw.execute("PRAGMA synchronous").fetchone()[0]
    raw.execute("PRAGMA synchronous=FULL")  # has no effect within a transaction: set before
    try:
        yield
    finally:
        raw.execute(f"PRAGMA synchronous={before}")


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction that only reads: everything in it is of the same moment."""
    with _driver_errors(engine.url), engine.connect() as connection, connection.begin():
        yield connection


def checkpoint(engine: Engine) -> None:
    """Move SQLite's write-ahead log into the file without holding anybody up.

    For a thread beside the writer: done by a commit of its own, it makes that one ten times as
    long. PostgreSQL looks after itself.
    """
    if engine.dialect.name == "sqlite":
        with _driver_errors(engine.url), engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


def fetch_all(connection: Connection, query: Executable) -> list[dict[str, Any]]:
    """Return the rows of a query, by name of their columns."""
    return [dict(row) for row in connection.execute(query).mappings()]


def insert_once(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with the same key is there; return whether it was inserted."""
    result = connection.execute(_insert_once(table, connection.dialect.name), dict(row))
    return bool(result.rowcount == 1)


@cache
def _insert_once(table: Table, dialect: str) -> Executable:
    """Building a statement takes longer than running it: each is built once."""
    module = postgresql if dialect == "postgresql" else sqlite
    statement: Executable = module.insert(table).on_conflict_do_nothing()
    return statement.execution_options(preserve_rowcount=True)


@contextmanager
def _driver_errors(url: URL) -> Iterator[None]:
    """Turn what a user can fix about a database into one line.

    Raises:
        UserError: instead of the driver's error, if the disk is full, the database is locked,
            cannot be written or reached, or is not a database.
    """
    try:
        yield
    except DBAPIError as error:
        lines = str(error.orig).strip().splitlines() or [str(error)]
        reason = lines[0]
        for words, hint in _HINTS.items():
            if words in reason.lower():
                raise UserError(f"the store {_display(url)}: {reason}", hint) from error
        if error.connection_invalidated or type(error).__name__ == "OperationalError":
            raise UserError(
                f"the store {_display(url)} cannot be used: {reason}", "is its server running?"
            ) from error
        raise


_HINTS = {
    "disk is full": "free some space; what was committed is safe",
    "is locked": "another process holds it for long; try again",
    "readonly": "choose a path that may be written",
    "unable to open": "check the path and its permissions",
    "not a database": "the file is something else; choose another path",
    "malformed": "the file is damaged; restore a copy, or start a new store",
    "password authentication": "check user and password of the URL",
}


def _parse_url(where: str | Path) -> URL:
    """Return the URL of a path or a URL; the folder of a SQLite file is created."""
    address = str(where)
    if isinstance(where, Path) or "://" not in address:
        url = URL.create("sqlite", database=str(Path(address).expanduser()))
    else:
        try:
            url = make_url(address)
        except ArgumentError as error:
            raise UserError(
                f"{address!r} is not the address of a store", "give a path or a URL"
            ) from error
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise UserError(
            f"a store in {url.get_backend_name()} is not supported",
            "give a path (SQLite) or postgresql://...",
        )
    if url.get_backend_name() == "sqlite":
        _create_folder(url)
    return url


def _create_folder(url: URL) -> None:
    if not url.database or url.database == ":memory:":
        raise UserError("a store needs a file", "give a path, e.g. machines.db")
    path = Path(url.database)
    if path.is_dir():
        raise UserError(f"{path} is a folder", "give a file, e.g. machines.db")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be created: {error.strerror}", "choose another path"
        ) from error


def _create_engine(url: URL, durable: bool) -> Engine:
    try:
        if url.get_backend_name() == "postgresql":
            return create_engine(url, pool_pre_ping=True)
        engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UserError(
            f"{_display(url)} needs a driver that is missing: {error}",
            "pip install 'lineside[postgres]'",
        ) from error
    _configure_sqlite(engine, durable)
    return engine


def _configure_sqlite(engine: Engine, durable: bool) -> None:
    """Set the pragmas of every connection, and begin transactions ourselves.

    ``BEGIN IMMEDIATE`` takes the write lock at once, or waits for it. A plain ``BEGIN`` that reads
    and then writes would fail with "database is locked" if another process wrote in between.
    """

    @event.listens_for(engine, "connect")
    def connect(raw: Any, record: Any) -> None:
        raw.isolation_level = None  # the driver begins nothing on its own
        raw.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_SECONDS)}")
        _switch_to_wal(raw)
        raw.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA secure_delete=OFF")  # on, deleting costs as much as writing
        raw.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
        raw.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _switch_to_wal(raw: Any) -> None:
    """Switch to WAL; the busy timeout does not hold for this pragma, so it is repeated here."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            raw.execute("PRAGMA journal_mode=WAL")
            return
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _display(url: URL) -> str:
    """Return a URL for people: without its password, a plain path for SQLite."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return url.render_as_string(hide_password=True)
