"""Guarantees tested on fresh units, and what each kind of positive can prove by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lineside.core.contract import Estimate, GuaranteeCheck
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
) -> GuaranteeCheck:
    """Test the guarantee of an operating point on fresh units.

    It is broken if P(at least this many misses | recall exactly as guaranteed) is below
    `significance` (one-sided binomial test).
    """
    words, n, recall = point.words, len(scores.positive), point.recall
    if recall is None:
        text = "No recall is guaranteed, so no guarantee can be broken."
        return GuaranteeCheck(kept=True, text=text)
    if not n:
        text = f"There are no {words.positive} {words.units} here, so the guarantee was not tested."
        return GuaranteeCheck(kept=True, text=text)
    missed = int((scores.positive < point.threshold).sum())
    p = 1.0 if not missed else float(special.bdtrc(missed - 1, n, 1 - recall))
    fact = f"{missed} of {n} {words.positive} {words.of(n)} escaped"
    if p < significance:
        text = (
            f"{fact}; with the guaranteed recall of {recall:.4g} at least this many escape with "
            f"probability {p:.2g}: calibrate again."
        )
        return GuaranteeCheck(kept=False, text=text)
    text = f"{fact}, which is compatible with a recall of {recall:.4g} (p = {p:.2g})."
    return GuaranteeCheck(kept=True, text=text)


@dataclass(frozen=True, kw_only=True)
class KindCertificate:
    """What the positive units of one kind can prove.

    Attributes:
        n: Its positive units.
        threshold: The largest threshold that proves the recall, None if unprovable.
        needed: Units needed without a miss.
        best_recall: The largest recall that n units can prove.
    """

    n: int
    threshold: float | None
    needed: int
    best_recall: float


def certify_kinds(
    scores: UnitScores, *, recall: float, confidence: float = 0.95
) -> dict[str, KindCertificate]:
    """Return the certificate of each kind, in alphabetical order.

    Args:
        scores: Scores by unit.
        recall: Required recall of every kind.
        confidence: Confidence of each guarantee alone, not of all together.
    """
    positive = scores.labels == 1
    kinds = np.array(scores.kinds)
    certificates = {}
    for kind in sorted(set(kinds[positive].tolist())):
        of_kind = scores.scores[positive & (kinds == kind)]
        certificates[kind] = KindCertificate(
            n=len(of_kind),
            threshold=order_statistic_threshold(of_kind, recall, confidence),
            needed=units_needed(recall, confidence),
            best_recall=best_provable_recall(len(of_kind), confidence),
        )
    return certificates
