"""Sensor faults, told apart from faults of the machine before anything is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Channel, Measurement

Kind = Literal[
    "missing",
    "unknown",
    "gaps",
    "rate",
    "length",
    "unit",
    "dead",
    "stuck",
    "clipped",
    "offset",
    "loud",
]
DEAD_SHARE = 0.03
"""Below this share of the healthy level, and well below all healthy snapshots, nothing is felt."""
DEAD_VALUE_SHARE = 0.06
"""The same for slow values: their levels hold the offset and the last digit as well."""
LOUD_FACTOR = 100.0
"""Bearings run to failure rise by about ten, hardly by a hundred."""
GAP_SHARE = 0.001
RATE_TOLERANCE = 1e-3
LENGTH_TOLERANCE = 0.01
FROZEN_SHARE = 0.1
"""A run of equal samples this long means that the sensor stood still."""
SMALL_SPREAD = 1e-3
"""Below this share of the mean square, the spread is not its difference from the mean's."""
IMPOSSIBLE = 1e15
"""No vibration in any unit: bytes were read in the wrong order, or the file is damaged."""
CLIPPED_SAMPLES = 10
CLIPPED_STEPS = 50
OFFSET_SPREADS = 8.0


@dataclass(frozen=True, kw_only=True)
class SensorFault:
    """One fault of one sensor in one snapshot.

    Attributes:
        sensor: Channel, ``value.NAME``, or ``all values``.
        kind: What is wrong.
        message: One sentence with the numbers.
    """

    sensor: str
    kind: Kind
    message: str


@dataclass(frozen=True, kw_only=True)
class Norm:
    """What is normal for one channel or value.

    Attributes:
        level: Median spread (root mean square about the mean) of a channel, median of a value.
        lowest: Lowest of them.
        offset: Median of a channel's mean.
        offset_spread: Median absolute deviation of the means.
        rate_hz: Samples per second, 0 for values.
        samples: Number of samples, 0 for values.
        unit: The unit, empty for values.
    """

    level: float
    lowest: float
    offset: float = 0.0
    offset_spread: float = 0.0
    rate_hz: float = 0.0
    samples: int = 0
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Norms:
    """What is normal for the sensors of one machine; plain JSON through `spec`."""

    channels: Mapping[str, Norm]
    values: Mapping[str, Norm]


def learn_norms(healthy: Sequence[Measurement]) -> Norms:
    """Return what is normal, from healthy snapshots; the running ones should be in the majority."""
    channels = dict.fromkeys(name for m in healthy for name in m.channels)
    values = dict.fromkeys(name for m in healthy for name in m.values)
    return Norms(
        channels={
            name: _channel_norm([m.channels[name] for m in healthy if name in m.channels])
            for name in channels
        },
        values={
            name: _value_norm([m.values[name] for m in healthy if name in m.values])
            for name in values
        },
    )


def find_sensor_faults(measurement: Measurement, norms: Norms | None = None) -> list[SensorFault]:
    """Return the faults of all sensors in one snapshot, none if all are sound.

    A machine that is said to stand still (speed 0) has no dead sensors.

    Args:
        measurement: The snapshot.
        norms: Without them only what shows by itself is found: gaps, frozen, clipped.
    """
    found: list[SensorFault] = []
    idle = measurement.speed_hz == 0
    strange = [name for name in measurement.channels if norms and name not in norms.channels]
    for name, channel in measurement.channels.items():
        norm = norms.channels.get(name) if norms else None
        if name in strange:
            found.append(_fault(name, "unknown", "was never learned and is not used"))
        else:
            found += _channel_faults(name, channel, norm, idle)
    told = f", which has {', '.join(strange)}" if strange else ""
    for name in norms.channels if norms else ():
        if name not in measurement.channels:
            found.append(_fault(name, "missing", f"is not in this snapshot{told}"))
    return found + _value_faults(measurement, norms, idle)


