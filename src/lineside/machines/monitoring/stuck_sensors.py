"""Stuck-sensor test: a live sensor never repeats its samples exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Measurement
from lineside.machines.signals.quality import SensorFault

HASHED_SAMPLES = 512
"""Samples of a channel, evenly spaced, that are hashed."""
REPEATS = 5
"""Slow values are stuck once all of them are the same in this many snapshots in a row."""

StuckState = dict[str, Any]
"""Plain JSON: ``hashes`` of the last snapshot by channel, ``values``: the hash of its slow values,
``repeats``: how many snapshots in a row have had these values."""
INITIAL: StuckState = {"hashes": {}, "values": "", "repeats": 0}


def stuck_sensors(
    state: Mapping[str, Any], measurement: Measurement
) -> tuple[StuckState, list[SensorFault]]:
    """Compare a snapshot with the previous one.

    A channel is stuck if a hash of 512 of its samples repeats. Slow values are stuck if all of
    them repeat in 5 consecutive snapshots, since a single value may well be constant.

    Args:
        state: As returned for the previous snapshot, `INITIAL` at first.
        measurement: The snapshot.

    Returns:
        The new state, and the faults.
    """
    hashes = {
        name: _hash(channel.samples)
        for name, channel in sorted(measurement.channels.items())
        if len(channel.samples)
    }
    faults = [
        SensorFault(sensor=name, kind="stuck", message=f"sensor {name} repeated its samples")
        for name, digest in hashes.items()
        if state["hashes"].get(name) == digest
    ]
    values = ""
    if len(measurement.values) > 1:
        row = [value for _, value in sorted(measurement.values.items())]
        values = _hash(np.array(row, dtype=np.float64))
    repeats = state["repeats"] + 1 if values and values == state["values"] else 1
    if repeats >= REPEATS:
        message = f"no value changed in {REPEATS} snapshots"
        faults.append(SensorFault(sensor="all values", kind="stuck", message=message))
    return {"hashes": hashes, "values": values, "repeats": min(repeats, REPEATS)}, faults


def _hash(samples: NDArray[Any]) -> str:
    step = max(1, len(samples) // HASHED_SAMPLES)
    return hashlib.blake2b(samples[::step].tobytes(), digest_size=8).hexdigest()
