"""Scaling that every detector stores with it, and scoring that never depends on the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lineside.core.errors import UserError
from lineside.machines.models.detector import Floats, Rows

ScalingKind = Literal["standard", "robust", "energies"]
"""``standard``: mean and standard deviation. ``robust``: median and unscaled MAD. ``energies``: the
same of ``exp(row)``, the energies whose logarithms the rows hold (the study of 2019)."""
MIN_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Affine scaling of rows: ``(row - center) / spread``.

    Attributes:
        center: Shape (feature,).
        spread: Shape (feature,), positive.
        undo_log: Rows are logarithms: they are exponentiated first.
    """

    center: Floats
    spread: Floats
    undo_log: bool = False

    def __call__(self, rows: Rows) -> Floats:
        """Return scaled rows in float64, same shape."""
        values = np.asarray(rows, dtype=np.float64)
        return ((np.exp(values) if self.undo_log else values) - self.center) / self.spread

    def undo(self, scaled: Floats) -> Floats:
        """Return the rows of scaled ones, same shape; an energy below 0 becomes a tiny one."""
        values = scaled * self.spread + self.center
        return np.log(np.maximum(values, 1e-12 * self.center)) if self.undo_log else values


def fit_scaling(rows: Rows, kind: ScalingKind = "standard") -> Scaling:
    """Return the scaling of healthy rows; a constant column keeps its unit.

    Args:
        rows: Shape (snapshot, feature).
        kind: See `ScalingKind`.

    Raises:
        UserError: too few rows, or a value that is not finite.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or len(values) < MIN_ROWS:
        raise UserError(
            f"{len(values)} healthy snapshots are too few to fit a detector",
            f"give at least {MIN_ROWS}, better 200",
        )
    undo_log = kind == "energies"
    if undo_log:
        with np.errstate(over="ignore"):
            values = np.exp(values)
    if not np.isfinite(values).all():
        raise UserError("healthy rows hold NaN or infinity", "leave such snapshots out")
    if kind == "standard":
        center, spread = values.mean(0), values.std(0)
    else:
        center = np.median(values, axis=0)
        spread = np.median(np.abs(values - center), axis=0)
    # Energies may be tiny in their unit: only a relative bound shows whether they ever change.
    constant = spread <= 1e-9 * np.maximum(0.0 if undo_log else 1.0, np.abs(center))
    return Scaling(center=center, spread=np.where(constant, 1.0, spread), undo_log=undo_log)


def score_each(values: Floats, score: Callable[[Floats], float]) -> Floats:
    """Score each row on its own: (row, feature) -> (row,).

    A matrix product over many rows rounds differently than over one: stream and batch would differ.
    """
    return np.array([score(np.ascontiguousarray(row)) for row in values], dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class RowDetector:
    """A detector that scores each scaled row on its own.

    Attributes:
        scaling: Of the rows.
        history: Rows before the scored one that it needs.
    """

    scaling: Scaling
    history: int = 0

    def _score(self, row: Floats) -> float:
        """Return the score of one scaled row, shape (feature,)."""
        raise NotImplementedError

    def score(self, rows: Rows) -> Floats:
        """Return the score of every row, see the module of the detector, shape (snapshot,)."""
        return score_each(self.scaling(rows), self._score)


def as_shares(parts: Floats) -> Floats:
    """Return non-negative parts divided by their sum; equal shares where all are 0."""
    parts = np.maximum(parts, 0.0)
    total = parts.sum()
    return parts / total if total > 0 else np.full(parts.shape, 1.0 / parts.size)


def occlusion_shares(values: Floats, score: Callable[[Floats], float]) -> Floats:
    """Return shares by the fall of the score when one scaled feature is set to its centre.

    Args:
        values: One scaled row, shape (feature,).
        score: Takes a scaled row to its score.
    """
    whole = score(values)
    # (feature,) -> (feature, feature): row i is the input with feature i at its centre, 0
    without = np.repeat(values[None], len(values), axis=0)
    np.fill_diagonal(without, 0.0)
    return as_shares(whole - score_each(without, score))
