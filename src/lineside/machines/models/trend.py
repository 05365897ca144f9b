"""Trend of a few features over their healthy median: what plants watch today, the baseline.

Columns are logarithms (or asinh, for signed ones), as the signal engine makes them. With healthy
median m and spread s (1.4826 MAD) of a column, its distance is d = (x - m) / s, or the log ratio
d = x - m if `relative`. The score is exp of the largest or mean distance, so that its logarithm,
which is smoothed and calibrated, is the distance itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lineside.core.errors import UserError
from lineside.machines.models.detector import Floats, Log, Rows, no_log
from lineside.machines.models.scaling import (
    MIN_ROWS,
    Scaling,
    as_shares,
    fit_scaling,
    score_each,
)

Fusion = Literal["max", "mean"]
MAX_LOG = 300.0
"""Bound on the logarithm of a score."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Distances of chosen columns from the healthy median.

    Attributes:
        scaling: Healthy median and spread, shape (feature,) each.
        columns: Indices of the features that count.
        fusion: ``max`` or ``mean`` of the distances.
        relative: Log ratios instead of robust standard deviations.
        both_ways: A fall counts like a rise: for slow values (a temperature, a flow). Levels of
            vibration count only when they rise.
    """

    scaling: Scaling
    columns: tuple[int, ...]
    fusion: Fusion = "max"
    relative: bool = False
    both_ways: bool = False
    history: int = 0

    def _distances(self, row: Floats) -> Floats:
        """(feature,) -> (chosen column,)."""
        chosen = list(self.columns)
        above = row[chosen] - self.scaling.center[chosen]
        distances = above if self.relative else above / self.scaling.spread[chosen]
        return np.abs(distances) if self.both_ways else distances

    def _score(self, row: Floats) -> float:
        distances = self._distances(row)
        fused = distances.max() if self.fusion == "max" else distances.mean()
        return float(np.exp(np.clip(fused, -MAX_LOG, MAX_LOG)))

    def score(self, rows: Rows) -> Floats:
        """Return ``exp`` of the fused distance, shape (snapshot,)."""
        return score_each(np.asarray(rows, dtype=np.float64), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return each chosen column's share of the distances above the median; 0 for the others."""
        row = np.asarray(rows[-1], dtype=np.float64)
        parts = np.zeros(len(row))
        parts[list(self.columns)] = np.maximum(self._distances(row), 0.0)
        if not parts.any():
            parts[list(self.columns)] = 1.0
        return as_shares(parts)


def fit_trend(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    columns: Sequence[int] | None = None,
    fusion: Fusion = "max",
    relative: bool = False,
    both_ways: bool = False,
) -> Trend:
    """Fit the trend detector.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the number of snapshots.
        columns: Features that count (RMS and kurtosis of each channel, say); all if None.
        fusion: ``max`` alarms on any column; ``mean`` averages the columns.
        relative: See `Trend`.
        both_ways: See `Trend`.

    Raises:
        UserError: too few rows, NaN, or a column that does not exist.
    """
    robust = fit_scaling(rows, "robust")
    chosen = tuple(range(rows.shape[1])) if columns is None else tuple(int(c) for c in columns)
    if not chosen or min(chosen) < 0 or max(chosen) >= rows.shape[1]:
        raise UserError(
            f"columns {list(chosen)} are not among {rows.shape[1]} features",
            f"columns count from 0; {MIN_ROWS} rows at least",
        )
    log({"detector": "trend", "snapshots": len(rows)})
    scaling = Scaling(center=robust.center, spread=1.4826 * robust.spread)
    return Trend(
        scaling=scaling, columns=chosen, fusion=fusion, relative=relative, both_ways=both_ways
    )
