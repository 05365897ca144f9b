"""Histories of simulated machines: run-in, daily cycle, changing speed, a growing fault.

A fault of the kind ``sequence`` shows in no single snapshot: each is one of a healthy step. Only
the order of the steps is lost, more and more often as the fault grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.simulation.rig import (
    STEP_G,
    Condition,
    Fault,
    Rig,
    Sensor,
    measure,
    simulate_vibration,
)

DAY = 86400.0
START = 1767225600.0
"""2026-01-01 00:00 UTC."""
LOST_SEVERITY = 3.0
"""Severity of a sequence fault from which on every step is random."""


@dataclass(frozen=True, kw_only=True)
class SensorEpisode:
    """A sensor fault of one channel over some days."""

    channel: int
    from_day: float
    until_day: float
    sensor: Sensor


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The life of one machine.

    Attributes:
        name: Name of the machine.
        rig: Its construction.
        days: Length of the history; it ends earlier if the machine fails.
        interval_hours: Time between snapshots.
        fault: Kind of the fault; a ``sequence`` needs a rig with steps.
        onset_day: Day of its onset; None: no fault.
        growth_days: From onset to failure.
        run_in_days: Time constant of the run-in.
        run_in: Extra noise at the very start, relative.
        swing: Relative daily amplitude of the noise, with the temperature.
        relative_speeds: Speeds it runs at, relative to nominal; each lasts some hours.
        loads: Loads it runs at.
        idle_share: Share of the snapshots at standstill.
        gaps: (day, length in days) without snapshots; each is followed by a restart.
        episodes: Sensor faults.
        drift: Relative growth of the noise over the whole time, without a fault.

    Raises:
        UserError: a sequence fault of a rig without steps.
    """

    name: str
    rig: Rig = field(default_factory=Rig)
    days: float = 40.0
    interval_hours: float = 2.0
    fault: Fault = "outer race"
    onset_day: float | None = 28.0
    growth_days: float = 10.0
    run_in_days: float = 1.5
    run_in: float = 0.5
    swing: float = 0.04
    relative_speeds: Sequence[float] = (1.0,)
    loads: Sequence[float] = (1.0,)
    idle_share: float = 0.0
    gaps: Sequence[tuple[float, float]] = ()
    episodes: Sequence[SensorEpisode] = ()
    drift: float = 0.0

    def __post_init__(self) -> None:
        if self.fault == "sequence" and len(self.rig.steps_hz) < 2:
            raise UserError(f"{self.name} has no steps whose order could be lost", "give steps_hz")

    @property
    def end_day(self) -> float:
        """Last day of the history: the failure, or `days`."""
        if self.onset_day is None:
            return self.days
        return min(self.days, self.onset_day + self.growth_days)


@dataclass(frozen=True, kw_only=True)
class History:
    """The simulated history of a scenario.

    Attributes:
        scenario: Its scenario.
        times: Seconds since 1970, shape (snapshot,).
        counts: Samples in steps of the sensor, int16, shape (snapshot, channel, sample).
        speed_hz: Turns per second, shape (snapshot,).
        load: Shape (snapshot,).
        temperature: Degrees Celsius, shape (snapshot,).
        severity: True severity of the fault, shape (snapshot,).
        steps: Step of the batch, shape (snapshot,); 0 for a machine without steps.
    """

    scenario: Scenario
    times: NDArray[np.float64]
    counts: NDArray[np.int16]
    speed_hz: NDArray[np.float64]
    load: NDArray[np.float64]
    temperature: NDArray[np.float64]
    severity: NDArray[np.float64]
    steps: NDArray[np.int64]

    @property
    def fault_from(self) -> float | None:
        """Second at which the fault begins."""
        day = self.scenario.onset_day
        return None if day is None else START + day * DAY

    @property
    def failed_at(self) -> float | None:
        """Second of the failure, None if the watch ends before it."""
        scenario = self.scenario
        if scenario.onset_day is None or scenario.onset_day + scenario.growth_days > scenario.days:
            return None
        return START + scenario.end_day * DAY


