"""Whether stated probabilities come true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.statistics.proportions import wilson


@dataclass(frozen=True, kw_only=True)
class CalibrationCurve:
    """A reliability diagram; each bin holds about the same number of items.

    Attributes:
        predicted: Mean stated probability per bin, shape (bins,).
        observed: Share of positives per bin, shape (bins,).
        low: Lower end of the 95 % Wilson interval of `observed`.
        high: Upper end of it.
        count: Items per bin.
        error: Expected calibration error: mean of |observed - predicted| over items.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    error: float


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean squared difference of probability and label (Brier 1950); lower is better.

    Raises:
        ValueError: if shapes differ, nothing is there, or a probability is outside 0..1.
    """
    stated, truth = _checked(probabilities, labels)
    return float(np.mean((stated - truth) ** 2))


def calibration_curve(
    probabilities: ArrayLike, labels: ArrayLike, bins: int = 10
) -> CalibrationCurve:
    """Return stated against observed shares in bins of equal size; equal values stay together.

    Raises:
        ValueError: if shapes differ, nothing is there, or a probability is outside 0..1.
    """
    stated, truth = _checked(probabilities, labels)
    edges = np.unique(np.quantile(stated, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, stated, side="right")
    used, place = np.unique(place, return_inverse=True)
    count = np.bincount(place, minlength=len(used))
    positives = np.bincount(place, weights=truth, minlength=len(used))
    predicted = np.bincount(place, weights=stated, minlength=len(used)) / count
    ends = [wilson(round(k), int(n)) for k, n in zip(positives, count, strict=True)]
    observed = positives / count
    return CalibrationCurve(
        predicted=predicted,
        observed=observed,
        low=np.array([low for low, _ in ends]),
        high=np.array([high for _, high in ends]),
        count=count,
        error=float((np.abs(observed - predicted) * count).sum() / len(stated)),
    )


def _checked(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    stated = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.float64)
    if stated.ndim != 1 or stated.shape != truth.shape or not len(stated):
        raise ValueError(f"need (n,) values and labels, got {stated.shape} and {truth.shape}")
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("probabilities must lie between 0 and 1")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    return stated, truth
