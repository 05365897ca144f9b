"""Squared Mahalanobis distance, (x - mean)' C^-1 (x - mean), of a scaled row x.

The covariance C is shrunk towards a multiple of the identity (Ledoit and Wolf, "A well-conditioned
estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88, 2004), so
that it has an inverse with fewer snapshots than features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import RowDetector, ScalingKind, as_shares, fit_scaling


@dataclass(frozen=True, kw_only=True)
class Mahalanobis(RowDetector):
    """Fitted mean and whitening.

    Attributes:
        mean: Of the scaled rows, shape (feature,).
        whitening: C^(-1/2), symmetric, shape (feature, feature); with `components`, of the leading
            axes only.
    """

    mean: Floats
    whitening: Floats

    def _score(self, row: Floats) -> float:
        return float(((self.whitening @ (row - self.mean)) ** 2).sum()) + TINY

    def contributions(self, rows: Rows) -> Floats:
        """Return the squared whitened deviations of the last row as shares."""
        return as_shares((self.whitening @ (self.scaling(rows[-1:])[0] - self.mean)) ** 2)


def fit_mahalanobis(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    components: int | None = None,
    scaling: ScalingKind = "standard",
) -> Mahalanobis:
    """Fit the mean and the inverse root of the covariance.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the shrinkage.
        components: Whiten along this many leading axes only (50 in the study of 2019, there
            without shrinkage); None: along all of them.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    from sklearn.covariance import ledoit_wolf

    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    if components is None:
        covariance, shrinkage = ledoit_wolf(scaled)
    else:
        covariance, shrinkage = np.atleast_2d(np.cov(scaled.T)), 0.0
    # eigh sorts upwards: reversed, the leading axes are the first columns, shape (feature, axis).
    variances, axes = np.linalg.eigh(covariance)
    count = min(components or len(variances), max(1, len(rows) - 1))
    variances, axes = variances[::-1][:count], axes[:, ::-1][:, :count]
    positive = variances > 1e-10 * variances.max()
    whitening = (axes[:, positive] / np.sqrt(variances[positive])) @ axes[:, positive].T
    log({"detector": "mahalanobis", "shrinkage": float(shrinkage), "snapshots": len(rows)})
    return Mahalanobis(scaling=scale, mean=scaled.mean(0), whitening=whitening)
