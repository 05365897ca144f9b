"""The agreement of two raters beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.intervals import FEWEST, jackknife_interval


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    groups: Sequence[Hashable],
) -> Estimate:
    """Return Cohen's kappa (observed - chance) / (1 - chance) with a jackknife over groups.

    Cohen 1960. There is no interval, but a reason, with fewer than 10 groups that carry one of the
    labels, or where all groups agree.

    Args:
        first: Labels of the first rater.
        second: Labels of the second rater for the same items.
        groups: The independent unit of each item.

    Raises:
        ValueError: if lengths differ or are zero.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"two ratings of each item are needed, got {len(first)}, {len(second)}")
    names = {name: i for i, name in enumerate(dict.fromkeys([*first, *second]))}
    size, owners = len(names), {name: i for i, name in enumerate(dict.fromkeys(groups))}
    pair = np.array([names[a] * size + names[b] for a, b in zip(first, second, strict=True)])
    # counts by group and pair of labels, shape (groups, label * label)
    counts = np.zeros((len(owners), size * size))
    np.add.at(counts, (np.array([owners[g] for g in groups]), pair), 1.0)
    n = len(owners)
    value = float(_kappa(counts.sum(axis=0).reshape(size, size) / len(pair)))
    if np.isnan(value):
        reason = "undefined: both raters use a single label throughout"
        return Estimate(value=value, n=n, reason=reason)
    totals = counts.reshape(n, size, size)
    # groups where a rater gave the label, by rater and label; the rarest decides
    rarest = min(int((totals.sum(axis=axis) > 0).sum(axis=0).min()) for axis in (1, 2))
    if rarest < FEWEST:
        return Estimate(
            value=value, n=n, reason=f"a label in {rarest} groups, an interval needs {FEWEST}"
        )
    left_out = counts.sum(axis=0) - counts
    left_out /= left_out.sum(axis=1, keepdims=True)
    kappas = _kappa(left_out.reshape(-1, size, size))
    # logits of (1 + kappa) / 2: the interval stays between -1 and 1
    strata = np.zeros(n, dtype=np.int64)
    found = jackknife_interval((1 + value) / 2, (1 + kappas) / 2, strata, fraction=True)
    if isinstance(found, str):
        return Estimate(value=value, n=n, reason=found)
    low, high = (2 * end - 1 for end in found)
    return Estimate(value=value, low=low, high=high, n=n, method="jackknife over groups, 95 %")


def _kappa(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of joint shares, shape (..., label, label); NaN where chance agreement is 1."""
    observed = np.trace(table, axis1=-2, axis2=-1)
    chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
    room = np.where(chance < 1 - 1e-12, 1 - chance, np.nan)
    return np.asarray((observed - chance) / room)
