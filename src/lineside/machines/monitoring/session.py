"""Judging the snapshots of one machine one by one: the only place that does, for every source.

`MachinesModel.predict` is the fold over `Session.push`, so that a batch, a stream that was
interrupted anywhere, and a replay give the same verdicts, bit by bit. All state is plain JSON.

A snapshot passes through these steps: order of time, sensor faults, stated speed, features,
operating state, detector score, EWMA, novelty z, alarm logic, prognosis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.alarms.actions import Action, apply
from lineside.machines.alarms.logic import Alarm
from lineside.machines.alarms.verdict import Event, State, Verdict
from lineside.machines.data.measurement import Measurement
from lineside.machines.explain.evidence import alarm_evidence, describe_feature
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.monitoring import prognosis, stated_speed, stuck_sensors
from lineside.machines.monitoring.sensors import invalidates
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.quality import SensorFault, find_sensor_faults

INITIAL: dict[str, Any] = {
    "last": None,  # time of the last snapshot
    "main": None, "fallback": None,  # smoothed log score of each branch
    "level_rise": None,  # smoothed log ratio of the vibration level to the healthy one
    "rows": [],  # rows that a sequence model needs before the next one
    "sensors": [],  # active sensor faults, "NAME: KIND"
    "warm_up": 0,  # snapshots that are still not judged after a restart
    "alarm": None, "stuck": stuck_sensors.INITIAL, "speed": stated_speed.INITIAL,
    "prognosis": prognosis.INITIAL,
}  # fmt: skip
"""The state of a new session. The store keeps it beside the hash of the machine's model."""

LEVEL_FACTOR = 0.4
"""Weight of the newest vibration level in its EWMA; it worked on the four runs of FEMTO."""
MOST_HISTORY = 10_000
NO_SCORE = "the detector gave no score"


