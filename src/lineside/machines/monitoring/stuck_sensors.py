"""Readings that come a second time: a sensor or a logger that sends its last ones again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.machines.data.measurement import Measurement
from lineside.machines.signals import SensorFault

SAMPLES = 512
"""Samples of a channel, spread over it, that are compared: a live sensor never repeats them."""
ROWS = 5
"""Equal rows of slow values in a row that are too many; one value may well stand still."""
FRESH: dict[str, Any] = {"channels": {}, "values": "", "count": 0}


def repeated(
    memory: Mapping[str, Any], measurement: Measurement
) -> tuple[dict[str, Any], list[SensorFault]]:
    """Compare a snapshot with the one before.

    Args:
        memory: As it was, `FRESH` at first; plain JSON.
        measurement: One snapshot.

    Returns:
        The memory, and what is stuck.
    """
    channels = sorted(measurement.channels.items())
    names = {name: _digest(c.samples) for name, c in channels if len(c.samples)}
    stuck = [name for name, digest in names.items() if memory["channels"].get(name) == digest]
    says = "gave the same samples a second time"
    found = [
        SensorFault(sensor=name, kind="stuck", message=f"sensor {name} {says}") for name in stuck
    ]
    values = ""
    if len(measurement.values) > 1:
        row = [value for _, value in sorted(measurement.values.items())]
        values = _digest(np.array(row, dtype=np.float64))
    count = memory["count"] + 1 if values and values == memory["values"] else 1
    if count >= ROWS:
        sentence = f"no value did change in {ROWS} snapshots"
        found.append(SensorFault(sensor="all values", kind="stuck", message=sentence))
    return {"channels": names, "values": values, "count": min(count, ROWS)}, found


def _digest(samples: np.ndarray) -> str:
    step = max(1, len(samples) // SAMPLES)
    return hashlib.blake2b(samples[::step].tobytes(), digest_size=8).hexdigest()
