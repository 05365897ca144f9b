"""k nearest neighbours: mean Euclidean distance to the k nearest healthy rows, scaled.

Angiulli and Pizzuti, "Fast outlier detection in high dimensional spaces", PKDD 2002.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import RowDetector, ScalingKind, as_shares, fit_scaling


@dataclass(frozen=True, kw_only=True)
class Knn(RowDetector):
    """The healthy rows themselves.

    Attributes:
        memory: Healthy rows, scaled, shape (snapshot, feature).
        k: Neighbours that count.
    """

    memory: Floats
    k: int

    def _score(self, row: Floats) -> float:
        # (feature,) - (snapshot, feature) -> distances of shape (snapshot,)
        distances = np.sqrt(((row - self.memory) ** 2).sum(1))
        return float(np.partition(distances, self.k - 1)[: self.k].mean()) + TINY

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared differences from the mean of the nearest rows."""
        row = self.scaling(rows[-1])
        squares = ((row - self.memory) ** 2).sum(1)
        nearest = np.argsort(squares, kind="stable")[: self.k]
        return as_shares((row - self.memory[nearest].mean(0)) ** 2)


def fit_knn(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    k: int = 5,
    scaling: ScalingKind = "standard",
) -> Knn:
    """Store the healthy rows.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with their number.
        k: Neighbours that count.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    log({"detector": "knn", "snapshots": len(rows)})
    return Knn(scaling=scale, memory=scale(rows), k=min(k, len(rows)))
