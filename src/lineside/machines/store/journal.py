"""Taking snapshots into the store: judged once, written with all that follows from it, or not.

One transaction holds the snapshot, its features, verdict, events, waveform and the memory of the
machine's session. A process that dies leaves a store that never saw the snapshot, or one that has
all of it. The machine's row has a number that every change raises: whoever judged from an older
memory finds the number changed, reads the memory anew and judges again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time as clock
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.database import Connection, reading, writing
from lineside.core.errors import UserError
from lineside.core.run.codec import encode
from lineside.core.run.files import canonical
from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session
from lineside.machines.store.packing import (
    Columns,
    exact,
    fingerprint,
    key_of,
    pack,
    storable,
    verdict_row,
)
from lineside.machines.store.queries import action_of
from lineside.machines.store.taken import Status, Taken
from lineside.machines.store.taking import tables

if TYPE_CHECKING:
    from lineside.machines.store.opening import Store

SESSIONS = 4096
"""Machines whose memory is kept at hand; the others are read when they come."""
TRIES = 50
"""So often a snapshot is judged anew because another process was faster."""

MODEL_CHANGED = Event(
    kind="model changed", text="another model judges from here on; its memory begins anew"
)


class _Lost(Exception):  # noqa: N818 - an event, not an error
    """Another process changed the machine meanwhile."""


class _Known(Exception):  # noqa: N818 - an event, not an error
    """The snapshot is there already."""


@dataclass
class _Followed:
    """One machine as its row tells, with the session that goes on from there."""

    row: dict[str, Any]
    session: Session | None
    identity: str
    columns: Columns | None
    layout: int | None
    actions: list[Action]
    changed: bool

    @property
    def number(self) -> int:
        return int(self.row["id"])


class Journal:
    """Judges snapshots and keeps them; made by `Store.journal`, safe between threads.

    Args:
        store: Where to.
        model: Judges.
        keep_waveforms: Whether the samples are kept.
    """

    def __init__(self, store: Store, model: MachinesModel, *, keep_waveforms: bool = True) -> None:
        self.store, self.model, self.keep_waveforms = store, model, keep_waveforms
        self._engine = store.engine
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._identities: dict[str, str] = {}
        self._lock = threading.Lock()

    def take(self, measurement: Measurement, *, source: str = "") -> Taken:
        """Judge a snapshot and keep it, in one transaction; a known one changes nothing.

        Raises:
            UserError: if the store cannot be written; then nothing was taken, take it again.
        """
        time_us = key_of(measurement.time)
        name = measurement.machine
        if time_us is None or not name or name != storable(name):
            return self._without_key(measurement, source)
        measurement = exact(measurement)
        content = pack(measurement)
        with self._lock:
            for _ in range(TRIES):
                try:
                    return self._take(measurement, time_us, content, source)
                except _Lost:
                    self._followed.pop(measurement.machine, None)
                except _Known:
                    self._followed.pop(measurement.machine, None)
                    return self._known(measurement, time_us, content)
                except BaseException:  # the session may be ahead of the store: read it anew
                    self._followed.pop(measurement.machine, None)
                    raise
        raise UserError(
            f"{measurement.machine} is changed by others all the time",
            "let fewer processes judge the same machine",
        )

    def refuse(self, item: str, message: str, hint: str, *, source: str = "") -> None:
        """Write down bad input, once however often it comes."""
        item, message, hint, source = map(storable, (item, message, hint, source))
        digest = hashlib.sha256("\0".join((item, message, source)).encode()).hexdigest()
        row = {
            "digest": digest, "item": item, "message": message, "hint": hint, "source": source,
            "stored": clock.time(),
        }  # fmt: skip
        with writing(self._engine) as connection:
            tables.put_refusal(connection, row)

    def done(self, source: str, stamp: str) -> bool:
        """Return whether a source (a file) was finished and has not changed since."""
        with reading(self._engine) as connection:
            return tables.stamp_of(connection, storable(source)) == stamp

    def finish(self, source: str, stamp: str) -> None:
        """Write down that everything of a source was taken; the stamp changes with its content."""
        with writing(self._engine) as connection:
            tables.put_finished(connection, storable(source), stamp)

    def _take(self, measurement: Measurement, time_us: int, content: bytes, source: str) -> Taken:
        followed = self._follow(measurement.machine)
        row = {
            "machine": followed.number, "time_us": time_us, "seconds": measurement.time,
            "source": storable(source), "digest": fingerprint(content), "stored": clock.time(),
            "state": "", "novelty": None, "novelty_limit": None, "note": "", "more": "",
        }  # fmt: skip
        last = followed.row["last_us"]
        if followed.session is None:
            told = f"{measurement.machine} was never learned; its snapshots are kept"
            why = Refusal(item=measurement.item, message=told, hint="learn it, then judge")
            return self._keep(measurement, followed, row, content, why, "never learned")
        if last is not None and time_us <= last:
            told = "older than the last one judged: kept, not judged"
            why = Refusal(item=measurement.item, message=told, hint="send snapshots in order")
            return self._keep(measurement, followed, row, content, why, "late")
        return self._judge(measurement, followed, row, content)

    def _judge(
        self, measurement: Measurement, followed: _Followed, row: dict[str, Any], content: bytes
    ) -> Taken:
        """Judge the newest snapshot of a machine; the session goes on only with the store."""
        session = followed.session
        assert session is not None
        own = [MODEL_CHANGED] if followed.changed else []
        own += [session.act(action, measurement.time) for action in followed.actions]
        said = _pushed(session, measurement)
        if isinstance(said, Refusal):
            self._followed.pop(measurement.machine, None)  # actions were not written down
            return self._keep(measurement, followed, row, content, said)
        row |= {"status": "judged", **verdict_row(said)}
        memory = {
            "model": followed.identity, "memory": json.dumps(session.state()),
            "layout": followed.layout, "last_us": row["time_us"], "state": said.state,
            "novelty": said.novelty, "novelty_limit": said.limit,
        }  # fmt: skip
        with writing(self._engine) as connection:
            if not tables.advance(connection, followed.number, followed.row["sequence"], memory):
                raise _Lost
            self._add(connection, followed, row, content, session.row)
            events = _event_rows(row, "journal", own) + _event_rows(row, "verdict", said.events)
            tables.put_events(connection, events)
            if followed.actions:
                numbers = [action.number for action in followed.actions]
                tables.actions_applied(connection, numbers, measurement.time)
        followed.row |= {**memory, "sequence": followed.row["sequence"] + 1}
        followed.actions, followed.changed = [], False
        return Taken(item=said.item, status="judged", verdict=said, events=tuple(own))

    def _keep(
        self,
        measurement: Measurement,
        followed: _Followed,
        row: dict[str, Any],
        content: bytes,
        refusal: Refusal,
        status: Status = "refused",
    ) -> Taken:
        """Keep a snapshot that is not judged; the memory of its machine stays as it is."""
        with reading(self._engine) as connection:
            if tables.known_digest(connection, followed.number, row["time_us"]) is not None:
                raise _Known
        features = None
        if followed.session is not None:
            with contextlib.suppress(UserError):
                features = followed.session.features(measurement)
        row |= {"status": status, "note": refusal.message}
        with writing(self._engine) as connection:
            self._add(connection, followed, row, content, features)
        return Taken(item=refusal.item, status=status, refusal=refusal)

    def _add(
        self,
        connection: Connection,
        followed: _Followed,
        row: dict[str, Any],
        content: bytes,
        features: NDArray[np.float32] | None,
    ) -> None:
        if not tables.put_snapshot(connection, row):
            raise _Known
        if features is not None and followed.columns is not None and followed.layout is not None:
            both = followed.columns.split(features)
            tables.put_features(connection, row["machine"], row["time_us"], followed.layout, *both)
        if self.keep_waveforms:
            tables.put_pending(connection, row["machine"], row["time_us"], content)

    def _known(self, measurement: Measurement, time_us: int, content: bytes) -> Taken:
        with reading(self._engine) as connection:
            row = tables.machine_row(connection, measurement.machine)
            digest = None if row is None else tables.known_digest(connection, row["id"], time_us)
        item = measurement.item
        if digest == fingerprint(content):
            return Taken(item=item, status="known")
        told = "another snapshot of this machine and time is in the store, and it stays"
        refusal = Refusal(item=item, message=told, hint="snapshots of a machine need own times")
        return Taken(item=item, status="known", refusal=refusal)

    def _without_key(self, measurement: Measurement, source: str) -> Taken:
        what = "time" if key_of(measurement.time) is None else "name of its machine"
        item = measurement.item
        message = f"the snapshot has no usable {what}"
        refusal = Refusal(item=item, message=message, hint="give it one")
        self.refuse(item, refusal.message, refusal.hint, source=source)
        return Taken(item=item, status="refused", refusal=refusal)

    def _follow(self, machine: str) -> _Followed:
        """Return a machine's memory, from the store unless it is at hand."""
        if machine in self._followed:
            self._followed.move_to_end(machine)
            return self._followed[machine]
        learned = self.model.machines.get(machine)
        columns = None if learned is None else Columns(learned.layout.names)
        with writing(self._engine) as connection:
            row = tables.machine_row(connection, machine)
            assert row is not None
            actions = [action_of(asked) for asked in tables.waiting_actions(connection, row["id"])]
            layout = None if columns is None else _layout(connection, columns)
        identity = "" if learned is None else self._identity(learned)
        same = row["model"] == identity
        memory = json.loads(row["memory"]) if same and row["memory"] else None
        session = None if learned is None else self.model.session(machine, memory)
        found = _Followed(
            row=dict(row), session=session, identity=identity, columns=columns, layout=layout,
            actions=actions, changed=bool(row["model"]) and not same,
        )  # fmt: skip
        self._followed[machine] = found
        while len(self._followed) > SESSIONS:
            self._followed.popitem(last=False)
        return found

    def _identity(self, machine: Machine) -> str:
        if machine.name not in self._identities:
            self._identities[machine.name] = identity_of(machine)
        return self._identities[machine.name]


