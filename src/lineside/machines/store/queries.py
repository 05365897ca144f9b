"""Questions to a store. `since` is part of a span, `until` is not; both are seconds or None.

A question is answered within one read transaction, so that all of an answer is of one moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, Table, func, select

from lineside.core.contract import Refusal
from lineside.core.database import Connection, fetch_all, read_transaction
from lineside.core.errors import UserError
from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.packing import (
    LATEST_SECONDS,
    MICROSECONDS,
    Row,
    action_from_row,
    event_from_row,
    time_key,
    verdict_from_row,
)
from lineside.machines.store.schema import (
    ACTIONS,
    EVENTS,
    LAYOUTS,
    LEVELS,
    MACHINES,
    REFUSALS,
    SNAPSHOTS,
    SPECTRA,
    STORED_STATUS,
)
from lineside.machines.store.waveforms import read_waveform

if TYPE_CHECKING:
    from lineside.machines.store.store import Store

Seconds = NDArray[np.float64]
Features = NDArray[np.float32]
FeatureRow = tuple[int, int, bytes]
"""Microseconds, layout and bytes of the features of one snapshot."""


@dataclass(frozen=True, kw_only=True)
class MachineStatus:
    """The state of one machine now.

    Attributes:
        machine: Its name.
        time: Of its last judged snapshot, None if there is none.
        state: After that snapshot, empty if there is none.
        novelty: Of that snapshot, None if it was not judged by its features.
        limit: Novelty from which on a snapshot counts.
        level: ``normal``, ``alert`` or ``danger``; stays while the machine stands still.
        episode: Number of the running alarm episode, 0 if none runs.
        muted_until: Alarms are suppressed until then, None if they are not.
        acknowledged_by: Who has seen the running alarm, empty if nobody.
        out_of_order: Snapshots that were older than the last judged one, and not judged.
        refused: Snapshots that could not be judged.
        unknown_machine: Snapshots that came before the model knew the machine.
    """

    machine: str
    time: float | None
    state: str
    novelty: float | None
    limit: float | None
    level: str
    episode: int
    muted_until: float | None
    acknowledged_by: str
    out_of_order: int
    refused: int
    unknown_machine: int


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One event with its time, see `Event`; `origin` is ``verdict`` or ``journal``."""

    time: float
    event: Event
    origin: str


def features(
    store: Store,
    machine: str,
    names: Sequence[str] | None = None,
    since: float | None = None,
    until: float | None = None,
) -> tuple[Seconds, Features, tuple[str, ...]]:
    """Return features over time, on their stored scale (see `Layout`).

    Args:
        store: Where from.
        machine: Whose.
        names: Which, by default all that are no part of a spectrum (bands, mels, order bands).
        since: First second.
        until: Second after the last.

    Returns:
        Times in seconds, to the microsecond, shape (snapshot,); features, shape (snapshot,
        feature), NaN where a snapshot does not have one; and their names.

    Raises:
        UserError: if the machine or a name is unknown.
    """
    with read_transaction(store.engine) as connection:
        number = find_machine(connection, machine)
        rows = _feature_rows(connection, LEVELS, number, since, until)
        layouts = _layouts(connection, number, rows)
        own_names = {row["id"]: json.loads(row["levels"]) for row in layouts}
        if names is None:
            names = own_names[layouts[0]["id"]] if layouts else ()
        if not {name for own in own_names.values() for name in own}.issuperset(names):
            spectra = _feature_rows(connection, SPECTRA, number, since, until)
            rows = [(*row[:2], row[2] + more[2]) for row, more in zip(rows, spectra, strict=True)]
            for row in layouts:
                own_names[row["id"]] += json.loads(row["spectrum"])
    _check_names(names, {name for own in own_names.values() for name in own}, machine)
    out = np.full((len(rows), len(names)), np.nan, dtype=np.float32)
    numbers = np.array([layout for _, layout, _ in rows], dtype=np.int64)
    for layout, own in own_names.items():
        where = np.flatnonzero(numbers == layout)
        content = b"".join([rows[number][2] for number in where.tolist()])
        # (snapshot of this layout, feature of this layout), and a column for what it has not
        table = np.frombuffer(content, dtype="<f4").reshape(len(where), len(own))
        table = np.pad(table, ((0, 0), (0, 1)), constant_values=np.nan)
        out[where] = table[:, [own.index(name) if name in own else -1 for name in names]]
    times_us = np.array([time_us for time_us, _, _ in rows], dtype=np.int64)
    return times_us / MICROSECONDS, out, tuple(names)


