"""What the journal asks of the tables and writes into them, within the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from lineside.core.database import Connection, insert_once
from lineside.machines.store.tables import (
    ACTIONS,
    EVENTS,
    FINISHED,
    LAYOUTS,
    LEVELS,
    MACHINES,
    PENDING,
    REFUSALS,
    SNAPSHOTS,
    SPECTRA,
)

Row = Mapping[str, Any]

_ADVANCE = (
    update(MACHINES)
    .where(MACHINES.c.id == bindparam("its"), MACHINES.c.sequence == bindparam("expected"))
    .values(
        sequence=MACHINES.c.sequence + 1,
        **{
            name: bindparam(name)
            for name in (
                "model", "memory", "layout", "last_us", "state", "novelty", "novelty_limit"
            )
        },
    )
)  # fmt: skip
_INSERT_LEVELS, _INSERT_SPECTRUM = insert(LEVELS), insert(SPECTRA)


def machine_row(connection: Connection, name: str, *, make: bool = True) -> Row | None:
    """Return a machine's row; a machine that was never seen gets one."""
    asked = select(MACHINES).where(MACHINES.c.name == name)
    found = connection.execute(asked).mappings().first()
    if found is None and make:
        insert_once(connection, MACHINES, {"name": name})
        found = connection.execute(asked).mappings().first()
    return None if found is None else dict(found)


def advance(connection: Connection, machine: int, sequence: int, values: Row) -> bool:
    """Write a machine's new memory; False if somebody else wrote it since `sequence`."""
    done = connection.execute(_ADVANCE, {"its": machine, "expected": sequence, **values})
    return bool(done.rowcount == 1)


def stir(connection: Connection, machine: int) -> None:
    """Make everybody read the machine's row anew before they judge its next snapshot."""
    connection.execute(
        update(MACHINES).where(MACHINES.c.id == machine).values(sequence=MACHINES.c.sequence + 1)
    )


def layout_number(connection: Connection, digest: str, levels: str, spectrum: str) -> int:
    """Return the number of a layout, writing its names down the first time."""
    row = {"digest": digest, "levels": levels, "spectrum": spectrum}
    insert_once(connection, LAYOUTS, row)
    found = connection.execute(select(LAYOUTS.c.id).where(LAYOUTS.c.digest == digest)).scalar_one()
    return int(found)


def known_digest(connection: Connection, machine: int, time_us: int) -> str | None:
    """Return the digest of a snapshot that is there, None if it is not."""
    found = connection.execute(
        select(SNAPSHOTS.c.digest).where(
            SNAPSHOTS.c.machine == machine, SNAPSHOTS.c.time_us == time_us
        )
    ).scalar()
    return None if found is None else str(found)


def put_snapshot(connection: Connection, row: Row) -> bool:
    """Write a snapshot; False if one of that machine and time is there."""
    return insert_once(connection, SNAPSHOTS, row)


def put_features(
    connection: Connection, machine: int, time_us: int, layout: int, levels: bytes, spectrum: bytes
) -> None:
    """Write one row of features."""
    key = {"machine": machine, "time_us": time_us, "layout": layout}
    connection.execute(_INSERT_LEVELS, {**key, "row": levels})
    connection.execute(_INSERT_SPECTRUM, {**key, "row": spectrum})


def put_events(connection: Connection, rows: Sequence[Row]) -> None:
    """Write events."""
    if rows:
        connection.execute(insert(EVENTS), [dict(row) for row in rows])


def put_pending(connection: Connection, machine: int, time_us: int, content: bytes) -> None:
    """Keep the waveforms of a snapshot until they are moved into a segment."""
    row = {"machine": machine, "time_us": time_us, "size": len(content), "content": content}
    connection.execute(insert(PENDING), row)


def waiting_actions(connection: Connection, machine: int) -> list[Row]:
    """Return what operators asked for and nobody applied, oldest first."""
    asked = (
        select(ACTIONS)
        .where(ACTIONS.c.machine == machine, ACTIONS.c.applied.is_(None))
        .order_by(ACTIONS.c.id)
    )
    return [dict(row) for row in connection.execute(asked).mappings()]


def put_action(connection: Connection, row: Row) -> None:
    """Write down what an operator asks for."""
    connection.execute(insert(ACTIONS), dict(row))


def actions_applied(connection: Connection, numbers: Sequence[int], time: float) -> None:
    """Write down before which snapshot actions took effect."""
    connection.execute(update(ACTIONS).where(ACTIONS.c.id.in_(list(numbers))).values(applied=time))


def put_refusal(connection: Connection, row: Row) -> bool:
    """Write down bad input; False if it was written before."""
    return insert_once(connection, REFUSALS, row)


def stamp_of(connection: Connection, source: str) -> str | None:
    """Return the stamp with which a source was finished."""
    asked = select(FINISHED.c.stamp).where(FINISHED.c.source == source)
    found = connection.execute(asked).scalar()
    return None if found is None else str(found)


def put_finished(connection: Connection, source: str, stamp: str) -> None:
    """Write down that a source was taken completely."""
    if not insert_once(connection, FINISHED, {"source": source, "stamp": stamp}):
        connection.execute(update(FINISHED).where(FINISHED.c.source == source).values(stamp=stamp))
