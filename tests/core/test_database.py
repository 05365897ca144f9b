"""Access to SQL: what is refused, what survives, and who may write at the same time."""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select
from tests.databases import new_database

from lineside.core.database import (
    checkpoint,
    insert_once,
    open_engine,
    read_transaction,
    write_transaction,
)
from lineside.core.errors import UserError

METADATA = MetaData()
THINGS = Table("things", METADATA, Column("id", Integer, primary_key=True), Column("name", Text))
FORK = multiprocessing.get_context("fork")


def opened(where, version=1, **options):
    return open_engine(where, METADATA, application="tests", version=version, **options)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request, tmp_path):
    if request.param == "sqlite":
        return tmp_path / "deep" / "things.db"
    url = request.getfixturevalue("postgres")
    return new_database(url, f"core{abs(hash(request.node.name))}")


def names(engine):
    with read_transaction(engine) as connection:
        return list(connection.execute(select(THINGS.c.name).order_by(THINGS.c.id)).scalars())


def test_what_is_committed_is_there_and_what_failed_is_not(where):
    engine = opened(where)
    with write_transaction(engine) as connection:
        assert insert_once(connection, THINGS, {"id": 1, "name": "one"})
        assert not insert_once(connection, THINGS, {"id": 1, "name": "other"})
    with pytest.raises(ZeroDivisionError), write_transaction(engine) as connection:
        connection.execute(insert(THINGS), {"id": 2, "name": "two"})
        raise ZeroDivisionError
    engine.dispose()
    again = opened(where)
    assert names(again) == ["one"]
    again.dispose()


def test_a_checkpoint_moves_the_log_into_the_file(where, tmp_path):
    engine = opened(where)
    with write_transaction(engine) as connection:
        insert_once(connection, THINGS, {"id": 1, "name": "one"})
    checkpoint(engine)  # on PostgreSQL: nothing to do
    assert names(engine) == ["one"]
    engine.dispose()
    if engine.dialect.name == "sqlite":
        engine = opened(where)
        with write_transaction(engine) as connection:
            insert_once(connection, THINGS, {"id": 2, "name": "two"})
        alone = [_copied(where, tmp_path / "before.db")]
        checkpoint(engine)
        alone.append(_copied(where, tmp_path / "after.db"))
        engine.dispose()
        assert alone == [["one"], ["one", "two"]]


def _copied(where, to):
    """What the file itself holds, without the log beside it."""
    to.write_bytes(where.read_bytes())
    with contextlib.closing(sqlite3.connect(to)) as copy:
        return [name for (name,) in copy.execute("SELECT name FROM things ORDER BY id")]


def test_a_newer_store_is_refused_in_one_line(where):
    opened(where, version=2).dispose()
    with pytest.raises(UserError, match=r"version 2 .* knows version 1"):
        opened(where)
    other = open_engine(where, MetaData(), application="another", version=1)
    other.dispose()


def test_many_may_open_a_new_store_and_write_at_once(where):
    failures = []

    def work(number):
        try:
            engine = opened(where)
            for row in range(20):
                with write_transaction(engine) as connection:
                    connection.execute(insert(THINGS), {"id": 100 * number + row, "name": "x"})
            engine.dispose()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    engine = opened(where)
    assert len(names(engine)) == 80
    engine.dispose()


def test_a_killed_writer_loses_only_what_it_had_not_committed(tmp_path):
    where = tmp_path / "things.db"

    def die():
        engine = opened(where)
        with write_transaction(engine) as connection:
            connection.execute(insert(THINGS), {"id": 1, "name": "committed"})
        with write_transaction(engine) as connection:
            connection.execute(insert(THINGS), {"id": 2, "name": "not"})
            os.kill(os.getpid(), signal.SIGKILL)

    child = FORK.Process(target=die)
    child.start()
    child.join(20)
    assert child.exitcode == -signal.SIGKILL
    engine = opened(where)
    assert names(engine) == ["committed"]
    with write_transaction(engine) as connection:
        connection.execute(insert(THINGS), {"id": 2, "name": "after"})
    engine.dispose()


def test_a_durable_transaction_flushes_the_disk_and_the_next_does_not(tmp_path):
    engine = opened(tmp_path / "things.db")

    def level(connection):
        return connection.exec_driver_sql("PRAGMA synchronous").scalar()

    with write_transaction(engine, durable=True) as connection:
        assert level(connection) == 2
    with write_transaction(engine) as connection:
        assert level(connection) == 1
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()
    engine = opened(tmp_path / "things.db", durable=True)
    with write_transaction(engine) as connection:
        assert level(connection) == 2
    engine.dispose()


def test_a_full_disk_is_one_line_and_nothing_is_lost(tmp_path):
    engine = opened(tmp_path / "things.db")
    with write_transaction(engine) as connection:
        connection.execute(insert(THINGS), {"id": 1, "name": "one"})
        connection.exec_driver_sql("PRAGMA max_page_count=10")
    with pytest.raises(UserError, match="full"), write_transaction(engine) as connection:
        connection.execute(insert(THINGS), {"id": 2, "name": "x" * 100_000})
    assert names(engine) == ["one"]
    engine.dispose()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("mysql://somebody@host/base", "mysql"),
        ("nonsense://", "nonsense"),
        ("sqlite://", "needs a file"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be used"),
    ],
)
def test_places_that_are_no_store_are_refused(where, message):
    with pytest.raises(UserError, match=message) as error:
        opened(where)
    assert "\n" not in str(error.value)


def test_files_that_are_no_store_are_refused(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        opened(tmp_path)
    (tmp_path / "notes.txt").write_text("no database " * 1000)
    with pytest.raises(UserError, match="not a database"):
        opened(tmp_path / "notes.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be created"):
        opened(tmp_path / "file" / "things.db")


def test_a_locked_store_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("lineside.core.database.BUSY_SECONDS", 0.05)
    engine = opened(tmp_path / "things.db")
    other = sqlite3.connect(tmp_path / "things.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="locked"), write_transaction(engine):
        pass
    assert names(engine) == []  # readers do not wait
    other.close()
    engine.dispose()


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"lineside\[postgres\]"):
        opened("postgresql://somebody@host/base")


def test_passwords_are_not_shown():
    with pytest.raises(UserError) as error:
        opened("postgresql://somebody:secret@127.0.0.1:1/none")
    assert "secret" not in str(error.value)
