"""Judging the snapshots of one machine one by one: the only place that does, for any stream.

`predict` of a model is the fold over `Session.push`, so a batch, a stream that was interrupted
anywhere, and a replay give the same verdicts, bit by bit. All memory is plain JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.alarms import Alarm
from lineside.machines.alarms.actions import Action, apply
from lineside.machines.alarms.verdict import Event, State, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.evidence import alarm_evidence
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.monitoring import prognosis, stated_speed
from lineside.machines.monitoring import stuck_sensors as repeats
from lineside.machines.monitoring.sensors import is_blinding
from lineside.machines.signals import Engine, SensorFault, find_sensor_faults

FRESH: dict[str, Any] = {
    "last": None, "main": None, "free": None, "rise": None, "rows": [], "sensors": [],
    "settling": 0, "alarm": None, "repeats": repeats.FRESH, "speed": stated_speed.FRESH,
    "prognosis": prognosis.FRESH,
}  # fmt: skip

LEVEL_FACTOR = 0.4
"""Weight of the newest level in its smoothed rise, seen to serve on FEMTO's four runs."""


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
        self.row: Rows | None = None  # features of the last snapshot, None if it has none

    def state(self) -> dict[str, Any]:
        """Return all memory as plain JSON values."""
        return {**self._s, "rows": [list(r) for r in self._s["rows"]], "alarm": self._alarm.state()}

    def push(self, measurement: Measurement) -> Verdict | Refusal:
        """Judge the next snapshot; one that is not newer than the last is refused."""
        self.row = None
        refusal = self._refused(measurement)
        if refusal is not None:
            return refusal
        self._after_gap(measurement.time)
        faults = self._sensor_faults(measurement)
        events = self._sensor_events(faults)
        blocking = [f for f in faults if self._blinds(f, measurement)]
        if blocking:
            note = "; ".join(fault.message for fault in blocking)
            return self._verdict(measurement, "sensor fault", events, note=note)
        self._s["speed"], told = stated_speed.look(self._s["speed"], measurement)
        events += tuple(told)
        measurement = stated_speed.believed(self._s["speed"], measurement)
        self.row = self._engine.features(measurement)
        row = self._known(self.row)
        running = self.machine.operation.running(measurement, row, self._names)
        if running == "idle":
            return self._verdict(measurement, "idle", events, note="the machine stands still")
        if self.machine.learned_from(measurement.time):
            note = "its normal was learned from this time"
            return self._verdict(measurement, "warming up", events, note=note)
        if self._s["settling"] > 0:
            self._s["settling"] -= 1
            return self._verdict(measurement, "warming up", events, note="restarted a moment ago")
        if running == "unknown":
            return self._judge_freely(measurement, row, events)
        return self._judge(measurement, row, events)

    def act(self, action: Action, time: float) -> Event:
        """Let what an operator asked for take effect just before the snapshot of a time."""
        return apply(self._alarm, action, time)

    def features(self, measurement: Measurement) -> Rows:
        """Return the features of a snapshot without judging it, shape (feature,)."""
        return self._engine.features(measurement)

    def _refused(self, measurement: Measurement) -> Refusal | None:
        last = self._s["last"]
        item = measurement.item
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
            self._s.update(settling=self.machine.warm_up, main=None, free=None, rise=None, rows=[])
            self._alarm.forget()

    def _sensor_faults(self, measurement: Measurement) -> list[SensorFault]:
        faults = find_sensor_faults(measurement, self.machine.norms)
        self._s["repeats"], stuck = repeats.repeated(self._s["repeats"], measurement)
        known = {(fault.sensor, fault.kind) for fault in faults}
        return faults + [f for f in stuck if (f.sensor, f.kind) not in known]

    def _blinds(self, fault: SensorFault, measurement: Measurement) -> bool:
        """Slow values that stand still do not blind the waveforms beside them."""
        if fault.sensor == "all values" and measurement.channels:
            return False
        return is_blinding(fault, measurement, self.machine.norms)

    def _known(self, row: Rows) -> Rows:
        """With a doubted speed, features that need one are put at their healthy median."""
        if not self._s["speed"]["doubted"]:
            return row
        usual = np.nanmedian(self.machine.reference, axis=0)
        return np.where(np.isnan(row), usual, row).astype(np.float32)

    def _sensor_events(self, faults: list[SensorFault]) -> tuple[Event, ...]:
        """Tell a sensor fault when it begins and when it ends, not every time."""
        now = sorted({f"{fault.sensor}: {fault.kind}" for fault in faults})
        before = self._s["sensors"]
        self._s["sensors"] = now
        begun = [f for f in faults if f"{f.sensor}: {f.kind}" not in before]
        events = [Event(kind="sensor fault", text=f.message) for f in begun]
        ended = [name for name in before if name not in now]
        if ended:
            told = [
                f"{name.removeprefix('value.')}: {kind}"
                for name, _, kind in (one.rpartition(": ") for one in ended)
            ]
            events.append(
                Event(kind="sensor well", text=f"sensor fault is over ({', '.join(told)})")
            )
        return tuple(events)

    def _judge(self, measurement: Measurement, row: Rows, events: tuple[Event, ...]) -> Verdict:
        """Judge at a learned speed and load."""
        branch = self.machine.main
        left = self.machine.operation.residual(measurement, row)
        x = branch.select(left[None])
        if not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note="features are missing")
        history = branch.detector.history
        known = [np.array(r, dtype=np.float32) for r in self._s["rows"]]
        window = np.stack([*known, x[0]])
        self._s["rows"] = [r.tolist() for r in window[-history:]] if history else []
        if len(window) <= history:
            return self._verdict(measurement, "warming up", events, note="too little history")
        self._follow_level(left)
        return self._scored(measurement, branch, "main", window, events)

    def _judge_freely(
        self, measurement: Measurement, row: Rows, events: tuple[Event, ...]
    ) -> Verdict:
        """Judge at a speed or load that was never learned, by what these cannot explain."""
        note = "this speed or load was never learned"
        branch = self.machine.free
        left = self.machine.operation.residual(measurement, row)
        x = None if branch is None else branch.select(left[None])
        if branch is None or branch.calibration is None or x is None or not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note=note)
        self._s["rows"] = []
        self._follow_level(left)
        note = f"{note}: judged only by what these cannot explain"
        return self._scored(measurement, branch, "free", x, events, note)

    def _follow_level(self, left: Rows) -> None:
        """Smooth the rise of the mean level of the channels: what danger is told by."""
        rise, before = self.machine.operation.rise(left, self._names), self._s["rise"]
        if math.isfinite(rise):
            mixed = rise if before is None else LEVEL_FACTOR * rise + (1 - LEVEL_FACTOR) * before
            self._s["rise"] = mixed

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
        # Started from the healthy level: one wild score after a restart is not five of them.
        before = calibration.center if self._s[memory] is None else self._s[memory]
        smoothed = calibration.smooth(score, before)
        self._s[memory] = smoothed
        # One alarm for both branches: novelty in units of each branch's own limit.
        z = calibration.z(smoothed) * self._alarm.limit / calibration.limit
        growth = 1.0 if self._s["rise"] is None else math.exp(self._s["rise"])
        level, event = self._alarm.push(z, measurement.time, growth)
        raised = event is not None and event.kind in ("alert", "danger")
        expected = self._forecast(branch, z, measurement.time, now=raised)
        if event is not None and raised:
            event = self._with_evidence(event, branch, window, measurement)
        if event is not None:
            events = (*events, event)
        return self._verdict(
            measurement, level, events, z, "; ".join(filter(None, (note, expected)))
        )

    def _with_evidence(
        self, event: Event, branch: Branch, window: Rows, measurement: Measurement
    ) -> Event:
        assert self.row is not None
        found = alarm_evidence(self.machine, branch, window, measurement, self.row, self._engine)
        fault = found["diagnosis"]["fault"]
        return Event(
            kind=event.kind,
            episode=event.episode,
            text=f"{event.text}; diagnosis: {fault}" if fault else event.text,
            evidence={
                **event.evidence,
                **found,
                "forecast": dict(self._s["prognosis"]["forecast"]),
            },
        )

    def _forecast(self, branch: Branch, z: float, time: float, *, now: bool) -> str:
        """Follow the trend of a running alarm; return its forecast if that is news."""
        alarmed = self._alarm.level != "normal"
        danger = self._danger(branch) if alarmed else None
        memory = prognosis.follow(self._s["prognosis"], time, z, alarmed, danger, now=now)
        told = now or prognosis.news(memory)
        self._s["prognosis"] = {**memory, "told": memory["forecast"]} if told else memory
        return str(memory["forecast"]["text"]) if told else ""

    def _danger(self, branch: Branch) -> float | None:
        """Novelty from which on the alarm logic speaks of danger, None if it cannot be reached."""
        calibration, rules = branch.calibration, self.machine.rules
        assert calibration is not None
        danger = max(rules.danger, self._alarm.limit)
        top = 2 * self._alarm.limit if calibration.kind == "rank" else math.inf
        return danger if math.isfinite(danger) and danger <= top else None

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
            forecast=self._s["prognosis"]["forecast"],
        )
