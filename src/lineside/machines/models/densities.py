"""Densities of healthy rows: whitened Mahalanobis distance with shrinkage, Gaussian mixture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.mixture import GaussianMixture

from lineside.machines.models.detector import Rows
from lineside.machines.models.scaling import (
    Floats,
    Scaling,
    ScalingKind,
    fit_scaling,
    row_by_row,
    shares,
)

TINY = 1e-12


@dataclass(frozen=True, kw_only=True)
class Mahalanobis:
    """Squared distance from the healthy mean after whitening.

    Attributes:
        scaling: Of the rows.
        mean: Of the scaled rows, shape (feature,).
        whitening: Symmetric inverse root of the shrunk covariance, shape (feature, feature); with
            `components` kept, of the leading ones only.
    """

    scaling: Scaling
    mean: Floats
    whitening: Floats
    history: int = 0

    def _score(self, row: Floats) -> float:
        return float(((self.whitening @ (row - self.mean)) ** 2).sum()) + TINY

    def score(self, rows: Rows) -> Floats:
        """Return the squared distance of every row, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return the squared whitened deviations of the last row as shares."""
        return shares((self.whitening @ (self.scaling(rows[-1:])[0] - self.mean)) ** 2)


def fit_mahalanobis(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    components: int | None = None,
    scaling: ScalingKind = "standard",
) -> Mahalanobis:
    """Fit the mean and the covariance, shrunk after Ledoit and Wolf (2004).

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
    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    if components is None:
        covariance, shrinkage = ledoit_wolf(scaled)
    else:
        covariance, shrinkage = np.atleast_2d(np.cov(scaled.T)), 0.0
    variances, axes = np.linalg.eigh(covariance)
    kept = min(components or len(variances), max(1, len(rows) - 1))
    variances, axes = variances[::-1][:kept], axes[:, ::-1][:, :kept]
    real = variances > 1e-10 * variances.max()
    whitening = (axes[:, real] / np.sqrt(variances[real])) @ axes[:, real].T
    log({"detector": "mahalanobis", "shrinkage": float(shrinkage), "snapshots": len(rows)})
    return Mahalanobis(scaling=scale, mean=scaled.mean(0), whitening=whitening)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Gaussian mixture with diagonal covariances.

    Attributes:
        scaling: Of the rows.
        weights: Shape (component,).
        means: Shape (component, feature).
        variances: Shape (component, feature).
    """

    scaling: Scaling
    weights: Floats
    means: Floats
    variances: Floats
    history: int = 0

    def _peaks(self) -> Floats:
        return np.log(self.weights) - 0.5 * np.log(2 * np.pi * self.variances).sum(1)

    def _score(self, row: Floats) -> float:
        far = ((row - self.means) ** 2 / self.variances).sum(1)
        peaks = self._peaks()
        return float(np.logaddexp.reduce(peaks) - np.logaddexp.reduce(peaks - 0.5 * far)) + TINY

    def score(self, rows: Rows) -> Floats:
        """Return how far the log density lies below its bound, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared deviations from the component nearest to the last row."""
        deviations = (self.scaling(rows[-1:])[0] - self.means) ** 2 / self.variances
        nearest = np.argmax(self._peaks() - 0.5 * deviations.sum(1))
        return shares(deviations[nearest])


def fit_gmm(
    rows: Rows,
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    components: int = 16,
    rows_per_component: int = 10,
    floor: float = 0.01,
    scaling: ScalingKind = "standard",
) -> Mixture:
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
    return Mixture(
        scaling=scale,
        weights=np.maximum(mixture.weights_, TINY),
        means=mixture.means_,
        variances=mixture.covariances_,
    )
