"""The trend of a few features above their healthy median: the rival that must be in every table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lineside.core.errors import UserError
from lineside.machines.models.detector import Rows
from lineside.machines.models.scaling import (
    FEWEST_ROWS,
    Floats,
    Scaling,
    fit_scaling,
    row_by_row,
    shares,
)

Fusion = Literal["max", "mean"]
TOP = 300.0
"""Largest logarithm of a score."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """Distance of chosen columns above the healthy median.

    Columns are logarithms (or asinh, for signed ones), as the signal engine makes them. The score
    is ``exp`` of the distance, so that its logarithm, which is smoothed and calibrated, is the
    distance itself: with `relative`, the mean or largest log ratio to the healthy median;
    otherwise in robust standard deviations (1.4826 MAD) of the healthy rows. Levels of vibration
    only speak when they rise; slow values (a temperature, a flow) are watched `both_ways`.
    """

    scaling: Scaling
    columns: tuple[int, ...]
    fusion: Fusion = "max"
    relative: bool = False
    both_ways: bool = False
    history: int = 0

    def _distances(self, row: Floats) -> Floats:
        chosen = list(self.columns)
        above = row[chosen] - self.scaling.center[chosen]
        moved = above if self.relative else above / self.scaling.spread[chosen]
        return np.abs(moved) if self.both_ways else moved

    def _score(self, row: Floats) -> float:
        distances = self._distances(row)
        fused = distances.max() if self.fusion == "max" else distances.mean()
        return float(np.exp(np.clip(fused, -TOP, TOP)))

    def score(self, rows: Rows) -> Floats:
        """Return ``exp`` of the fused distance, shape (snapshot,)."""
        return row_by_row(np.asarray(rows, dtype=np.float64), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return how much each chosen column lies above its median; 0 for the others."""
        row = np.asarray(rows[-1], dtype=np.float64)
        parts = np.zeros(len(row))
        parts[list(self.columns)] = np.maximum(self._distances(row), 0.0)
        if not parts.any():
            parts[list(self.columns)] = 1.0
        return shares(parts)


def fit_trend(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
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
        columns: Which features (RMS and kurtosis of each channel, say); all if None.
        fusion: ``max`` alarms on any column; ``mean`` fuses the channels.
        relative: Log ratios to the median instead of robust standard deviations.
        both_ways: A fall counts like a rise.

    Raises:
        UserError: too few rows, NaN, or a column that does not exist.
    """
    robust = fit_scaling(rows, "robust")
    chosen = tuple(range(rows.shape[1])) if columns is None else tuple(int(c) for c in columns)
    if not chosen or min(chosen) < 0 or max(chosen) >= rows.shape[1]:
        raise UserError(
            f"columns {list(chosen)} are not among {rows.shape[1]} features",
            f"columns count from 0; {FEWEST_ROWS} rows at least",
        )
    log({"detector": "trend", "snapshots": len(rows)})
    scaling = Scaling(center=robust.center, spread=1.4826 * robust.spread)
    return Trend(
        scaling=scaling, columns=chosen, fusion=fusion, relative=relative, both_ways=both_ways
    )
