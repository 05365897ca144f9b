"""What is learned as normal, when, and with whose consent: the guard against poisoning.

A machine's normal is learned once and never learns by itself afterwards. Whether it kept still
while it was learned is measured, and every learning is a row of the machine's ledger: what was
seen, when, and who answers for it. A normal that drifted needs a person's name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DRIFT = 3.0
"""Robust spreads that a feature may move while it is learned and still counts as steady."""
NOISE = 4.7
"""Standard errors that the largest of some hundred steady features hardly ever exceeds."""
MEDIAN_ERROR = 1.2533
"""Standard error of a median over that of a mean, normal values."""


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A row of the ledger: one learning of one machine, or a consent to it.

    Attributes:
        first: Time of the first snapshot that was learned from, seconds.
        last: Time of the last one, those that calibrate included.
        rows: Snapshots that were fitted.
        run_in: Snapshots at the beginning that were left out: the machine was still running in.
        drift: Largest move of a feature along the learned snapshots, in robust spreads.
        drifting: Name of that feature.
        steady: The drift up to which these snapshots pass as steady.
        shift: Largest move from the normal before to this one, 0 for the first.
        shifting: Name of the feature that moved so.
        by: Who consented; empty where nobody did.
        why: The reason given.
        decided: When, seconds since 1970; None where nobody decided.
        over_alarm: Whether it was learned although an alarm was running.
        began: Time of the first snapshot of all, run-in included; None in older models.
    """

    first: float
    last: float
    rows: int
    run_in: int = 0
    drift: float = 0.0
    drifting: str = ""
    steady: float = DRIFT
    shift: float = 0.0
    shifting: str = ""
    by: str = ""
    why: str = ""
    decided: float | None = None
    over_alarm: bool = False
    began: float | None = None

    @property
    def needs_consent(self) -> bool:
        """True if it drifted while it was learned and nobody answers for it."""
        return self.drift > self.steady and not self.by


def robust_spread(values: Floats) -> Floats:
    """Return 1.4826 MAD of each feature, never 0, shape (feature,)."""
    center = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - center), axis=0)
    return np.where(spread > 1e-9 * np.maximum(1.0, np.abs(center)), spread, 1.0)


def spread_within(values: Floats) -> Floats:
    """Return the robust spread about a running level, so that a drift does not widen it."""
    pieces = [p - np.median(p, axis=0) for p in np.array_split(values, 5) if len(p)]
    return robust_spread(np.concatenate(pieces))


def drift_along(values: Floats) -> Floats:
    """Return how far each feature moves from the first to the last fifth of the rows.

    In robust spreads about a running level; signed, shape (feature,).
    """
    fifth = max(2, len(values) // 5)
    first, last = np.median(values[:fifth], axis=0), np.median(values[-fifth:], axis=0)
    return np.asarray((last - first) / spread_within(values), dtype=np.float64)


def steady_drift(rows: int) -> float:
    """Return the drift up to which so many rows pass as steady: few rows are noisy.

    Few rows also look stiller about their own median than they are, by about n / (n - 2).
    """
    fifth = max(3, rows // 5)
    error = MEDIAN_ERROR * float(np.sqrt(2 / fifth)) * fifth / (fifth - 2)
    return max(DRIFT, NOISE * error)


def is_steady(values: Floats, allowed: float = 1.0) -> bool:
    """Return whether no feature drifts along the rows, up to a share of what is allowed."""
    return float(np.abs(drift_along(values)).max()) <= allowed * steady_drift(len(values))


def run_in_rows(values: Floats, levels: Floats, most: int) -> int:
    """Return how many rows at the beginning belong to a run-in that levels off later.

    A run-in grows quieter: rows are only left out where the levels fall, so that a beginning
    fault, which grows louder, never makes the quiet rows before it look like the exception.

    Args:
        values: Rows in order of time, shape (snapshot, feature).
        levels: Logarithms of the rms of each channel, shape (snapshot, channel).
        most: That many rows may be left out; a longer run-in is a drift that a person must see.

    Returns:
        0 if the rows are steady, if no beginning explains the drift, or if there are no levels.
    """
    if not levels.size or is_steady(values):
        return 0
    step = max(1, len(values) // 40)
    for allowed in (0.5, 1.0):
        for start in range(step, most + 1, step):
            if _grew_quieter(levels, start) and is_steady(values[start:], allowed):
                return start
    return 0


def _grew_quieter(levels: Floats, start: int) -> bool:
    """Whether every channel is quieter after the start, and one of them by a whole spread."""
    fall = np.median(levels[:start], axis=0) - np.median(levels[start:], axis=0)
    fall = fall / spread_within(levels[start:])
    return bool((fall > 0).all() and (fall > 1.0).any())
