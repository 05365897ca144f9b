"""The operating point: two thresholds, the promise they keep, and what the promise rests on."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from lineside.core.errors import UserError
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    conformal_risk_threshold,
    false_reject_threshold,
    order_statistic,
    order_statistic_threshold,
    parts_needed,
)
from lineside.core.statistics.unit_scores import GroupScores, Rule

Decision = Literal["accept", "review", "reject"]
PointMethod = Literal[
    "order statistic", "conformal risk control", "lowest faulty score", "good groups only"
]


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Accept below `threshold`, reject from `reject_threshold` on, ask a person in between.

    Attributes:
        threshold: Score from which nothing is accepted; the promise is about this one.
        reject_threshold: Score from which no person looks again; equal to `threshold` without
            a review band.
        method: How the threshold was found.
        recall: Wanted share of faulty groups that are held back; None if no claim can be made.
        confidence: Confidence of the promise over draws of the calibration groups.
        rule: How the items of a group are joined.
        unit: What a group is called.
        n_good: Good groups used.
        n_faulty: Faulty groups used.
        misses: Faulty calibration groups below `threshold`.
        provable: True if the promise is certified (and not suspended: see `certified`).
        best_recall: The largest recall that n_faulty groups can prove at this confidence.
        needed: Faulty groups that prove the wanted recall if none is missed.
        bound: Expected share that the fallback bounds: of escapes, or without faulty groups of
            false rejects; None for a certified threshold.
        review_budget: Largest share of groups in the review band, as asked for.
        message: The promise in plain words.
        date: Day of calibration, ISO 8601.
        model: Digest of the frozen model.
        suspended: Why the promise no longer counts, or ``""``.
    """

    threshold: float
    reject_threshold: float
    method: PointMethod
    recall: float | None
    confidence: float
    rule: Rule
    unit: str
    n_good: int
    n_faulty: int
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
        """True if the promise is proven and still counts."""
        return self.provable and not self.suspended

    def decide(self, score: float) -> Decision:
        """Return what happens to a group with this score; NaN goes to a person."""
        if math.isnan(score):
            return "review"
        if score < self.threshold:
            return "accept"
        return "reject" if score >= self.reject_threshold else "review"

    def suspend(self, reason: str) -> OperatingPoint:
        """Return the same point with its promise withdrawn until it is calibrated anew."""
        return dataclasses.replace(self, suspended=reason)

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, block: Mapping[str, Any]) -> OperatingPoint:
        """Return what `as_json` wrote.

        Raises:
            UserError: if fields are missing or unknown, or a threshold is not a number.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        wrong = sorted(names.symmetric_difference(block))
        if wrong:
            raise UserError(f"not an operating point: {', '.join(wrong)}", "calibrate anew")
        for name in ("threshold", "reject_threshold"):
            value = block[name]
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise UserError(f"{name} is {value!r}, not a number", "calibrate anew")
        if block["method"] not in get_args(PointMethod) or block["rule"] not in get_args(Rule):
            raise UserError("not an operating point: unknown method or rule", "calibrate anew")
        return cls(**block)


def operating_point(
    groups: GroupScores,
    *,
    recall: float,
    confidence: float = 0.95,
    review_budget: float = 0.0,
    prevalence: float = 0.0,
    false_reject: float = 0.01,
    unit: str = "group",
    model: str = "",
    date: str = "",
) -> OperatingPoint:
    """Choose the thresholds for a stated risk; the result says what it can and cannot promise.

    With enough faulty groups the threshold is the certified order statistic. With fewer it is
    the conformal one (a bound on average), with very few the lowest faulty score, both marked as
    not certified. Without any faulty group only false rejects are bounded, and nothing is
    claimed about recall: at most `false_reject` of good groups are rejected and at most
    `review_budget` more go to a person, on average.

    Args:
        groups: Scores of groups that the model was not fitted on.
        recall: Wanted share of faulty groups held back (reviewed or rejected).
        confidence: Confidence of the promise.
        review_budget: Largest share of groups that a person looks at again.
        prevalence: Share of faulty groups in what is reviewed; 0 counts good groups only.
        false_reject: False-reject rate, used only where there are no faulty groups.
        unit: What a group is called in messages (singular).
        model: Digest of the frozen model.
        date: Day of calibration; today if empty.

    Raises:
        UserError: if there are no groups.
    """
    faulty = groups.faulty
    if not len(groups.scores):
        raise UserError(f"there are no {unit}s to calibrate on", "give labelled ones")
    if len(faulty):
        method, threshold, bound = _recall_threshold(faulty, recall, confidence)
        upper = reject_threshold(groups, threshold, review_budget, prevalence)
    else:
        method = "good groups only"
        threshold, upper, bound = _good_thresholds(groups.good, false_reject, review_budget)
    point = OperatingPoint(
        threshold=threshold, reject_threshold=upper, method=method,
        recall=recall if len(faulty) else None, confidence=confidence, rule=groups.rule, unit=unit,
        n_good=len(groups.good), n_faulty=len(faulty), misses=int((faulty < threshold).sum()),
        provable=method == "order statistic",
        best_recall=best_provable_recall(len(faulty), confidence),
        needed=parts_needed(recall, confidence),
        bound=bound, review_budget=review_budget, message="", model=model,
        date=date or datetime.datetime.now(datetime.UTC).date().isoformat(),
    )  # fmt: skip
    return dataclasses.replace(point, message=_message(point, recall))


def reject_threshold(
    groups: GroupScores, threshold: float, budget: float, prevalence: float = 0.0
) -> float:
    """Return the upper end of the widest review band above `threshold` that keeps the budget.

    The reviewed share is (1 - prevalence) * share of good groups in the band + prevalence * share
    of faulty ones. A band never reaches beyond the highest good score: there is nothing left to
    save there. Without good groups there is no band.
    """
    good, faulty = np.sort(groups.good), np.sort(groups.faulty)
    above = np.unique(good[good >= threshold])
    if not len(above):
        return threshold
    ends = np.nextafter(above, np.inf)
    share = (1 - prevalence) * _between(good, threshold, ends)
    if prevalence:
        share += prevalence * _between(faulty, threshold, ends)
    fits = int(np.count_nonzero(share <= budget + 1e-12))
    return float(ends[fits - 1]) if fits else threshold


def _recall_threshold(
    faulty: ArrayLike, recall: float, confidence: float
) -> tuple[PointMethod, float, float | None]:
    scores = np.asarray(faulty, dtype=np.float64)
    if (proven := order_statistic_threshold(scores, recall, confidence)) is not None:
        return "order statistic", proven, None
    if (expected := conformal_risk_threshold(scores, 1 - recall)) is not None:
        return "conformal risk control", expected, 1 - recall
    return "lowest faulty score", float(scores.min()), 1 / (len(scores) + 1)


def _good_thresholds(
    good: ArrayLike, false_reject: float, review_budget: float
) -> tuple[float, float, float]:
    """Return (threshold, reject threshold, bound on false rejects) from good groups alone."""
    upper, bound = false_reject_threshold(good, false_reject)
    lower, _ = false_reject_threshold(good, min(false_reject + review_budget, 1.0))
    return lower, upper, bound


def _message(point: OperatingPoint, recall: float) -> str:
    confident = f"{100 * point.confidence:.4g} % confidence"
    units = plural(point.unit, point.n_faulty)
    if point.method == "order statistic":
        allowed = order_statistic(point.n_faulty, recall, point.confidence) - 1
        below = f"up to {allowed} of which may score" if allowed else "none of which scores"
        return (
            f"At least {100 * recall:.4g} % of faulty {point.unit}s are held back, with "
            f"{confident}: certified with {point.n_faulty} faulty {units}, {below} below the "
            f"threshold."
        )
    if point.method == "good groups only":
        return (
            f"There are no faulty {point.unit}s, so nothing is promised about recall. On average "
            f"at most {100 * (point.bound or 0):.3g} % of good {point.unit}s are rejected "
            f"(from {point.n_good} good ones); {point.needed} faulty {point.unit}s would prove a "
            f"recall of {recall:.4g} at {confident}."
        )
    # Rounded down, so that the recall named here is itself provable.
    best = math.floor(point.best_recall * 1000) / 1000
    basis = (
        "conformal risk control"
        if point.method == "conformal risk control"
        else "lowest known faulty score"
    )
    return (
        f"You have {point.n_faulty} faulty {units}, this promise (recall >= {recall:.4g} at "
        f"{confident}) needs {point.needed}; with {point.n_faulty} the best promise is "
        f"recall >= {best:.3f}. The threshold is not certified: at most "
        f"{100 * (point.bound or 0):.3g} % escape on average ({basis})."
    )


def plural(unit: str, n: int) -> str:
    """Return the unit's name for n of them."""
    return unit if n == 1 else f"{unit}s"


def _between(
    ordered: np.ndarray[Any, np.dtype[np.float64]],
    low: float,
    ends: np.ndarray[Any, np.dtype[np.float64]],
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Share of ordered scores in [low, end) for each end; 0 without scores."""
    count = np.searchsorted(ordered, ends, "left") - np.searchsorted(ordered, low, "left")
    return np.asarray(count / max(1, len(ordered)), dtype=np.float64)
