"""Which sensor faults make a snapshot unusable, and which are only reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.quality import Norms, SensorFault, find_sensor_faults

ABOVE = 1.5
"""A channel this far above its healthy level clips because the machine is loud."""


def drop_dead_channels(healthy: Sequence[Measurement]) -> tuple[list[Measurement], list[str]]:
    """Return the snapshots without channels that are constant in most of them, and their names.

    A sensor that was dead from the beginning must not keep the others from being learned. If all
    are dead they stay, so that they are reported as dead.
    """
    present = Counter(name for m in healthy for name in m.channels)
    constant = Counter(name for m in healthy for name, c in m.channels.items() if _is_constant(c))
    dead = [name for name in present if 2 * constant[name] > present[name]]
    if not dead or len(dead) == len(present):
        return list(healthy), []
    live = [
        replace(m, channels={name: c for name, c in m.channels.items() if name not in dead})
        for m in healthy
    ]
    return live, dead


def most_common_fault(measurements: Sequence[Measurement], norms: Norms) -> str:
    """Return the message of the sensor fault that most snapshots have, empty without any."""
    faults = [fault for m in measurements for fault in find_sensor_faults(m, norms)]
    kinds = Counter((fault.sensor, fault.kind) for fault in faults)
    if not kinds:
        return ""
    sensor, kind = kinds.most_common(1)[0][0]
    return next(f.message for f in faults if (f.sensor, f.kind) == (sensor, kind))


def invalidates(fault: SensorFault, measurement: Measurement, norms: Norms) -> bool:
    """Return whether a snapshot with this sensor fault cannot be judged.

    A channel that clips or is very loud while its level is far above normal shows a loud machine:
    the fault is reported, and the snapshot is judged.
    """
    norm, channel = norms.channels.get(fault.sensor), measurement.channels.get(fault.sensor)
    if norm is None and channel is not None:
        return False  # a channel that was not part of the training is not used
    if fault.kind not in ("clipped", "loud") or norm is None or channel is None:
        return True
    return not float(np.nanstd(channel.samples)) > ABOVE * norm.level


def sensors_ok(measurement: Measurement, norms: Norms) -> bool:
    """Return whether a snapshot has no sensor fault that invalidates it."""
    return not any(
        invalidates(f, measurement, norms) for f in find_sensor_faults(measurement, norms)
    )


def _is_constant(channel: Channel) -> bool:
    finite = channel.samples[np.isfinite(channel.samples)]
    return not len(finite) or bool(finite.min() == finite.max())
