"""The operating point: two thresholds, the recall that they guarantee, and on what data."""

from __future__ import annotations

import dataclasses
import datetime
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from lineside.core.errors import UserError
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    conformal_risk_threshold,
    false_alarm_threshold,
    order_statistic,
    order_statistic_threshold,
    units_needed,
)
from lineside.core.statistics.units import NEUTRAL, Rule, UnitScores, Words

Decision = Literal["accept", "review", "reject"]
PointMethod = Literal[
    "order statistic", "conformal risk control", "lowest positive score", "negatives only"
]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Accept below `threshold`, reject from `reject_threshold` on, ask a person in between.

    A unit is held back if it is reviewed or rejected: if its score is at least `threshold`.

    Attributes:
        threshold: Score from which nothing is accepted; the guarantee is about this one.
        reject_threshold: Score from which units are rejected without review; equal to `threshold`
            without a review band.
        method: How the threshold was set.
        recall: Guaranteed share of positive units held back; None if no claim can be made.
        confidence: Confidence of the guarantee over draws of the calibration units.
        rule: How the items of a unit are joined.
        words: The application's words for units in messages.
        n_negative: Negative units used.
        n_positive: Positive units used.
        misses: Positive calibration units below `threshold`.
        provable: True if the guarantee is certified (and not suspended: see `certified`).
        best_recall: The largest recall that n_positive units can prove at this confidence.
        needed: Positive units that prove the required recall if none is missed.
        bound: Expected rate that the fallback bounds: of misses, or without positive units of
            false alarms; None for a certified threshold.
        review_budget: Largest share of units in the review band, as asked for.
        message: The guarantee in plain words.
        date: Day of calibration, ISO 8601.
        model: Digest of the frozen model.
        suspended: Why the guarantee no longer counts, or ``""``.
    """

    threshold: float
    reject_threshold: float
    method: PointMethod
    recall: float | None
    confidence: float
    rule: Rule
    words: Words
    n_negative: int
    n_positive: int
    misses: int
    provable: bool
    best_recall: float
    needed: int
    bound: float | None
    review_budget: float
    message: str
    date: str
    model: str = ""
    suspended: str = ""

    @property
    def certified(self) -> bool:
        """True if the guarantee is proven and still counts."""
        return self.provable and not self.suspended

    def decide(self, score: float) -> Decision:
        """Return the decision on a unit with this score; NaN goes to a person."""
        if math.isnan(score):
            return "review"
        if score < self.threshold:
            return "accept"
        return "reject" if score >= self.reject_threshold else "review"

    def suspend(self, reason: str) -> OperatingPoint:
        """Return the same point with its guarantee suspended until it is calibrated again."""
        return dataclasses.replace(self, suspended=reason)

    def __post_init__(self) -> None:
        for name in ("threshold", "reject_threshold"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} is {getattr(self, name)}, not a number", "calibrate again")


def operating_point(
    scores: UnitScores,
    *,
    recall: float,
    confidence: float = 0.95,
    review_budget: float = 0.0,
    prevalence: float = 0.0,
    false_alarm: float = 0.01,
    words: Words = NEUTRAL,
    model: str = "",
    date: str = "",
) -> OperatingPoint:
    """Choose the thresholds for a stated risk; the result says what it can and cannot guarantee.

    positive units      threshold                                   guarantee
    enough              certified order statistic                   recall, with confidence
    fewer               conformal risk control                      misses on average
    very few            lowest positive score                       misses on average
    none                quantiles of the negative scores            false alarms on average

    In the last case at most `false_alarm` of negative units are rejected and at most
    `review_budget` more go to a person, on average.

    Args:
        scores: Scores of units that the model was not fitted on.
        recall: Required share of positive units held back (reviewed or rejected).
        confidence: Confidence of the guarantee.
        review_budget: Largest share of units that a person reviews.
        prevalence: Share of positive units in what is reviewed; 0 counts negative units only.
        false_alarm: False-alarm rate, used only where there are no positive units.
        words: The application's words for units in messages.
        model: Digest of the frozen model.
        date: Day of calibration; today if empty.

    Raises:
        UserError: if there are no units.
    """
    positive = scores.positive
    if not len(scores.scores):
        raise UserError(f"there are no {words.units} to calibrate on", "give labelled ones")
    if len(positive):
        method, threshold, bound = _recall_threshold(positive, recall, confidence)
        upper = reject_threshold(scores, threshold, review_budget, prevalence)
    else:
        method = "negatives only"
        threshold, upper, bound = _negative_thresholds(scores.negative, false_alarm, review_budget)
    point = OperatingPoint(
        threshold=threshold, reject_threshold=upper, method=method,
        recall=recall if len(positive) else None, confidence=confidence, rule=scores.rule,
        words=words, n_negative=len(scores.negative), n_positive=len(positive),
        misses=int((positive < threshold).sum()), provable=method == "order statistic",
        best_recall=best_provable_recall(len(positive), confidence),
        needed=units_needed(recall, confidence), bound=bound, review_budget=review_budget,
        message="", model=model,
        date=date or datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip
    return dataclasses.replace(point, message=_message(point, recall))


def reject_threshold(
    scores: UnitScores, threshold: float, budget: float, prevalence: float = 0.0
) -> float:
    """Return the upper end of the widest review band above `threshold` that keeps the budget.

    The reviewed share is (1 - prevalence) * share of negatives in the band + prevalence * share
    of positives in it. A band never reaches beyond the highest negative score: no false alarm is
    left there to avoid. Without negative units there is no band.
    """
    negative, positive = np.sort(scores.negative), np.sort(scores.positive)
    above = np.unique(negative[negative >= threshold])
    if not len(above):
        return threshold
    ends = np.nextafter(above, np.inf)
    share = (1 - prevalence) * _between(negative, threshold, ends)
    if prevalence:
        share += prevalence * _between(positive, threshold, ends)
    fits = int(np.count_nonzero(share <= budget + 1e-12))
    return float(ends[fits - 1]) if fits else threshold


def _recall_threshold(
    positive: ArrayLike, recall: float, confidence: float
) -> tuple[PointMethod, float, float | None]:
    scores = np.asarray(positive, dtype=np.float64)
    if (proven := order_statistic_threshold(scores, recall, confidence)) is not None:
        return "order statistic", proven, None
    if (expected := conformal_risk_threshold(scores, 1 - recall)) is not None:
        return "conformal risk control", expected, 1 - recall
    return "lowest positive score", float(scores.min()), 1 / (len(scores) + 1)


def _negative_thresholds(
    negative: ArrayLike, false_alarm: float, review_budget: float
) -> tuple[float, float, float]:
    """Return (threshold, reject threshold, bound on false alarms) from negative units alone."""
    upper, bound = false_alarm_threshold(negative, false_alarm)
    lower, _ = false_alarm_threshold(negative, min(false_alarm + review_budget, 1.0))
    return lower, upper, bound


def _message(point: OperatingPoint, recall: float) -> str:
    confident = f"{100 * point.confidence:.4g} % confidence"
    words, n = point.words, point.n_positive
    if point.method == "order statistic":
        allowed = order_statistic(n, recall, point.confidence) - 1
        below = f"up to {allowed} of which may score" if allowed else "none of which scores"
        return (
            f"At least {100 * recall:.4g} % of {words.positive} {words.units} are held back, with "
            f"{confident}: certified with {n} {words.positive} {words.of(n)}, {below} below the "
            f"threshold."
        )
    if point.method == "negatives only":
        return (
            f"There are no {words.positive} {words.units}, so no recall is guaranteed. On average "
            f"at most {100 * (point.bound or 0):.3g} % of {words.negative} {words.units} are "
            f"rejected (from {point.n_negative} {words.negative} ones); {point.needed} "
            f"{words.positive} {words.units} would prove a recall of {recall:.4g} at {confident}."
        )
    # Rounded down, so that the recall named here is itself provable.
    best = math.floor(point.best_recall * 1000) / 1000
    basis = (
        "conformal risk control"
        if point.method == "conformal risk control"
        else f"lowest known {words.positive} score"
    )
    return (
        f"You have {n} {words.positive} {words.of(n)}, this guarantee (recall >= {recall:.4g} at "
        f"{confident}) needs {point.needed}; with {n} the best guarantee is recall >= {best:.3f}. "
        f"The threshold is not certified: at most {100 * (point.bound or 0):.3g} % escape on "
        f"average ({basis})."
    )


def _between(
    ordered: np.ndarray[Any, np.dtype[np.float64]],
    low: float,
    ends: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Share of ordered scores in [low, end) for each end; 0 without scores."""
    count = np.searchsorted(ordered, ends, "left") - np.searchsorted(ordered, low, "left")
    return np.asarray(count / max(1, len(ordered)), dtype=np.float64)
