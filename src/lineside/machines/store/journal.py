"""The journal: each snapshot is judged once and written with all that follows from it.

Idempotent ingest
    Machine and time are the key of a snapshot. Delivering one again (at-least-once delivery: a
    sender repeats until it is answered) answers ``duplicate`` and changes nothing.
Atomic
    One transaction holds the snapshot, its features, verdict, events, waveform and the state of
    the machine's session. A process that dies leaves a store that never saw the snapshot, or one
    that has all of it.
Commit before ack
    `Journal.ingest` returns after the commit; whatever raises has written nothing.
Optimistic concurrency
    The machine's row has a sequence that every change raises. Who judged from an older session
    finds the sequence changed, reads the session again and judges again, so that any number of
    processes judge a machine as one.

`judge` decides and writes nothing; `write_entry` writes and decides nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time as clock
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, update

from lineside.core.contract import Refusal
from lineside.core.database import insert_once, read_transaction, write_transaction
from lineside.core.errors import UserError
from lineside.core.run.codec import encode
from lineside.core.run.files import canonical
from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.chain import Link, add_link, pack_memory, unpack_memory
from lineside.machines.store.ingest_result import IngestResult, Status
from lineside.machines.store.packing import (
    FeatureColumns,
    event_to_row,
    fingerprint,
    pack,
    storable,
    time_key,
    verdict_to_row,
    with_stored_samples,
)
from lineside.machines.store.queries import actions, events, find_machine, measurements
from lineside.machines.store.schema import FINISHED, REFUSALS, SNAPSHOTS, STORED_STATUS
from lineside.machines.store.segments import require_pyarrow
from lineside.machines.store.writes import (
    DuplicateSnapshotError,
    Entry,
    StaleSessionError,
    find_or_add_layout,
    find_or_add_machine,
    waiting_actions,
    write_entry,
)

if TYPE_CHECKING:
    from lineside.machines.model import MachinesModel
    from lineside.machines.models.machine import Machine
    from lineside.machines.monitoring.session import Session
    from lineside.machines.store.store import Store

CACHED_SESSIONS = 4096
"""Machines whose session stays in memory; those of others are read when a snapshot comes."""
MAX_ATTEMPTS = 50
"""How often a snapshot is judged again because another process was faster."""

MODEL_CHANGED = Event(
    kind="model changed", text="another model judges from here on; its memory starts empty"
)


@dataclass(kw_only=True)
class TrackedMachine:
    """A machine's row in the store, with the session that goes on from there.

    Attributes:
        row: Row of `MACHINES`.
        session: None if the model does not know the machine.
        identity: `identity_of` the model of this machine, empty without one.
        columns: Where its features are stored.
        layout: Their layout in the store.
        actions: What operators asked for and has not taken effect.
        model_changed: Another model judged the last snapshot.
        newest: The link of the last verdict.
    """

    row: dict[str, Any]
    session: Session | None
    identity: str
    columns: FeatureColumns | None
    layout: int | None
    actions: list[Action]
    model_changed: bool
    newest: Link | None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A snapshot that a source delivered.

    Attributes:
        measurement: With its samples as they are stored.
        time_us: Its time in microseconds, with the machine its key.
        content: Everything else, packed.
        source: Which source delivered it.
    """

    measurement: Measurement
    time_us: int
    content: bytes
    source: str

    def result(self, status: Status, message: str = "", hint: str = "") -> IngestResult:
        """Return what became of it, if it was not judged."""
        return IngestResult(
            status=status, item=self.measurement.item, source=self.source,
            machine=self.measurement.machine, time=self.measurement.time, message=message,
            hint=hint,
        )  # fmt: skip


def judge(tracked: TrackedMachine, delivery: Delivery) -> IngestResult:
    """Judge the next snapshot of a machine; changes its session and nothing else."""
    measurement, session = delivery.measurement, tracked.session
    if session is None:
        message = f"the model does not know {measurement.machine}; its snapshots are kept"
        hint = f"lineside machines learn ... --machine {measurement.machine}"
        return delivery.result("unknown_machine", message, hint)
    last_us = tracked.row["last_us"]
    if last_us is not None and delivery.time_us <= last_us:
        message = "older than the last judged snapshot: stored, not judged"
        return delivery.result("out_of_order", message, "send snapshots in order of time")
    applied = [MODEL_CHANGED] if tracked.model_changed else []
    applied += [session.act(action, measurement.time) for action in tracked.actions]
    try:
        verdict = session.push(measurement)
    except UserError as error:
        return delivery.result("refused", error.message, error.hint)
    if isinstance(verdict, Refusal):
        return delivery.result("refused", verdict.message, verdict.hint)
    return replace(delivery.result("judged"), verdict=verdict, events=tuple(applied))


