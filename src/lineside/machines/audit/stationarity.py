"""Does a machine keep still while it is learned? A cheap look before any training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis

from lineside.core.errors import UserError
from lineside.machines.alarms import drift_along, run_in_rows, steady_drift
from lineside.machines.data import load_measurement
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.monitoring.operating_states import learn_operation
from lineside.machines.signals import feature_label

LOOKED_AT = 60
"""Snapshots of a machine, spread over the time it is learned from."""
FEWEST = 20
MOST_RUN_IN = 0.3
"""Of the learning time; what the learning itself leaves out at most, calibration included."""


def drift_of(own: Sequence[Snapshot]) -> str | None:
    """Say what drifts along the snapshots that a machine is learned from.

    Levels, kurtosis and slow values of some snapshots, without what speed and load explain; a
    run-in that levels off early passes, since learning leaves it out.

    Args:
        own: Its snapshots to fit and to calibrate, in order of time.

    Returns:
        Words for the largest drift, empty if there is none; None if too few can be read.
    """
    places = np.linspace(0, len(own) - 1, min(LOOKED_AT, len(own))).round().astype(int)
    measurements = [m for place in places if (m := _loaded(own[place])) is not None]
    if len(measurements) < FEWEST:
        return None
    names = _names(measurements)
    rows = np.array([_row(m, names) for m in measurements], dtype=np.float32)
    whole: NDArray[np.bool_] = np.isfinite(rows).all(axis=-1).reshape(-1)
    if not names or whole.sum() < FEWEST:
        return None
    measurements = [m for m, good in zip(measurements, whole, strict=True) if good]
    operation, running = learn_operation(measurements, rows[whole], names)
    values = np.array(
        [
            operation.residual(m, row)
            for m, row, runs in zip(measurements, rows[whole], running, strict=True)
            if runs
        ],
        dtype=np.float64,
    ).reshape(-1, len(names))
    return _words(values, names) if len(values) >= FEWEST else None


def _words(values: NDArray[np.float64], names: Sequence[str]) -> str:
    levels = values[:, [place for place, name in enumerate(names) if name.endswith(".rms")]]
    moves = drift_along(values[run_in_rows(values, levels, int(MOST_RUN_IN * len(values))) :])
    worst = int(np.abs(moves).argmax())
    if abs(moves[worst]) <= steady_drift(len(values)):
        return ""
    way = "rises" if moves[worst] > 0 else "falls"
    return f"{feature_label(names[worst])} {way} by {abs(moves[worst]):.1f} robust spreads"


def _loaded(snapshot: Snapshot) -> Measurement | None:
    try:
        return load_measurement(snapshot)
    except (UserError, OSError):
        return None


def _names(measurements: Sequence[Measurement]) -> list[str]:
    """Features that every snapshot has."""
    channels = set.intersection(*[set(m.channels) for m in measurements])
    values = set.intersection(*[set(m.values) for m in measurements])
    waves = [f"{name}.{kind}" for name in sorted(channels) for kind in ("rms", "kurtosis")]
    return waves + [f"value.{name}" for name in sorted(values)]


def _row(measurement: Measurement, names: Sequence[str]) -> list[float]:
    found = []
    for name in names:
        channel, _, kind = name.rpartition(".")
        if name.startswith("value."):
            found.append(float(measurement.values[name.removeprefix("value.")]))
            continue
        samples = np.asarray(measurement.channels[channel].samples, dtype=np.float64)
        spread = float(samples.std())
        if kind == "rms":
            found.append(float(np.log(max(spread, 1e-12))))
        else:
            found.append(float(np.arcsinh(kurtosis(samples))) if spread > 0 else np.nan)
    return found
