"""How well symbols are found: average precision over all thresholds of confidence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from lineside.core.contract import Metric, Outcome
from lineside.scores.average_precision import area_under

IOUS = tuple(0.5 + 0.05 * i for i in range(10))
"""Thresholds of intersection over union, as of COCO."""


def precisions(outcomes: Sequence[Outcome], level: int = 0) -> dict[str, tuple[float, int]]:
    """Return average precision and number of symbols of each class that occurs.

    Args:
        outcomes: Of pages.
        level: Which of `IOUS` makes a detection right.
    """
    counts: dict[str, int] = {}
    found: dict[str, list[tuple[float, bool]]] = {}
    for outcome in outcomes:
        for row in outcome.details:
            name = row["class"]
            counts[name] = counts.get(name, 0) + row["count"]
            pairs = zip(row["confidences"], row["right"], strict=True)
            found.setdefault(name, []).extend((c, r > level) for c, r in pairs)
    result = {}
    for name, count in counts.items():
        if count:
            table = np.array(found[name], float).reshape(-1, 2)
            result[name] = (area_under(table[:, 0], table[:, 1] > 0, count), count)
    return result


def mean_precision(
    outcomes: Sequence[Outcome], *, levels: Sequence[int] = (0,), by_count: bool = False
) -> float:
    """Return the mean over classes, or over symbols, and over thresholds of IoU."""
    means = []
    for level in levels:
        found = precisions(outcomes, level)
        if not found:
            return float("nan")
        values, counts = (np.array(column, float) for column in zip(*found.values(), strict=True))
        means.append(np.average(values, weights=counts if by_count else None))
    return float(np.mean(means))


def _share(outcomes: Sequence[Outcome], of: str) -> float:
    hits = sum(outcome.value["hits"] for outcome in outcomes)
    total = sum(outcome.value[of] for outcome in outcomes)
    return hits / total if total else float("nan")


METRICS = (
    Metric(
        name="ap50_weighted", unit="fraction", better="higher",
        of=partial(mean_precision, by_count=True),
        help="average precision at IoU 0.5, mean over symbols",
    ),
    Metric(
        name="ap50_mean", unit="fraction", better="higher", of=mean_precision,
        help="average precision at IoU 0.5, mean over the classes that occur",
    ),
    Metric(
        name="ap_coco", unit="fraction", better="higher",
        of=partial(mean_precision, levels=range(len(IOUS))),
        help="average precision, mean over classes and IoU 0.5 to 0.95",
    ),
    Metric(
        name="recall", unit="fraction", better="higher", of=partial(_share, of="symbols"),
        help="share of the symbols that are found at the thresholds",
    ),
    Metric(
        name="precision", unit="fraction", better="higher", of=partial(_share, of="believed"),
        help="share of what is found at the thresholds that is right",
    ),
)  # fmt: skip
