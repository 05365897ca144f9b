"""Principal component analysis of healthy rows: T2 in the model plane, SPE (Q) off it.

With axes P and variances v of the healthy rows, a scaled row x has the scores t = P x and

    T2 = sum_k t_k^2 / v_k        SPE = |x - P' t|^2

(Jackson and Mudholkar, "Control procedures for residuals associated with principal component
analysis", Technometrics 21, 1979). Contributions: complete decomposition of T2, squared residuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import RowDetector, ScalingKind, as_shares, fit_scaling

Statistic = Literal["max", "t2", "spe"]
FOLDS = 5
MAX_LOG = 300.0
"""Bound on the logarithm of a score."""


@dataclass(frozen=True, kw_only=True)
class Pca(RowDetector):
    """Fitted principal components.

    Attributes:
        axes: P, orthonormal, shape (component, feature).
        variances: v, shape (component,).
        statistic: ``t2``, ``spe``, or ``max``: the larger of both, each in robust spreads of its
            logarithm.
        norms: (centre, spread) of log T2, then of log SPE, on rows that were left out of the fit,
            shape (2, 2).
    """

    axes: Floats
    variances: Floats
    statistic: Statistic
    norms: Floats

    def t2_spe(self, row: Floats) -> tuple[float, float]:
        """Return both statistics of one scaled row."""
        # (component, feature) @ (feature,) -> (component,), and back to (feature,)
        plane = self.axes @ row
        residual = row - plane @ self.axes
        return float((plane**2 / self.variances).sum()), float((residual**2).sum())

    def _z_scores(self, row: Floats) -> tuple[float, float]:
        """Log T2 and log SPE in robust spreads of held-out healthy rows."""
        logs = np.log(np.array(self.t2_spe(row)) + TINY)
        t2, spe = (logs - self.norms[:, 0]) / self.norms[:, 1]
        return float(t2), float(spe)

    def _score(self, row: Floats) -> float:
        if self.statistic == "max":
            return float(np.exp(np.clip(max(self._z_scores(row)), -MAX_LOG, MAX_LOG)))
        t2, spe = self.t2_spe(row)
        return (t2 if self.statistic == "t2" else spe) + TINY

    def contributions(self, rows: Rows) -> Floats:
        """Return each feature's share of the statistic that decided the last row."""
        row = self.scaling(rows[-1:])[0]
        plane = self.axes @ row
        t2, spe = self._z_scores(row)
        if self.statistic == "spe" or (self.statistic == "max" and spe >= t2):
            return as_shares((row - plane @ self.axes) ** 2)
        return as_shares(((plane / np.sqrt(self.variances)) @ self.axes) ** 2)


def fit_pca(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    components: int | None = None,
    explained: float = 0.9,
    statistic: Statistic = "max",
    scaling: ScalingKind = "standard",
) -> Pca:
    """Fit principal components to healthy rows.

    Args:
        rows: Healthy rows in order of time, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the number of components.
        components: Number of components; None: as many as explain `explained` of the variance.
        explained: Share of the variance.
        statistic: See `Pca`.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    axes, variances = _principal_axes(scaled, components, explained)
    norms = _fit_norms(scaled, len(axes))
    log({"detector": "pca", "components": len(axes), "snapshots": len(rows)})
    return Pca(scaling=scale, axes=axes, variances=variances, statistic=statistic, norms=norms)


def _principal_axes(
    scaled: Floats, components: int | None, explained: float
) -> tuple[Floats, Floats]:
    """Return axes, shape (component, feature), and the variances along them."""
    centred = scaled - scaled.mean(0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    variances = singular**2 / max(1, len(scaled) - 1)
    if components is None:
        share = np.cumsum(variances) / max(variances.sum(), TINY)
        components = int(np.searchsorted(share, explained) + 1)
    rank = int((variances > 1e-10 * max(variances.max(), TINY)).sum())
    count = max(1, min(components, rank))
    return axes[:count].copy(), np.maximum(variances[:count], TINY)


def _fit_norms(scaled: Floats, components: int) -> Floats:
    """Return centre and robust spread of log T2 and log SPE, cross-fitted over blocks of time."""
    statistics = []
    for block in np.array_split(np.arange(len(scaled)), FOLDS):
        rest = np.delete(scaled, block, axis=0)
        axes, variances = _principal_axes(rest, components, 1.0)
        plane = scaled[block] @ axes.T  # (row, feature) @ (feature, component)
        residual = scaled[block] - plane @ axes
        statistics.append(np.stack([(plane**2 / variances).sum(1), (residual**2).sum(1)], axis=1))
    logs = np.log(np.concatenate(statistics) + TINY)  # (row, 2)
    center = np.median(logs, axis=0)
    spread = 1.4826 * np.median(np.abs(logs - center), axis=0)
    return np.stack([center, np.maximum(spread, 1e-3)], axis=1)
