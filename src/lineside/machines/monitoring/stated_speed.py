"""Is the stated speed plausible? Checked against the spectrum now and then: a check is expensive.

The check estimates the shaft speed from the spectrum (`speed_contradiction`). While the stated
speed is suspect, the machine is judged without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lineside.machines.alarms.verdict import Event
from lineside.machines.data.measurement import Measurement
from lineside.machines.signals.speed import LINE, SAME, estimate_speed, speed_contradiction

INTERVAL = 64
"""Snapshots between two checks of a plausible speed; the first checks follow at 1, 2, 4 ..."""
CHANGED_INTERVAL = 16
"""The same after the speed has changed."""
SUSPECT_INTERVAL = 8
"""The same while the speed is suspect."""
CHANNELS = 2
"""Channels that are checked; all of them measure the same shaft."""

SpeedState = dict[str, Any]
"""Plain JSON: ``suspect``, ``hz`` of the last check, ``age`` and ``wait``: snapshots since the last
check and until the next one."""
INITIAL: SpeedState = {"suspect": False, "hz": None, "age": 0, "wait": 1}


def check_speed(
    state: Mapping[str, Any], measurement: Measurement
) -> tuple[SpeedState, list[Event]]:
    """Check the stated speed of a snapshot if a check is due.

    Args:
        state: As returned for the previous snapshot, `INITIAL` at first.
        measurement: The snapshot; without a speed or without waveforms nothing is checked.

    Returns:
        The new state, and an event if the speed becomes suspect or is confirmed again.
    """
    hz = measurement.speed_hz
    if not hz or hz <= 0 or not measurement.channels:
        return dict(state), []
    age = state["age"] + 1
    changed = state["hz"] is not None and abs(hz / state["hz"] - 1) > SAME
    interval = CHANGED_INTERVAL if changed else INTERVAL
    if age < (SUSPECT_INTERVAL if state["suspect"] else min(state["wait"], interval)):
        return {**state, "age": age}, []
    wait = min(2 * state["wait"], INTERVAL)
    channels = dict(list(measurement.channels.items())[:CHANNELS])
    measurement = dataclasses.replace(measurement, channels=channels)
    contradiction = speed_contradiction(measurement, hz)
    checked = {"suspect": state["suspect"], "hz": float(hz), "age": 0, "wait": wait}
    if contradiction and not state["suspect"]:
        return {**checked, "suspect": True}, [Event(kind="speed suspect", text=contradiction)]
    if state["suspect"] and not contradiction and _has_line(measurement, hz):
        text = f"the spectrum confirms the stated speed of {hz:.2f} Hz: it is used again"
        return {**checked, "suspect": False}, [Event(kind="speed confirmed", text=text)]
    return checked, []


def drop_suspect_speed(state: Mapping[str, Any], measurement: Measurement) -> Measurement:
    """Return the snapshot, without its speed while that is suspect."""
    if not state["suspect"] or measurement.speed_hz is None:
        return measurement
    return dataclasses.replace(measurement, speed_hz=None)


def _has_line(measurement: Measurement, hz: float) -> bool:
    """Whether the shaft shows a line of its own: no contradiction alone is no confirmation."""
    estimate = estimate_speed(measurement, hz * (1 - SAME), hz * (1 + SAME))
    return estimate is not None and estimate.heights[0] > LINE
