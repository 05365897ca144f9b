"""Checks for odd values: one that differs where all should agree, and numbers far from the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.checks import MOST_ITEMS
from lineside.core.contract import Check, Status

OUTLIER_SCORE = 6.0
MAD_TO_SD = 1.4826


def one_value(
    name: str, values: Sequence[str], ids: Sequence[str], *, hint: str = "", status: Status = "warn"
) -> Check:
    """Expect one value throughout; list the items that have a rarer one."""
    counts = Counter(values)
    if not counts:
        return Check(name=name, status="unknown", evidence="nothing to look at")
    usual = min(counts, key=lambda value: (-counts[value], value))
    odd = sorted(
        (i for i, value in enumerate(values) if value != usual),
        key=lambda i: (counts[values[i]], values[i]),
    )
    text = ", ".join(f"{value} {count}" for value, count in counts.most_common(6))
    more = f" and {len(counts) - 6} more" if len(counts) > 6 else ""
    return Check(
        name=name,
        status=status if odd else "ok",
        count=len(odd),
        evidence=text + more,
        hint=hint if odd else "",
        items=tuple(ids[i] for i in odd[:MOST_ITEMS]),
    )


def robust_scores(values: ArrayLike, smallest: float = 0.0) -> NDArray[np.float64]:
    """Return signed distances from the median in robust standard deviations (1.4826 MAD).

    Where more than half of the values are equal, the mean absolute deviation takes the place of
    the MAD (Iglewicz & Hoaglin 1993); where all are, every score is 0.

    Args:
        values: Any numbers.
        smallest: The least standard deviation that matters in practice: where nearly all values
            are equal, harmless differences must not count as large.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return array
    away = array - np.median(array)
    spread = MAD_TO_SD * np.median(np.abs(away)) or 1.2533 * np.mean(np.abs(away))
    spread = max(float(spread), smallest)
    return away / spread if spread > 0 else np.zeros_like(array)


def outliers(
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
    odd = [i for i in np.argsort(-worst, kind="stable") if worst[i] > OUTLIER_SCORE]
    counts = [f"{m} {int((np.abs(s) > OUTLIER_SCORE).sum())}" for m, s in scores.items()]
    return Check(
        name=name,
        status="warn" if odd else "ok",
        count=len(odd),
        evidence=f"items beyond {OUTLIER_SCORE:g} robust standard deviations: {', '.join(counts)}",
        hint=hint if odd else "",
        items=tuple(ids[i] for i in odd[:MOST_ITEMS]),
    )
