"""Rates of an operating point as prediction decides: misses, false alarms and reviews."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import clopper_pearson_upper, proportion
from lineside.core.statistics.units import UnitScores


@dataclass(frozen=True, kw_only=True)
class DecisionRates:
    """Shares of units; NaN where there is no unit of that label.

    A unit that is unusual (see `UnitScores`) is reviewed instead of accepted.

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
        ``recall``, ``miss``, ``false_alarm``, ``review_positive``, ``review_negative``,
        ``held_negative``, and ``accepted_negative`` (negatives accepted without review), see
        `DecisionRates`.
    """
    accepted, rejected = decisions(scores, point)
    positive, negative = scores.labels == 1, scores.labels == 0

    def share(hits: NDArray[np.bool_], among: NDArray[np.bool_], better: bool) -> Estimate:
        hit, n = int((hits & among).sum()), int(among.sum())
        return proportion(hit, n, confidence, "higher" if better else "lower")

    return {
        "recall": share(~accepted, positive, True),
        "miss": share(accepted, positive, False),
        "false_alarm": share(rejected, negative, False),
        "review_positive": share(~accepted & ~rejected, positive, False),
        "review_negative": share(~accepted & ~rejected, negative, False),
        "held_negative": share(~accepted, negative, False),
        "accepted_negative": share(accepted, negative, True),
    }


def decisions(
    scores: UnitScores, point: OperatingPoint
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which units are accepted and which rejected, shape (n,); a person sees the others."""
    accepted = (scores.scores < point.threshold) & scores.usual
    rejected = scores.scores >= max(point.threshold, point.reject_threshold)
    return accepted, rejected


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
    accepted, rejected = decisions(scores, point)
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


SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
"""Of the calibration positives that a threshold of the trade-off lets escape."""


@dataclass(frozen=True, kw_only=True)
class TradeOff:
    """What one threshold costs: misses on one side, negatives held back on the other.

    Attributes:
        threshold: Units are held back from this score on.
        proven_miss: One-sided upper bound of the miss rate from the calibration positives, for
            this threshold alone; None without calibration positives.
        miss: Test positives that are accepted.
        held_negative: Test negatives that are held back.
        in_use: True for the threshold of the operating point.
    """

    threshold: float
    proven_miss: float | None
    miss: Estimate
    held_negative: Estimate
    in_use: bool


def trade_off(
    calibration: UnitScores,
    test: UnitScores,
    point: OperatingPoint,
    shares: Sequence[float] = SHARES,
) -> list[TradeOff]:
    """Return thresholds from low (few misses) to high (few false alarms) with their rates.

    The thresholds are order statistics of the calibration positives (without any: quantiles of
    the calibration negatives) and the one in use. Rates are those of the test units, on which no
    threshold was chosen, so that each interval holds for its row.
    """
    ordered = np.sort(calibration.positive)
    thresholds = {point.threshold}
    if len(ordered):
        places = {math.floor(share * len(ordered)) for share in shares}
        thresholds |= {float(ordered[place]) for place in places}
    elif len(calibration.negative):
        quantiles = np.quantile(calibration.negative, [1 - share for share in shares[1:]])
        thresholds |= set(quantiles.tolist())
    rows = []
    for threshold in sorted(thresholds):
        moved = dataclasses.replace(point, threshold=threshold, reject_threshold=threshold)
        rates = rate_estimates(test, moved, point.confidence)
        missed = int((ordered < threshold).sum())
        rows.append(
            TradeOff(
                threshold=threshold,
                proven_miss=clopper_pearson_upper(missed, len(ordered), point.confidence)
                if len(ordered)
                else None,
                miss=rates["miss"],
                held_negative=rates["held_negative"],
                in_use=threshold == point.threshold,
            )
        )
    return rows
