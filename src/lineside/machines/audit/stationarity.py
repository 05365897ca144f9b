"""Is a machine stationary in its training period? A fast check before any training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.data import load_measurement
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.monitoring.operating_states import fit_operating_model
from lineside.machines.signals.layout import feature_label
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
    features = [_features(m) for m in measurements]
    names = [name for name in features[0] if all(name in row for row in features)]
    rows = np.array([[row[name] for name in names] for row in features], dtype=np.float32)
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


def _features(measurement: Measurement) -> dict[str, float]:
    """Return logarithm of rms and kurtosis of every channel, and the slow values, by name."""
    from scipy.stats import kurtosis

    features = {}
    for name, channel in sorted(measurement.channels.items()):
        samples = np.asarray(channel.samples, dtype=np.float64)
        rms = float(samples.std())
        features[f"{name}.rms"] = float(np.log(max(rms, 1e-12)))
        features[f"{name}.kurtosis"] = float(np.arcsinh(kurtosis(samples))) if rms > 0 else np.nan
    values = sorted(measurement.values.items())
    return features | {f"value.{name}": float(value) for name, value in values}
