r"""The hash chain of each machine's verdicts: an edit of the store is named by machine and time.

A judged snapshot holds its number n and the link h(n) = SHA-256(h(n-1) \n content); the content is
the snapshot with its verdict and events. With a key links are HMACs (see `core.run.seal`). The
session's memory holds the newest link, so that verdicts removed at the end are noticed, and its own
seal. Both lie in JSON columns of the tables. Verdicts from before there were links come before the
first one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from lineside.core.database import Connection, fetch_all, read_transaction
from lineside.core.errors import UserError
from lineside.core.run.files import canonical
from lineside.core.run.seal import digest_of, key
from lineside.core.run.trail import listed
from lineside.machines.alarms.verdict import format_time
from lineside.machines.store.packing import CHAIN, Row
from lineside.machines.store.schema import EVENTS, MACHINES, SNAPSHOTS

if TYPE_CHECKING:
    from lineside.machines.store.store import Store

COLUMNS = tuple(column.name for column in SNAPSHOTS.columns)
EVENT_COLUMNS = ("origin", "kind", "episode", "text", "evidence")
SHOWN = ("state", "novelty", "novelty_limit")
"""What a machine's row repeats of its last verdict."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Number and hash of a verdict; `signed` if the hash is an HMAC."""

    row: int
    link: str
    signed: bool


def add_link(
    last: Link | None, snapshot: Row, events: Sequence[Row]
) -> tuple[dict[str, Any], Link]:
    """Return the row of a judged snapshot with its link, and the link."""
    secret, number = key(), 1 if last is None else last.row + 1
    text = _hash("" if last is None else last.link, number, snapshot, events, secret)
    link = Link(row=number, link=text, signed=secret is not None)
    more = {**_json(snapshot["more"]), CHAIN: asdict(link)}
    return {**snapshot, "more": json.dumps(more)}, link


def pack_memory(state: Mapping[str, Any], newest: Link) -> str:
    """Return a session's state as JSON, with the newest link and a seal."""
    text = json.dumps(state)
    seal = digest_of(f"{newest.link}\n{text}".encode(), key())
    return json.dumps({CHAIN: {**asdict(newest), "seal": seal}, **state})


def unpack_memory(text: str) -> tuple[dict[str, Any], Link | None]:
    """Return a session's state and the newest link, None if it is older than links."""
    state = _json(text)
    stored = state.pop(CHAIN, None)
    return state, None if stored is None else _link_of(stored)


@dataclass(kw_only=True)
class Verified:
    """What the check of a store found.

    Attributes:
        faults: What was changed, one sentence each.
        verdicts: How many follow from the one before.
        before: How many are older than the chain.
    """

    faults: list[str] = field(default_factory=list)
    verdicts: int = 0
    before: int = 0


def verify_store(store: Store) -> Verified:
    """Follow the chain of every machine from its first verdict to its last.

    Raises:
        UserError: if it is signed and no key is given, or the other way round.
    """
    found = Verified()
    with read_transaction(store.engine) as connection:
        for machine in fetch_all(connection, select(MACHINES).order_by(MACHINES.c.name)):
            found.faults += _check_newest(connection, machine)
            _follow(connection, machine, found)
    return found


def check_ends(store: Store) -> None:
    """Check the newest verdict and the memory of every machine, as at the start of a watch.

    Raises:
        UserError: if one was changed.
    """
    with read_transaction(store.engine) as connection:
        machines = fetch_all(connection, select(MACHINES).order_by(MACHINES.c.name))
        faults = [fault for machine in machines for fault in _check_newest(connection, machine)]
    if faults:
        raise UserError(
            f"the store was altered: {listed(faults)}",
            "keep it as evidence and watch with another --store",
        )


def _check_newest(connection: Connection, machine: Row) -> Iterator[str]:
    """Yield what was changed in a machine's row: it is that after its newest verdict."""
    name = machine["name"]
    state = _json(machine["memory"])
    stored = state.pop(CHAIN, None)
    where = (SNAPSHOTS.c.machine == machine["id"], SNAPSHOTS.c.status == "judged")
    query = select(SNAPSHOTS).where(*where).order_by(SNAPSHOTS.c.time_us.desc()).limit(1)
    last = next(iter(fetch_all(connection, query)), None)
    if stored is None:
        if last is not None and CHAIN in _json(last["more"]):
            yield f"the memory of {name} was changed"
        return
    newest = _link_of(stored)
    if not isinstance(stored, dict) or stored.get("seal") != digest_of(
        f"{newest.link}\n{json.dumps(state)}".encode(), key()
    ):
        yield f"the memory of {name} was changed"
    elif last is None or _json(last["more"]).get(CHAIN) != asdict(newest):
        yield f"the last verdicts of {name} were removed, changed or inserted"
    elif canonical([last[c] for c in SHOWN]) != canonical([machine[c] for c in SHOWN]):
        yield f"the state of {name} is not that of its last verdict"


def _follow(connection: Connection, machine: Row, found: Verified) -> None:
    """Add what was changed among the verdicts of one machine."""
    name, number, last = machine["name"], 0, ""
    of_machine = select(EVENTS).where(EVENTS.c.machine == machine["id"])
    ordered = fetch_all(connection, of_machine.order_by(EVENTS.c.time_us, EVENTS.c.id))
    events = {time: list(rows) for time, rows in groupby(ordered, key=lambda row: row["time_us"])}
    judged = (SNAPSHOTS.c.machine == machine["id"], SNAPSHOTS.c.status == "judged")
    query = select(SNAPSHOTS).where(*judged).order_by(SNAPSHOTS.c.time_us)
    for snapshot in fetch_all(connection, query):
        when = format_time(snapshot["time_us"] / 1e6)
        stored = _json(snapshot["more"]).get(CHAIN)
        if stored is None:
            found.before += number == 0
            if number:
                found.faults.append(f"the verdict of {name} at {when} was inserted or changed")
            continue
        link, own = _link_of(stored), events.get(snapshot["time_us"], ())
        if link.row > number + 1:
            found.faults.append(f"verdicts of {name} before {when} were removed or changed")
        elif link.row <= number or link.link != _hash(last, link.row, snapshot, own, key()):
            found.faults.append(f"the verdict of {name} at {when} was changed or inserted")
        else:
            found.verdicts += 1
        number, last = max(number, link.row), link.link


def _hash(
    last: str, number: int, snapshot: Row, events: Sequence[Row], secret: bytes | None
) -> str:
    more = {name: value for name, value in _json(snapshot["more"]).items() if name != CHAIN}
    content = {
        "row": number,
        "snapshot": {**{column: snapshot[column] for column in COLUMNS}, "more": more},
        "events": [[event[column] for column in EVENT_COLUMNS] for event in events],
    }
    return digest_of(last.encode() + b"\n" + canonical(content), secret)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # empty, or edited
        return {}
    return value if isinstance(value, dict) else {}


def _link_of(stored: Any) -> Link:
    """Return a stored link; one that was edited into something else follows from nothing.

    Raises:
        UserError: if it is signed and no key is given, or the other way round.
    """
    try:
        link = Link(row=int(stored["row"]), link=str(stored["link"]), signed=bool(stored["signed"]))
    except (KeyError, TypeError, ValueError):
        return Link(row=0, link="", signed=False)
    if link.signed and key() is None:
        raise UserError("the verdicts of the store are signed with a key", "give it: --key FILE")
    if not link.signed and key() is not None:
        raise UserError(
            "the verdicts of the store are not signed",
            "leave out --key, or begin another store with it",
        )
    return link
