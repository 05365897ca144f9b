"""Guarantees tested on fresh units, and what each kind of positive can prove by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from lineside.core.contract import Estimate
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import clopper_pearson_lower
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    order_statistic_threshold,
    units_needed,
)
from lineside.core.statistics.units import NEUTRAL, UnitScores, Words


def fresh_recall(
    positives: ArrayLike, threshold: float, confidence: float = 0.95, words: Words = NEUTRAL
) -> Estimate:
    """Return the recall on fresh positive units with its one-sided Clopper-Pearson lower bound.

    Args:
        positives: Scores of units that were used for neither fitting nor calibration.
        threshold: Score from which a unit is held back.
        confidence: Confidence of the lower bound.
        words: The application's words for messages.
    """
    scores = np.asarray(positives, dtype=np.float64)
    n, held = len(scores), int((scores >= threshold).sum())
    if not n:
        reason = f"there are no fresh {words.positive} {words.units}"
        return Estimate(value=float("nan"), reason=reason)
    low = clopper_pearson_lower(held, n, confidence)
    method = f"Clopper-Pearson lower bound over {words.units}, one-sided, {100 * confidence:.3g} %"
    return Estimate(value=held / n, low=low, high=1.0, n=n, method=method)


def check_guarantee(
    point: OperatingPoint, scores: UnitScores, significance: float = 0.05
) -> tuple[bool, str]:
    """Return whether fresh units are compatible with the guarantee, and a sentence that says why.

    They are not if P(at least this many misses | recall exactly as guaranteed) is below
    `significance` (one-sided binomial test).
    """
    words, n, recall = point.words, len(scores.positive), point.recall
    if recall is None:
        return True, "No recall is guaranteed, so no guarantee can be broken."
    if not n:
        return True, (
            f"There are no {words.positive} {words.units} here, so the guarantee was not tested."
        )
    missed = int((scores.positive < point.threshold).sum())
    p = 1.0 if not missed else float(special.bdtrc(missed - 1, n, 1 - recall))
    fact = f"{missed} of {n} {words.positive} {words.of(n)} escaped"
    if p < significance:
        return False, (
            f"{fact}; with the guaranteed recall of {recall:.4g} at least this many escape with "
            f"probability {p:.2g}: calibrate again."
        )
    return True, f"{fact}, which is compatible with a recall of {recall:.4g} (p = {p:.2g})."


@dataclass(frozen=True, kw_only=True)
class KindCertificate:
    """What the positive units of one kind can prove.

    Attributes:
        kind: Name of the kind.
        n: Its positive units.
        recall: Required recall.
        confidence: Confidence for this kind alone; higher than asked for under Bonferroni.
        provable: True if n units can prove the recall.
        threshold: The threshold that would prove it, None if unprovable.
        needed: Units needed without a miss.
        best_recall: The largest recall that n units can prove.
        observed: Recall of these units at a given threshold, with its lower bound; only valid if
            that threshold was set on other units.
        message: One plain sentence.
    """

    kind: str
    n: int
    recall: float
    confidence: float
    provable: bool
    threshold: float | None
    needed: int
    best_recall: float
    observed: Estimate | None
    message: str


def certify_kinds(
    scores: UnitScores,
    *,
    recall: float,
    confidence: float = 0.95,
    bonferroni: bool = False,
    threshold: float | None = None,
    words: Words = NEUTRAL,
) -> list[KindCertificate]:
    """Return one certificate per kind, in alphabetical order.

    Args:
        scores: Scores by unit.
        recall: Required recall of every kind.
        confidence: Confidence of each guarantee, or of all together under Bonferroni.
        bonferroni: Divide the remaining risk 1 - confidence by the number of kinds, so that all
            guarantees hold together with the stated confidence.
        threshold: Also state the recall of each kind at this threshold.
        words: The application's words for messages.
    """
    positive = scores.labels == 1
    kinds = np.array(scores.kinds)
    names = sorted(set(kinds[positive].tolist()))
    each = 1 - (1 - confidence) / len(names) if bonferroni and names else confidence
    return [
        _certify(name, scores.scores[positive & (kinds == name)], recall, each, threshold, words)
        for name in names
    ]


def _certify(
    kind: str,
    scores: NDArray[np.float64],
    recall: float,
    confidence: float,
    threshold: float | None,
    words: Words,
) -> KindCertificate:
    n = len(scores)
    proven = order_statistic_threshold(scores, recall, confidence)
    needed = units_needed(recall, confidence)
    best = best_provable_recall(n, confidence)
    rounded = math.floor(best * 1000) / 1000
    observed = None if threshold is None else fresh_recall(scores, threshold, confidence, words)
    message = (
        f"provable: {n} {words.units}, {needed} needed"
        if proven is not None
        else f"unprovable: {n} of {needed} {words.units}; best provable is {rounded:.3f}"
    )
    return KindCertificate(
        kind=kind, n=n, recall=recall, confidence=confidence, provable=proven is not None,
        threshold=proven, needed=needed, best_recall=best, observed=observed, message=message,
    )  # fmt: skip