def identity_of(machine: Machine) -> str:
    """Return a hash of everything that verdicts on a machine rest on; a consent changes none."""
    spec, tensors = encode(machine)
    spec["ledger"] = machine.learned_span
    found = hashlib.sha256(canonical({"spec": spec, "limits": machine.operating()}))
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.numpy().tobytes())
    return found.hexdigest()


def _pushed(session: Session, measurement: Measurement) -> Verdict | Refusal:
    try:
        return session.push(measurement)
    except UserError as error:
        return Refusal(item=measurement.item, message=error.message, hint=error.hint)


def _layout(connection: Connection, columns: Columns) -> int:
    levels, spectrum = json.dumps(columns.levels), json.dumps(columns.spectrum)
    digest = hashlib.sha256(f"{levels}\0{spectrum}".encode()).hexdigest()
    return tables.layout_number(connection, digest, levels, spectrum)


def _event_rows(
    row: Mapping[str, Any], origin: str, events: Sequence[Event]
) -> list[dict[str, Any]]:
    return [
        {
            "machine": row["machine"], "time_us": row["time_us"], "origin": origin,
            "kind": event.kind, "episode": event.episode, "text": event.text,
            "evidence": json.dumps(dict(event.evidence)),
        }
        for event in events
    ]  # fmt: skip
