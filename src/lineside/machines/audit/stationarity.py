"""Is a machine stationary in its training period? A fast check before any training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis

from lineside.core.errors import UserError
from lineside.machines.data import load_measurement
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.monitoring.operating_states import fit_operating_model
from lineside.machines.signals import feature_label
from lineside.machines.training.baseline import drift, drift_limit, run_in_length

SAMPLED = 60
"""Snapshots of a machine, spread over its training period, that are read."""
FEWEST = 20
MOST_RUN_IN = 0.3
"""Largest share of the training period that a run-in may take; training leaves it out."""


def describe_drift(snapshots: Sequence[Snapshot]) -> str | None:
    """Describe the largest drift in the training period of a machine.

    Log rms, kurtosis and slow values of some snapshots, without the effect of speed and load. A
    run-in that levels off early passes, since training leaves it out.

    Args:
        snapshots: Those to fit and to calibrate, in order of time.

    Returns:
        Empty if the machine is stationary, None if too few snapshots can be read.
    """
    count = min(SAMPLED, len(snapshots))
    indices = np.linspace(0, len(snapshots) - 1, count).round().astype(int)
    measurements = [m for i in indices if (m := _load(snapshots[i])) is not None]
    if len(measurements) < FEWEST:
        return None
    names = _common_features(measurements)
    rows = np.array([_features(m, names) for m in measurements], dtype=np.float32)
    finite: NDArray[np.bool_] = np.isfinite(rows).all(axis=-1).reshape(-1)
    if not names or finite.sum() < FEWEST:
        return None
    measurements = [m for m, ok in zip(measurements, finite, strict=True) if ok]
    rows = rows[finite]
    model, running = fit_operating_model(measurements, rows, names)
    values = np.array(
        [
            model.compensate(m, row)
            for m, row, runs in zip(measurements, rows, running, strict=True)
            if runs
        ],
        dtype=np.float64,
    ).reshape(-1, len(names))
    return _describe(values, names) if len(values) >= FEWEST else None


def _describe(values: NDArray[np.float64], names: Sequence[str]) -> str:
    levels = values[:, [i for i, name in enumerate(names) if name.endswith(".rms")]]
    run_in = run_in_length(values, levels, int(MOST_RUN_IN * len(values)))
    drifts = drift(values[run_in:])
    worst = int(np.abs(drifts).argmax())
    if abs(drifts[worst]) <= drift_limit(len(values)):
        return ""
    direction = "rises" if drifts[worst] > 0 else "falls"
    return f"{feature_label(names[worst])} {direction} by {abs(drifts[worst]):.1f} robust spreads"


def _load(snapshot: Snapshot) -> Measurement | None:
    try:
        return load_measurement(snapshot)
    except (UserError, OSError):
        return None


def _common_features(measurements: Sequence[Measurement]) -> list[str]:
    """Names of the features that every snapshot has."""
    channels = set.intersection(*[set(m.channels) for m in measurements])
    values = set.intersection(*[set(m.values) for m in measurements])
    waves = [f"{name}.{kind}" for name in sorted(channels) for kind in ("rms", "kurtosis")]
    return waves + [f"value.{name}" for name in sorted(values)]


def _features(measurement: Measurement, names: Sequence[str]) -> list[float]:
    row = []
    for name in names:
        channel, _, kind = name.rpartition(".")
        if name.startswith("value."):
            row.append(float(measurement.values[name.removeprefix("value.")]))
            continue
        samples = np.asarray(measurement.channels[channel].samples, dtype=np.float64)
        rms = float(samples.std())
        if kind == "rms":
            row.append(float(np.log(max(rms, 1e-12))))
        else:
            row.append(float(np.arcsinh(kurtosis(samples))) if rms > 0 else np.nan)
    return row
