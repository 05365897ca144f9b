"""Shares with their uncertainty, and the agreement of two raters beyond chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lineside.core.contract import Better, Estimate

CONFIDENCE, REPETITIONS = 0.95, 1000
"""Of the bootstrap of a kappa."""


def clopper_pearson_lower(successes: int, n: int, confidence: float = 0.95) -> float:
    """Return the one-sided exact lower bound of a share (Clopper & Pearson 1934).

    With no failure in n it is (1 - confidence) ** (1 / n).
    """
    _check(successes, n, confidence)
    if successes == 0:
        return 0.0
    return float(special.betaincinv(successes, n - successes + 1, 1 - confidence))


def clopper_pearson_upper(successes: int, n: int, confidence: float = 0.95) -> float:
    """Return the one-sided exact upper bound of a share (Clopper & Pearson 1934)."""
    return 1.0 - clopper_pearson_lower(n - successes, n, confidence)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided exact interval of a share: each tail has half of what is left."""
    each = 1 - (1 - confidence) / 2
    return (
        clopper_pearson_lower(successes, n, each),
        clopper_pearson_upper(successes, n, each),
    )


def wilson(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share (Wilson 1927): shorter than exact, right on average."""
    _check(successes, n, confidence)
    z = float(special.ndtri(1 - (1 - confidence) / 2))
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    # The ends are exactly 0 and 1 at the borders; rounding must not step over them.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def proportion(
    successes: int, n: int, confidence: float = 0.95, better: Better = "higher"
) -> Estimate:
    """Return a share of independent units with its two-sided Clopper-Pearson interval."""
    if n == 0:
        return Estimate(value=float("nan"), better=better, reason="there are no units to count")
    low, high = clopper_pearson(successes, n, confidence)
    method = f"Clopper-Pearson, {100 * confidence:.3g} %"
    return Estimate(value=successes / n, low=low, high=high, n=n, method=method, better=better)


def cohen_kappa(
    first: Sequence[Hashable],
    second: Sequence[Hashable],
    *,
    groups: Sequence[Hashable],
    rng: np.random.Generator,
) -> Estimate:
    """Return Cohen's kappa (observed - chance) / (1 - chance) with a bootstrap over groups.

    Cohen 1960. There is no interval, but a reason, with fewer than 2 groups or where all resamples
    agree.

    Args:
        first: Labels of the first rater.
        second: Labels of the second rater for the same items.
        groups: The independent unit of each item.
        rng: Random stream of the bootstrap.

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
    if n < 2:
        return Estimate(value=value, n=n, reason="fewer than 2 groups")
    weights = rng.multinomial(n, np.full(n, 1 / n), REPETITIONS)
    tables = weights @ counts
    tables /= tables.sum(axis=1, keepdims=True)
    tail = 50 * (1 - CONFIDENCE)
    kappas = _kappa(tables.reshape(-1, size, size))
    low, high = (float(end) for end in np.nanpercentile(kappas, [tail, 100 - tail]))
    if low == high:
        return Estimate(value=value, n=n, reason="all resamples agree")
    method = f"bootstrap over groups, {100 * CONFIDENCE:.3g} %"
    return Estimate(value=value, low=max(-1.0, low), high=min(1.0, high), n=n, method=method)


def _kappa(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kappa of joint shares, shape (..., label, label); NaN where chance agreement is 1."""
    observed = np.trace(table, axis1=-2, axis2=-1)
    chance = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1)
    room = np.where(chance < 1 - 1e-12, 1 - chance, np.nan)
    return np.asarray((observed - chance) / room)


def _check(successes: int, n: int, confidence: float) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a share")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, it must lie between 0 and 1")
