"""Judging again what was judged: the same verdicts, bit by bit, while all waveforms are there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lineside.core.contract import Refusal
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.model import MachinesModel
from lineside.machines.store.queries import actions, events, measurements

if TYPE_CHECKING:
    from lineside.machines.store.opening import Store


def replay(store: Store, model: MachinesModel, machine: str) -> Iterator[Verdict | Refusal]:
    """Judge the stored snapshots of a machine anew, from where its model began.

    Operators' actions take effect where they did the first time. Snapshots whose waveforms the
    ring gave up are missing, and what follows them may then come out differently.

    Raises:
        UserError: if the machine is unknown to the store or to the model.
    """
    session = model.session(machine)
    changes = [told.time for told in events(store, machine) if told.event.kind == "model changed"]
    asked = actions(store, machine)
    for measurement in measurements(
        store, machine, since=changes[-1] if changes else None, status=("judged",)
    ):
        for action in asked:
            if action.applied == measurement.time:
                session.act(action, measurement.time)
        yield session.push(measurement)
