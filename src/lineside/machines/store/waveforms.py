"""Where each waveform is: pending in the database, or in a row group of a segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Column, Table, delete, func, insert, select, update

from lineside.core.database import Connection, fetch_all, insert_once, read_transaction
from lineside.core.errors import UserError
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.packing import Row, unpack
from lineside.machines.store.schema import (
    EVENTS,
    MACHINES,
    ORPHAN_FILES,
    PENDING,
    SEGMENTS,
    SNAPSHOTS,
    WAVES,
)
from lineside.machines.store.segments import read_snapshot, require_pyarrow

if TYPE_CHECKING:
    from lineside.machines.store.store import Store


def read_waveform(
    store: Store, machine: int, time_us: int, name: str, seconds: float
) -> Measurement | None:
    """Return the snapshot of a machine's number and time, None if its waveform was not kept.

    Raises:
        UserError: if its file is missing or damaged.
    """
    pending = select(PENDING.c.content).where(
        PENDING.c.machine == machine, PENDING.c.time_us == time_us
    )
    in_segment = (
        select(SEGMENTS.c.path, WAVES.c.place)
        .join(SEGMENTS, SEGMENTS.c.id == WAVES.c.segment)
        .where(WAVES.c.machine == machine, WAVES.c.time_us == time_us)
    )
    previous = None
    while True:
        with read_transaction(store.engine) as connection:
            content = connection.execute(pending).scalar()
            location = None if content is not None else connection.execute(in_segment).first()
        if content is not None:
            return unpack(bytes(content), name, seconds)
        if location is None:
            return None
        require_pyarrow()
        path = store.folder / location.path
        try:
            return read_snapshot(path, location.place, name, seconds)
        except FileNotFoundError as error:
            # Retention may have rewritten the segment after the transaction: then the index names
            # another file now. If it still names this one, the file is lost.
            if location == previous:
                raise UserError(f"{path} is missing", "restore a copy of it") from error
            previous = location


def pending_by_machine(connection: Connection) -> Sequence[Row]:
    """Return id, name and pending bytes of each machine that has pending waveforms."""
    query = (
        select(MACHINES.c.id, MACHINES.c.name, func.sum(PENDING.c.size).label("size"))
        .join(PENDING, PENDING.c.machine == MACHINES.c.id)
        .group_by(MACHINES.c.id, MACHINES.c.name)
        .order_by(MACHINES.c.id)
    )
    return fetch_all(connection, query)


def pending_of_machine(connection: Connection, machine: int) -> Sequence[Row]:
    """Return time_us, seconds and size of a machine's pending waveforms, oldest first."""
    return _waveforms(connection, PENDING, PENDING.c.size, machine)


def delete_pending(connection: Connection, machine: int, times_us: Sequence[int]) -> None:
    """Delete pending waveforms."""
    connection.execute(
        delete(PENDING).where(PENDING.c.machine == machine, PENDING.c.time_us.in_(list(times_us)))
    )


def insert_segment(
    connection: Connection,
    machine: int,
    path: str,
    size: int,
    thinned: bool,
    times_us: Sequence[int],
) -> None:
    """Enter a segment and, in the order of its row groups, the waveforms that it holds."""
    row = {"machine": machine, "path": path, "size": size, "thinned": int(thinned)}
    segment = connection.execute(insert(SEGMENTS).returning(SEGMENTS.c.id), row).scalar_one()
    connection.execute(
        insert(WAVES),
        [
            {"machine": machine, "time_us": time_us, "segment": segment, "place": row_group}
            for row_group, time_us in enumerate(times_us)
        ],
    )


def delete_segment(connection: Connection, segment: int) -> None:
    """Delete a segment and the index of all waveforms in it."""
    connection.execute(delete(WAVES).where(WAVES.c.segment == segment))
    connection.execute(delete(SEGMENTS).where(SEGMENTS.c.id == segment))


def mark_thinned(connection: Connection, segment: int) -> None:
    """Note that retention keeps everything that is left in a segment."""
    connection.execute(update(SEGMENTS).where(SEGMENTS.c.id == segment).values(thinned=1))


def segments(connection: Connection, machine: int | None = None) -> Sequence[Row]:
    """Return segments with their machine's name and their last time, oldest first."""
    query = (
        select(SEGMENTS, MACHINES.c.name, func.max(WAVES.c.time_us).label("last"))
        .join(WAVES, WAVES.c.segment == SEGMENTS.c.id)
        .join(MACHINES, MACHINES.c.id == SEGMENTS.c.machine)
        .group_by(*SEGMENTS.c, MACHINES.c.name)
        .order_by(func.min(WAVES.c.time_us))
    )
    if machine is not None:
        query = query.where(SEGMENTS.c.machine == machine)
    return fetch_all(connection, query)


def waveforms_of_machine(connection: Connection, machine: int) -> Sequence[Row]:
    """Return time_us, segment and seconds of a machine's waveforms in segments, oldest first."""
    return _waveforms(connection, WAVES, WAVES.c.segment, machine)


def _waveforms(
    connection: Connection, table: Table, column: Column[int], machine: int
) -> Sequence[Row]:
    query = (
        select(table.c.time_us, column, SNAPSHOTS.c.seconds)
        .join(
            SNAPSHOTS,
            (SNAPSHOTS.c.machine == table.c.machine) & (SNAPSHOTS.c.time_us == table.c.time_us),
        )
        .where(table.c.machine == machine)
        .order_by(table.c.time_us)
    )
    return fetch_all(connection, query)


def add_orphan(connection: Connection, path: str) -> None:
    """Note that a file may exist without belonging to the store."""
    insert_once(connection, ORPHAN_FILES, {"path": path})


def remove_orphan(connection: Connection, path: str) -> None:
    """Note that a file belongs to the store, or is deleted."""
    connection.execute(delete(ORPHAN_FILES).where(ORPHAN_FILES.c.path == path))


def orphan_files(connection: Connection) -> list[str]:
    """Return the files that do not belong to the store."""
    query = select(ORPHAN_FILES.c.path).where(ORPHAN_FILES.c.path.not_in(select(SEGMENTS.c.path)))
    return [str(path) for path in connection.execute(query).scalars()]


def alarm_times(connection: Connection, machine: int) -> list[int]:
    """Return the microseconds of a machine's alerts and dangers, in order."""
    query = (
        select(EVENTS.c.time_us)
        .where(EVENTS.c.machine == machine, EVENTS.c.kind.in_(("alert", "danger")))
        .order_by(EVENTS.c.time_us)
    )
    return [int(time_us) for time_us in connection.execute(query).scalars()]


def newest_time(connection: Connection, machine: int) -> int:
    """Return the microseconds of a machine's newest snapshot, judged or not; 0 without any."""
    query = select(func.max(SNAPSHOTS.c.time_us)).where(SNAPSHOTS.c.machine == machine)
    return int(connection.execute(query).scalar() or 0)
