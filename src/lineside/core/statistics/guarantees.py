"""Guarantees tested on fresh units, and what each kind of positive can prove by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from lineside.core.contract import GuaranteeCheck
from lineside.core.statistics.decisions import decisions
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import count_text
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    order_statistic_threshold,
    units_needed,
)
from lineside.core.statistics.units import UnitScores


def check_guarantee(
    point: OperatingPoint, scores: UnitScores, significance: float = 0.05
) -> GuaranteeCheck:
    """Say what was guaranteed and what fresh units show, and test a guarantee that is certified.

    It is broken if P(at least this many misses | recall exactly as guaranteed) is below
    `significance` (one-sided binomial test). Nothing else was guaranteed with a confidence, so
    nothing else can be broken: a bound on average is no statement about one calibration.
    """
    words = point.words
    accepted, rejected = decisions(scores, point)
    positive, negative = scores.labels == 1, scores.labels == 0
    missed, n = int((accepted & positive).sum()), int(positive.sum())
    lines = [_promise(point)]
    if n:
        counted = count_text(missed, n, point.confidence)
        lines.append(f"Escaped: {counted} of the {words.positive} {words.units}.")
    else:
        lines.append(f"There are no {words.positive} {words.units} here: escapes were not tested.")
    if negative.any():
        held = int((~accepted & negative).sum())
        counted = count_text(held, int(negative.sum()), point.confidence)
        lines.append(
            f"Held back: {counted} of the {words.negative} {words.units}; "
            f"{int((rejected & negative).sum())} were rejected, a person looks at the others."
        )
    kept = True
    if point.certified and point.recall is not None and n:
        p = 1.0 if not missed else float(special.bdtrc(missed - 1, n, 1 - point.recall))
        kept = p >= significance
        lines.append(
            f"This is compatible with a recall of {point.recall:.4g} (p = {p:.2g})."
            if kept
            else f"With the guaranteed recall of {point.recall:.4g} at least this many escape with "
            f"probability {p:.2g}: calibrate again."
        )
    return GuaranteeCheck(kept=kept, text="\n".join(lines))


def _promise(point: OperatingPoint) -> str:
    """Return what was promised, or that nothing was."""
    if point.certified:
        return f"Promise: {point.message}"
    units = f"{point.words.positive} {point.words.units}"
    if point.suspended:
        return f"No promise about {units} holds now: {point.suspended}."
    return f"No promise with a confidence was made about {units}. {point.message}"


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
