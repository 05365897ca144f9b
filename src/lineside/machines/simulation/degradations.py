"""Graded degradations of a snapshot: speed, load, sensor drift, noise, missing sensor, gaps.

Each is a pure function of (measurement, grade, place, rng) and each grade is a documented amount,
so that "robust up to grade 2" can be checked against a machine. Places run from 0 at the first to 1
at the last snapshot of a series, for what comes slowly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample

from lineside.core.contract import Refusal
from lineside.core.run.folder import rng_of
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session

GRADES = (1, 2, 3, 4)
FASTER = (0.02, 0.05, 0.1, 0.2)
"""Share by which the machine turns faster."""
LOUDER = (1.1, 1.25, 1.6, 2.5)
"""Factor on every amplitude."""
GAIN_LOST = (0.05, 0.15, 0.3, 0.6)
"""Share of its gain that one sensor has lost at the end of the series, evenly over it."""
NOISE_SHARE = (0.1, 0.25, 0.5, 1.0)
"""Spread of white noise over the spread of the signal; of slow values: relative to the value."""
MISSING_SHARE = (0.1, 0.25, 0.5, 1.0)
"""Share of the snapshots that one sensor is missing from."""
GAP_SHARE = (0.0005, 0.005, 0.05, 0.4)
"""Share of the samples that are missing, in five pieces; of slow values: of the numbers."""
LOST_SHARE = (0.1, 0.25, 0.5, 0.75)
"""Share of the snapshots that never arrive."""
PIECES = 5

Apply = Callable[[Measurement, int, float, np.random.Generator], Measurement | None]


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One way in which snapshots get worse.

    Attributes:
        name: Short name.
        apply: (measurement, grade 1..4, place 0..1, rng) -> the snapshot as it arrives, None if it
            does not arrive.
        help: What it imitates and the amount of every grade.
        waves_only: It means nothing for machines that have slow values only.
    """

    name: str
    apply: Apply
    help: str
    waves_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a detector made of a series of snapshots.

    Attributes:
        healthy: Healthy snapshots that were judged.
        fooled: Those of them beyond the limit.
        episodes: Alarm episodes that began before the fault.
        faults: Whether there is a fault in the series (1) or not (0).
        found: 1 if an alarm began after the fault had; one that ran before is luck.
        told: Snapshots that were answered "sensor fault" or "unknown state", or judged with the
            remark that the speed or load was never learned.
        snapshots: How many arrived and were not refused.
    """

    healthy: int = 0
    fooled: int = 0
    episodes: int = 0
    faults: int = 0
    found: int = 0
    told: int = 0
    snapshots: int = 0

    def __add__(self, other: Answer) -> Answer:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Answer(**{key: value + theirs[key] for key, value in mine.items()})


def turn_faster(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Play every waveform faster, and state the speed that this makes."""
    factor = 1 + FASTER[grade - 1]
    hz = measurement.speed_hz
    return _waves(
        dataclasses.replace(measurement, speed_hz=None if hz is None else hz * factor),
        lambda samples: _faster(samples, factor),
    )


