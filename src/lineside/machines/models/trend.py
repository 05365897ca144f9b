"""Trend of a few features over their healthy median: what plants watch today, the baseline.

Columns are logarithms (or asinh, for signed ones), as the signal engine makes them. With healthy
median m and spread s (1.4826 MAD) of a column, its distance is d = (x - m) / s, or the log ratio
d = x - m if `relative`. The score is exp of the largest or mean distance, so that its logarithm,
which is smoothed and calibrated, is the distance itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lineside.machines.models.detector import Floats, Log, Rows, no_log
from lineside.machines.models.scaling import Scaling, as_shares, fit_scaling, score_each

Fusion = Literal["max", "mean"]
MAX_LOG = 300.0
"""Bound on the logarithm of a score."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Distances of the features from the healthy median.

    Attributes:
        scaling: Healthy median and spread, shape (feature,) each.
        fusion: ``max`` or ``mean`` of the distances.
        relative: Log ratios instead of robust standard deviations.
        both_ways: A fall counts like a rise: for slow values (a temperature, a flow). Levels of
            vibration count only when they rise.
    """

    scaling: Scaling
    fusion: Fusion = "max"
    relative: bool = False
    both_ways: bool = False
    history: int = 0

    def _distances(self, row: Floats) -> Floats:
        """(feature,) -> (feature,)."""
        above = row - self.scaling.center
        distances = above if self.relative else above / self.scaling.spread
        return np.abs(distances) if self.both_ways else distances

    def _score(self, row: Floats) -> float:
        distances = self._distances(row)
        fused = distances.max() if self.fusion == "max" else distances.mean()
        return float(np.exp(np.clip(fused, -MAX_LOG, MAX_LOG)))

    def score(self, rows: Rows) -> Floats:
        """Return ``exp`` of the fused distance, shape (snapshot,)."""
        return score_each(np.asarray(rows, dtype=np.float64), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share of the distances above the median."""
        return as_shares(self._distances(np.asarray(rows[-1], dtype=np.float64)))


def fit_trend(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    fusion: Fusion = "max",
    relative: bool = False,
    both_ways: bool = False,
) -> Trend:
    """Fit the trend detector.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the number of snapshots.
        fusion: ``max`` alarms on any feature; ``mean`` averages them.
        relative: See `Trend`.
        both_ways: See `Trend`.

    Raises:
        UserError: too few rows, or NaN.
    """
    robust = fit_scaling(rows, "robust")
    log({"detector": "trend", "snapshots": len(rows)})
    scaling = Scaling(center=robust.center, spread=1.4826 * robust.spread)
    return Trend(scaling=scaling, fusion=fusion, relative=relative, both_ways=both_ways)
