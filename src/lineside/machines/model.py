"""The fitted model: one learned machine per name, judged by sessions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from lineside.core.contract import Explanation, Refusal
from lineside.core.errors import UserError
from lineside.core.run.codec import TRANSIENT, decode, encode
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.data import load_measurement
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session
from lineside.machines.signals.engine import Engine


@dataclass(frozen=True, kw_only=True)
class MachinesModel:
    """What one method learned of every machine.

    Attributes:
        method: Name of its detector.
        machines: By name.
        identity: Hash of its content, empty before it was stored.
    """

    method: str
    machines: Mapping[str, Machine]
    identity: str = field(default="", metadata=TRANSIENT)

    def session(self, machine: str, state: Mapping[str, Any] | None = None) -> Session:
        """Return the memory of one machine, fresh or continued from a state.

        Raises:
            UserError: if the machine is not in the model.
        """
        if machine not in self.machines:
            raise UserError(
                f"machine {machine!r} was never learned",
                f"this model knows {', '.join(sorted(self.machines))}",
            )
        return Session(self.machines[machine], state)

    def predict(self, items: Sequence[Snapshot]) -> list[Verdict | Refusal]:
        """Judge snapshots: each machine's in order of time, the answers in the order of `items`."""
        session = FleetSession(self)
        answers: dict[int, Verdict | Refusal] = {}
        for index in sorted(range(len(items)), key=lambda i: (items[i].machine, items[i].time, i)):
            answers[index] = session.push(items[index])
        return [answers[index] for index in range(len(items))]

    def explain(self, item: Snapshot) -> Explanation:
        """Say what speaks for the novelty of one snapshot."""
        from lineside.machines.explain.explanation import explain_snapshot

        if item.machine not in self.machines:
            return Explanation(item=item.id, text=f"{item.machine} was never learned.")
        return explain_snapshot(self.machines[item.machine], load_measurement(item))

    def spec(self) -> dict[str, Any]:
        """Return everything but tensors and calibrations."""
        return encode(self)[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays of all machines."""
        return encode(self)[1]

    def calibration_block(self) -> dict[str, Any]:
        """Return the calibrations, empty before there are any."""
        block = {name: machine.operating() for name, machine in self.machines.items()}
        done = any(entry["main"] is not None for entry in block.values())
        return {"message": self._limits(), "machines": block} if done else {}

    def with_calibration(self, block: Mapping[str, Any], identity: str = "") -> MachinesModel:
        """Return the model with stored calibrations."""
        stored = block.get("machines", {})
        machines = {
            name: machine.with_calibration(stored.get(name, {}))
            for name, machine in self.machines.items()
        }
        return dataclasses.replace(self, machines=machines, identity=identity or self.identity)

    def _limits(self) -> str:
        """One line for the model card: from which novelty on each machine counts."""
        limits = [
            f"{name} z > {machine.main.calibration.limit:g}"
            for name, machine in self.machines.items()
            if machine.main.calibration is not None
        ]
        return "limits, in robust spreads of held-out healthy snapshots: " + ", ".join(limits)


class FleetSession:
    """The memory of all machines of a model while their snapshots come in, in any mixture.

    Args:
        model: The fitted model.
        state: What `state` returned, None for a fresh start.
    """

    def __init__(self, model: MachinesModel, state: Mapping[str, Any] | None = None) -> None:
        self._model = model
        self._sessions = {name: model.session(name, own) for name, own in (state or {}).items()}

    def push(self, item: Snapshot) -> Verdict | Refusal:
        """Judge the next snapshot; each machine's must come in order of time."""
        try:
            if item.machine not in self._sessions:
                self._sessions[item.machine] = self._model.session(item.machine)
            return self._sessions[item.machine].push(load_measurement(item))
        except UserError as error:
            return Refusal(item=item.id, message=error.message, hint=error.hint)

    def state(self) -> dict[str, Any]:
        """Return the state of every machine seen so far, by name, as plain JSON values."""
        return {name: session.state() for name, session in self._sessions.items()}


def probe(model: MachinesModel) -> None:
    """Try every machine on noise: it raises where the parts of one do not fit."""
    rng = np.random.default_rng(0)
    for machine in model.machines.values():
        layout = machine.layout
        channels = {
            name: Channel(
                samples=rng.standard_normal(group.length, dtype=np.float32),
                rate_hz=group.rate_hz, unit=group.unit,
            )
            for group in layout.groups for name in group.channels
        }  # fmt: skip
        values = dict.fromkeys(layout.values, 0.0)
        noise = Measurement(machine=machine.name, time=0.0, channels=channels, values=values)
        if machine.main.calibration is None:  # its run is not finished
            Engine(layout).features(noise)
        else:
            Session(machine).probe(noise)


def load(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> MachinesModel:
    """Rebuild a model from `MachinesModel.spec` and `MachinesModel.tensors`."""
    return decode(MachinesModel, spec, tensors)
