"""What fresh groups, used for neither fitting nor calibration, say about a promise."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from lineside.core.contract import Estimate
from lineside.core.statistics.operating_points import OperatingPoint, plural
from lineside.core.statistics.proportions import clopper_pearson_lower
from lineside.core.statistics.unit_scores import GroupScores


def recall_statement(
    faulty: ArrayLike, threshold: float, confidence: float = 0.95, unit: str = "group"
) -> Estimate:
    """Return the recall on fresh faulty groups with its one-sided Clopper-Pearson lower bound.

    The groups must be used for neither fitting nor calibration.
    """
    scores = np.asarray(faulty, dtype=np.float64)
    n, held = len(scores), int((scores >= threshold).sum())
    if not n:
        return Estimate(value=float("nan"), reason=f"there are no fresh faulty {unit}s")
    low = clopper_pearson_lower(held, n, confidence)
    method = f"Clopper-Pearson lower bound over {unit}s, one-sided, {100 * confidence:.3g} %"
    return Estimate(value=held / n, low=low, high=1.0, n=n, method=method)


def check_promise(
    point: OperatingPoint, groups: GroupScores, significance: float = 0.05
) -> tuple[bool, str]:
    """Return whether fresh groups are compatible with the promise, and why, in words.

    They are not if so many misses have a probability below `significance` where the recall is
    exactly as promised (one-sided binomial test).
    """
    n, recall = len(groups.faulty), point.recall
    if recall is None:
        return True, "Nothing was promised about recall, so nothing can be broken."
    if not n:
        return True, f"There are no faulty {point.unit}s here, so the promise was not tested."
    missed = int((groups.faulty < point.threshold).sum())
    chance = 1.0 if not missed else float(special.bdtrc(missed - 1, n, 1 - recall))
    fact = f"{missed} of {n} faulty {plural(point.unit, n)} escaped"
    if chance < significance:
        return False, (
            f"{fact}; with the promised recall of {recall:.4g} so many would be seen with "
            f"probability {chance:.2g}: calibrate anew."
        )
    return True, f"{fact}, which is compatible with a recall of {recall:.4g} (p = {chance:.2g})."
