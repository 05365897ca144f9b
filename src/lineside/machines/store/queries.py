"""Questions to a store. `since` is part of a span, `until` is not; both are seconds or None."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.database import Connection, reading
from lineside.core.errors import UserError
from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.asking import tables
from lineside.machines.store.packing import LATEST_SECONDS, MICROSECONDS, key_of, verdict_of
from lineside.machines.store.waves import waveform

if TYPE_CHECKING:
    from lineside.machines.store.opening import Store

Seconds = NDArray[np.float64]
Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How one machine stands now.

    Attributes:
        machine: Its name.
        time: Of its last judged snapshot, None if there is none.
        state: After that snapshot, empty if there is none.
        novelty: Of that snapshot, None if it was not judged by its features.
        limit: Novelty from which on a snapshot counts.
        level: ``normal``, ``alert`` or ``danger``; stays while the machine stands still.
        episode: Number of the running alarm episode, 0 if none runs.
        muted_until: Alarms are held back until then, None if they are not.
        acknowledged_by: Who has seen the running alarm, empty if nobody.
        late: Snapshots that came too late to be judged.
        refused: Snapshots that could not be judged.
        never_learned: Snapshots that came before the machine was learned.
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
    late: int
    refused: int
    never_learned: int


@dataclass(frozen=True, kw_only=True)
class Told:
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
    with _asking(store, machine) as (connection, number):
        span = _span(since, until)
        levels = tables.rows_of(connection, False, number, span)
        layouts = tables.layouts_of(connection, number, sorted(set(levels[1])))
        columns = {
            wide: {row["id"]: json.loads(row["spectrum" if wide else "levels"]) for row in layouts}
            for wide in (False, True)
        }
        if names is None:
            names = columns[False][layouts[0]["id"]] if layouts else []
        asked = tuple(names)
        _check_names(asked, columns, machine)
        few = {name for own in columns[False].values() for name in own}
        spectra = None
        if not few.issuperset(asked):
            spectra = tables.rows_of(connection, True, number, span)
    times = np.array(levels[0], dtype=np.int64)
    out = np.full((len(times), len(asked)), np.nan, dtype=np.float32)
    if few.intersection(asked):
        _fill(out, asked, levels, columns[False])
    if spectra is not None:
        _fill(out, asked, spectra, columns[True])
    return times / MICROSECONDS, out, asked


def verdicts(
    store: Store, machine: str, since: float | None = None, until: float | None = None
) -> list[Verdict]:
    """Return the verdicts on a machine's snapshots, exactly as they were given.

    Raises:
        UserError: if the machine is unknown.
    """
    with _asking(store, machine) as (connection, number):
        rows = tables.snapshots_of(connection, number, _span(since, until), ("judged",))
        told = tables.events_of(connection, number, _span(since, until))
    own: dict[int, list[Event]] = {}
    for row in told:
        if row["origin"] == "verdict":
            own.setdefault(row["time_us"], []).append(_event(row))
    return [verdict_of(row, machine, own.get(row["time_us"], ())) for row in rows]


def events(
    store: Store, machine: str, since: float | None = None, until: float | None = None
) -> list[Told]:
    """Return what was told of a machine, in order.

    Raises:
        UserError: if the machine is unknown.
    """
    with _asking(store, machine) as (connection, number):
        rows = tables.events_of(connection, number, _span(since, until))
    return [
        Told(time=row["time_us"] / MICROSECONDS, event=_event(row), origin=row["origin"])
        for row in rows
    ]


def actions(store: Store, machine: str) -> list[Action]:
    """Return what operators asked for, with the snapshot before which each took effect.

    Raises:
        UserError: if the machine is unknown.
    """
    with _asking(store, machine) as (connection, number):
        return [action_of(row) for row in tables.actions_of(connection, number)]


def fleet(store: Store) -> list[Standing]:
    """Return how every machine stands now, in order of their names."""
    with reading(store.engine) as connection:
        rows, counts = tables.machines(connection), tables.not_judged(connection)
    return [_standing(row, counts) for row in rows]


def refusals(store: Store) -> list[Refusal]:
    """Return the bad input that was written down, oldest first."""
    with reading(store.engine) as connection:
        rows = tables.refusals(connection)
    return [Refusal(item=r["item"], message=r["message"], hint=r["hint"]) for r in rows]


def action_of(row: Mapping[str, Any]) -> Action:
    """Return the action of a row."""
    return Action(
        kind=row["kind"], by=row["who"], why=row["why"], until=row["until"], asked=row["asked"],
        applied=row["applied"], number=row["id"],
    )  # fmt: skip


def measurements(
    store: Store,
    machine: str,
    since: float | None = None,
    until: float | None = None,
    *,
    status: Sequence[str] | None = None,
) -> Iterator[Measurement]:
    """Give back the snapshots whose waveforms are still kept, in order of time, one at a time.

    Samples, speed, load and values are those that were taken, bit by bit.

    Args:
        store: Where from.
        machine: Whose.
        since: First second.
        until: Second after the last.
        status: Only those of these statuses (`Taken.status`), by default all.

    Raises:
        UserError: if the machine is unknown, or a file of waveforms is missing or damaged.
    """
    with _asking(store, machine) as (connection, number):
        span = _span(since, until)
        rows = tables.snapshots_of(connection, number, span, status)
    for row in rows:
        found = waveform(store, number, row["time_us"], machine, row["seconds"])
        if found is not None:
            yield found


@contextmanager
def _asking(store: Store, machine: str) -> Iterator[tuple[Connection, int]]:
    with reading(store.engine) as connection:
        number = tables.number_of(connection, machine)
        if number is None:
            known = ", ".join(str(row["name"]) for row in tables.machines(connection)[:20])
            raise UserError(
                f"the store never saw a machine {machine!r}",
                f"it knows {known}" if known else "it is empty",
            )
        yield connection, number


def _span(since: float | None, until: float | None) -> tables.Span:
    return _bound(since), _bound(until)


def _bound(seconds: float | None) -> int | None:
    """Microseconds of a bound; beyond all times that there are, the last of them."""
    return None if seconds is None else key_of(min(max(seconds, -LATEST_SECONDS), LATEST_SECONDS))


def _check_names(
    asked: Sequence[str], columns: Mapping[bool, Mapping[int, list[str]]], machine: str
) -> None:
    known = {name for kind in columns.values() for own in kind.values() for name in own}
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise UserError(
            f"{machine} has no feature {unknown[0]!r}",
            f"names are {', '.join(sorted(known)[:3])} and the like" if known else "none is stored",
        )


def _fill(
    out: Features,
    asked: Sequence[str],
    found: tuple[Sequence[int], Sequence[int], Sequence[bytes]],
    columns: Mapping[int, list[str]],
) -> None:
    """Put what the rows of each layout hold of the features asked for into their columns."""
    _, layouts, blobs = found
    numbers = np.array(layouts, dtype=np.int64)
    for layout in np.unique(numbers).tolist():
        places = {name: place for place, name in enumerate(columns[layout])}
        here = [place for place, name in enumerate(asked) if name in places]
        where = np.flatnonzero(numbers == layout)
        whole = len(where) == len(blobs)
        rows = np.frombuffer(
            b"".join(blobs if whole else [blobs[place] for place in where.tolist()]), dtype="<f4"
        ).reshape(len(where), len(places))
        chosen = [places[asked[place]] for place in here]
        if whole and len(here) == len(asked):
            out[:] = rows if chosen == list(range(len(places))) else rows[:, chosen]
        else:
            out[where[:, None], np.array(here, dtype=np.intp)] = rows[:, chosen]


def _event(row: Mapping[str, Any]) -> Event:
    return Event(
        kind=row["kind"], episode=row["episode"], text=row["text"],
        evidence=json.loads(row["evidence"]),
    )  # fmt: skip


def _standing(row: Mapping[str, Any], counts: Mapping[tuple[int, str], int]) -> Standing:
    alarm = (json.loads(row["memory"]).get("alarm") or {}) if row["memory"] else {}
    level = alarm.get("level", "normal")
    return Standing(
        machine=row["name"],
        time=None if row["last_us"] is None else row["last_us"] / MICROSECONDS,
        state=row["state"],
        novelty=row["novelty"],
        limit=row["novelty_limit"],
        level=level,
        episode=0 if level == "normal" else alarm.get("episode", 0),
        muted_until=alarm.get("muted_until"),
        acknowledged_by=(alarm.get("acknowledged") or {}).get("by", ""),
        late=counts.get((row["id"], "late"), 0),
        refused=counts.get((row["id"], "refused"), 0),
        never_learned=counts.get((row["id"], "never learned"), 0),
    )
