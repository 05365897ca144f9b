"""Why a snapshot is unusual: which channel and band, which fault frequency, compared with what."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.signals import (
    Diagnosis,
    Engine,
    diagnose,
    feature_label,
    speed_contradiction,
)

NAMED = 6
LINES = 5
CLOSEST = 5
"""Healthy snapshots that are most like a snapshot, for comparison."""


def contributions(
    machine: Machine, measurement: Measurement, row: Rows, running: str
) -> dict[str, float]:
    """Return the largest shares of the features in the novelty of a row, largest first."""
    branch = machine.main if running == "learned" or machine.free is None else machine.free
    x = branch.select(machine.operation.residual(measurement, row)[None])
    if not np.isfinite(x).all():
        return {}
    return top_features(machine, branch, np.repeat(x, branch.detector.history + 1, axis=0))


def top_features(machine: Machine, branch: Branch, window: Rows) -> dict[str, float]:
    """Return the features that speak most for the novelty of a window's last row.

    Args:
        machine: Whose.
        branch: What judged it.
        window: The row with those before it that the detector looks at, shape (row, column).

    Returns:
        The share of each by name, largest first.
    """
    shares = branch.detector.contributions(window)
    order = np.argsort(-shares, kind="stable")[:NAMED]
    names = machine.layout.names
    return {names[branch.columns[i]]: round(float(shares[i]), 4) for i in order.tolist()}


def alarm_evidence(
    machine: Machine,
    branch: Branch,
    window: Rows,
    measurement: Measurement,
    row: Rows,
    engine: Engine,
) -> dict[str, Any]:
    """Return what speaks for an alarm, as plain JSON values.

    Args:
        machine: Whose.
        branch: What judged the snapshot.
        window: See `top_features`.
        measurement: The snapshot; its speed is believed.
        row: Its features, shape (feature,).
        engine: Of the machine.

    Returns:
        ``features``: shares by name; ``channel``: the sensor with most of them; ``values``: each
        feature now, usually and in the closest healthy snapshots, with its band; ``closest``: the
        times of these; ``diagnosis``: what the envelope says, with matched lines and orders.
    """
    shares = top_features(machine, branch, window)
    by_channel: dict[str, float] = {}
    for name, share in shares.items():
        channel = name if name.startswith("value.") else name.rpartition(".")[0]
        by_channel[channel] = by_channel.get(channel, 0.0) + share
    near = closest(machine, row)
    return {
        "features": shares,
        "channel": max(by_channel, key=lambda name: by_channel[name]) if by_channel else "",
        "values": {name: _compared(machine, name, row, near) for name in shares},
        "closest": [machine.reference_times[place] for place in near.tolist()],
        "diagnosis": _diagnosis(machine, measurement, engine),
    }


def _compared(machine: Machine, name: str, row: Rows, near: NDArray[np.intp]) -> dict[str, Any]:
    layout, place = machine.layout, machine.layout.index(name)
    healthy = machine.reference[:, place]
    band = layout.frequencies_hz(name)
    levels = {
        "now": row[place], "closest": np.median(healthy[near]), "usually": np.median(healthy)
    }  # fmt: skip
    return {
        **{
            when: layout.to_physical(name, float(level)) if np.isfinite(level) else None
            for when, level in levels.items()
        },
        "band_hz": None if band is None else [float(edge) for edge in band],
    }


def _diagnosis(machine: Machine, measurement: Measurement, engine: Engine) -> dict[str, Any]:
    spectra = list(engine.spectra(measurement).values())
    if not spectra:
        return {"status": "refused", "fault": "", "reason": "there is no waveform", "lines": []}
    found = diagnose(spectra, machine.layout.bearing, measurement.speed_hz)
    return {
        "status": found.status,
        "fault": found.fault,
        "reason": found.reason,
        "lines": [
            {
                "hz": round(line.hz, 3), "height": round(line.height, 3), "meaning": line.meaning,
                "order": round(line.order, 4) if np.isfinite(line.order) else None,
            }
            for line in found.lines[:LINES]
        ],
    }  # fmt: skip


def diagnosis_of(machine: Machine, measurement: Measurement, engine: Engine) -> Diagnosis:
    """Ask the envelope spectra of all channels for a bearing fault; a false speed is not used."""
    spectra = list(engine.spectra(measurement).values())
    speed = measurement.speed_hz
    if speed is not None and speed_contradiction(measurement, speed):
        speed = None
    return diagnose(spectra, machine.layout.bearing, speed)


def closest(machine: Machine, row: Rows) -> NDArray[np.intp]:
    """Return places of the healthy snapshots that are most like a row, in robust spreads."""
    columns = list(machine.main.columns)
    reference = machine.reference[:, columns].astype(np.float64)
    centre = np.median(reference, axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(reference - centre), axis=0), 1e-6)
    distance = np.nansum(((reference - row[columns]) / spread) ** 2, axis=1)
    return np.argsort(distance, kind="stable")[:CLOSEST]


def describe_feature(machine: Machine, name: str) -> str:
    """Return a feature's name for people, with the band it listens to."""
    band = machine.layout.frequencies_hz(name)
    where = f" ({band[0]:.0f} to {band[1]:.0f} Hz)" if band else ""
    return f"{feature_label(name)}{where}"
