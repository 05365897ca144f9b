"""One-class support vector machine (Schölkopf et al., Neural Computation 13, 2001).

With support vectors v_i, weights a_i of sum 1 and the kernel k(x, v) = exp(-gamma |x - v|^2), the
score of a scaled row x is the missing kernel mass, sum_i a_i (1 - k(x, v_i)). It saturates at 1,
far from all support vectors. gamma = 1 / (features x variance of the scaled rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import (
    RowDetector,
    ScalingKind,
    as_shares,
    fit_scaling,
    occlusion_shares,
)


@dataclass(frozen=True, kw_only=True)
class Ocsvm(RowDetector):
    """Fitted one-class SVM.

    Attributes:
        vectors: Support vectors, scaled, shape (vector, feature).
        weights: Of the support vectors, sum 1, shape (vector,).
        gamma: Of the kernel.
    """

    vectors: Floats
    weights: Floats
    gamma: float

    @property
    def ceiling(self) -> float:
        """The largest possible score."""
        return float(self.weights.sum()) + TINY

    def _score(self, row: Floats) -> float:
        # (feature,) - (vector, feature) -> kernel of shape (vector,)
        kernel = np.exp(-self.gamma * ((row - self.vectors) ** 2).sum(1))
        return float((self.weights * (1.0 - kernel)).sum()) + TINY

    def contributions(self, rows: Rows) -> Floats:
        """Return shares by occlusion; of squared deviations where the score has saturated."""
        row = self.scaling(rows[-1:])[0]
        if self._score(row) > 0.99 * self.ceiling:
            return as_shares(row**2)
        return occlusion_shares(row, self._score)


def fit_ocsvm(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Log = no_log,
    nu: float = 0.1,
    scaling: ScalingKind = "standard",
) -> Ocsvm:
    """Fit a one-class SVM.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the number of support vectors.
        nu: Upper bound on the share of the healthy rows outside.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    from sklearn.svm import OneClassSVM

    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    gamma = 1.0 / max(scaled.shape[1] * float(scaled.var()), TINY)
    svm = OneClassSVM(nu=nu, gamma=gamma).fit(scaled)
    log({"detector": "ocsvm", "support_vectors": len(svm.support_), "snapshots": len(rows)})
    weights = svm.dual_coef_[0] / svm.dual_coef_.sum()
    return Ocsvm(scaling=scale, vectors=svm.support_vectors_, weights=weights, gamma=gamma)
