"""Which sensor faults blind the monitoring, and which may be the machine's own doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals import Norms, SensorFault, find_sensor_faults

ABOVE = 1.5
"""A channel this far above its healthy level clips because the machine is loud."""


def live_channels(healthy: Sequence[Measurement]) -> tuple[list[Measurement], list[str]]:
    """Return snapshots without the channels that give nothing in most of them, and their names.

    A sensor that was dead from the beginning does not keep the others from being learned. Where
    all are dead they stay, to be told as what they are.
    """
    seen = Counter(name for m in healthy for name in m.channels)
    silent = Counter(name for m in healthy for name, c in m.channels.items() if _is_silent(c))
    dead = [name for name in seen if 2 * silent[name] > seen[name]]
    if not dead or len(dead) == len(seen):
        return list(healthy), []
    kept = [
        replace(m, channels={name: c for name, c in m.channels.items() if name not in dead})
        for m in healthy
    ]
    return kept, dead


def commonest_fault(measurements: Sequence[Measurement], norms: Norms) -> str:
    """Return the sentence of the sensor fault that most snapshots have, empty without any."""
    found = [find_sensor_faults(m, norms) for m in measurements]
    kinds = Counter((f.sensor, f.kind) for faults in found for f in faults)
    if not kinds:
        return ""
    kind = kinds.most_common(1)[0][0]
    return next(f.message for faults in found for f in faults if (f.sensor, f.kind) == kind)


def _is_silent(channel: Channel) -> bool:
    finite = channel.samples[np.isfinite(channel.samples)]
    return not len(finite) or bool(finite.min() == finite.max())


def is_blinding(fault: SensorFault, measurement: Measurement, norms: Norms) -> bool:
    """Return whether a snapshot with this fault says nothing about the machine.

    A sensor that clips or is loud while its level is far above normal shows a loud machine: the
    fault is told, and the snapshot is judged.
    """
    norm, channel = norms.channels.get(fault.sensor), measurement.channels.get(fault.sensor)
    if norm is None and channel is not None:
        return False  # it was never learned, so that nothing is missing without it
    if fault.kind not in ("clipped", "loud") or norm is None or channel is None:
        return True
    return not float(np.nanstd(channel.samples)) > ABOVE * norm.level


def is_well(measurement: Measurement, norms: Norms) -> bool:
    """Return whether the sensors of a snapshot tell of the machine."""
    return not any(
        is_blinding(f, measurement, norms) for f in find_sensor_faults(measurement, norms)
    )
