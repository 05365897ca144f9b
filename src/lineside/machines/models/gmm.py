"""Gaussian mixture with diagonal covariances, fitted by expectation maximisation.

With log density l(x) = log sum_c w_c N(x; m_c, v_c), the score of a scaled row x is the distance
of l(x) below its bound log sum_c w_c N(m_c; m_c, v_c): 0 at best, like half a squared distance far
from the components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lineside.machines.models.detector import TINY, Floats, Log, Rows, no_log
from lineside.machines.models.scaling import RowDetector, ScalingKind, as_shares, fit_scaling


@dataclass(frozen=True, kw_only=True)
class Gmm(RowDetector):
    """Fitted mixture.

    Attributes:
        weights: Shape (component,).
        means: Shape (component, feature).
        variances: Shape (component, feature).
    """

    weights: Floats
    means: Floats
    variances: Floats

    def _log_peaks(self) -> Floats:
        """log(w_c N(m_c; m_c, v_c)) up to a constant, shape (component,)."""
        return np.log(self.weights) - 0.5 * np.log(2 * np.pi * self.variances).sum(1)

    def _score(self, row: Floats) -> float:
        # (feature,) - (component, feature) -> squared distances of shape (component,)
        squares = ((row - self.means) ** 2 / self.variances).sum(1)
        peaks = self._log_peaks()
        return float(np.logaddexp.reduce(peaks) - np.logaddexp.reduce(peaks - 0.5 * squares)) + TINY

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared deviations from the component nearest to the last row."""
        deviations = (self.scaling(rows[-1:])[0] - self.means) ** 2 / self.variances
        nearest = np.argmax(self._log_peaks() - 0.5 * deviations.sum(1))
        return as_shares(deviations[nearest])


def fit_gmm(
    rows: Rows,
    *,
    rng: np.random.Generator,
    log: Log = no_log,
    components: int = 16,
    rows_per_component: int = 10,
    floor: float = 0.01,
    scaling: ScalingKind = "standard",
) -> Gmm:
    """Fit a Gaussian mixture.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Seeds the start of the components.
        log: Receives one row with the number of components.
        components: At most this many.
        rows_per_component: Fewer components are fitted where rows do not suffice.
        floor: Added to the variances, in units of the scaled rows.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    from sklearn.mixture import GaussianMixture

    scale = fit_scaling(rows, scaling)
    count = max(1, min(components, len(rows) // rows_per_component))
    mixture = GaussianMixture(
        count,
        covariance_type="diag",
        reg_covar=floor,
        random_state=int(rng.integers(2**31)),
        n_init=2,
    ).fit(scale(rows))
    log({"detector": "gmm", "components": count, "snapshots": len(rows)})
    return Gmm(
        scaling=scale,
        weights=np.maximum(mixture.weights_, TINY),
        means=mixture.means_,
        variances=mixture.covariances_,
    )