class Session:
    """The monitoring of one machine while its snapshots arrive.

    Args:
        machine: Fitted and calibrated.
        state: What `state` returned, None for a new session.

    Attributes:
        row: Features of the last snapshot, shape (feature,), None if it has none.

    Raises:
        UserError: if the machine is not calibrated.
    """

    def __init__(self, machine: Machine, state: Mapping[str, Any] | None = None) -> None:
        if machine.main.calibration is None:
            raise UserError(
                f"{machine.name} is not calibrated", "let the run finish, or train it again"
            )
        self.machine = machine
        self._engine = Engine(machine.layout)
        self._s: dict[str, Any] = {**INITIAL, **(state or {})}
        limit = machine.main.calibration.limit
        self._alarm = Alarm(machine.rules, state=self._s["alarm"], limit=limit)
        self._names = machine.layout.names
        self.row: Rows | None = None

    def state(self) -> dict[str, Any]:
        """Return the whole state as plain JSON values."""
        return {**self._s, "rows": [list(r) for r in self._s["rows"]], "alarm": self._alarm.state()}

    def push(self, measurement: Measurement) -> Verdict | Refusal:
        """Judge the next snapshot; one that is not newer than the last is refused."""
        self.row = None
        refusal = self._check_time(measurement)
        if refusal is not None:
            return refusal
        self._check_restart(measurement.time)
        faults = self._sensor_faults(measurement)
        events = self._sensor_events(faults)
        blocking = [f for f in faults if self._invalidates(f, measurement)]
        if blocking:
            note = "; ".join(fault.message for fault in blocking)
            return self._verdict(measurement, "sensor fault", events, note=note)
        self._s["speed"], speed_events = stated_speed.check_speed(self._s["speed"], measurement)
        events += tuple(speed_events)
        measurement = stated_speed.drop_suspect_speed(self._s["speed"], measurement)
        self.row = self._engine.features(measurement)
        row = self._impute(self.row)
        state = self.machine.operating_model.state_of(measurement, row, self._names)
        if state == "idle":
            return self._verdict(measurement, "idle", events, note="the machine is at standstill")
        if self.machine.was_trained_on(measurement.time):
            note = "part of the training period"
            return self._verdict(measurement, "warming up", events, note=note)
        if self._s["warm_up"] > 0:
            self._s["warm_up"] -= 1
            return self._verdict(measurement, "warming up", events, note="warm-up after a restart")
        if state == "unknown":
            return self._judge_outside(measurement, row, events)
        return self._judge(measurement, row, events)

    def probe(self, measurement: Measurement) -> None:
        """Judge a snapshot by every detector, whatever its sensors and its operating state say.

        Raises:
            Exception: of whatever kind, where the parts of the machine do not fit together.
        """
        find_sensor_faults(measurement, self.machine.norms)
        row = np.nan_to_num(self._engine.features(measurement))
        self.machine.operating_model.state_of(measurement, row, self._names)
        history = self.machine.main.detector.history
        if not 0 <= history <= MOST_HISTORY:
            raise UserError(f"a detector needs {history} rows", "train it again")
        for _ in range(history + 1):
            self._judge(measurement, row, ())
        self._judge_outside(measurement, row, ())

    def act(self, action: Action, time: float) -> Event:
        """Apply an operator's action just before the snapshot of a time."""
        return apply(self._alarm, action, time)

    def features(self, measurement: Measurement) -> Rows:
        """Return the features of a snapshot without judging it, shape (feature,)."""
        return self._engine.features(measurement)

    def _check_time(self, measurement: Measurement) -> Refusal | None:
        last = self._s["last"]
        item = measurement.item
        if not math.isfinite(measurement.time):
            return Refusal(item=item, message="the snapshot has no time", hint="add its time")
        if last is not None and measurement.time <= last:
            relation = "has the same time as" if measurement.time == last else "is older than"
            return Refusal(
                item=item,
                message=f"the snapshot {relation} the last one of {measurement.machine}",
                hint="send the snapshots of a machine in order of time, each once",
            )
        return None

    def _check_restart(self, time: float) -> None:
        """After a long gap the machine was restarted: let it warm up, reset the smoothing."""
        last = self._s["last"]
        self._s["last"] = float(time)
        if last is not None and time - last > self.machine.gap_seconds:
            self._s.update(
                warm_up=self.machine.warm_up, main=None, fallback=None, level_rise=None, rows=[]
            )
            self._alarm.reset_window()

    def _sensor_faults(self, measurement: Measurement) -> list[SensorFault]:
        faults = find_sensor_faults(measurement, self.machine.norms)
        self._s["stuck"], stuck = stuck_sensors.stuck_sensors(self._s["stuck"], measurement)
        reported = {(fault.sensor, fault.kind) for fault in faults}
        return faults + [f for f in stuck if (f.sensor, f.kind) not in reported]

    def _invalidates(self, fault: SensorFault, measurement: Measurement) -> bool:
        """Stuck slow values do not prevent judging the waveforms beside them."""
        if fault.sensor == "all values" and measurement.channels:
            return False
        return invalidates(fault, measurement, self.machine.norms)

    def _impute(self, row: Rows) -> Rows:
        """While the speed is suspect, set features that need it to their healthy median."""
        if not self._s["speed"]["suspect"]:
            return row
        median = np.nanmedian(self.machine.reference, axis=0)
        return np.where(np.isnan(row), median, row).astype(np.float32)

    def _sensor_events(self, faults: list[SensorFault]) -> tuple[Event, ...]:
        """Report a sensor fault when it begins and when it ends, not for each snapshot."""
        active = sorted({f"{fault.sensor}: {fault.kind}" for fault in faults})
        before = self._s["sensors"]
        self._s["sensors"] = active
        begun = [f for f in faults if f"{f.sensor}: {f.kind}" not in before]
        events = [Event(kind="sensor fault", text=f.message) for f in begun]
        ended = [name.removeprefix("value.") for name in before if name not in active]
        if ended:
            text = f"sensor fault has ended ({', '.join(ended)})"
            events.append(Event(kind="sensor recovered", text=text))
        return tuple(events)

    def _judge(self, measurement: Measurement, row: Rows, events: tuple[Event, ...]) -> Verdict:
        """Judge at trained operating conditions."""
        branch = self.machine.main
        compensated = self.machine.operating_model.compensate(measurement, row)
        x = branch.select(compensated[None])  # (1, column)
        if not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note="features are missing")
        history = branch.detector.history
        previous = [np.array(r, dtype=np.float32) for r in self._s["rows"]]
        window = np.stack([*previous, x[0]])  # (at most history + 1, column)
        self._s["rows"] = [r.tolist() for r in window[-history:]] if history else []
        if len(window) <= history:
            note = f"{len(window)} of {history + 1} snapshots for the detector"
            return self._verdict(measurement, "warming up", events, note=note)
        self._update_level(compensated)
        return self._score(measurement, branch, "main", window, events)

    def _judge_outside(
        self, measurement: Measurement, row: Rows, events: tuple[Event, ...]
    ) -> Verdict:
        """Judge outside of the trained speeds and loads, by what these cannot explain."""
        note = "speed or load outside of the trained range"
        branch = self.machine.fallback
        compensated = self.machine.operating_model.compensate(measurement, row)
        x = None if branch is None else branch.select(compensated[None])
        if branch is None or branch.calibration is None or x is None or not np.isfinite(x).all():
            return self._verdict(measurement, "unknown state", events, note=note)
        self._s["rows"] = []
        self._update_level(compensated)
        note = f"{note}: judged only by features that these cannot explain"
        return self._score(measurement, branch, "fallback", x, events, note)

    def _update_level(self, compensated: Rows) -> None:
        """EWMA of the mean vibration level over its healthy value, for the danger level."""
        rise = self.machine.operating_model.level_rise(compensated, self._names)
        before = self._s["level_rise"]
        if math.isfinite(rise):
            self._s["level_rise"] = (
                rise if before is None else LEVEL_FACTOR * rise + (1 - LEVEL_FACTOR) * before
            )

    def _score(
        self,
        measurement: Measurement,
        branch: Branch,
        key: str,
        window: Rows,
        events: tuple[Event, ...],
        note: str = "",
    ) -> Verdict:
        """Score a window, smooth the score, and pass its z to the alarm logic."""
        calibration = branch.calibration
        assert calibration is not None
        score = float(branch.detector.score(window)[-1])
        if not math.isfinite(score):  # it would stay in the EWMA for ever
            return self._verdict(measurement, "unknown state", events, note=NO_SCORE)
        # Started at the healthy median: one outlier after a restart must not count five times.
        before = calibration.center if self._s[key] is None else self._s[key]
        smoothed = calibration.smooth(score, before)
        self._s[key] = smoothed
        # One alarm for both branches: novelty in units of each branch's own limit.
        z = calibration.z(smoothed) * self._alarm.limit / calibration.limit
        growth = 1.0 if self._s["level_rise"] is None else math.exp(self._s["level_rise"])
        level, event = self._alarm.push(z, measurement.time, growth)
        raised = event is not None and event.kind in ("alert", "danger")
        outlook = self._update_prognosis(branch, z, measurement.time, now=raised)
        if event is not None and raised:
            event = self._with_evidence(event, branch, window, measurement)
        if event is not None:
            events = (*events, event)
        return self._verdict(
            measurement, level, events, z, "; ".join(filter(None, (note, outlook)))
        )

    def _with_evidence(
        self, event: Event, branch: Branch, window: Rows, measurement: Measurement
    ) -> Event:
        assert self.row is not None
        evidence = alarm_evidence(self.machine, branch, window, measurement, self.row, self._engine)
        text = f"{event.text} {_describe(self.machine, evidence)}".strip()
        forecast = dict(self._s["prognosis"]["forecast"])
        return Event(
            kind=event.kind,
            episode=event.episode,
            text=text,
            evidence={**event.evidence, **evidence, "forecast": forecast},
        )

    def _update_prognosis(self, branch: Branch, z: float, time: float, *, now: bool) -> str:
        """Update the trend of an active alarm; return the forecast's text if it is news."""
        alarmed = self._alarm.level != "normal"
        danger = self._danger_level(branch) if alarmed else None
        state = prognosis.update(self._s["prognosis"], time, z, alarmed, danger, now=now)
        report = now or prognosis.is_news(state)
        self._s["prognosis"] = {**state, "reported": state["forecast"]} if report else state
        return str(state["forecast"]["text"]) if report else ""

    def _danger_level(self, branch: Branch) -> float | None:
        """Novelty above which the alarm logic counts towards danger, None if out of reach."""
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


def _describe(machine: Machine, evidence: Mapping[str, Any]) -> str:
    """Say which feature contributes most, and which bearing fault the envelope spectrum shows."""
    sentences = []
    for name, compared in list(evidence["values"].items())[:1]:
        if compared["now"] is not None and compared["usually"] is not None:
            values = f"{compared['now']:.3g}, usually {compared['usually']:.3g}"
            sentences.append(f"Largest contribution: {describe_feature(machine, name)}, {values}.")
    diagnosis = evidence["diagnosis"]
    if diagnosis["fault"]:
        sentences.append(f"Diagnosis: {diagnosis['reason']}. Inspect the bearing.")
    return " ".join(sentences)
