"""Whether the stated speed can be believed: looked at now and then, since a look is dear."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lineside.machines.alarms.verdict import Event
from lineside.machines.data.measurement import Measurement
from lineside.machines.signals import estimate_speed, speed_contradiction
from lineside.machines.signals.speed import LINE, SAME

SELDOM = 64
"""Snapshots between two looks at a speed that was never doubted; the first looks are closer."""
CHANGED = 16
"""Snapshots after which a speed that changed is looked at."""
DOUBTED = 8
"""Snapshots between two looks at a doubted speed."""
CHANNELS = 2
"""Channels that are looked at: all of them hear the same shaft."""
FRESH: dict[str, Any] = {"doubted": False, "hz": None, "age": 0, "wait": 1}


def look(memory: Mapping[str, Any], measurement: Measurement) -> tuple[dict[str, Any], list[Event]]:
    """Look at the stated speed of a snapshot if it is time to.

    Args:
        memory: As it was, `FRESH` at first; plain JSON.
        measurement: One snapshot; without a speed or without waveforms nothing is looked at.

    Returns:
        The memory, and an event when doubt begins or ends.
    """
    hz = measurement.speed_hz
    if not hz or hz <= 0 or not measurement.channels:
        return dict(memory), []
    age = memory["age"] + 1
    changed = memory["hz"] is not None and abs(hz / memory["hz"] - 1) > SAME
    due = DOUBTED if memory["doubted"] else min(memory["wait"], CHANGED if changed else SELDOM)
    if age < due:
        return {**memory, "age": age}, []
    wait = min(2 * memory["wait"], SELDOM)
    heard = dict(list(measurement.channels.items())[:CHANNELS])
    measurement = dataclasses.replace(measurement, channels=heard)
    told = speed_contradiction(measurement, hz)
    looked = {"doubted": memory["doubted"], "hz": float(hz), "age": 0, "wait": wait}
    if told and not memory["doubted"]:
        return {**looked, "doubted": True}, [Event(kind="speed doubted", text=told)]
    if memory["doubted"] and not told and _has_its_line(measurement, hz):
        text = f"the stated speed of {hz:.2f} Hz shows its own line: it is used again"
        return {**looked, "doubted": False}, [Event(kind="speed trusted", text=text)]
    return looked, []


def believed(memory: Mapping[str, Any], measurement: Measurement) -> Measurement:
    """Return the snapshot, without its speed while that is doubted."""
    if not memory["doubted"] or measurement.speed_hz is None:
        return measurement
    return dataclasses.replace(measurement, speed_hz=None)


def _has_its_line(measurement: Measurement, hz: float) -> bool:
    """Silence is no proof: only a line of its own gives a doubted speed its trust back."""
    found = estimate_speed(measurement, hz * (1 - SAME), hz * (1 + SAME))
    return found is not None and found.heights[0] > LINE
