"""Ranking measures (ROC, precision-recall) with ties and weights; ties are one step of the curve.

A threshold t calls everything with score >= t positive. All measures take optional weights, and
weights of shape (repetitions, n) give all repetitions from a single sort.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Sums of weights are whole numbers in float64; this absorbs the rounding of recall * total.
TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Counts at every distinct threshold, from the highest score downwards.

    Attributes:
        thresholds: Distinct scores in descending order, shape (k,).
        true: Weight of positives with score >= threshold, shape (..., k).
        false: Weight of negatives with score >= threshold, shape (..., k).
    """

    thresholds: Floats
    true: Floats
    false: Floats

    @property
    def positives(self) -> Floats:
        """Total weight of positives, shape (..., 1)."""
        return self.true[..., -1:]

    @property
    def negatives(self) -> Floats:
        """Total weight of negatives, shape (..., 1)."""
        return self.false[..., -1:]

    @property
    def recall(self) -> Floats:
        """Share of positives at or above each threshold, shape (..., k); NaN without positives."""
        return _ratio(self.true, self.positives)

    @property
    def fpr(self) -> Floats:
        """Share of negatives at or above it, shape (..., k); NaN without negatives."""
        return _ratio(self.false, self.negatives)

    @property
    def precision(self) -> Floats:
        """Share of positives among what is called positive; 1 while nothing is called."""
        called = self.true + self.false
        return np.where(called > 0, _ratio(self.true, called), 1.0)

    def auroc(self) -> Floats:
        """Area under the ROC curve = P(positive > negative) + P(tie) / 2, shape (...)."""
        before = np.concatenate([np.zeros_like(self.true[..., :1]), self.true[..., :-1]], axis=-1)
        added = np.diff(self.false, axis=-1, prepend=0.0)
        area = (added * (before + self.true)).sum(axis=-1) / 2
        return _ratio(area, (self.positives * self.negatives)[..., 0])

    def average_precision(self) -> Floats:
        """Stepwise sum of (R_i - R_(i-1)) P_i, no interpolation, shape (...)."""
        steps = np.diff(self.recall, axis=-1, prepend=0.0)
        area: Floats = (steps * self.precision).sum(axis=-1)
        return area

    def fpr_at_recall(self, recall: float) -> Floats:
        """Smallest false-positive rate over thresholds with at least this recall, shape (...).

        At recall 1 this is an extreme value: one positive decides it.
        """
        enough = self.true >= recall * self.positives - TOLERANCE
        first = enough.argmax(axis=-1)[..., None]
        fpr = np.take_along_axis(self.fpr, first, axis=-1)[..., 0]
        return np.where(self.positives[..., 0] > 0, fpr, np.nan)


def rank(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> Ranking:
    """Sort once and count at every distinct threshold.

    Args:
        scores: Shape (n,), higher is more positive.
        labels: Shape (n,), 1 (or True) positive, 0 negative.
        weights: Shape (..., n), non-negative; ones if None.

    Raises:
        ValueError: if shapes differ, nothing is there, a score is NaN, or a label is not 0 or 1.
    """
    values, truth = _checked(scores, labels)
    order = np.argsort(-values, kind="stable")
    ordered, positive = values[order], truth[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight[..., order]
    # cumulative counts (..., n), of which only the last of each group of ties is kept: (..., k)
    true = np.cumsum(np.where(positive, weight, 0.0), axis=-1)[..., ends]
    every = np.cumsum(weight, axis=-1)[..., ends]
    return Ranking(thresholds=ordered[ends], true=true, false=every - true)


def auroc(scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the area under the ROC curve; ties count half; NaN if a class is missing."""
    return float(rank(scores, labels, weights).auroc())


def average_precision(
    scores: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> float:
    """Return the stepwise average precision; it depends on the share of positives."""
    return float(rank(scores, labels, weights).average_precision())


def roc_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return (false-positive rates, recalls, thresholds), from (0, 0) at infinity to (1, 1)."""
    ranking = rank(scores, labels)
    return (
        np.append(0.0, ranking.fpr),
        np.append(0.0, ranking.recall),
        np.append(np.inf, ranking.thresholds),
    )


def pr_curve(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return (recalls, precisions, thresholds) at every distinct score, highest first."""
    ranking = rank(scores, labels)
    return ranking.recall, ranking.precision, ranking.thresholds


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    result = np.full(shape, np.nan)
    np.divide(numerator, denominator, out=result, where=np.asarray(denominator) > 0)
    return result


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.float64)
    if values.ndim != 1 or values.shape != truth.shape or not len(values):
        raise ValueError(f"need (n,) scores and labels, got {values.shape} and {truth.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} scores are NaN")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("labels must be 0 or 1")
    return values, truth == 1.0