class Journal:
    """Judges snapshots with a model and writes them into a store; safe between threads.

    Args:
        store: Where to.
        model: Judges.
        keep_waveforms: Whether the samples are kept.

    Raises:
        UserError: waveforms are to be kept, and pyarrow is missing.
    """

    def __init__(self, store: Store, model: MachinesModel, *, keep_waveforms: bool = True) -> None:
        self.store, self.model, self.keep_waveforms = store, model, keep_waveforms
        if keep_waveforms:
            require_pyarrow()
        self._engine = store.engine
        self._tracked: OrderedDict[str, TrackedMachine] = OrderedDict()  # least recent first
        self._identities: dict[str, str] = {}
        self._lock = threading.Lock()

    def ingest(self, measurement: Measurement, *, source: str = "") -> IngestResult:
        """Judge a snapshot and write it, in one transaction; a duplicate changes nothing.

        Raises:
            UserError: if the store cannot be written; nothing was written then, try again.
        """
        machine, time_us = measurement.machine, time_key(measurement.time)
        if time_us is None or not machine or machine != storable(machine):
            what = "time" if time_us is None else "name of its machine"
            refused = Delivery(measurement=measurement, time_us=0, content=b"", source=source)
            result = refused.result("refused", f"the snapshot has no usable {what}", "give it one")
            self.refuse(result.item, result.message, result.hint, source=source)
            return result
        measurement = with_stored_samples(measurement)
        delivery = Delivery(
            measurement=measurement, time_us=time_us, content=pack(measurement), source=source
        )
        with self._lock:
            for _ in range(MAX_ATTEMPTS):
                try:
                    return self._judge_and_write(delivery)
                except StaleSessionError:
                    self._tracked.pop(machine, None)
                except DuplicateSnapshotError:
                    self._tracked.pop(machine, None)
                    duplicate = self._find_duplicate(delivery)
                    assert duplicate is not None
                    return duplicate
                except BaseException:  # the session may be ahead of the store: read it again
                    self._tracked.pop(machine, None)
                    raise
        raise UserError(
            f"{machine} is changed by other processes all the time",
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
        with write_transaction(self._engine) as connection:
            insert_once(connection, REFUSALS, row)

    def is_finished(self, source: str, stamp: str) -> bool:
        """Return whether a source (a file) was ingested completely and has not changed since."""
        query = select(FINISHED.c.stamp).where(FINISHED.c.source == storable(source))
        with read_transaction(self._engine) as connection:
            return bool(connection.execute(query).scalar() == stamp)

    def finish(self, source: str, stamp: str) -> None:
        """Note that all of a source was ingested; the stamp changes with its content."""
        row = {"source": storable(source), "stamp": stamp}
        with write_transaction(self._engine) as connection:
            if not insert_once(connection, FINISHED, row):
                changed = update(FINISHED).where(FINISHED.c.source == row["source"])
                connection.execute(changed.values(stamp=stamp))

    def _judge_and_write(self, delivery: Delivery) -> IngestResult:
        tracked = self._track(delivery.measurement.machine)
        result = judge(tracked, delivery)
        if result.status == "refused":  # actions and the change of model have not taken effect
            self._tracked.pop(tracked.row["name"], None)
        if result.verdict is None and (duplicate := self._find_duplicate(delivery)) is not None:
            return duplicate  # the usual second delivery: its features are not computed
        entry = self._entry(tracked, delivery, result)
        with write_transaction(self._engine) as connection:
            write_entry(connection, entry)
        if entry.machine is not None:  # after the commit: a rollback must not be remembered
            tracked.row |= {**entry.machine, "sequence": entry.sequence + 1}
            tracked.actions, tracked.model_changed, tracked.newest = [], False, entry.link
        return result

    def _entry(self, tracked: TrackedMachine, delivery: Delivery, result: IngestResult) -> Entry:
        """Return all rows that a snapshot writes, judged or not."""
        number, session, verdict = tracked.row["id"], tracked.session, result.verdict
        measurement, time_us = delivery.measurement, delivery.time_us
        snapshot = {
            "machine": number, "time_us": time_us, "seconds": measurement.time,
            "status": STORED_STATUS[result.status], "source": storable(delivery.source),
            "digest": fingerprint(delivery.content), "stored": clock.time(),
        }  # fmt: skip
        waveform = delivery.content if self.keep_waveforms else None
        if session is None or verdict is None:
            features = None
            if session is not None:
                with contextlib.suppress(UserError):  # there may be none that can be computed
                    features = session.features(measurement)
            no_verdict = {"state": "", "novelty": None, "novelty_limit": None, "more": ""}
            return Entry(
                snapshot={**snapshot, **no_verdict, "note": result.message},
                features=_pack_features(tracked, features), waveform=waveform,
            )  # fmt: skip
        events = [event_to_row(number, time_us, "journal", event) for event in result.events]
        events += [event_to_row(number, time_us, "verdict", event) for event in verdict.events]
        judged, link = add_link(tracked.newest, {**snapshot, **verdict_to_row(verdict)}, events)
        return Entry(
            snapshot=judged,
            features=_pack_features(tracked, session.row), waveform=waveform, events=events,
            machine={
                "model": tracked.identity, "memory": pack_memory(session.state(), link),
                "layout": tracked.layout, "last_us": time_us, "state": verdict.state,
                "novelty": verdict.novelty, "novelty_limit": verdict.limit,
            },
            sequence=tracked.row["sequence"],
            actions=[action.number for action in tracked.actions], link=link,
        )  # fmt: skip

    def _find_duplicate(self, delivery: Delivery) -> IngestResult | None:
        """Return the result of a snapshot whose machine and time are stored, None if they are not.

        Another content under the same key does not replace the first: it may have raised an alarm.
        """
        with read_transaction(self._engine) as connection:
            number = find_machine(connection, delivery.measurement.machine)
            query = select(SNAPSHOTS.c.digest).where(
                SNAPSHOTS.c.machine == number, SNAPSHOTS.c.time_us == delivery.time_us
            )
            stored = connection.execute(query).scalar()
        if stored is None:
            return None
        if stored == fingerprint(delivery.content):
            return delivery.result("duplicate")
        message = "another snapshot of this machine and time is stored, and it stays"
        return delivery.result("duplicate", message, "snapshots of a machine need different times")

    def _track(self, name: str) -> TrackedMachine:
        """Return a machine's session, from the store unless it is in memory."""
        if name in self._tracked:
            self._tracked.move_to_end(name)
            return self._tracked[name]
        machine = self.model.machines.get(name)
        columns = None if machine is None else FeatureColumns(machine.layout.names)
        with write_transaction(self._engine) as connection:
            row = find_or_add_machine(connection, name)
            actions = waiting_actions(connection, row["id"])
            layout = None
            if columns is not None:
                levels, spectrum = json.dumps(columns.levels), json.dumps(columns.spectrum)
                digest = hashlib.sha256(f"{levels}\0{spectrum}".encode()).hexdigest()
                layout = find_or_add_layout(connection, digest, levels, spectrum)
        if machine is not None and name not in self._identities:
            self._identities[name] = identity_of(machine)
        identity = self._identities.get(name, "")
        same_model = row["model"] == identity
        stored, newest = unpack_memory(row["memory"])
        state = stored if same_model and stored else None
        session = None if machine is None else self.model.session(name, state)
        tracked = TrackedMachine(
            row=row, session=session, identity=identity, columns=columns, layout=layout,
            actions=actions, model_changed=bool(row["model"]) and not same_model, newest=newest,
        )  # fmt: skip
        self._tracked[name] = tracked
        while len(self._tracked) > CACHED_SESSIONS:
            self._tracked.popitem(last=False)
        return tracked


def identity_of(machine: Machine) -> str:
    """Return a hash of everything that verdicts on a machine rest on; a consent changes none."""
    spec, tensors = encode(machine)
    spec["learning_record"] = machine.training_span
    digest = hashlib.sha256(canonical({"spec": spec, "limits": machine.operating()}))
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def replay(store: Store, model: MachinesModel, machine: str) -> Iterator[Verdict | Refusal]:
    """Judge the stored snapshots of a machine again, from where its model began.

    The verdicts are the same, bit by bit, while all waveforms are there: operators' actions take
    effect where they did the first time. Snapshots whose waveforms retention has deleted are
    missing, and what follows them may then come out differently.

    Raises:
        UserError: if the machine is unknown to the store or to the model.
    """
    session = model.session(machine)
    changes = [r.time for r in events(store, machine) if r.event.kind == MODEL_CHANGED.kind]
    operator_actions = actions(store, machine)
    for measurement in measurements(
        store, machine, since=changes[-1] if changes else None, status=("judged",)
    ):
        for action in operator_actions:
            if action.applied == measurement.time:
                session.act(action, measurement.time)
        yield session.push(measurement)


def _pack_features(
    tracked: TrackedMachine, row: NDArray[np.float32] | None
) -> tuple[int, bytes, bytes] | None:
    if row is None or tracked.columns is None or tracked.layout is None:
        return None
    return tracked.layout, *tracked.columns.split(row)
