"""One-class SVM and nearest neighbours, kept as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.svm import OneClassSVM

from lineside.machines.models.detector import Rows
from lineside.machines.models.scaling import (
    Floats,
    Scaling,
    ScalingKind,
    by_occlusion,
    fit_scaling,
    row_by_row,
    shares,
)

TINY = 1e-12
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SupportVectors:
    """One-class SVM with a Gaussian kernel (Schoelkopf et al. 2001).

    Its score saturates: far from all support vectors it is `ceiling`, however far.
    """

    scaling: Scaling
    vectors: Floats
    weights: Floats
    gamma: float
    history: int = 0

    @property
    def ceiling(self) -> float:
        """The largest score that there is."""
        return float(self.weights.sum()) + TINY

    def _score(self, row: Floats) -> float:
        near = np.exp(-self.gamma * ((row - self.vectors) ** 2).sum(1))
        return float((self.weights * (1.0 - near)).sum()) + TINY

    def score(self, rows: Rows) -> Floats:
        """Return the kernel mass that is missing at every row, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def contributions(self, rows: Rows) -> Floats:
        """Return how far the score falls without each feature.

        Where the score has saturated that says nothing, and squared deviations are taken instead.
        """
        row = self.scaling(rows[-1:])[0]
        if self._score(row) > 0.99 * self.ceiling:
            return shares(row**2)
        return by_occlusion(row, self._score)


def fit_ocsvm(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    nu: float = 0.1,
    scaling: ScalingKind = "standard",
) -> SupportVectors:
    """Fit a one-class SVM; the kernel's width is one over the summed variance of the rows.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with the number of support vectors.
        nu: Share of the healthy rows that may lie outside.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    scaled = scale(rows)
    gamma = 1.0 / max(scaled.shape[1] * float(scaled.var()), TINY)
    machine = OneClassSVM(nu=nu, gamma=gamma).fit(scaled)
    log({"detector": "ocsvm", "support_vectors": len(machine.support_), "snapshots": len(rows)})
    weights = machine.dual_coef_[0] / machine.dual_coef_.sum()
    return SupportVectors(
        scaling=scale, vectors=machine.support_vectors_, weights=weights, gamma=gamma
    )


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Mean distance to the nearest healthy rows."""

    scaling: Scaling
    memory: Floats
    k: int
    history: int = 0

    def _score(self, row: Floats) -> float:
        far = np.sqrt(((row - self.memory) ** 2).sum(1))
        return float(np.partition(far, self.k - 1)[: self.k].mean()) + TINY

    def score(self, rows: Rows) -> Floats:
        """Return the mean distance of every row, shape (snapshot,)."""
        return row_by_row(self.scaling(rows), self._score)

    def nearest(self, row: Rows) -> Indices:
        """Return the places of the nearest healthy rows among the fitted ones, nearest first."""
        far = ((self.scaling(row) - self.memory) ** 2).sum(1)
        return np.argsort(far, kind="stable")[: self.k]

    def contributions(self, rows: Rows) -> Floats:
        """Return shares of the squared differences from the mean of the nearest rows."""
        row = self.scaling(rows[-1:])[0]
        return shares((row - self.memory[self.nearest(rows[-1])].mean(0)) ** 2)


def fit_knn(
    rows: Rows,
    *,
    rng: np.random.Generator | None = None,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    k: int = 5,
    scaling: ScalingKind = "standard",
) -> Neighbours:
    """Keep the healthy rows.

    Args:
        rows: Healthy rows, shape (snapshot, feature).
        rng: Not used; nothing is random here.
        log: Receives one row with their number.
        k: How many neighbours count.
        scaling: Of the rows.

    Raises:
        UserError: too few rows, or NaN.
    """
    scale = fit_scaling(rows, scaling)
    log({"detector": "knn", "snapshots": len(rows)})
    return Neighbours(scaling=scale, memory=scale(rows), k=min(k, len(rows)))