def verdicts(
    store: Store, machine: str, since: float | None = None, until: float | None = None
) -> list[Verdict]:
    """Return the verdicts on a machine's snapshots, exactly as they were given.

    Raises:
        UserError: if the machine is unknown.
    """
    with read_transaction(store.engine) as connection:
        number = find_machine(connection, machine)
        rows = _snapshot_rows(connection, number, since, until, ("judged",))
        event_rows = _event_rows(connection, number, since, until)
    by_time: dict[int, list[Event]] = {}
    for row in event_rows:
        if row["origin"] == "verdict":
            by_time.setdefault(row["time_us"], []).append(event_from_row(row))
    return [verdict_from_row(row, machine, by_time.get(row["time_us"], ())) for row in rows]


def events(
    store: Store, machine: str, since: float | None = None, until: float | None = None
) -> list[EventRecord]:
    """Return the events of a machine, in order.

    Raises:
        UserError: if the machine is unknown.
    """
    with read_transaction(store.engine) as connection:
        rows = _event_rows(connection, find_machine(connection, machine), since, until)
    return [
        EventRecord(
            time=row["time_us"] / MICROSECONDS, event=event_from_row(row), origin=row["origin"]
        )
        for row in rows
    ]


def actions(store: Store, machine: str) -> list[Action]:
    """Return what operators asked for, with the snapshot before which each took effect.

    Raises:
        UserError: if the machine is unknown.
    """
    with read_transaction(store.engine) as connection:
        number = find_machine(connection, machine)
        query = select(ACTIONS).where(ACTIONS.c.machine == number).order_by(ACTIONS.c.id)
        return [action_from_row(row) for row in fetch_all(connection, query)]


def fleet(store: Store) -> list[MachineStatus]:
    """Return the state of every machine now, in order of their names."""
    not_judged = (
        select(SNAPSHOTS.c.machine, SNAPSHOTS.c.status, func.count())
        .where(SNAPSHOTS.c.status != "judged")
        .group_by(SNAPSHOTS.c.machine, SNAPSHOTS.c.status)
    )
    with read_transaction(store.engine) as connection:
        rows = fetch_all(connection, select(MACHINES).order_by(MACHINES.c.name))
        counts = {(number, status): int(n) for number, status, n in connection.execute(not_judged)}
    return [_machine_status(row, counts) for row in rows]


def refusals(store: Store) -> list[Refusal]:
    """Return the bad input that was written down, oldest first."""
    with read_transaction(store.engine) as connection:
        rows = fetch_all(connection, select(REFUSALS).order_by(REFUSALS.c.stored))
    return [Refusal(item=r["item"], message=r["message"], hint=r["hint"]) for r in rows]


def measurements(
    store: Store,
    machine: str,
    since: float | None = None,
    until: float | None = None,
    *,
    status: Sequence[str] | None = None,
) -> Iterator[Measurement]:
    """Yield the snapshots whose waveforms are still kept, in order of time, one at a time.

    Samples, speed, load and values are those that were ingested, bit by bit.

    Args:
        store: Where from.
        machine: Whose.
        since: First second.
        until: Second after the last.
        status: Only those of these statuses (`IngestResult.status`), by default all.

    Raises:
        UserError: if the machine is unknown, or a file of waveforms is missing or damaged.
    """
    with read_transaction(store.engine) as connection:
        number = find_machine(connection, machine)
        rows = _snapshot_rows(connection, number, since, until, status)
    for row in rows:
        measurement = read_waveform(store, number, row["time_us"], machine, row["seconds"])
        if measurement is not None:
            yield measurement


