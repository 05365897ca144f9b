"""Rates of an operating point: misses, false alarms and reviews."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import proportion
from lineside.core.statistics.units import UnitScores


@dataclass(frozen=True, kw_only=True)
class DecisionRates:
    """Shares of units; NaN where there is no unit of that label.

    Attributes:
        miss: Accepted positives / positives (false negatives).
        false_alarm: Negatives rejected without a person / negatives (false positives).
        review_positive: Reviewed positives / positives.
        review_negative: Reviewed negatives / negatives.
    """

    miss: float
    false_alarm: float
    review_positive: float
    review_negative: float

    @property
    def recall(self) -> float:
        """Positives held back (reviewed or rejected) / positives."""
        return 1 - self.miss

    @property
    def held_negative(self) -> float:
        """Negatives held back (reviewed or rejected) / negatives."""
        return self.false_alarm + self.review_negative


def decision_rates(scores: UnitScores, point: OperatingPoint) -> DecisionRates:
    """Return the shares of misses, false alarms and reviews among these units."""
    share = shares(scores, point, np.ones((1, len(scores.scores))))[0]
    return DecisionRates(
        miss=float(share[0]), false_alarm=float(share[1]),
        review_positive=float(share[2]), review_negative=float(share[3]),
    )  # fmt: skip


def rate_estimates(
    scores: UnitScores, point: OperatingPoint, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Return the rates with two-sided Clopper-Pearson intervals.

    Returns:
        ``recall``, ``miss``, ``false_alarm``, ``review_positive``, ``review_negative``, and
        ``accepted_negative`` (negatives accepted without review), see `DecisionRates`.
    """
    positive, negative = scores.positive, scores.negative
    low, high = point.threshold, point.reject_threshold

    def share(hits: NDArray[np.bool_], better: bool) -> Estimate:
        return proportion(int(hits.sum()), len(hits), confidence, "higher" if better else "lower")

    return {
        "recall": share(positive >= low, True),
        "miss": share(positive < low, False),
        "false_alarm": share(negative >= max(low, high), False),
        "review_positive": share((positive >= low) & (positive < high), False),
        "review_negative": share((negative >= low) & (negative < high), False),
        "accepted_negative": share(negative < low, True),
    }


def shares(
    scores: UnitScores, point: OperatingPoint, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (miss, false_alarm, review_positive, review_negative) per row of unit weights.

    Args:
        scores: Scores of n units.
        point: The thresholds.
        weights: Shape (repetitions, n).

    Returns:
        Shape (repetitions, 4); NaN where the label has no weight.
    """
    accepted = scores.scores < point.threshold
    rejected = ~accepted & (scores.scores >= point.reject_threshold)
    positive, negative = scores.labels == 1, scores.labels == 0
    columns = [
        (accepted, positive),
        (rejected, negative),
        (~accepted & ~rejected, positive),
        (~accepted & ~rejected, negative),
    ]
    # (repetitions, n) @ (n,) per column -> (repetitions, 4)
    hits = np.stack([weights @ (event & label) for event, label in columns], axis=-1)
    totals = np.stack([weights @ label for _, label in columns], axis=-1)
    result = np.full(hits.shape, np.nan)
    np.divide(hits, totals, out=result, where=totals > 0)
    return result
