"""Sensor faults in one snapshot: found before scoring, so that they raise no machine alarm."""

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
    "missing", "unknown", "gaps", "rate", "length", "unit", "dead", "stuck", "clipped", "offset",
    "loud",
]  # fmt: skip
DEAD_SHARE = 0.03
"""Below this share of the healthy rms, and well below all healthy snapshots, a sensor is dead."""
DEAD_VALUE_SHARE = 0.06
"""The same for slow values, whose levels hold the offset and the last digit too."""
LOUD_FACTOR = 100.0
"""Run-to-failure bearings get about ten times louder, hardly a hundred times."""
GAP_SHARE = 0.001
RATE_TOLERANCE = 1e-3
LENGTH_TOLERANCE = 0.01
STUCK_SHARE = 0.1
"""A run of equal samples longer than this share of the snapshot is a stuck sensor."""
SMALL_SPREAD = 1e-3
"""Below this share of the mean square, mean(x^2) - mean(x)^2 has lost its digits."""
IMPOSSIBLE = 1e15
"""No vibration in any unit: wrong byte order, or a damaged file."""
CLIPPED_SAMPLES = 10
CLIPPED_STEPS = 50
OFFSET_SPREADS = 8.0


@dataclass(frozen=True, kw_only=True)
class SensorFault:
    """One fault of one sensor in one snapshot.

    Attributes:
        sensor: Channel, ``value.NAME``, or ``all values``.
        kind: Of the fault.
        message: One sentence with the numbers.
    """

    sensor: str
    kind: Kind
    message: str


