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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.database import insert_once, read_transaction, write_transaction
from lineside.core.errors import UserError
from lineside.core.run.codec import encode
from lineside.core.run.files import canonical
from lineside.machines.alarms.actions import Action
from lineside.machines.alarms.verdict import Event, Verdict
from lineside.machines.data.measurement import Measurement
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
from lineside.machines.store.schema import REFUSALS, STORED_STATUS
from lineside.machines.store.segments import require_pyarrow
from lineside.machines.store.writes import (
    DuplicateSnapshotError,
    Entry,
    StaleSessionError,
    find_or_add_layout,
    find_or_add_machine,
    finished_stamp,
    stored_fingerprint,
    waiting_actions,
    write_entry,
    write_finished,
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
    """

    row: dict[str, Any]
    session: Session | None
    identity: str
    columns: FeatureColumns | None
    layout: int | None
    actions: list[Action]
    model_changed: bool


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What is to become of a snapshot: a verdict, or a status with the reason for none."""

    status: Status
    verdict: Verdict | None = None
    refusal: Refusal | None = None
    events: tuple[Event, ...] = ()


def judge(tracked: TrackedMachine, measurement: Measurement, time_us: int) -> Judgement:
    """Judge the next snapshot of a machine; changes its session and nothing else."""
    session, last_us = tracked.session, tracked.row["last_us"]
    if session is None:
        message = f"the model does not know {measurement.machine}; its snapshots are kept"
        hint = f"lineside machines learn ... --machine {measurement.machine}"
        return Judgement(
            status="unknown_machine",
            refusal=Refusal(item=measurement.item, message=message, hint=hint),
        )
    if last_us is not None and time_us <= last_us:
        message = "older than the last judged snapshot: stored, not judged"
        hint = "send snapshots in order of time"
        return Judgement(
            status="out_of_order",
            refusal=Refusal(item=measurement.item, message=message, hint=hint),
        )
    applied = [MODEL_CHANGED] if tracked.model_changed else []
    applied += [session.act(action, measurement.time) for action in tracked.actions]
    try:
        verdict = session.push(measurement)
    except UserError as error:
        verdict = Refusal(item=measurement.item, message=error.message, hint=error.hint)
    if isinstance(verdict, Refusal):
        return Judgement(status="refused", refusal=verdict)
    return Judgement(status="judged", verdict=verdict, events=tuple(applied))


class Journal:
    """Judges snapshots with a model and writes them into a store; safe between threads.

    Args:
        store: Where to.
        model: Judges.
        keep_waveforms: Whether the samples are kept, if the store's retention policy keeps any.

    Raises:
        UserError: waveforms are to be kept, and pyarrow is missing.
    """

    def __init__(self, store: Store, model: MachinesModel, *, keep_waveforms: bool = True) -> None:
        self.store, self.model = store, model
        self.keep_waveforms = keep_waveforms and not store.retention.off
        if self.keep_waveforms:
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
            message, hint = f"the snapshot has no usable {what}", "give it one"
            self.refuse(measurement.item, message, hint, source=source)
            refusal = Refusal(item=measurement.item, message=message, hint=hint)
            return _result(measurement, source, Judgement(status="refused", refusal=refusal))
        measurement = with_stored_samples(measurement)
        content = pack(measurement)
        with self._lock:
            for _ in range(MAX_ATTEMPTS):
                try:
                    judgement = self._judge_and_write(measurement, time_us, content, source)
                except StaleSessionError:
                    self._tracked.pop(machine, None)
                except DuplicateSnapshotError:
                    self._tracked.pop(machine, None)
                    judgement = self._duplicate(measurement, time_us, content)
                    return _result(measurement, source, judgement)
                except BaseException:  # the session may be ahead of the store: read it again
                    self._tracked.pop(machine, None)
                    raise
                else:
                    return _result(measurement, source, judgement)
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
        with read_transaction(self._engine) as connection:
            return finished_stamp(connection, storable(source)) == stamp

    def finish(self, source: str, stamp: str) -> None:
        """Note that all of a source was ingested; the stamp changes with its content."""
        with write_transaction(self._engine) as connection:
            write_finished(connection, storable(source), stamp)

    def _judge_and_write(
        self, measurement: Measurement, time_us: int, content: bytes, source: str
    ) -> Judgement:
        tracked = self._track(measurement.machine)
        number = int(tracked.row["id"])
        judgement = judge(tracked, measurement, time_us)
        if judgement.status == "refused":  # actions and model change have not taken effect
            self._tracked.pop(measurement.machine, None)
        if judgement.verdict is None:  # most are deliveries of what is there: save their features
            with read_transaction(self._engine) as connection:
                if stored_fingerprint(connection, number, time_us) is not None:
                    raise DuplicateSnapshotError
        entry = self._entry(tracked, judgement, measurement, time_us, content, source)
        with write_transaction(self._engine) as connection:
            write_entry(connection, entry)
        if entry.machine is not None:  # only after the commit
            tracked.row |= {**entry.machine, "sequence": entry.sequence + 1}
            tracked.actions, tracked.model_changed = [], False
        return judgement

    def _entry(
        self,
        tracked: TrackedMachine,
        judgement: Judgement,
        measurement: Measurement,
        time_us: int,
        content: bytes,
        source: str,
    ) -> Entry:
        """Return the rows that a judged snapshot, or one that is only stored, writes."""
        number, session, verdict = int(tracked.row["id"]), tracked.session, judgement.verdict
        snapshot = {
            "machine": number, "time_us": time_us, "seconds": measurement.time,
            "status": STORED_STATUS[judgement.status], "source": storable(source),
            "digest": fingerprint(content), "stored": clock.time(),
        }  # fmt: skip
        waveform = content if self.keep_waveforms else None
        if verdict is None or session is None:
            reason = "" if judgement.refusal is None else judgement.refusal.message
            columns = {"state": "", "novelty": None, "novelty_limit": None, "more": ""}
            features = None
            if session is not None:
                with contextlib.suppress(UserError):  # there may be none that can be computed
                    features = session.features(measurement)
            return Entry(
                snapshot={**snapshot, **columns, "note": reason},
                features=_pack_features(tracked, features), waveform=waveform,
            )  # fmt: skip
        return Entry(
            snapshot={**snapshot, **verdict_to_row(verdict)},
            features=_pack_features(tracked, session.row),
            waveform=waveform,
            events=[
                *(event_to_row(number, time_us, "journal", event) for event in judgement.events),
                *(event_to_row(number, time_us, "verdict", event) for event in verdict.events),
            ],
            machine={
                "model": tracked.identity, "memory": json.dumps(session.state()),
                "layout": tracked.layout, "last_us": time_us, "state": verdict.state,
                "novelty": verdict.novelty, "novelty_limit": verdict.limit,
            },
            sequence=tracked.row["sequence"],
            actions=[action.number for action in tracked.actions],
        )  # fmt: skip

    def _duplicate(self, measurement: Measurement, time_us: int, content: bytes) -> Judgement:
        with read_transaction(self._engine) as connection:
            number = find_machine(connection, measurement.machine)
            stored = stored_fingerprint(connection, number, time_us)
        if stored == fingerprint(content):
            return Judgement(status="duplicate")
        message = "another snapshot of this machine and time is stored, and it stays"
        hint = "snapshots of a machine need different times"
        refusal = Refusal(item=measurement.item, message=message, hint=hint)
        return Judgement(status="duplicate", refusal=refusal)

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
        identity = "" if machine is None else self._identity(machine)
        same_model = row["model"] == identity
        state = json.loads(row["memory"]) if same_model and row["memory"] else None
        session = None if machine is None else self.model.session(name, state)
        tracked = TrackedMachine(
            row=row, session=session, identity=identity, columns=columns, layout=layout,
            actions=actions, model_changed=bool(row["model"]) and not same_model,
        )  # fmt: skip
        self._tracked[name] = tracked
        while len(self._tracked) > CACHED_SESSIONS:
            self._tracked.popitem(last=False)
        return tracked

    def _identity(self, machine: Machine) -> str:
        if machine.name not in self._identities:
            self._identities[machine.name] = identity_of(machine)
        return self._identities[machine.name]


def identity_of(machine: Machine) -> str:
    """Return a hash of everything that verdicts on a machine rest on; a consent changes none."""
    spec, tensors = encode(machine)
    spec["ledger"] = machine.learned_span
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


def _result(measurement: Measurement, source: str, judgement: Judgement) -> IngestResult:
    refusal = judgement.refusal
    return IngestResult(
        status=judgement.status, item=measurement.item, source=source,
        machine=measurement.machine, time=measurement.time, verdict=judgement.verdict,
        events=judgement.events, message=refusal.message if refusal else "",
        hint=refusal.hint if refusal else "",
    )  # fmt: skip
