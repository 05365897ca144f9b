"""Thresholds with a guarantee. A unit with score >= threshold is held back, so ties are safe.

All guarantees assume that units are exchangeable with those of later use, and that scores come
from a model that was frozen before these units were scored.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

ROUNDING = 1e-9
"""Absorbs the error of products such as 0.29 * 100 = 28.999999999999996 before a floor."""


def order_statistic(n: int, recall: float, confidence: float = 0.95) -> int:
    """Return k*: the k-th lowest of n positive scores is a threshold that keeps the guarantee.

    k* = max{k : BinomCDF(k - 1; n, 1 - recall) <= 1 - confidence} (Tong, Feng & Li 2018,
    proposition 1), or 0 if there is none, i.e. the recall is not provable with n units.
    """
    _check(recall, confidence)
    if n < 1:
        return 0
    tail = special.bdtr(np.arange(n, dtype=np.float64), n, 1 - recall)
    return int(np.count_nonzero(tail <= 1 - confidence))


def order_statistic_threshold(
    positives: ArrayLike, recall: float, confidence: float = 0.95
) -> float | None:
    """Return the largest threshold whose recall is proven, or None if none is.

    With the stated confidence over the draw of the calibration units, at least `recall` of all
    future positive units score at or above it.
    """
    scores = np.sort(np.asarray(positives, dtype=np.float64))
    k = order_statistic(len(scores), recall, confidence)
    return float(scores[k - 1]) if k else None


def units_needed(recall: float, confidence: float = 0.95, misses: int = 0) -> int:
    """Return the number of positive units that prove a recall if `misses` of them are missed.

    The smallest n with BinomCDF(misses; n, 1 - recall) <= 1 - confidence; without misses that is
    ceil(ln(1 - confidence) / ln(recall)).

    Example:
        >>> units_needed(0.90), units_needed(0.95), units_needed(0.99)
        (29, 59, 299)
    """
    _check(recall, confidence)

    def proves(n: int) -> bool:
        return float(special.bdtr(float(misses), n, 1 - recall)) <= 1 - confidence

    high = misses + 1
    while not proves(high):
        high *= 2
    low = misses
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if proves(middle) else (middle, high)
    return high


def best_provable_recall(n: int, confidence: float = 0.95) -> float:
    """Return the largest recall that n positive units can prove: (1 - confidence) ** (1 / n)."""
    return float((1 - confidence) ** (1 / n)) if n > 0 else 0.0


def conformal_risk_threshold(positives: ArrayLike, miss_rate: float) -> float | None:
    """Return the largest threshold whose *expected* miss rate is bounded, or None.

    The largest t with (misses(t) + 1) / (n + 1) <= miss_rate (Angelopoulos et al. 2022, theorem
    1). The bound holds on average over calibration sets, not with a confidence for this one.
    """
    scores = np.sort(np.asarray(positives, dtype=np.float64))
    allowed = math.floor(miss_rate * (len(scores) + 1) + ROUNDING) - 1
    if allowed < 0 or not len(scores):
        return None
    return float(scores[min(allowed, len(scores) - 1)])


def false_alarm_threshold(negatives: ArrayLike, rate: float) -> tuple[float, float]:
    """Return (threshold, rate): a new negative unit reaches the threshold with at most that rate.

    Holds back scores with a conformal p-value (1 + number of negatives >= score) / (n + 1) <= rate
    (Vovk et al. 2005). With too few negatives for the rate the threshold lies just above all of
    them and the returned rate is 1 / (n + 1).

    Raises:
        ValueError: without negatives.
    """
    scores = np.sort(np.asarray(negatives, dtype=np.float64))
    if not len(scores):
        raise ValueError("no negative scores to set a false-alarm rate with")
    k = math.floor(rate * (len(scores) + 1) + ROUNDING)
    threshold = float(np.nextafter(scores[-min(max(k, 1), len(scores))], np.inf))
    return threshold, rate if k >= 1 else 1 / (len(scores) + 1)


def _check(recall: float, confidence: float) -> None:
    if not (0.0 < recall < 1.0 and 0.0 < confidence < 1.0):
        raise ValueError(f"recall {recall} and confidence {confidence} must lie between 0 and 1")
