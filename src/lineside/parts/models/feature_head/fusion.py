"""Late fusion: how the scores of the normal model and of the head become one score.

Derivation. A faulty part shows a defect of a known kind (probability 1 - u) or of an unknown one
(u). For unknown kinds the head's logit h carries no information, so the likelihood ratio against
good is LR(g) * (u + (1 - u) * LR(h | g)), and its logarithm is g's evidence plus a term that is
flat below a threshold of h and rises above it. So the head may raise the score where it recognises
a defect and never lowers it where it does not:

    score = z(g) + slope * max(0, (h - hinge) / spread)

A plain sum z(g) + z(h) would let the head acquit a defect that it was never shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

HINGE_QUANTILE = 0.75
"""Share of good images to which the head adds nothing."""
SLOPE = 2.0
"""Weight of the head's standardised logit once it has seen many defective parts."""
HALF_SLOPE_PARTS = 2.0
"""With this many defective parts the head has half of its weight."""
NEGATIVE_SLOPE = 0.5
"""Share of the slope with which the head lowers a map where it sees no defect."""
MIN_SPREAD = 0.5
"""Logits; smaller differences mean nothing, however certain the head is."""


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """Constants from inner, part-wise folds of the training data.

    The normal model needs none: its score is standardised on unseen good images already.

    Attributes:
        hinge: Head logit above which it adds to the score (the hinge threshold).
        spread: Robust standard deviation of the head's logit on unseen good images.
        slope: Weight of the head's logit, 0 without labelled defects.
    """

    hinge: float = 0.0
    spread: float = 1.0
    slope: float = 0.0

    def score_term(self, logits: Values) -> Values:
        """Return what the head adds to the score, any shape, never negative."""
        return self.slope * np.maximum(0.0, (logits - self.hinge) / self.spread)

    def map_term(self, logits: Values) -> Values:
        """Return what the head adds to the map, any shape: a leaky version of `score_term`.

        Unlike the score, the head may also lower cells, at a fraction of its weight: ranking
        cells within an image needs a value for all of them.
        """
        z = (logits - self.hinge) / self.spread
        return self.slope * np.where(z > 0, z, NEGATIVE_SLOPE * z)


def fit_fusion(logits: Values, defective_parts: int) -> Fusion:
    """Set the constants from the head's outputs on good images that were held out of it.

    Args:
        logits: Pooled logits of held-out good images, shape (image,).
        defective_parts: Number of defective parts the head was trained on.
    """
    return Fusion(
        hinge=float(np.quantile(logits, HINGE_QUANTILE)),
        spread=robust_std(logits),
        slope=slope_for(defective_parts),
    )


def slope_for(defective_parts: int) -> float:
    """Return the weight of a head that was trained on this many defective parts."""
    return SLOPE * defective_parts / (defective_parts + HALF_SLOPE_PARTS)


def robust_std(values: Values) -> float:
    """Return the standard deviation, from the middle 80 % as of a Gaussian, at least MIN_SPREAD."""
    low, high = np.quantile(values, (0.1, 0.9))
    return max(MIN_SPREAD, float(high - low) / 2.563)