def simulate_history(scenario: Scenario, rng: np.random.Generator) -> History:
    """Simulate the history of a scenario; all randomness comes from `rng`."""
    days = _calendar(scenario)
    speeds, loads = _operation(scenario, len(days), rng)
    steps = _steps(scenario, days, rng)
    counts = []
    for i, day in enumerate(days):
        condition = _condition(scenario, day, speeds[i], loads[i], int(steps[i]))
        wave = simulate_vibration(scenario.rig, condition, rng)
        measured = [
            measure(samples, _sensor(scenario, channel, day), rng)
            for channel, samples in enumerate(wave)
        ]
        counts.append(np.round(np.stack(measured) / STEP_G).astype(np.int16))
    swing = np.cos(2 * np.pi * (days - 0.6))
    return History(
        scenario=scenario,
        times=START + days * DAY,
        counts=np.stack(counts),
        speed_hz=scenario.rig.speed_hz * speeds,
        load=loads,
        temperature=45 + 6 * swing + 4 * loads * (speeds > 0) + rng.normal(0, 0.5, len(days)),
        severity=np.array([severity_on(scenario, day) for day in days]),
        steps=steps,
    )


def severity_on(scenario: Scenario, day: float) -> float:
    """Return the severity of the fault: 0 before the onset, then exponential from 0.3 to 10."""
    if scenario.onset_day is None or day < scenario.onset_day:
        return 0.0
    share = (day - scenario.onset_day) / scenario.growth_days
    return float(0.3 * (10 / 0.3) ** min(share, 1.0))


def _calendar(scenario: Scenario) -> NDArray[np.float64]:
    days = np.arange(0.0, scenario.end_day, scenario.interval_hours / 24)
    for start, length in scenario.gaps:
        days = days[(days < start) | (days >= start + length)]
    return days


def _operation(
    scenario: Scenario, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Relative speed and load of every snapshot: blocks of about a shift, standstill in between."""
    block = max(1, round(8 / scenario.interval_hours))
    blocks = count // block + 1
    speeds = np.repeat(rng.choice(scenario.relative_speeds, blocks), block)[:count]
    loads = np.repeat(rng.choice(scenario.loads, blocks), block)[:count]
    speeds = speeds * (1 + 0.002 * rng.standard_normal(count))
    speeds[rng.random(count) < scenario.idle_share] = 0.0
    return speeds, loads.astype(np.float64)


def _steps(
    scenario: Scenario, days: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Steps of the batches, one snapshot each; a faulty controller jumps to a random step."""
    count = len(scenario.rig.steps_hz)
    steps = np.zeros(len(days), dtype=np.int64)
    if not count:
        return steps  # draws nothing: histories without steps do not depend on this
    for i in range(1, len(days)):
        severity = severity_on(scenario, days[i]) if scenario.fault == "sequence" else 0.0
        jumps = rng.random() < severity / LOST_SEVERITY
        steps[i] = rng.integers(count) if jumps else (steps[i - 1] + 1) % count
    return steps


def _condition(
    scenario: Scenario, day: float, relative_speed: float, load: float, step: int
) -> Condition:
    since = day - max([0.0, *(start + length for start, length in scenario.gaps if start < day)])
    fresh = scenario.run_in * np.exp(-day / scenario.run_in_days)
    # Grease and temperature take a few hours to settle after every start.
    restarted = 0.15 * np.exp(-since / 0.15) if since < day else 0.0
    swing = scenario.swing * np.cos(2 * np.pi * (day - 0.6))
    drift = scenario.drift * day / scenario.days
    return Condition(
        speed_hz=scenario.rig.speed_hz * relative_speed,
        load=load,
        fault=scenario.fault,
        severity=severity_on(scenario, day),
        roughness=float((1 + fresh + restarted + drift) * (1 + swing)),
        step=step,
    )


def _sensor(scenario: Scenario, channel: int, day: float) -> Sensor:
    for episode in scenario.episodes:
        if episode.channel == channel and episode.from_day <= day < episode.until_day:
            return episode.sensor
    return Sensor()
