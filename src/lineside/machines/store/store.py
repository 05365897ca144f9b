"""Opening a store, and what operators ask of it.

Durability. A snapshot that was acknowledged is in the database and survives the death of the
process (SIGKILL, out of memory). A power cut may take back the last few transactions of SQLite in
its default mode, whole ones and newest first, and none with ``durable`` or on PostgreSQL.
"""

from __future__ import annotations

import time as clock
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert, update

from lineside.core.database import Engine, open_engine, write_transaction
from lineside.core.errors import UserError
from lineside.machines.alarms.actions import ActionKind
from lineside.machines.store.queries import find_machine
from lineside.machines.store.retention import RetentionPolicy, delete_orphans
from lineside.machines.store.schema import ACTIONS, MACHINES, METADATA, VERSION


@dataclass(frozen=True, kw_only=True)
class Store:
    """Features, verdicts, events and waveforms of any number of machines; see `open_store`.

    Attributes:
        engine: Where the tables are.
        folder: Where the segments of waveforms are.
        retention: How long waveforms stay.
    """

    engine: Engine
    folder: Path
    retention: RetentionPolicy

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self.engine.dispose()


def open_store(
    where: str | Path,
    *,
    retention: RetentionPolicy | None = None,
    folder: Path | None = None,
    durable: bool = False,
) -> Store:
    """Open the store of a fleet, or create one.

    Args:
        where: A path (SQLite), or a URL: ``postgresql://USER@HOST/NAME``.
        retention: How long waveforms stay.
        folder: Of the waveforms; by default ``STORE.waves`` beside a SQLite file, and for
            PostgreSQL ``machines.waves`` in the working folder.
        durable: See `lineside.core.database.open_engine`.

    Raises:
        UserError: see `lineside.core.database.open_engine`.
    """
    engine = open_engine(where, METADATA, application="machines", version=VERSION, durable=durable)
    if folder is None:
        database = engine.url.database if engine.dialect.name == "sqlite" else "machines"
        folder = Path(f"{database}.waves")
    store = Store(engine=engine, folder=folder, retention=retention or RetentionPolicy())
    delete_orphans(store)
    return store


def add_action(
    store: Store,
    machine: str,
    kind: ActionKind,
    *,
    by: str,
    why: str = "",
    until: float | None = None,
) -> None:
    """Note what an operator asks for; it takes effect with the next snapshot of the machine.

    Args:
        store: Where to.
        machine: Whose alarm to acknowledge or mute.
        kind: See `Action`.
        by: Who asks.
        why: Reason.
        until: End of a mute, in seconds.

    Raises:
        UserError: if the store has no such machine, or nobody is named.
    """
    if not by:
        raise UserError("nobody is named", "say who asks for it")
    with write_transaction(store.engine) as connection:
        number = find_machine(connection, machine)
        row = {
            "machine": number, "kind": kind, "who": by, "why": why, "until": until,
            "asked": clock.time(),
        }  # fmt: skip
        connection.execute(insert(ACTIONS), row)
        # A journal that holds this machine's session in memory loses its next compare-and-swap,
        # reads the machine again and finds the action.
        connection.execute(
            update(MACHINES).where(MACHINES.c.id == number).values(sequence=MACHINES.c.sequence + 1)
        )
