"""Writes of the journal; each runs within the caller's transaction.

`write_entry` is the only way by which a snapshot enters the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from lineside.core.database import Connection, fetch_all, insert_once
from lineside.machines.alarms.actions import Action
from lineside.machines.store.chain import Link
from lineside.machines.store.packing import Row, action_from_row
from lineside.machines.store.schema import (
    ACTIONS,
    EVENTS,
    LAYOUTS,
    LEVELS,
    MACHINES,
    PENDING,
    SNAPSHOTS,
    SPECTRA,
)

_ADVANCE = (
    update(MACHINES)
    .where(MACHINES.c.id == bindparam("its_id"), MACHINES.c.sequence == bindparam("expected"))
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


class StaleSessionError(Exception):
    """Another process judged a snapshot of the machine meanwhile: read its session again."""


class DuplicateSnapshotError(Exception):
    """A snapshot of this machine and time is stored already."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Everything that one snapshot writes, decided before its transaction begins.

    Attributes:
        snapshot: Row of `SNAPSHOTS`.
        features: Layout number, levels and spectrum as bytes; None if there are none.
        waveform: Packed samples, None if they are not kept.
        events: Rows of `EVENTS`.
        machine: New values of the machine's row, None for a snapshot that was not judged.
        sequence: Of the machine's row that it was judged from.
        actions: Numbers of the operators' actions that took effect just before it.
        link: Of the verdict, see `chain`.
    """

    snapshot: Row
    features: tuple[int, bytes, bytes] | None
    waveform: bytes | None
    events: Sequence[Row] = ()
    machine: Row | None = None
    sequence: int = 0
    actions: Sequence[int] = ()
    link: Link | None = None


def write_entry(connection: Connection, entry: Entry) -> None:
    """Write a snapshot with everything that follows from it.

    The machine's row comes first: its compare-and-swap takes the row's lock, so that of two
    processes that judged from the same session one waits here and then loses, before it has
    written anything. The snapshot's primary key comes second and makes ingest idempotent.

    Raises:
        StaleSessionError: the session that it was judged with is no longer the newest.
        DuplicateSnapshotError: one of its machine and time is there. The caller's transaction has
            to be rolled back in both cases.
    """
    machine, time_us = entry.snapshot["machine"], entry.snapshot["time_us"]
    if entry.machine is not None and not advance_machine(
        connection, machine, entry.sequence, entry.machine
    ):
        raise StaleSessionError
    if not insert_snapshot(connection, entry.snapshot):
        raise DuplicateSnapshotError
    if entry.features is not None:
        insert_features(connection, machine, time_us, *entry.features)
    if entry.waveform is not None:
        insert_waveform(connection, machine, time_us, entry.waveform)
    insert_events(connection, entry.events)
    if entry.actions:
        seconds = entry.snapshot["seconds"]
        connection.execute(
            update(ACTIONS).where(ACTIONS.c.id.in_(list(entry.actions))).values(applied=seconds)
        )


def advance_machine(
    connection: Connection, machine: int, sequence: int, values: Mapping[str, Any]
) -> bool:
    """Write a machine's new row; False if somebody else has written it since `sequence`."""
    result = connection.execute(_ADVANCE, {"its_id": machine, "expected": sequence, **values})
    return bool(result.rowcount == 1)


def insert_snapshot(connection: Connection, row: Row) -> bool:
    """Write a snapshot; False if one of that machine and time is there."""
    return insert_once(connection, SNAPSHOTS, row)


def insert_features(
    connection: Connection, machine: int, time_us: int, layout: int, levels: bytes, spectrum: bytes
) -> None:
    """Write one row of features."""
    key = {"machine": machine, "time_us": time_us, "layout": layout}
    connection.execute(_INSERT_LEVELS, {**key, "row": levels})
    connection.execute(_INSERT_SPECTRUM, {**key, "row": spectrum})


def insert_waveform(connection: Connection, machine: int, time_us: int, content: bytes) -> None:
    """Write packed samples, which wait here until they are moved into a segment."""
    row = {"machine": machine, "time_us": time_us, "size": len(content), "content": content}
    connection.execute(insert(PENDING), row)


def insert_events(connection: Connection, rows: Sequence[Row]) -> None:
    """Write events."""
    if rows:
        connection.execute(insert(EVENTS), [dict(row) for row in rows])


def find_or_add_machine(connection: Connection, name: str) -> dict[str, Any]:
    """Return a machine's row; a new machine gets one."""
    query = select(MACHINES).where(MACHINES.c.name == name)
    rows = fetch_all(connection, query)
    if not rows:
        insert_once(connection, MACHINES, {"name": name})
        rows = fetch_all(connection, query)
    return rows[0]


def find_or_add_layout(connection: Connection, digest: str, levels: str, spectrum: str) -> int:
    """Return the number of a layout; a new layout has its names written."""
    insert_once(connection, LAYOUTS, {"digest": digest, "levels": levels, "spectrum": spectrum})
    return int(
        connection.execute(select(LAYOUTS.c.id).where(LAYOUTS.c.digest == digest)).scalar_one()
    )


def waiting_actions(connection: Connection, machine: int) -> list[Action]:
    """Return the operators' actions that have not taken effect, oldest first."""
    query = (
        select(ACTIONS)
        .where(ACTIONS.c.machine == machine, ACTIONS.c.applied.is_(None))
        .order_by(ACTIONS.c.id)
    )
    return [action_from_row(row) for row in fetch_all(connection, query)]