def find_machine(connection: Connection, machine: str) -> int:
    """Return the number of a machine.

    Raises:
        UserError: if the store has no such machine.
    """
    number = connection.execute(select(MACHINES.c.id).where(MACHINES.c.name == machine)).scalar()
    if number is None:
        query = select(MACHINES.c.name).order_by(MACHINES.c.name).limit(20)
        known = ", ".join(connection.execute(query).scalars())
        raise UserError(
            f"the store has no machine {machine!r}", f"it has {known}" if known else "it is empty"
        )
    return int(number)


def _feature_rows(
    connection: Connection, table: Table, machine: int, since: float | None, until: float | None
) -> Sequence[FeatureRow]:
    query = select(table.c.time_us, table.c.layout, table.c.row)
    result: Any = connection.execute(_within(query, table, machine, since, until))
    # The driver's own tuples: a year is 50,000 rows, and an object for each takes 100 ms.
    rows: Sequence[FeatureRow] = result.cursor.fetchall()
    result.close()
    return rows


def _layouts(connection: Connection, machine: int, rows: Sequence[FeatureRow]) -> Sequence[Row]:
    """Return the layouts of rows and the machine's present one, which comes first."""
    used = sorted({layout for _, layout, _ in rows})
    present = select(MACHINES.c.layout).where(MACHINES.c.id == machine).scalar_subquery()
    query = (
        select(LAYOUTS)
        .where(LAYOUTS.c.id.in_(used) | (LAYOUTS.c.id == present))
        .order_by(LAYOUTS.c.id != present, -LAYOUTS.c.id)
    )
    return fetch_all(connection, query)


def _snapshot_rows(
    connection: Connection,
    machine: int,
    since: float | None,
    until: float | None,
    status: Sequence[str] | None,
) -> Sequence[Row]:
    """Return the snapshots of a machine in order of time, None for those of any status."""
    query = _within(select(SNAPSHOTS), SNAPSHOTS, machine, since, until)
    if status is not None:
        query = query.where(SNAPSHOTS.c.status.in_([STORED_STATUS[one] for one in status]))
    return fetch_all(connection, query)


def _event_rows(
    connection: Connection, machine: int, since: float | None, until: float | None
) -> Sequence[Row]:
    """Return the events of a machine in the order in which they were written."""
    query = _within(select(EVENTS), EVENTS, machine, since, until).order_by(EVENTS.c.id)
    return fetch_all(connection, query)


def _within(
    query: Select[Any], table: Table, machine: int, since: float | None, until: float | None
) -> Select[Any]:
    query = query.where(table.c.machine == machine)
    if since is not None:
        query = query.where(table.c.time_us >= _bound_us(since))
    if until is not None:
        query = query.where(table.c.time_us < _bound_us(until))
    return query.order_by(table.c.time_us)


def _bound_us(seconds: float) -> int | None:
    """Return the microseconds of a bound; beyond all times that can be stored, the last of them."""
    return time_key(min(max(seconds, -LATEST_SECONDS), LATEST_SECONDS))


def _check_names(names: Sequence[str], known: set[str], machine: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"{machine} has no feature {unknown[0]!r}",
            f"names are {', '.join(sorted(known)[:3])} and the like" if known else "none is stored",
        )


def _machine_status(row: Row, counts: Mapping[tuple[int, str], int]) -> MachineStatus:
    alarm = (json.loads(row["memory"]).get("alarm") or {}) if row["memory"] else {}
    level = alarm.get("level", "normal")
    not_judged = {
        status: counts.get((row["id"], STORED_STATUS[status]), 0)
        for status in ("out_of_order", "refused", "unknown_machine")
    }
    return MachineStatus(
        machine=row["name"],
        time=None if row["last_us"] is None else row["last_us"] / MICROSECONDS,
        state=row["state"],
        novelty=row["novelty"],
        limit=row["novelty_limit"],
        level=level,
        episode=0 if level == "normal" else alarm.get("episode", 0),
        muted_until=alarm.get("muted_until"),
        acknowledged_by=(alarm.get("acknowledged") or {}).get("by", ""),
        **not_judged,
    )
