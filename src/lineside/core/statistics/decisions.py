"""What an operating point does to faulty and good groups: escapes, overkill, review."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import proportion
from lineside.core.statistics.unit_scores import GroupScores


@dataclass(frozen=True, kw_only=True)
class DecisionRates:
    """Shares by group; NaN where there is no group of that label.

    Attributes:
        escape: Accepted faulty groups / faulty groups.
        overkill: Good groups rejected without a person / good groups.
        review_faulty: Reviewed faulty groups / faulty groups.
        review_good: Reviewed good groups / good groups.
    """

    escape: float
    overkill: float
    review_faulty: float
    review_good: float

    @property
    def recall(self) -> float:
        """Faulty groups held back (reviewed or rejected) / faulty groups."""
        return 1 - self.escape

    @property
    def false_reject(self) -> float:
        """Good groups held back (reviewed or rejected) / good groups."""
        return self.overkill + self.review_good


def decision_rates(groups: GroupScores, point: OperatingPoint) -> DecisionRates:
    """Return the shares of escapes, overkill and review among these groups."""
    share = shares(groups, point, np.ones((1, len(groups.scores))))[0]
    return DecisionRates(
        escape=float(share[0]), overkill=float(share[1]),
        review_faulty=float(share[2]), review_good=float(share[3]),
    )  # fmt: skip


def rate_estimates(
    groups: GroupScores, point: OperatingPoint, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Return recall, escape, overkill and review shares with two-sided Clopper-Pearson ends.

    Returns:
        ``recall``, ``escape``, ``overkill``, ``review_faulty``, ``review_good``, and
        ``first_pass_good`` (good groups accepted at once).
    """
    faulty, good = groups.faulty, groups.good
    low, high = point.threshold, point.reject_threshold

    def share(hits: NDArray[np.bool_], better: bool) -> Estimate:
        return proportion(int(hits.sum()), len(hits), confidence, "higher" if better else "lower")

    return {
        "recall": share(faulty >= low, True),
        "escape": share(faulty < low, False),
        "overkill": share(good >= max(low, high), False),
        "review_faulty": share((faulty >= low) & (faulty < high), False),
        "review_good": share((good >= low) & (good < high), False),
        "first_pass_good": share(good < low, True),
    }


def shares(
    groups: GroupScores, point: OperatingPoint, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (escape, overkill, review_faulty, review_good) per row of group weights.

    Args:
        groups: Scores of n groups.
        point: The thresholds.
        weights: Shape (repetitions, n).

    Returns:
        Shape (repetitions, 4); NaN where the label has no weight.
    """
    accepted = groups.scores < point.threshold
    rejected = ~accepted & (groups.scores >= point.reject_threshold)
    faulty, good = groups.labels == 1, groups.labels == 0
    columns = [
        (accepted, faulty),
        (rejected, good),
        (~accepted & ~rejected, faulty),
        (~accepted & ~rejected, good),
    ]
    hits = np.stack([weights @ (event & kind) for event, kind in columns], axis=-1)
    totals = np.stack([weights @ kind for _, kind in columns], axis=-1)
    result = np.full(hits.shape, np.nan)
    np.divide(hits, totals, out=result, where=totals > 0)
    return result
