"""What can be promised for each kind of fault: often "unprovable", and then how far it goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lineside.core.contract import Estimate
from lineside.core.statistics.fresh_evidence import recall_statement
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    order_statistic_threshold,
    parts_needed,
)
from lineside.core.statistics.unit_scores import GroupScores


@dataclass(frozen=True, kw_only=True)
class KindCertificate:
    """What one kind's faulty groups can prove.

    Attributes:
        kind: Name of the kind.
        n: Its faulty groups.
        recall: Wanted recall.
        confidence: Confidence for this kind alone; higher than asked for under Bonferroni.
        provable: True if n groups can prove the recall.
        threshold: The threshold that would prove it, None if unprovable.
        needed: Groups needed without a miss.
        best_recall: The largest recall that n groups can prove.
        observed: Recall of these groups at a given threshold, with its lower bound; only an
            honest statement if that threshold was set on other groups.
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
    groups: GroupScores,
    *,
    recall: float,
    confidence: float = 0.95,
    bonferroni: bool = False,
    threshold: float | None = None,
) -> list[KindCertificate]:
    """Return one certificate per kind, in alphabetical order.

    Args:
        groups: Scores by group.
        recall: Wanted recall of every kind.
        confidence: Confidence of each promise, or of all together under Bonferroni.
        bonferroni: Divide the remaining risk 1 - confidence by the number of kinds, so that all
            promises hold together with the stated confidence.
        threshold: Also state the recall of each kind at this threshold.
    """
    faulty = groups.labels == 1
    kinds = np.array(groups.kinds)
    names = sorted(set(kinds[faulty].tolist()))
    each = 1 - (1 - confidence) / len(names) if bonferroni and names else confidence
    return [
        _certify(name, groups.scores[faulty & (kinds == name)], recall, each, threshold)
        for name in names
    ]


def _certify(
    kind: str,
    scores: np.ndarray[tuple[int], np.dtype[np.float64]],
    recall: float,
    confidence: float,
    threshold: float | None,
) -> KindCertificate:
    n = len(scores)
    proven = order_statistic_threshold(scores, recall, confidence)
    needed = parts_needed(recall, confidence)
    best = best_provable_recall(n, confidence)
    rounded = math.floor(best * 1000) / 1000
    observed = None if threshold is None else recall_statement(scores, threshold, confidence)
    message = (
        f"provable: {n} groups, {needed} needed"
        if proven is not None
        else f"unprovable: {n} of {needed} groups; best provable is {rounded:.3f}"
    )
    return KindCertificate(
        kind=kind, n=n, recall=recall, confidence=confidence, provable=proven is not None,
        threshold=proven, needed=needed, best_recall=best, observed=observed, message=message,
    )  # fmt: skip
