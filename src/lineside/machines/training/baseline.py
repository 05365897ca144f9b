"""The learned baseline of a machine and its guard: was the machine stationary while it was learned?

A baseline is fitted once and never adapts by itself, so that a slowly growing fault cannot become
part of it. Drift and run-in of the training snapshots are measured, and each training is an entry
of the machine's learning record: which snapshots, how stationary, and who consented. A baseline
that drifted while it was learned needs a person's consent.

Spreads are robust: 1.4826 MAD, which equals the standard deviation of normal values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRIFT = 3.0
"""Robust spreads that a feature may move during training and still count as stationary."""
NOISE = 4.7
"""Standard errors that the largest of some hundred stationary features hardly ever exceeds."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median over that of a mean for normal values, sqrt(pi / 2)."""
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, kw_only=True)
class LearningEntry:
    """One entry of a learning record: a training of one machine, or a consent to it.

    Attributes:
        first: Time of the first snapshot of the training, seconds.
        last: Time of the last one, those for calibration included.
        rows: Snapshots that were fitted.
        run_in: Snapshots at the beginning that were left out because the machine was running in.
        drift: Largest drift of a feature during training, in robust spreads.
        drift_feature: Name of that feature.
        drift_limit: Drift up to which these snapshots count as stationary.
        shift: Largest move from the previous baseline to this one, 0 for the first.
        shift_feature: Name of the feature that moved most.
        by: Who consented; empty if nobody has.
        why: The reason given.
        decided_at: Time of the consent, seconds since 1970; None without one.
        over_alarm: Whether it was learned although an alarm was active.
        started: Time of the first snapshot of all, run-in included.
    """

    first: float
    last: float
    rows: int
    run_in: int = 0
    drift: float = 0.0
    drift_feature: str = ""
    drift_limit: float = DRIFT
    shift: float = 0.0
    shift_feature: str = ""
    by: str = ""
    why: str = ""
    decided_at: float | None = None
    over_alarm: bool = False
    started: float

    @property
    def needs_consent(self) -> bool:
        """True if the machine drifted during training and nobody has consented."""
        return self.drift > self.drift_limit and not self.by


def robust_spread(values: Floats) -> Floats:
    """Return 1.4826 MAD of each feature, (row, feature) -> (feature,).

    A constant feature has spread 1, so that dividing by it is harmless.
    """
    center = np.median(values, axis=0)
    spread = MAD_TO_SIGMA * np.median(np.abs(values - center), axis=0)
    return np.where(spread > 1e-9 * np.maximum(1.0, np.abs(center)), spread, 1.0)


def detrended_spread(values: Floats) -> Floats:
    """Return the robust spread about a running level, (row, feature) -> (feature,).

    The level is the median of each fifth of the rows: a drift does not widen the spread by which
    it is measured.
    """
    residuals = [fifth - np.median(fifth, axis=0) for fifth in np.array_split(values, 5)
                 if len(fifth)]  # fmt: skip
    return robust_spread(np.concatenate(residuals))


def drift(values: Floats) -> Floats:
    """Return the signed drift of each feature, (row, feature) -> (feature,).

    ``(median of the last fifth - median of the first fifth) / detrended spread``.
    """
    fifth = max(2, len(values) // 5)
    first, last = np.median(values[:fifth], axis=0), np.median(values[-fifth:], axis=0)
    return np.asarray((last - first) / detrended_spread(values), dtype=np.float64)


def drift_limit(rows: int) -> float:
    """Return the drift up to which this many rows count as stationary: few rows are noisy.

    The difference of two medians of n / 5 rows has the standard error ``1.2533 sqrt(2 / (n / 5))``
    in spreads; the spread itself, about medians of n / 5 rows, is too small by about
    ``m / (m - 2)`` with ``m = n / 5``.
    """
    fifth = max(3, rows // 5)
    error = MEDIAN_ERROR * float(np.sqrt(2 / fifth)) * fifth / (fifth - 2)
    return max(DRIFT, NOISE * error)


def is_stationary(values: Floats, allowed: float = 1.0) -> bool:
    """Return whether no feature drifts by more than the share `allowed` of the limit."""
    return float(np.abs(drift(values)).max()) <= allowed * drift_limit(len(values))


def run_in_length(values: Floats, levels: Floats, most: int) -> int:
    """Return the number of rows at the beginning that belong to a run-in which levels off.

    A machine that runs in becomes quieter: rows are left out only if the levels fall after them.
    A starting fault becomes louder, so that the healthy rows before it are never taken for a
    run-in.

    Args:
        values: Features in order of time, shape (row, feature).
        levels: Logarithm of the rms of each channel, shape (row, channel).
        most: Largest number of rows that may be left out; a longer run-in counts as drift, which
            needs a consent.

    Returns:
        0 if the rows are stationary, if no cut makes them so, or if there are no levels.
    """
    if not levels.size or is_stationary(values):
        return 0
    step = max(1, len(values) // 40)
    for allowed in (0.5, 1.0):  # a cut well inside the limit is better than one that just passes
        for start in range(step, most + 1, step):
            if _becomes_quieter(levels, start) and is_stationary(values[start:], allowed):
                return start
    return 0


def _becomes_quieter(levels: Floats, start: int) -> bool:
    """Whether every channel is quieter after the start, and one of them by a whole spread."""
    fall = np.median(levels[:start], axis=0) - np.median(levels[start:], axis=0)
    fall = fall / detrended_spread(levels[start:])
    return bool((fall > 0).all() and (fall > 1.0).any())
