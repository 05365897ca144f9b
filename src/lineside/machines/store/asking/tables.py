"""What the questions ask of the tables, within the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, Table, func, select

from lineside.core.database import Connection
from lineside.machines.store.tables import (
    ACTIONS,
    EVENTS,
    LAYOUTS,
    LEVELS,
    MACHINES,
    REFUSALS,
    SNAPSHOTS,
    SPECTRA,
)

Span = tuple[int | None, int | None]
"""From and until which microsecond; the end is not part of it, None is open."""
Row = Mapping[str, Any]


def number_of(connection: Connection, machine: str) -> int | None:
    """Return the number of a machine, None if it was never seen."""
    found = connection.execute(select(MACHINES.c.id).where(MACHINES.c.name == machine)).scalar()
    return None if found is None else int(found)


def layouts_of(connection: Connection, machine: int, used: Sequence[int]) -> list[Row]:
    """Return some layouts and the one a machine has now, which comes first."""
    now = select(MACHINES.c.layout).where(MACHINES.c.id == machine).scalar_subquery()
    asked = (
        select(LAYOUTS)
        .where(LAYOUTS.c.id.in_(list(used)) | (LAYOUTS.c.id == now))
        .order_by(LAYOUTS.c.id != now, -LAYOUTS.c.id)
    )
    return [dict(row) for row in connection.execute(asked).mappings()]


def rows_of(
    connection: Connection, wide: bool, machine: int, span: Span
) -> tuple[Sequence[int], Sequence[int], Sequence[bytes]]:
    """Return microseconds, layouts and rows of the levels, or of the wide spectrum."""
    table = SPECTRA if wide else LEVELS
    asked = select(table.c.time_us, table.c.layout, table.c.row)
    answer: Any = connection.execute(_within(asked, table, machine, span))
    # The driver's own tuples: a year is 50,000 rows, and an object for each takes 100 ms.
    found = answer.cursor.fetchall()
    answer.close()
    return [row[0] for row in found], [row[1] for row in found], [row[2] for row in found]


def snapshots_of(
    connection: Connection, machine: int, span: Span, status: Sequence[str] | None
) -> list[Row]:
    """Return the snapshots of a machine in order of time, None for those of any status."""
    asked = _within(select(SNAPSHOTS), SNAPSHOTS, machine, span)
    if status is not None:
        asked = asked.where(SNAPSHOTS.c.status.in_(list(status)))
    return [dict(row) for row in connection.execute(asked).mappings()]


def events_of(connection: Connection, machine: int, span: Span) -> list[Row]:
    """Return the events of a machine in the order in which they were told."""
    asked = _within(select(EVENTS), EVENTS, machine, span).order_by(EVENTS.c.id)
    return [dict(row) for row in connection.execute(asked).mappings()]


def actions_of(connection: Connection, machine: int) -> list[Row]:
    """Return what operators asked for, oldest first."""
    asked = select(ACTIONS).where(ACTIONS.c.machine == machine).order_by(ACTIONS.c.id)
    return [dict(row) for row in connection.execute(asked).mappings()]


def machines(connection: Connection) -> list[Row]:
    """Return every machine in order of its name."""
    asked = select(MACHINES).order_by(MACHINES.c.name)
    return [dict(row) for row in connection.execute(asked).mappings()]


def not_judged(connection: Connection) -> dict[tuple[int, str], int]:
    """Return how many snapshots of each machine were late, refused or never learned."""
    asked = (
        select(SNAPSHOTS.c.machine, SNAPSHOTS.c.status, func.count())
        .where(SNAPSHOTS.c.status != "judged")
        .group_by(SNAPSHOTS.c.machine, SNAPSHOTS.c.status)
    )
    return {(machine, status): int(n) for machine, status, n in connection.execute(asked)}


def refusals(connection: Connection) -> list[Row]:
    """Return the bad input that was written down, oldest first."""
    asked = select(REFUSALS).order_by(REFUSALS.c.stored)
    return [dict(row) for row in connection.execute(asked).mappings()]


def _within(asked: Select[Any], table: Table, machine: int, span: Span) -> Select[Any]:
    asked = asked.where(table.c.machine == machine)
    if span[0] is not None:
        asked = asked.where(table.c.time_us >= span[0])
    if span[1] is not None:
        asked = asked.where(table.c.time_us < span[1])
    return asked.order_by(table.c.time_us)
