"""Scores of a map against the place where the reason is known to be."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def pointing_hit(
    strength: NDArray[np.floating[Any]], mask: NDArray[np.bool_], *, tolerance: int = 2
) -> bool:
    """Return whether the map's maximum lies in the mask, grown by `tolerance` cells.

    Zhang et al. 2018 (excitation backprop), section 5.1.

    Args:
        strength: Values that speak for the score, any number of axes.
        mask: Where the reason is, same shape.
        tolerance: Cells by which the mask is grown, diagonally too.
    """
    side = 2 * tolerance + 1
    grown = ndimage.maximum_filter(np.asarray(mask, dtype=bool), size=side, mode="constant")
    return bool(grown[np.unravel_index(int(np.argmax(strength)), mask.shape)])


def mass_ratio(strength: NDArray[np.floating[Any]], mask: NDArray[np.bool_]) -> float:
    """Return the share of the map's mass in the mask over the mask's share of the area.

    1 is chance, the inverse of the area share the best possible. Negative values count as
    nothing; NaN without a mask or without mass.
    """
    mass = np.clip(np.asarray(strength, dtype=np.float64), 0.0, None)
    area = float(np.mean(mask))
    if area == 0 or mass.sum() == 0:
        return float("nan")
    return float(mass[np.asarray(mask, dtype=bool)].sum() / mass.sum() / area)
