"""Shares of independent units with their uncertainty."""

from __future__ import annotations

import numpy as np
from scipy import special

from lineside.core.contract import Better, Estimate


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
    method = f"Clopper-Pearson, two-sided, {100 * confidence:.3g} %"
    return Estimate(value=successes / n, low=low, high=high, n=n, method=method, better=better)


def count_text(hits: int, n: int, confidence: float = 0.95) -> str:
    """Return e.g. ``2 of 40 (5.0 %; 0.6 % to 16.9 %, two-sided 95 %)``, exact intervals.

    Where none or all were hit the interval is the one-sided bound: ``0 of 40 (at most 7.2 %,
    one-sided 95 %)``.
    """
    if not n:
        return "0 of 0"
    named = f"{100 * confidence:.3g} %"
    if hits in (0, n):
        bound = clopper_pearson_upper(0, n, confidence)
        word, share = ("at least", 1 - bound) if hits else ("at most", bound)
        return f"{hits} of {n} ({word} {100 * share:.1f} %, one-sided {named})"
    low, high = clopper_pearson(hits, n, confidence)
    ends = f"{100 * low:.1f} % to {100 * high:.1f} %"
    return f"{hits} of {n} ({100 * hits / n:.1f} %; {ends}, two-sided {named})"


def _check(successes: int, n: int, confidence: float) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} is not a share")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, it must lie between 0 and 1")