def turn_faster_untold(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Play every waveform faster while the stated speed stays as it was."""
    return _waves(measurement, lambda samples: _faster(samples, 1 + FASTER[grade - 1]))


def load_more(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Scale every amplitude (slow values, where there are only those); no load is stated."""
    factor = LOUDER[grade - 1]
    if measurement.channels:
        return _waves(measurement, lambda samples: samples * np.float32(factor))
    values = {name: value * factor for name, value in measurement.values.items()}
    return dataclasses.replace(measurement, values=values)


def lose_gain(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Let the first sensor lose its gain little by little over the series."""
    factor = np.float32(1 - GAIN_LOST[grade - 1] * place)
    if measurement.channels:
        return _waves(measurement, lambda samples: samples * factor, only=_first(measurement))
    name = _first(measurement)
    values = {**measurement.values, name: measurement.values[name] * float(factor)}
    return dataclasses.replace(measurement, values=values)


def add_noise(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Add white noise to every channel, or to every slow value where there are only those."""
    share = NOISE_SHARE[grade - 1]

    def noisy(samples: np.ndarray) -> np.ndarray:
        spread = share * float(np.nanstd(samples))
        return samples + rng.normal(0.0, spread, len(samples)).astype(np.float32)

    if measurement.channels:
        return _waves(measurement, noisy)
    values = {k: v * (1 + share * rng.standard_normal()) for k, v in measurement.values.items()}
    return dataclasses.replace(measurement, values=values)


def miss_sensor(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Leave the first sensor out of some snapshots."""
    if rng.random() >= MISSING_SHARE[grade - 1]:
        return measurement
    name = _first(measurement)
    channels = {key: c for key, c in measurement.channels.items() if key != name}
    values = {
        key: v for key, v in measurement.values.items() if measurement.channels or key != name
    }
    return dataclasses.replace(measurement, channels=channels, values=values)


def tear(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement:
    """Take pieces out of every channel, or single slow values where there are only those."""
    share = GAP_SHARE[grade - 1]

    def torn(samples: np.ndarray) -> np.ndarray:
        holes = samples.copy()
        length = max(1, round(share * len(samples) / PIECES))
        for start in rng.integers(0, max(1, len(samples) - length), PIECES):
            holes[start : start + length] = np.nan
        return holes

    if measurement.channels:
        return _waves(measurement, torn)
    values = {k: np.nan if rng.random() < share else v for k, v in measurement.values.items()}
    return dataclasses.replace(measurement, values=values)


def lose_snapshot(
    measurement: Measurement, grade: int, place: float, rng: np.random.Generator
) -> Measurement | None:
    """Let some snapshots never arrive."""
    return None if rng.random() < LOST_SHARE[grade - 1] else measurement


def _amounts(values: Sequence[float], unit: str) -> str:
    return f"grades 1-4: {', '.join(f'{value:g}' for value in values)} {unit}"


def _percent(values: Sequence[float], of: str) -> str:
    return _amounts([100 * value for value in values], f"% {of}")


SUITE: tuple[Degradation, ...] = (
    Degradation(
        name="speed (stated)", apply=turn_faster, waves_only=True,
        help=f"the waveform played faster, its speed stated; {_percent(FASTER, 'faster')}",
    ),
    Degradation(
        name="speed (not stated)", apply=turn_faster_untold, waves_only=True,
        help="the same while the stated speed stays as it was",
    ),
    Degradation(
        name="load", apply=load_more,
        help=f"every amplitude larger, no load stated; {_amounts(LOUDER, 'times')}",
    ),
    Degradation(
        name="gain drift", apply=lose_gain,
        help=f"one sensor loses gain evenly; {_percent(GAIN_LOST, 'at the end')}",
    ),
    Degradation(
        name="noise", apply=add_noise,
        help=f"white noise in every channel; {_percent(NOISE_SHARE, 'of the signal')}",
    ),
    Degradation(
        name="missing sensor", apply=miss_sensor,
        help=f"one sensor is left out; {_percent(MISSING_SHARE, 'of the snapshots')}",
    ),
    Degradation(
        name="torn samples", apply=tear,
        help=f"pieces are missing; {_percent(GAP_SHARE, 'of the samples')}",
    ),
    Degradation(
        name="lost snapshots", apply=lose_snapshot,
        help=f"some never arrive; {_percent(LOST_SHARE, 'of the snapshots')}",
    ),
)  # fmt: skip


def degrade(
    series: Sequence[Measurement], degradation: Degradation, grade: int, seed: int
) -> list[Measurement]:
    """Return what arrives of a series; the random stream depends on nothing but the arguments."""
    last = max(1, len(series) - 1)
    machine = series[0].machine if series else ""
    rng = rng_of(seed, f"{machine} {degradation.name} {grade}")
    arrived = [degradation.apply(m, grade, i / last, rng) for i, m in enumerate(series)]
    return [m for m in arrived if m is not None]


def answer(machine: Machine, series: Sequence[Measurement], fault_from: float | None) -> Answer:
    """Judge a series that starts healthy, snapshot by snapshot, as a stream would.

    Args:
        machine: Learned and calibrated.
        series: In order of time.
        fault_from: Second at which the fault begins, None for a series without one.
    """
    session = Session(machine)
    total = Answer(faults=int(fault_from is not None))
    for measurement in series:
        verdict = session.push(measurement)
        if isinstance(verdict, Refusal):
            continue
        healthy = fault_from is None or measurement.time < fault_from
        total += _counted(verdict, healthy)
    return dataclasses.replace(total, found=min(total.found, 1))


def _counted(verdict: Verdict, healthy: bool) -> Answer:
    judged = verdict.novelty is not None
    beyond = judged and (verdict.novelty or 0.0) >= (verdict.limit or np.inf)
    began = any(event.evidence.get("first") for event in verdict.events)
    told = verdict.state in ("sensor fault", "unknown state") or "never learned" in verdict.note
    return Answer(
        healthy=int(healthy and judged),
        fooled=int(healthy and beyond),
        episodes=int(healthy and began),
        found=int(not healthy and began),
        told=int(told),
        snapshots=1,
    )


def _first(measurement: Measurement) -> str:
    return next(iter(measurement.channels or measurement.values))


def _waves(
    measurement: Measurement, change: Callable[[np.ndarray], np.ndarray], only: str | None = None
) -> Measurement:
    channels: Mapping[str, Channel] = {
        name: dataclasses.replace(channel, samples=change(channel.samples).astype(np.float32))
        if only in (None, name)
        else channel
        for name, channel in measurement.channels.items()
    }
    return dataclasses.replace(measurement, channels=channels)


def _faster(samples: np.ndarray, factor: float) -> np.ndarray:
    """A waveform played faster, as long as before: its end is played in mirror image."""
    usable = np.nan_to_num(samples)
    quick = resample(usable, max(2, round(len(samples) / factor)))
    missing = len(samples) - len(quick)
    return np.concatenate([quick, quick[::-1][:missing]])
