"""Evidence for the novelty of a snapshot: features, nearest healthy snapshots, diagnosis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.machines.data.measurement import Measurement
from lineside.machines.models.detector import Rows
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.signals.diagnosis import diagnose
from lineside.machines.signals.engine import Engine
from lineside.machines.signals.layout import feature_label

TOP_FEATURES = 6
MAX_LINES = 5
NEAREST = 5
"""Healthy snapshots nearest to a snapshot, for comparison."""


def snapshot_contributions(
    machine: Machine, measurement: Measurement, row: Rows, running: str
) -> dict[str, float]:
    """Return the top features of one snapshot by itself, without those before it."""
    branch = machine.main if running == "learned" or machine.fallback is None else machine.fallback
    x = branch.select(machine.operating_model.compensate(measurement, row)[None])
    if not np.isfinite(x).all():
        return {}
    return top_features(machine, branch, np.repeat(x, branch.detector.history + 1, axis=0))


def top_features(machine: Machine, branch: Branch, window: Rows) -> dict[str, float]:
    """Return the features with the largest shares of the novelty of a window's last row.

    Args:
        machine: The machine.
        branch: The branch that scored it.
        window: The row with those before it that the detector needs, shape (row, column).

    Returns:
        Feature name to share, largest first.
    """
    shares = branch.detector.contributions(window)
    order = np.argsort(-shares, kind="stable")[:TOP_FEATURES]
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
    """Return the evidence for an alarm as plain JSON values.

    Args:
        machine: The machine.
        branch: The branch that scored the snapshot.
        window: See `top_features`.
        measurement: The snapshot; its speed is taken as true.
        row: Its features, shape (feature,).
        engine: Of the machine.

    Returns:
        ``features``: shares by name; ``channel``: the sensor with most of them; ``values``: each
        feature now, usually and in the nearest healthy snapshots, with its band; ``closest``: the
        times of these; ``diagnosis``: of the envelope spectrum, with matched lines and orders.
    """
    shares = top_features(machine, branch, window)
    by_channel: dict[str, float] = {}
    for name, share in shares.items():
        channel = name if name.startswith("value.") else name.rpartition(".")[0]
        by_channel[channel] = by_channel.get(channel, 0.0) + share
    nearest = nearest_healthy(machine, row)
    return {
        "features": shares,
        "channel": max(by_channel, key=lambda name: by_channel[name]) if by_channel else "",
        "values": {name: _compare_levels(machine, name, row, nearest) for name in shares},
        "closest": [machine.reference_times[i] for i in nearest.tolist()],
        "diagnosis": _diagnose(machine, measurement, engine),
    }


def _compare_levels(
    machine: Machine, name: str, row: Rows, nearest: NDArray[np.intp]
) -> dict[str, Any]:
    """Return a feature now, in the nearest and in all healthy snapshots, in physical units."""
    layout, index = machine.layout, machine.layout.names.index(name)
    healthy = machine.reference[:, index]
    band = layout.frequencies_hz(name)
    levels = {
        "now": row[index], "closest": np.median(healthy[nearest]), "usually": np.median(healthy)
    }  # fmt: skip
    return {
        **{
            when: layout.to_physical(name, float(level)) if np.isfinite(level) else None
            for when, level in levels.items()
        },
        "band_hz": None if band is None else [float(edge) for edge in band],
    }


def _diagnose(machine: Machine, measurement: Measurement, engine: Engine) -> dict[str, Any]:
    spectra = list(engine.spectra(measurement).values())
    if not spectra:
        return {"status": "refused", "fault": "", "reason": "there is no waveform", "lines": []}
    diagnosis = diagnose(spectra, machine.layout.bearing, measurement.speed_hz)
    return {
        "status": diagnosis.status,
        "fault": diagnosis.fault,
        "reason": diagnosis.reason,
        "lines": [
            {
                "hz": round(line.hz, 3), "height": round(line.height, 3), "meaning": line.meaning,
                "order": round(line.order, 4) if np.isfinite(line.order) else None,
            }
            for line in diagnosis.lines[:MAX_LINES]
        ],
    }  # fmt: skip


def nearest_healthy(machine: Machine, row: Rows) -> NDArray[np.intp]:
    """Return the indices of the healthy snapshots nearest to a row, nearest first.

    The distance is Euclidean in robust standard deviations (1.4826 MAD) of the detector's columns.
    """
    columns = list(machine.main.columns)
    reference = machine.reference[:, columns].astype(np.float64)
    _, spread = robust_scale(reference)
    # (snapshot, column) -> (snapshot,)
    distance = np.nansum(((reference - row[columns]) / spread) ** 2, axis=1)
    return np.argsort(distance, kind="stable")[:NEAREST]


def robust_scale(reference: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return median and 1.4826 MAD of each column, (snapshot, column) -> (column,) each."""
    centre = np.median(reference, axis=0)
    return centre, np.maximum(1.4826 * np.median(np.abs(reference - centre), axis=0), 1e-6)


def describe_feature(machine: Machine, name: str) -> str:
    """Return the label of a feature with its frequency band."""
    band = machine.layout.frequencies_hz(name)
    where = f" ({band[0]:.0f} to {band[1]:.0f} Hz)" if band else ""
    return f"{feature_label(name)}{where}"
