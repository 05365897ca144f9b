"""How the good-only model and the head of known defects become one score.

Derivation. A faulty part shows a defect of a known kind (probability 1 - u) or of an unknown one
(u). For unknown kinds the head's output h carries no information, so the likelihood ratio against
good is LR(g) * (u + (1 - u) * LR(h | g)), and its logarithm is g's evidence plus a term that rises
with h above a bend and is *flat below it*. Hence the head may raise the score where it recognises
a defect and never lowers it where it does not: z(g) + slope * max(0, (h - bend) / spread).
A plain sum z(g) + z(h) would let the head acquit what it was never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

BEND = 0.75
"""Share of good images to which the head adds nothing."""
SLOPE = 2.0
"""Weight of the head's standardised evidence once it has seen many defective parts."""
HALF_SLOPE_PARTS = 2.0
"""With so many defective parts the head has half of its weight."""
CLEARING = 0.5
"""Share of the head's weight with which it lowers a map where it sees no defect."""
LEAST_SPREAD = 0.5
"""Logits; no head is so sure that smaller differences mean anything."""


@dataclass(frozen=True, kw_only=True)
class Combination:
    """Constants from inner, part-wise folds of the training data.

    The good-only score needs none: it is standardised on unseen good images already.

    Attributes:
        bend: Head logit above which it adds evidence.
        spread: Robust standard deviation of the head's logit on unseen good images.
        slope: Weight of the head's evidence, 0 without labelled defects.
    """

    bend: float = 0.0
    spread: float = 1.0
    slope: float = 0.0

    def raised(self, logits: Values) -> Values:
        """Return the evidence that the head adds, any shape, never negative."""
        return self.slope * np.maximum(0.0, (logits - self.bend) / self.spread)

    def local(self, logits: Values) -> Values:
        """Return what the head adds to the map, any shape.

        Unlike in the score, the head may also clear places, at a fraction of its weight: ranking
        places within an image needs an opinion of all of them.
        """
        steps = (logits - self.bend) / self.spread
        return self.slope * np.where(steps > 0, steps, CLEARING * steps)

    def spec(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)


def fit_combination(logits: Values, defective_parts: int) -> Combination:
    """Set the constants from the head's outputs on good images that were held out of it.

    Args:
        logits: Pooled logits of held-out good images, shape (image,).
        defective_parts: Number of defective parts the head learned from.
    """
    return Combination(
        bend=float(np.quantile(logits, BEND)),
        spread=spread_of(logits),
        slope=slope_for(defective_parts),
    )


def slope_for(defective_parts: int) -> float:
    """Return the weight of a head that learned from so many defective parts."""
    return SLOPE * defective_parts / (defective_parts + HALF_SLOPE_PARTS)


def load_combination(spec: Mapping[str, float]) -> Combination:
    """Rebuild from `Combination.spec`."""
    return Combination(**spec)


def spread_of(values: Values) -> float:
    """Return the standard deviation, from the middle 80 % as of a Gaussian, not below a floor."""
    low, high = np.quantile(values, (0.1, 0.9))
    return max(LEAST_SPREAD, float(high - low) / 2.563)
