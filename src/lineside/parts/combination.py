"""How the good-only model and the head of known defects become one score.

Derivation. A faulty part shows a defect of a known kind (probability 1 - u) or of an unknown one
(u). For unknown kinds the head's output h carries no information, so the likelihood ratio against
good is LR(g) * (u + (1 - u) * LR(h | g)), and its logarithm is g's evidence plus a term that rises
with h above a bend and is *flat below it*. Hence the head may raise the score where it recognises
a defect and never lowers it where it does not: z(g) + slope * max(0, (h - bend) / spread).
A plain sum z(g) + z(h) would let the head acquit what it was never shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BEND = 0.8
"""Share of good images to which the head adds nothing."""
SLOPE = 2.0
"""Weight of the head's standardised evidence once it has seen many defective parts."""
HALF_SLOPE_PARTS = 2.0
"""With so many defective parts the head has half of its weight."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Constants from inner, part-wise folds of the training data.

    Attributes:
        good_centre: Median goodness of held-out good images.
        good_spread: Robust standard deviation of the same.
        head_bend: Head logit above which it adds evidence.
        head_spread: Robust standard deviation of the head's logit on held-out good images.
        slope: Weight of the head's evidence, 0 without labelled defects.
    """

    good_centre: float
    good_spread: float
    head_bend: float = 0.0
    head_spread: float = 1.0
    slope: float = 0.0

    def goodness(self, g: Values) -> Values:
        """Return standardised evidence of the good-only model, any shape."""
        return (g - self.good_centre) / self.good_spread

    def head(self, h: Values) -> Values:
        """Return the evidence that the head adds, any shape, never negative."""
        return self.slope * np.maximum(0.0, (h - self.head_bend) / self.head_spread)

    def spec(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)


def fit_combination(good: Values, head: Values | None, defective_parts: int) -> Combination:
    """Set the constants from outputs on good images that were held out of the fits.

    Args:
        good: Goodness of held-out good images, shape (image,).
        head: Head logits of held-out good images, or None without a head.
        defective_parts: Number of defective parts the head learned from.
    """
    centre, spread = centre_and_spread(good)
    if head is None or not defective_parts:
        return Combination(good_centre=centre, good_spread=spread)
    return Combination(
        good_centre=centre,
        good_spread=spread,
        head_bend=float(np.quantile(head, BEND)),
        head_spread=centre_and_spread(head)[1],
        slope=slope_for(defective_parts),
    )


def slope_for(defective_parts: int) -> float:
    """Return the weight of a head that learned from so many defective parts."""
    return SLOPE * defective_parts / (defective_parts + HALF_SLOPE_PARTS)


def load_combination(spec: Mapping[str, float]) -> Combination:
    """Rebuild from `Combination.spec`."""
    return Combination(**spec)


def centre_and_spread(values: Values) -> tuple[float, float]:
    """Return median and standard deviation, the latter from the middle 80 % of a Gaussian."""
    low, centre, high = np.quantile(values, (0.1, 0.5, 0.9))
    spread = float(high - low) / 2.563
    return float(centre), spread if spread > 0 and math.isfinite(spread) else 1.0