def _channel_norm(channels: Sequence[Channel]) -> Norm:
    levels = np.array([np.nanstd(c.samples.astype(np.float64)) for c in channels if _any(c)])
    means = np.array([np.nanmean(c.samples, dtype=np.float64) for c in channels if _any(c)])
    if not len(levels):
        return Norm(level=0.0, lowest=0.0)
    offset = float(np.median(means))
    return Norm(
        level=float(np.median(levels)),
        lowest=float(levels.min()),
        offset=offset,
        offset_spread=float(np.median(np.abs(means - offset))),
        rate_hz=float(np.median([c.rate_hz for c in channels])),
        samples=int(np.median([len(c.samples) for c in channels])),
        unit=channels[-1].unit,
    )


def _value_norm(values: Sequence[float]) -> Norm:
    finite = np.array([value for value in values if np.isfinite(value)])
    if not len(finite):
        return Norm(level=0.0, lowest=0.0)
    return Norm(level=float(np.median(finite)), lowest=float(finite.min()))


def _any(channel: Channel) -> bool:
    return bool(np.isfinite(channel.samples).any())


def _fault(sensor: str, kind: Kind, says: str) -> SensorFault:
    return SensorFault(
        sensor=sensor, kind=kind, message=f"sensor {sensor.removeprefix('value.')} {says}"
    )


def _channel_faults(
    name: str, channel: Channel, norm: Norm | None, idle: bool
) -> list[SensorFault]:
    samples = np.asarray(channel.samples, dtype=np.float32)
    if not len(samples):
        return [_fault(name, "length", "gave no samples")]
    found = _setting_faults(name, channel, norm) if norm else []
    total = float(samples.dot(_ones(len(samples))))  # a dot product is the fastest sum
    if not math.isfinite(total):
        finite = samples[np.isfinite(samples)]
        missing = len(samples) - len(finite)
        if not len(finite):
            return [*found, _fault(name, "gaps", "gave no finite sample")]
        if missing > GAP_SHARE * len(samples):
            found.append(_fault(name, "gaps", f"lacks {missing} of {len(samples)} samples"))
        samples, total = finite, float(finite.sum(dtype=np.float64))
    mean = total / len(samples)
    rms = _rms(samples, mean)
    if not rms < IMPOSSIBLE:
        return [*found, _fault(name, "gaps", f"gave numbers of the order {rms:.0e}")]
    low, high = float(np.minimum.reduce(samples)), float(np.maximum.reduce(samples))
    if low == high:
        return [*found, _fault(name, "stuck", f"gave {mean:.4g} {channel.unit} throughout")]
    frozen = _longest_run(samples)
    dead = norm is not None and rms < min(DEAD_SHARE * norm.level, norm.lowest / 2)
    if dead and norm and not idle:
        share = f"{rms:.2g} {channel.unit} rms, {rms / norm.level:.1%} of its healthy level"
        return [*found, _fault(name, "dead", f"feels nothing: {share}")]
    if frozen > FROZEN_SHARE * len(samples) and rms > 0 and not dead:
        found.append(_fault(name, "stuck", f"stood still for {frozen} of {len(samples)} samples"))
    elif _is_clipped(samples, low, high):
        found.append(
            _fault(name, "clipped", f"is cut off at {low:.4g} or {high:.4g} {channel.unit}")
        )
    return found + (_level_faults(name, channel.unit, mean, rms, norm) if norm else [])


def _setting_faults(name: str, channel: Channel, norm: Norm) -> list[SensorFault]:
    found = []
    if norm.rate_hz and abs(channel.rate_hz / norm.rate_hz - 1) > RATE_TOLERANCE:
        says = f"was sampled at {channel.rate_hz:g} Hz instead of {norm.rate_hz:g} Hz"
        found.append(_fault(name, "rate", says))
    if norm.samples and abs(len(channel.samples) / norm.samples - 1) > LENGTH_TOLERANCE:
        says = f"gave {len(channel.samples)} samples instead of {norm.samples}"
        found.append(_fault(name, "length", says))
    if norm.unit and channel.unit != norm.unit:
        found.append(_fault(name, "unit", f"gave {channel.unit} instead of {norm.unit}"))
    return found