@dataclass(frozen=True, kw_only=True)
class Norm:
    """Usual level and format of one channel or value.

    Attributes:
        level: Median standard deviation of a channel, median of a value.
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
    """Norms of the sensors of one machine, by name."""

    channels: Mapping[str, Norm]
    values: Mapping[str, Norm]


def learn_norms(healthy: Sequence[Measurement]) -> Norms:
    """Return the norms of healthy snapshots; most of them should be of the running machine."""
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


def find_sensor_faults(measurement: Measurement, norms: Norms) -> list[SensorFault]:
    """Return the faults of all sensors in one snapshot.

    A machine at standstill (stated speed 0) has no dead sensors.

    Args:
        measurement: The snapshot.
        norms: Of the machine's healthy sensors.
    """
    faults: list[SensorFault] = []
    idle = measurement.speed_hz == 0
    unknown = [name for name in measurement.channels if name not in norms.channels]
    for name, channel in measurement.channels.items():
        if name in unknown:
            faults.append(_fault(name, "unknown", "was never learned and is not used"))
        else:
            faults += _channel_faults(name, channel, norms.channels[name], idle)
    others = f", which has {', '.join(unknown)}" if unknown else ""
    for name in norms.channels:
        if name not in measurement.channels:
            faults.append(_fault(name, "missing", f"is not in this snapshot{others}"))
    return faults + _value_faults(measurement, norms, idle)


def _channel_norm(channels: Sequence[Channel]) -> Norm:
    levels = np.array(
        [np.nanstd(c.samples.astype(np.float64)) for c in channels if _has_samples(c)]
    )
    means = np.array([np.nanmean(c.samples, dtype=np.float64) for c in channels if _has_samples(c)])
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


def _has_samples(channel: Channel) -> bool:
    return bool(np.isfinite(channel.samples).any())


def _fault(sensor: str, kind: Kind, finding: str) -> SensorFault:
    return SensorFault(
        sensor=sensor, kind=kind, message=f"sensor {sensor.removeprefix('value.')} {finding}"
    )


def _channel_faults(name: str, channel: Channel, norm: Norm, idle: bool) -> list[SensorFault]:
    samples = np.asarray(channel.samples, dtype=np.float32)
    if not len(samples):
        return [_fault(name, "length", "has no samples")]
    faults = _format_faults(name, channel, norm)
    total = float(samples.dot(_ones(len(samples))))  # a dot product is the fastest sum
    if not math.isfinite(total):
        finite = samples[np.isfinite(samples)]
        missing = len(samples) - len(finite)
        if not len(finite):
            return [*faults, _fault(name, "gaps", "has no finite sample")]
        if missing > GAP_SHARE * len(samples):
            faults.append(_fault(name, "gaps", f"lacks {missing} of {len(samples)} samples"))
        samples, total = finite, float(finite.sum(dtype=np.float64))
    mean = total / len(samples)
    rms = _rms(samples, mean)
    if not rms < IMPOSSIBLE:
        return [*faults, _fault(name, "gaps", f"has values of the order {rms:.0e}")]
    low, high = float(np.minimum.reduce(samples)), float(np.maximum.reduce(samples))
    if low == high:
        return [*faults, _fault(name, "stuck", f"reads {mean:.4g} {channel.unit} throughout")]
    run = _longest_run(samples)
    dead = rms < min(DEAD_SHARE * norm.level, norm.lowest / 2)
    if dead and not idle:
        share = f"{rms:.2g} {channel.unit} rms, {rms / norm.level:.1%} of its healthy level"
        return [*faults, _fault(name, "dead", f"is dead: {share}")]
    if run > STUCK_SHARE * len(samples) and rms > 0 and not dead:
        faults.append(_fault(name, "stuck", f"is stuck for {run} of {len(samples)} samples"))
    elif _is_clipped(samples, low, high):
        faults.append(
            _fault(name, "clipped", f"is clipped at {low:.4g} or {high:.4g} {channel.unit}")
        )
    return faults + _level_faults(name, channel.unit, mean, rms, norm)


def _format_faults(name: str, channel: Channel, norm: Norm) -> list[SensorFault]:
    faults = []
    if norm.rate_hz and abs(channel.rate_hz / norm.rate_hz - 1) > RATE_TOLERANCE:
        finding = f"was sampled at {channel.rate_hz:g} Hz instead of {norm.rate_hz:g} Hz"
        faults.append(_fault(name, "rate", finding))
    if norm.samples and abs(len(channel.samples) / norm.samples - 1) > LENGTH_TOLERANCE:
        finding = f"has {len(channel.samples)} samples instead of {norm.samples}"
        faults.append(_fault(name, "length", finding))
    if norm.unit and channel.unit != norm.unit:
        faults.append(_fault(name, "unit", f"is in {channel.unit} instead of {norm.unit}"))
    return faults


def _level_faults(name: str, unit: str, mean: float, rms: float, norm: Norm) -> list[SensorFault]:
    faults = []
    allowed = max(OFFSET_SPREADS * norm.offset_spread, norm.level)
    if abs(mean - norm.offset) > max(allowed, 0.5 * rms) > 0:
        finding = f"is off by {mean - norm.offset:+.3g} {unit} from its healthy mean"
        faults.append(_fault(name, "offset", finding))
    if rms > LOUD_FACTOR * norm.level > 0:
        finding = f"is {rms / norm.level:.0f} times as loud as when healthy: loose, or another gain"
        faults.append(_fault(name, "loud", finding))
    return faults


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
    # A long run contains two neighbours of a coarse grid of samples.
    step = max(1, int(STUCK_SHARE * len(samples)) // 2)
    grid = samples[::step].tolist()
    if all(one != other for one, other in pairwise(grid)):
        return 1
    changes = np.flatnonzero(samples[1:] != samples[:-1])
    edges = np.concatenate([[-1], changes, [len(samples) - 1]])
    return int(np.diff(edges).max())


def _is_clipped(samples: NDArray[np.float32], low: float, high: float) -> bool:
    """Return whether far more samples lie at an extreme than just inside of it.

    A sensor of low resolution has many samples at its extremes too, and is not clipped.
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


def _value_faults(measurement: Measurement, norms: Norms, idle: bool) -> list[SensorFault]:
    """Return missing slow values, and the loss of most levels at once."""
    faults = [
        _fault(f"value.{name}", "gaps", "has no value")
        for name, value in measurement.values.items()
        if not np.isfinite(value)
    ]
    faults += [
        _fault(f"value.{name}", "missing", "is not in this snapshot")
        for name in norms.values
        if name not in measurement.values
    ]
    # Levels (rms, maximum, spread) are always positive; if most of them vanish, so did the signal.
    levels = [name for name, norm in norms.values.items() if norm.lowest > 0 and norm.level > 0]
    present = [name for name in levels if np.isfinite(measurement.values.get(name, np.nan))]
    dead = [name for name in present if _is_dead(measurement.values[name], norms.values[name])]
    if not idle and len(dead) >= 2 and 2 * len(dead) >= len(present):
        message = f"no signal: {', '.join(dead)} fell below {DEAD_VALUE_SHARE:.0%} of healthy"
        faults.append(SensorFault(sensor="all values", kind="dead", message=message))
    return faults


def _is_dead(value: float, norm: Norm) -> bool:
    return abs(value) < min(DEAD_VALUE_SHARE * norm.level, norm.lowest / 2)
