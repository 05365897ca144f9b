"""Which sensor faults blind the monitoring, and which may be the machine's own doing."""

from __future__ import annotations

import numpy as np

from lineside.machines.measurement import Measurement
from lineside.machines.signals import Norms, SensorFault, sensor_faults

ABOVE = 1.5
"""A channel this far above its healthy level clips because the machine is loud."""


def is_blinding(fault: SensorFault, measurement: Measurement, norms: Norms) -> bool:
    """Return whether a snapshot with this fault says nothing about the machine.

    A sensor that clips or is loud while its level is far above normal shows a loud machine: the
    fault is told, and the snapshot is judged.
    """
    norm, channel = norms.channels.get(fault.sensor), measurement.channels.get(fault.sensor)
    if fault.kind not in ("clipped", "loud") or norm is None or channel is None:
        return True
    return not float(np.nanstd(channel.samples)) > ABOVE * norm.level


def is_well(measurement: Measurement, norms: Norms) -> bool:
    """Return whether the sensors of a snapshot tell of the machine."""
    return not any(is_blinding(f, measurement, norms) for f in sensor_faults(measurement, norms))
