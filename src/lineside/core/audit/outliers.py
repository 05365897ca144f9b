"""Outliers: rare values where all items should agree, and numbers far from the median."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.checks import MOST_ITEMS
from lineside.core.contract import Check, Status

OUTLIER_SCORE = 6.0
MAD_TO_SD = 1.4826


def check_one_value(
    name: str, values: Sequence[str], ids: Sequence[str], *, hint: str = "", status: Status = "warn"
) -> Check:
    """Expect one value throughout; list the items that have a rarer one."""
    counts = Counter(values)
    if not counts:
        return Check(name=name, status="unknown", evidence="there are no values")
    usual = min(counts, key=lambda value: (-counts[value], value))
    rare = sorted(
        (i for i, value in enumerate(values) if value != usual),
        key=lambda i: (counts[values[i]], values[i]),
    )
    text = ", ".join(f"{value} {count}" for value, count in counts.most_common(6))
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return Check(
        name=name,
        status=status if rare else "ok",
        count=len(rare),
        evidence=text + more,
        hint=hint if rare else "",
        items=tuple(ids[i] for i in rare[:MOST_ITEMS]),
    )


def robust_scores(values: ArrayLike, smallest: float = 0.0) -> NDArray[np.float64]:
    """Return (x - median) / (1.4826 MAD): signed distances in robust standard deviations.

    Where more than half of the values are equal, 1.2533 times the mean absolute deviation replaces
    it (Iglewicz & Hoaglin 1993); where all are, every score is 0.

    Args:
        values: Any numbers.
        smallest: The least standard deviation that matters in practice: where nearly all values
            are equal, harmless differences must not count as large.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array
    deviation = array - np.median(array)
    spread = MAD_TO_SD * np.median(np.abs(deviation)) or 1.2533 * np.mean(np.abs(deviation))
    spread = max(float(spread), smallest)
    return deviation / spread if spread > 0 else np.zeros_like(array)


def check_outliers(
    name: str,
    measures: Mapping[str, ArrayLike],
    ids: Sequence[str],
    *,
    smallest: Mapping[str, float],
    hint: str = "",
) -> Check:
    """List the items that lie far from the median in any measure, farthest first.

    Args:
        name: Title of the check.
        measures: Values by measure, one per item.
        ids: Item ids.
        smallest: By measure, the least standard deviation that matters, in its unit.
        hint: What to do about outliers.
    """
    if len(ids) < 8:
        return Check(name=name, status="unknown", evidence=f"{len(ids)} items are too few")
    scores = {m: robust_scores(values, smallest.get(m, 0.0)) for m, values in measures.items()}
    worst = np.max([np.abs(s) for s in scores.values()], axis=0)
    far = [i for i in np.argsort(-worst, kind="stable") if worst[i] > OUTLIER_SCORE]
    counts = [f"{m} {int((np.abs(s) > OUTLIER_SCORE).sum())}" for m, s in scores.items()]
    return Check(
        name=name,
        status="warn" if far else "ok",
        count=len(far),
        evidence=f"items beyond {OUTLIER_SCORE:g} robust standard deviations: {', '.join(counts)}",
        hint=hint if far else "",
        items=tuple(ids[i] for i in far[:MOST_ITEMS]),
    )
