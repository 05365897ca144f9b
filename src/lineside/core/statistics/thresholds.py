"""Thresholds with a guarantee. A group with score >= threshold is held back, so ties are safe.

All guarantees assume that groups are exchangeable with those of later use, and that scores come
from a model that was frozen before these groups were scored.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

ROUNDING = 1e-9
"""Absorbs the error of products such as 0.29 * 100 = 28.999999999999996 before a floor."""


def order_statistic(n: int, recall: float, confidence: float = 0.95) -> int:
    """Return k*: the k-th lowest of n faulty scores is a threshold that keeps the promise.

    k* = max{k : BinomCDF(k - 1; n, 1 - recall) <= 1 - confidence} (Tong, Feng & Li 2018,
    proposition 1), or 0 if there is none, i.e. the promise is not provable with n groups.
    """
    _check(recall, confidence)
    if n < 1:
        return 0
    tail = special.bdtr(np.arange(n, dtype=np.float64), n, 1 - recall)
    return int(np.count_nonzero(tail <= 1 - confidence))


def order_statistic_threshold(
    faulty: ArrayLike, recall: float, confidence: float = 0.95
) -> float | None:
    """Return the largest threshold whose recall is proven, or None if none is.

    With the stated confidence over the draw of the calibration groups, at least `recall` of all
    future faulty groups score at or above it.
    """
    scores = np.sort(np.asarray(faulty, dtype=np.float64))
    k = order_statistic(len(scores), recall, confidence)
    return float(scores[k - 1]) if k else None


def parts_needed(recall: float, confidence: float = 0.95, misses: int = 0) -> int:
    """Return how many faulty groups prove a recall if `misses` of them are missed.

    The smallest n with BinomCDF(misses; n, 1 - recall) <= 1 - confidence; without misses that is
    ceil(ln(1 - confidence) / ln(recall)).

    Example:
        >>> parts_needed(0.90), parts_needed(0.95), parts_needed(0.99)
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
    """Return the largest recall that n faulty groups can prove: (1 - confidence) ** (1 / n)."""
    return float((1 - confidence) ** (1 / n)) if n > 0 else 0.0


def conformal_risk_threshold(faulty: ArrayLike, escape: float) -> float | None:
    """Return the largest threshold whose *expected* escape rate is bounded, or None.

    The largest t with (misses(t) + 1) / (n + 1) <= escape (Angelopoulos et al. 2022, theorem 1).
    The bound holds on average over calibration sets, not with a stated confidence for this one.
    """
    scores = np.sort(np.asarray(faulty, dtype=np.float64))
    allowed = math.floor(escape * (len(scores) + 1) + ROUNDING) - 1
    if allowed < 0 or not len(scores):
        return None
    return float(scores[min(allowed, len(scores) - 1)])


def conformal_p_values(good: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Return (1 + number of good calibration scores >= score) / (n + 1) for each score."""
    known = np.sort(np.asarray(good, dtype=np.float64))
    above = len(known) - np.searchsorted(known, np.asarray(scores, dtype=np.float64), "left")
    return np.asarray((1 + above) / (len(known) + 1), dtype=np.float64)


def false_reject_threshold(good: ArrayLike, rate: float) -> tuple[float, float]:
    """Return (threshold, rate): a new good group reaches the threshold with at most that rate.

    Holds back what has a conformal p-value <= rate. With too few good groups for the wanted rate
    the threshold lies just above all of them and the returned rate is 1 / (n + 1).

    Raises:
        ValueError: without good scores.
    """
    known = np.sort(np.asarray(good, dtype=np.float64))
    if not len(known):
        raise ValueError("no good scores to set a false-reject rate with")
    k = math.floor(rate * (len(known) + 1) + ROUNDING)
    threshold = float(np.nextafter(known[-min(max(k, 1), len(known))], np.inf))
    return threshold, rate if k >= 1 else 1 / (len(known) + 1)


def expected_violation(
    n_calibration: int, n_test: int, recall: float, confidence: float = 0.95
) -> float:
    """Return how often n_test further groups show a recall below the promise, although it holds.

    A test set is finite, so a correct threshold fails a test more often than 1 - confidence.
    For untied exchangeable groups the share is exactly P(H <= k* - 1), where H counts calibration
    groups among the k* - 1 + m lowest of all scores, H ~ Hypergeometric(n_calibration + n_test,
    n_calibration, k* - 1 + m), and m is the smallest number of misses that breaks the recall.
    NaN if the promise is not provable with n_calibration groups.
    """
    k = order_statistic(n_calibration, recall, confidence)
    m = math.floor(n_test * (1 - recall) + ROUNDING) + 1
    if not k or n_test < 1:
        return float("nan")
    if m > n_test:
        return 0.0
    drawn = k - 1 + m
    low = max(0, drawn - n_test)
    hits = np.arange(low, k, dtype=np.float64)
    log = (
        _log_choose(n_calibration, hits)
        + _log_choose(n_test, drawn - hits)
        - _log_choose(n_calibration + n_test, np.array([float(drawn)]))
    )
    return float(min(1.0, np.exp(log).sum()))


def _log_choose(n: int, k: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(
        special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1),
        dtype=np.float64,
    )


def _check(recall: float, confidence: float) -> None:
    if not (0.0 < recall < 1.0 and 0.0 < confidence < 1.0):
        raise ValueError(f"recall {recall} and confidence {confidence} must lie between 0 and 1")