def _level_faults(name: str, unit: str, mean: float, rms: float, norm: Norm) -> list[SensorFault]:
    found = []
    allowed = max(OFFSET_SPREADS * norm.offset_spread, norm.level)
    if abs(mean - norm.offset) > max(allowed, 0.5 * rms) > 0:
        says = f"is off by {mean - norm.offset:+.3g} {unit} from its healthy mean"
        found.append(_fault(name, "offset", says))
    if rms > LOUD_FACTOR * norm.level > 0:
        says = f"is {rms / norm.level:.0f} times as loud as when healthy: loose, or another gain"
        found.append(_fault(name, "loud", says))
    return found


@lru_cache(maxsize=8)
def _ones(count: int) -> NDArray[np.float32]:
    return np.ones(count, dtype=np.float32)


def _rms(samples: NDArray[np.float32], mean: float) -> float:
    """Return the root mean square about the mean."""
    with np.errstate(over="ignore"):
        square = float(samples.dot(samples)) / len(samples)
    spread = square - mean * mean
    if spread > SMALL_SPREAD * square and math.isfinite(square):
        return math.sqrt(spread)
    return float(samples.astype(np.float64).std())  # the difference would have lost its digits


def _longest_run(samples: NDArray[np.float32]) -> int:
    """Return the length of the longest run of equal samples, 1 where none is long."""
    # A long run shows in two neighbours of a coarse comb.
    step = max(1, int(FROZEN_SHARE * len(samples)) // 2)
    comb = samples[::step].tolist()
    if all(one != other for one, other in pairwise(comb)):
        return 1
    changes = np.flatnonzero(samples[1:] != samples[:-1])
    edges = np.concatenate([[-1], changes, [len(samples) - 1]])
    return int(np.diff(edges).max())


def _is_clipped(samples: NDArray[np.float32], low: float, high: float) -> bool:
    """Whether far more samples lie at an extreme than just inside of it.

    A sensor of few steps has many samples at its extremes too, and is not clipped.
    """
    margin = np.float32(0.002 * (high - low))
    for beyond in (lambda m: samples >= high - m, lambda m: samples <= low + m):
        at = np.count_nonzero(beyond(margin))
        if at < CLIPPED_SAMPLES:
            continue
        inside = np.count_nonzero(beyond(10 * margin)) - at
        if at > inside and len(np.unique(samples)) > CLIPPED_STEPS:
            return True
    return False


def _value_faults(measurement: Measurement, norms: Norms | None, idle: bool) -> list[SensorFault]:
    """Faults of slow values: missing ones, and a row whose levels have all gone."""
    found = [
        _fault(f"value.{name}", "gaps", "gave no number")
        for name, value in measurement.values.items()
        if not np.isfinite(value)
    ]
    if norms is None:
        return found
    found += [
        _fault(f"value.{name}", "missing", "is not in this snapshot")
        for name in norms.values
        if name not in measurement.values
    ]
    # Levels (rms, maximum, spread) are always positive; if most of them go, so did the signal.
    levels = [name for name, norm in norms.values.items() if norm.lowest > 0 and norm.level > 0]
    present = [name for name in levels if np.isfinite(measurement.values.get(name, np.nan))]
    gone = [name for name in present if _is_gone(measurement.values[name], norms.values[name])]
    if not idle and len(gone) >= 2 and 2 * len(gone) >= len(present):
        says = f"nothing is felt: {', '.join(gone)} fell below {DEAD_VALUE_SHARE:.0%} of healthy"
        found.append(SensorFault(sensor="all values", kind="dead", message=says))
    return found


def _is_gone(value: float, norm: Norm) -> bool:
    return abs(value) < min(DEAD_VALUE_SHARE * norm.level, norm.lowest / 2)
