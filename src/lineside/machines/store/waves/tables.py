"""Where waveforms lie: waiting in the database, or in a place of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from lineside.core.database import Connection, insert_once
from lineside.machines.store.tables import (
    EVENTS,
    LITTER,
    MACHINES,
    PENDING,
    SEGMENTS,
    SNAPSHOTS,
    WAVES,
)

Row = Mapping[str, Any]


def pending_content(connection: Connection, machine: int, time_us: int) -> bytes | None:
    """Return a waveform that waits, None if it does not."""
    asked = select(PENDING.c.content).where(
        PENDING.c.machine == machine, PENDING.c.time_us == time_us
    )
    found = connection.execute(asked).scalar()
    return None if found is None else bytes(found)


def place_of(connection: Connection, machine: int, time_us: int) -> tuple[str, int] | None:
    """Return the path of the segment in which a waveform lies, and its place there."""
    asked = (
        select(SEGMENTS.c.path, WAVES.c.place)
        .join(SEGMENTS, SEGMENTS.c.id == WAVES.c.segment)
        .where(WAVES.c.machine == machine, WAVES.c.time_us == time_us)
    )
    found = connection.execute(asked).first()
    return None if found is None else (str(found[0]), int(found[1]))


def waiting(connection: Connection) -> list[Row]:
    """Return for each machine how many waveforms wait: number, name, count, size, first, last."""
    asked = (
        select(
            MACHINES.c.id,
            MACHINES.c.name,
            func.count().label("count"),
            func.sum(PENDING.c.size).label("size"),
            func.min(PENDING.c.time_us).label("first"),
            func.max(PENDING.c.time_us).label("last"),
        )
        .join(PENDING, PENDING.c.machine == MACHINES.c.id)
        .group_by(MACHINES.c.id, MACHINES.c.name)
        .order_by(MACHINES.c.id)
    )
    return [dict(row) for row in connection.execute(asked).mappings()]


def waiting_of(connection: Connection, machine: int) -> list[tuple[int, float, int]]:
    """Return (microseconds, seconds, size) of the waveforms of a machine that wait."""
    asked = (
        select(PENDING.c.time_us, SNAPSHOTS.c.seconds, PENDING.c.size)
        .join(
            SNAPSHOTS,
            (SNAPSHOTS.c.machine == PENDING.c.machine) & (SNAPSHOTS.c.time_us == PENDING.c.time_us),
        )
        .where(PENDING.c.machine == machine)
        .order_by(PENDING.c.time_us)
    )
    return [(int(at), float(seconds), int(size)) for at, seconds, size in connection.execute(asked)]


def put_segment(
    connection: Connection, machine: int, path: str, size: int, thinned: bool, times: Sequence[int]
) -> int:
    """Write down a segment and which waveforms it holds, in their order; return its number."""
    row = {"machine": machine, "path": path, "size": size, "thinned": int(thinned)}
    number = connection.execute(insert(SEGMENTS).returning(SEGMENTS.c.id), row).scalar_one()
    places = [
        {"machine": machine, "time_us": at, "segment": number, "place": place}
        for place, at in enumerate(times)
    ]
    if places:
        connection.execute(insert(WAVES), places)
    return int(number)


def drop_waiting(connection: Connection, machine: int, times: Sequence[int]) -> None:
    """Forget waveforms that wait."""
    connection.execute(
        delete(PENDING).where(PENDING.c.machine == machine, PENDING.c.time_us.in_(list(times)))
    )


def drop_segment(connection: Connection, number: int) -> None:
    """Forget a segment and the places of all waveforms in it."""
    connection.execute(delete(WAVES).where(WAVES.c.segment == number))
    connection.execute(delete(SEGMENTS).where(SEGMENTS.c.id == number))


def mark_thinned(connection: Connection, number: int) -> None:
    """Note that the ring has gone through a segment and keeps all that is left."""
    connection.execute(update(SEGMENTS).where(SEGMENTS.c.id == number).values(thinned=1))


def segments(connection: Connection, machine: int | None = None) -> list[Row]:
    """Return segments with the first and last of their waveforms, oldest first."""
    first = func.min(WAVES.c.time_us).label("first")
    asked = (
        select(SEGMENTS, first, func.max(WAVES.c.time_us).label("last"))
        .join(WAVES, WAVES.c.segment == SEGMENTS.c.id)
        .group_by(*SEGMENTS.c)
        .order_by(first)
    )
    if machine is not None:
        asked = asked.where(SEGMENTS.c.machine == machine)
    return [dict(row) for row in connection.execute(asked).mappings()]


def put_litter(connection: Connection, path: str) -> None:
    """Note that a file may lie about without belonging to the store."""
    insert_once(connection, LITTER, {"path": path})


def drop_litter(connection: Connection, path: str) -> None:
    """Note that a file belongs to the store, or is gone."""
    connection.execute(delete(LITTER).where(LITTER.c.path == path))


def litter(connection: Connection) -> list[str]:
    """Return the files that do not belong to the store."""
    asked = select(LITTER.c.path).where(LITTER.c.path.not_in(select(SEGMENTS.c.path)))
    return [str(path) for path in connection.execute(asked).scalars()]


def size_of_segments(connection: Connection) -> int:
    """Return how many bytes all segments hold."""
    return int(connection.execute(select(func.sum(SEGMENTS.c.size))).scalar() or 0)


def waves_of(connection: Connection, machine: int) -> list[Row]:
    """Return the waveforms of a machine that lie in segments, with their seconds, oldest first."""
    asked = (
        select(WAVES.c.time_us, WAVES.c.segment, WAVES.c.place, SNAPSHOTS.c.seconds)
        .join(
            SNAPSHOTS,
            (SNAPSHOTS.c.machine == WAVES.c.machine) & (SNAPSHOTS.c.time_us == WAVES.c.time_us),
        )
        .where(WAVES.c.machine == machine)
        .order_by(WAVES.c.time_us)
    )
    return [dict(row) for row in connection.execute(asked).mappings()]


def alarms_of(connection: Connection, machine: int) -> list[int]:
    """Return the microseconds of a machine's alerts and dangers, in order."""
    asked = (
        select(EVENTS.c.time_us)
        .where(EVENTS.c.machine == machine, EVENTS.c.kind.in_(("alert", "danger")))
        .order_by(EVENTS.c.time_us)
    )
    return [int(at) for at in connection.execute(asked).scalars()]


def newest_of(connection: Connection, machine: int) -> int | None:
    """Return the microseconds of the newest snapshot of a machine, judged or not."""
    asked = select(func.max(SNAPSHOTS.c.time_us)).where(SNAPSHOTS.c.machine == machine)
    return connection.execute(asked).scalar()


def name_of(connection: Connection, machine: int) -> str:
    """Return the name of a machine."""
    asked = select(MACHINES.c.name).where(MACHINES.c.id == machine)
    return str(connection.execute(asked).scalar_one())
