"""Scaling that every detector keeps with it, and scoring that never depends on the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.models.detector import Rows

Floats = NDArray[np.float64]
ScalingKind = Literal["standard", "robust", "energies"]
"""Mean and standard deviation; median and unscaled MAD; or these of the energies themselves, whose
logarithms the rows hold (the study of 2019)."""
FEWEST_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Takes rows to a common scale: ``(row - center) / spread``, shapes (feature,).

    With `natural`, rows are logarithms that are undone first.
    """

    center: Floats
    spread: Floats
    natural: bool = False

    def __call__(self, rows: Rows) -> Floats:
        """Return scaled rows in float64, same shape."""
        values = np.asarray(rows, dtype=np.float64)
        return ((np.exp(values) if self.natural else values) - self.center) / self.spread


def fit_scaling(rows: Rows, kind: ScalingKind = "standard") -> Scaling:
    """Return the scaling of healthy rows; a column that never changes keeps its unit.

    Args:
        rows: Shape (snapshot, feature).
        kind: See `ScalingKind`.

    Raises:
        UserError: too few rows, or a value that is not finite.
    """
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim != 2 or len(values) < FEWEST_ROWS:
        raise UserError(
            f"{len(values)} healthy snapshots are too few to fit a detector",
            f"give at least {FEWEST_ROWS}, better 200",
        )
    natural = kind == "energies"
    if natural:
        with np.errstate(over="ignore"):
            values = np.exp(values)
    if not np.isfinite(values).all():
        raise UserError("healthy rows hold NaN or infinity", "leave such snapshots out")
    if kind == "standard":
        center, spread = values.mean(0), values.std(0)
    else:
        center = np.median(values, axis=0)
        spread = np.median(np.abs(values - center), axis=0)
    # Energies may be tiny in their unit: only a relative bound tells whether they ever change.
    constant = spread <= 1e-9 * np.maximum(0.0 if natural else 1.0, np.abs(center))
    return Scaling(center=center, spread=np.where(constant, 1.0, spread), natural=natural)


def row_by_row(values: Floats, score: Callable[[Floats], float]) -> Floats:
    """Score each row on its own, shape (row,).

    Matrix products over many rows round otherwise than over one; stream and batch would differ.
    """
    return np.array([score(np.ascontiguousarray(row)) for row in values], dtype=np.float64)


def shares(parts: Floats) -> Floats:
    """Return non-negative parts divided by their sum; equal shares where all are 0."""
    parts = np.maximum(parts, 0.0)
    total = parts.sum()
    return parts / total if total > 0 else np.full(parts.shape, 1.0 / parts.size)


def by_occlusion(values: Floats, score: Callable[[Floats], float]) -> Floats:
    """Return shares by how far the score falls when one scaled feature is set to its centre."""
    whole = score(values)
    without = np.repeat(values[None], len(values), axis=0)
    np.fill_diagonal(without, 0.0)
    return shares(whole - row_by_row(without, score))
