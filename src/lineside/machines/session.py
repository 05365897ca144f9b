"""Judging the snapshots of one machine one by one: the only place that does, for any stream.

`predict` of a model is the fold over `Session.push`, so a batch, a stream that was interrupted
anywhere, and a replay give the same verdicts, bit by bit. All memory is plain JSON.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.core.contract import Refusal, UserError
from lineside.machines.alarms import Alarm
from lineside.machines.detectors.detection import Rows
from lineside.machines.fitted import Branch, Machine
from lineside.machines.measurement import Measurement
from lineside.machines.sensors import is_blinding
from lineside.machines.signals import Engine, SensorFault, sensor_faults
from lineside.machines.verdict import Event, State, Verdict

FRESH: dict[str, Any] = {
    "last": None, "main": None, "free": None, "rows": [], "sensors": [], "digest": "",
    "settling": 0, "alarm": None, "state": "normal",
}  # fmt: skip


class Session:
    """The memory of one machine while its snapshots come in.

    Args:
        machine: As it was learned and calibrated.
        state: What `state` returned, None for a fresh start.

    Raises:
        UserError: if the machine was not calibrated.
    """

    def __init__(self, machine: Machine, state: Mapping[str, Any] | None = None) -> None:
        if machine.main.calibration is None:
            raise UserError(
                f"{machine.name} was not calibrated", "finish the run, or calibrate it anew"
            )
        self.machine = machine
        self._engine = Engine(machine.layout)
        self._s: dict[str, Any] = {**FRESH, **(state or {})}
        limit = machine.main.calibration.limit
        self._alarm = Alarm(machine.rules, state=self._s["alarm"], limit=limit)
        self._names = machine.layout.names

    def state(self) -> dict[str, Any]:
        """Return all memory as plain JSON values."""
        return {**self._s, "rows": [list(r) for r in self._s["rows"]], "alarm": self._alarm.state()}

    def push(self, measurement: Measurement) -> Verdict | Refusal:
        """Judge the next snapshot; one that is not newer than the last is refused."""
        refusal = self._refused(measurement)
        if refusal is not None:
            return refusal
        self._after_gap(measurement.time)
        faults = self._sensor_faults(measurement)
        events = self._sensor_events(faults)
        blocking = [f for f in faults if is_blinding(f, measurement, self.machine.norms)]
        if blocking:
            note = "; ".join(fault.sentence for fault in blocking)
            return self._verdict(measurement, "sensor fault", events, note=note)
        row = self._engine.features(measurement)
        running = self.machine.operation.running(measurement, row, self._names)
        if running == "idle":
            return self._verdict(measurement, "idle", events, note="the machine stands still")
        if self._s["settling"] > 0:
            self._s["settling"] -= 1
            return self._verdict(measurement, "warming up", events, note="restarted a moment ago")
        if running == "unknown":
            return self._judge_freely(measurement, row, events)
        return self._judge(measurement, row, events)

    def _refused(self, measurement: Measurement) -> Refusal | None:
        last = self._s["last"]
        item = f"{measurement.machine}@{measurement.time:.3f}"
        if not math.isfinite(measurement.time):
            return Refusal(item=item, message="the snapshot has no time", hint="give it one")
        if last is not None and measurement.time <= last:
            same = "of the same time as" if measurement.time == last else "older than"
            return Refusal(
                item=item,
                message=f"the snapshot is {same} the last one of {measurement.machine}",
                hint="snapshots of a machine must come in order of time, once each",
            )
        return None

    def _after_gap(self, time: float) -> None:
        """After a long silence the machine was started anew: let it settle, forget what was."""
        last = self._s["last"]
        self._s["last"] = float(time)
        if last is not None and time - last > self.machine.gap_seconds:
            self._s.update(settling=self.machine.settle, main=None, free=None, rows=[])
            self._alarm.forget()

    def _sensor_faults(self, measurement: Measurement) -> list[SensorFault]:
        faults = sensor_faults(measurement, self.machine.norms)
        digest = _digest(measurement)
        if digest and digest == self._s["digest"]:
            faults.append(
                SensorFault(
                    sensor="all", kind="stuck", sentence="the same samples came a second time"
                )
            )
        self._s["digest"] = digest
        return faults

    def _sensor_events(self, faults: list[SensorFault]) -> tuple[Event, ...]:
        """Tell a sensor fault when it begins and when it ends, not every time."""
        now = sorted({f"{fault.sensor}: {fault.kind}" for fault in faults})
        before = self._s["sensors"]
        self._s["sensors"] = now
        begun = [f for f in faults if f"{f.sensor}: {f.kind}" not in before]
        events = [Event(kind="sensor fault", text=f"{f.sensor} {f.sentence}") for f in begun]
        ended = [name for name in before if name not in now]
        if ended:
            events.append(Event(kind="sensor well", text=f"over: {', '.join(ended)}"))
        return tuple(events)

    def _judge(self, measurement: Measurement, row: Rows, events: tuple[Event, ...]) -> Verdict:
        """Judge at a learned speed and load."""
        branch = self.machine.main
        x = branch.of(self.machine.operation.residual(measurement, row)[None])
        if not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note="features are missing")
        history = branch.detector.history
        known = [np.array(r, dtype=np.float32) for r in self._s["rows"]]
        window = np.stack([*known, x[0]])
        self._s["rows"] = [r.tolist() for r in window[-history:]] if history else []
        if len(window) <= history:
            return self._verdict(measurement, "warming up", events, note="too little history")
        return self._scored(measurement, branch, "main", window, events)

    def _judge_freely(
        self, measurement: Measurement, row: Rows, events: tuple[Event, ...]
    ) -> Verdict:
        """Judge at a speed or load that was never learned, by features without a unit."""
        note = "this speed or load was never learned"
        branch = self.machine.free
        x = None if branch is None else branch.of(row[None])
        if branch is None or branch.calibration is None or x is None or not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note=note)
        self._s["rows"] = []
        note = f"{note}: judged by features without a unit only"
        return self._scored(measurement, branch, "free", x, events, note)

    def _scored(
        self,
        measurement: Measurement,
        branch: Branch,
        memory: str,
        window: Rows,
        events: tuple[Event, ...],
        note: str = "",
    ) -> Verdict:
        calibration = branch.calibration
        assert calibration is not None
        score = float(branch.detector.score(window)[-1])
        smoothed = calibration.smooth(score, self._s[memory])
        self._s[memory] = smoothed
        # One alarm for both branches: novelty in units of each branch's own limit.
        z = calibration.z(smoothed) * self._alarm.limit / calibration.limit
        level, event = self._alarm.push(z, measurement.time, calibration.growth(smoothed))
        if event is not None:
            evidence = {**event.evidence, **self._evidence(branch, window)}
            told = Event(kind=event.kind, episode=event.episode, text=event.text, evidence=evidence)
            events = (*events, told)
        return self._verdict(measurement, level, events, z, note)

    def _evidence(self, branch: Branch, window: Rows) -> dict[str, Any]:
        """Name the features that speak for an alarm, largest share first."""
        shares = branch.detector.contributions(window)
        order = np.argsort(-shares, kind="stable")[:5]
        return {
            "features": {
                self._names[branch.columns[i]]: round(float(shares[i]), 4) for i in order.tolist()
            }
        }

    def _verdict(
        self,
        measurement: Measurement,
        state: State,
        events: tuple[Event, ...],
        novelty: float | None = None,
        note: str = "",
    ) -> Verdict:
        if novelty is None and self._alarm.level != "normal" and state in ("idle", "warming up"):
            state = self._alarm.level  # an alarm does not end because the machine is stopped
        return Verdict(
            machine=measurement.machine,
            time=measurement.time,
            state=state,
            novelty=novelty,
            limit=self._alarm.limit,
            events=events,
            note=note,
        )


def _digest(measurement: Measurement) -> str:
    """A short name of the samples: a live sensor never gives the same ones twice."""
    if not measurement.channels:
        return ""
    found = hashlib.sha256()
    for name, channel in sorted(measurement.channels.items()):
        found.update(name.encode())
        found.update(np.ascontiguousarray(channel.samples).tobytes())
    return found.hexdigest()[:16]
