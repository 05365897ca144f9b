"""Principal components of healthy rows: T2 in the model plane, SPE (Q) off it.

Jackson and Mudholkar, "Control procedures for residuals associated with principal component
analysis", Technometrics 1979. Contributions: complete decomposition of T2, squared residuals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lineside.machines.models.detector import Rows
from lineside.machines.models.scaling import (
    Floats,
    Scaling,
    ScalingKind,
    fit_scaling,
    row_by_row,
    shares,
)

Statistic = Literal["max", "t2", "spe"]
TINY = 1e-12
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Pca:
    """Principal components.

    Attributes:
        scaling: Of the rows.
        axes: Shape (component, feature), orthonormal.
        variances: Of the healthy rows along the axes, shape (component,).
        statistic: ``t2``, ``spe``, or ``max``: the larger of both, each in robust spreads of its
            logarithm.
        norms: Centre and spread of log T2, then of log SPE, on blocks of rows that were left out,
            shape (2, 2).
    """

    scaling: Scaling
    axes: Floats
    variances: Floats
    statistic: Statistic
    norms: Floats
    history: int = 0

    def t2_spe(self, row: Floats) -> tuple[float, float]:
        """Return both statistics of one scaled row."""
        plane = self.axes @ row
        residual = row - plane @ self.axes
        return float((plane**2 / self.variances).sum()), float((residual**2).sum())

    def _standing(self, row: Floats) -> tuple[float, float]:
        logs = np.log(np.array(self.t2_spe(row)) + TINY)
        standing = (logs - self.norms[:, 0]) / self.norms[:, 1]
        return float(standing[0]), float(standing[1])

    def _score(self, row: Floats) -> float:
        if self.statistic == "max":
            return float(np.exp(np.clip(max(self._standing(row)), -300.0, 300.0)))
        t2, spe = self.t2_spe(row)
        return (t2 if self.statistic == "t2" else spe) + TINY

    def score(self, rows: Rows) -> Floats:
        """Return the statistic of every row, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share of the statistic that decided the last row."""
        row = self.scaling(rows[-1:])[0]
        plane = self.axes @ row
        t2, spe = self._standing(row)
        if self.statistic == "spe" or (self.statistic == "max" and spe >= t2):
            return shares((row - plane @ self.axes) ** 2)
        return shares(((plane / np.sqrt(self.variances)) @ self.axes) ** 2)


def fit_pca(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    components: int | None = None,
    explained: float = 0.9,
    statistic: Statistic = "max",
    scaling: ScalingKind = "standard",
) -> Pca:
    """Fit principal components to healthy rows.

    Args:
        rows: Healthy rows in order of time, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with what was kept.
        components: How many are kept; None: as many as explain `explained` of the variance.
        explained: Share of the variance.
        statistic: See `Pca`.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    axes, variances = _axes(scaled, components, explained)
    norms = _norms(scaled, len(axes))
    log({"detector": "pca", "components": len(axes), "snapshots": len(rows)})
    return Pca(scaling=scale, axes=axes, variances=variances, statistic=statistic, norms=norms)


def _axes(scaled: Floats, components: int | None, explained: float) -> tuple[Floats, Floats]:
    """Axes through the origin of the scaling, and the variances along them."""
    centred = scaled - scaled.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / max(1, len(scaled) - 1)
    if components is None:
        share = np.cumsum(variances) / max(variances.sum(), TINY)
        components = int(np.searchsorted(share, explained) + 1)
    most = int((variances > 1e-10 * max(variances.max(), TINY)).sum())
    kept = max(1, min(components, most))
    return axes[:kept].copy(), np.maximum(variances[:kept], TINY)


def _norms(scaled: Floats, components: int) -> Floats:
    """Centre and robust spread of log T2 and log SPE on blocks of time that were left out."""
    found = []
    for block in np.array_split(np.arange(len(scaled)), FOLDS):
        rest = np.delete(scaled, block, axis=0)
        axes, variances = _axes(rest, components, 1.0)
        plane = scaled[block] @ axes.T
        residual = scaled[block] - plane @ axes
        found.append(np.stack([(plane**2 / variances).sum(1), (residual**2).sum(1)], axis=1))
    logs = np.log(np.concatenate(found) + TINY)
    center = np.median(logs, axis=0)
    spread = 1.4826 * np.median(np.abs(logs - center), axis=0)
    return np.stack([center, np.maximum(spread, 1e-3)], axis=1)
