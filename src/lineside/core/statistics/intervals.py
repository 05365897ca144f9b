"""Confidence intervals that keep their promise with few groups of a class.

Closed forms where there is one, else the jackknife. All take numbers of groups, not of items:
items of a group are not independent. `benchmarks.core --only coverage` simulates what they cover.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lineside.core.statistics.proportions import clopper_pearson, wilson
from lineside.core.statistics.ranking import auroc, rank

Floats = NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
FEWEST = 10
"""Groups of the rarer class below which the jackknife of a fraction covers less than it says."""
FEWEST_RATE = 4
"""Groups below which it is not known how much their rates differ."""
_EDGE, _BESIDE = 1e-12, 1e-9


def auroc_interval(
    scores: Floats, labels: Floats, positives: int, negatives: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval of an area under the ROC curve: `newcombe_interval` around its value.

    Args:
        scores: Shape (units,).
        labels: 1 positive, 0 negative, shape (units,).
        positives: Groups with a positive unit.
        negatives: Groups with a negative unit.
        confidence: Of the two-sided interval.
    """
    return newcombe_interval(auroc(scores, labels), positives, negatives, confidence)


def newcombe_interval(
    value: float, positives: int, negatives: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval of an area under the ROC curve (Newcombe 2006, method 5).

    It holds all areas A with (A - value)^2 <= z^2 V(A), where V is the variance of Hanley and
    McNeil (1982) for exponential scores with both class sizes replaced by their mean:
    V(A) = A (1 - A) / (m n) [1 + ((m + n) / 2 - 1) ((1 - A) / (2 - A) + A / (1 + A))].
    So it has a width also for a perfect ranking.

    Args:
        value: The area.
        positives: Groups with a positive unit, m.
        negatives: Groups with a negative unit, n.
        confidence: Of the two-sided interval.
    """
    z = float(special.ndtri(0.5 + confidence / 2))
    rest = (positives + negatives) / 2 - 1

    def excess(area: float) -> float:
        spread = 1 + rest * ((1 - area) / (2 - area) + area / (1 + area))
        variance = area * (1 - area) / (positives * negatives) * spread
        return (area - value) ** 2 - z * z * variance

    # the excess is below 0 at the value, just beside it for a value of 0 or 1
    inside = min(max(value, _BESIDE), 1 - _BESIDE)
    low = 0.0 if value <= _BESIDE else _root(excess, _EDGE, inside)
    high = 1.0 if value >= 1 - _BESIDE else _root(excess, 1 - _EDGE, inside)
    return low, high


def fpr_interval(
    scores: Floats,
    labels: Floats,
    positives: int,
    negatives: int,
    recall: float,
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the interval of the false-positive rate where a share of positives is found.

    Two errors are joined by their squares (MOVER, Zou and Donner 2008): of the threshold, between
    the order statistics of the positives that enclose it with the confidence; and of the rate at
    that threshold (Wilson 1927). With too few positive groups no order statistic is low enough: the
    upper end is 1 (below 72 groups for a recall of 0.95).

    Args:
        scores: Shape (units,).
        labels: 1 positive, 0 negative, shape (units,).
        positives: Groups with a positive unit.
        negatives: Groups with a negative unit.
        recall: The share of positives, below 1.
        confidence: Of the two-sided interval.
    """
    ranking = rank(scores, labels)

    def rate(share: float) -> float:
        """False-positive rate at the highest threshold that finds this share of positives."""
        return float(ranking.fpr_at_recall(share)) if share > 0 else 0.0

    tail = (1 - confidence) / 2
    # the numbers of groups that a threshold of true recall r finds with the confidence
    groups = np.arange(positives + 1)
    below = special.bdtr(groups, positives, recall)
    fewest = int(np.searchsorted(below, tail))
    most = int(np.searchsorted(below, 1 - tail)) + 1
    value = rate(recall)
    low, high = wilson(round(value * negatives), negatives, confidence)
    low, high = min(low, value), max(high, value)
    lower = value - np.hypot(value - rate(fewest / positives), value - low)
    if most > positives:
        return max(0.0, float(lower)), 1.0
    upper = value + np.hypot(rate(most / positives) - value, high - value)
    return max(0.0, float(lower)), min(1.0, float(upper))


def precision_interval(
    found: int,
    positives: int,
    called: int,
    negatives: int,
    prevalence: float,
    confidence: float = CONFIDENCE,
) -> Interval | str:
    """Return the interval of the precision at a threshold and a prevalence, or why there is none.

    Precision = 1 / (1 + f / r * (1 - prevalence) / prevalence) with the recall r and the
    false-positive rate f. The interval of f / r joins their Clopper-Pearson intervals (MOVER-R,
    Donner and Zou 2012), so that it has a width also where one of them is 0.

    Args:
        found: Positive groups that are called positive.
        positives: All positive groups.
        called: Negative groups that are called positive.
        negatives: All negative groups.
        prevalence: Share of positives where the threshold is used.
        confidence: Of the two-sided interval.
    """
    if not positives or not negatives:
        return "groups of one class only"
    if not found and not called:
        return "nothing is held back"
    rate, recall = called / negatives, found / positives
    rate_low, rate_high = clopper_pearson(called, negatives, confidence)
    recall_low, recall_high = clopper_pearson(found, positives, confidence)

    def ratio(end: float, other: float, sign: int) -> float:
        """End of rate / recall from an end of the rate and the opposite end of the recall."""
        below = other * (2 * recall - other)
        if abs(below) < _EDGE:  # the recall may be 0
            return 0.0 if sign < 0 else float("inf")
        root = (rate * recall) ** 2 - end * other * (2 * rate - end) * (2 * recall - other)
        return float((rate * recall + sign * np.sqrt(max(0.0, root))) / below)

    odds = (1 - prevalence) / prevalence
    low = 1 / (1 + odds * ratio(rate_high, recall_low, 1))
    return low, 1 / (1 + odds * max(0.0, ratio(rate_low, recall_high, -1)))


def rate_interval(
    counts: Floats, exposures: Floats, confidence: float = CONFIDENCE
) -> Interval | str:
    """Return the interval of a rate of events, sum of counts / sum of exposures, over groups.

    The wider of two: exact for independent events (Garwood 1936), and the jackknife over groups of
    the logarithm of the rate with Student's quantile, for groups that differ by more than chance.
    Without any event only the first exists.

    Args:
        counts: Events of each group, shape (groups,).
        exposures: Time of each group, shape (groups,).
        confidence: Of the two-sided interval.
    """
    total, time, groups = float(counts.sum()), float(exposures.sum()), len(counts)
    if groups < FEWEST_RATE:
        return f"{groups} groups, an interval of their rate needs {FEWEST_RATE}"
    tail = (1 - confidence) / 2
    low = float(special.gammaincinv(total, tail)) / time if total else 0.0
    high = float(special.gammaincinv(total + 1, 1 - tail)) / time
    if not total:
        return low, high
    rate = total / time
    residual = counts - rate * exposures
    error = np.sqrt(groups / (groups - 1) * (residual**2).sum()) / total
    reach = float(np.exp(special.stdtrit(groups - 1, 1 - tail) * error))
    return min(low, rate / reach), max(high, rate * reach)


def jackknife_interval(
    value: float,
    left_out: Floats,
    strata: NDArray[np.int64],
    *,
    fraction: bool,
    confidence: float = CONFIDENCE,
) -> Interval | str:
    """Return the jackknife interval over groups, or why there is none.

    Variances of the strata add up: v_s = (k - 1) / k sum (x_i - mean)^2 over the k values of a
    stratum (Efron and Stein 1981; for the AUROC these are DeLong's). The quantile is Student's,
    with the degrees of freedom of Satterthwaite (1946). Fractions are computed as logits, so that
    the interval stays between 0 and 1.

    Args:
        value: The measure on all groups.
        left_out: The measure without one group, shape (groups,).
        strata: What kind of group it was, shape (groups,).
        fraction: The measure lies between 0 and 1.
        confidence: Of the two-sided interval.
    """
    if np.isnan(left_out).any():
        return "undefined without one of its groups: too few groups of a class"
    if fraction and not 0 < value < 1:
        return "all groups agree: the jackknife cannot tell how sure this is"
    points = special.logit(np.clip(left_out, 1e-6, 1 - 1e-6)) if fraction else left_out
    kinds, counts = np.unique(strata, return_counts=True)
    if fraction and len(kinds) > 1 and counts.min() < FEWEST:
        return f"{counts.min()} groups of a class, its interval needs {FEWEST}"
    variances = np.array([
        (k - 1) / k * ((x - x.mean()) ** 2).sum()
        for k, x in zip(counts, (points[strata == kind] for kind in kinds), strict=True)
    ])  # fmt: skip
    total = float(variances.sum())
    if total <= 1e-18 * max(1.0, value * value):
        return "all groups agree: the jackknife cannot tell how sure this is"
    freedom = total**2 / float((variances**2 / (counts - 1)).sum())
    reach = float(special.stdtrit(freedom, 0.5 + confidence / 2)) * total**0.5
    if not fraction:
        return value - reach, value + reach
    middle = float(special.logit(value))
    return float(special.expit(middle - reach)), float(special.expit(middle + reach))


def median_interval(values: Floats, confidence: float = CONFIDENCE) -> Interval | str:
    """Return the distribution-free interval of a median between two order statistics.

    (x_(k), x_(n + 1 - k)) with the largest k whose binomial tail P(K < k) is at most
    (1 - confidence) / 2 (David and Nagaraja 2003, section 7.1).
    """
    count = len(values)
    tails = special.bdtr(np.arange(count), count, 0.5)
    rank = int(np.searchsorted(tails, (1 - confidence) / 2, side="right"))
    if rank < 1:
        return f"{count} values, an interval of their median needs at least 6"
    ordered = np.sort(values)
    return float(ordered[rank - 1]), float(ordered[count - rank])


def _root(excess: Callable[[float], float], outside: float, inside: float) -> float:
    """Return where the excess changes its sign; the end itself where it never does."""
    from scipy.optimize import brentq  # 0.2 s, and most commands make no interval

    if excess(outside) <= 0:
        return round(outside)
    return float(brentq(excess, outside, inside))
