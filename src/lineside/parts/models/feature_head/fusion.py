"""Late fusion: how the scores of the normal model and of the head become one score.

Derivation. A faulty part shows a defect of a known kind (probability 1 - u) or of an unknown one
(u). For unknown kinds the head's logit h carries no information, so the likelihood ratio against
good is LR(g) * (u + (1 - u) * LR(h | g)), and its logarithm is g's evidence plus a term that is
flat below a threshold of h and rises above it. So the head may raise the score where it recognises
a defect and never lowers it where it does not:

    score = z(g) + slope * max(0, (h - hinge) / spread)

A plain sum z(g) + z(h) would let the head acquit a defect that it was never shown.

How far the head may raise a score, the slope, is learned from faulty training parts that neither
model has seen (`learn_slope`); with fewer than `MEASURED_PARTS` of them it grows with their number.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

HINGE_QUANTILE = 0.75
"""Share of good images to which the head adds nothing."""
SLOPE = 2.0
"""Weight of the head's standardised logit before its effect is measured, for many parts."""
HALF_SLOPE_PARTS = 2.0
"""With this many defective parts the head has half of this weight."""
MEASURED_PARTS = 5
"""Defective parts from which on the weight is learned from them."""
SLOPES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Weights that are tried besides the one before measuring."""
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
        slope: Weight of the head's logit, 0 without labelled defects or where they do not help.
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
    """Return the weight of a head that has seen this many defective parts, before measuring it."""
    return SLOPE * defective_parts / (defective_parts + HALF_SLOPE_PARTS)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What both models say about training images whose part they did not see.

    Attributes:
        normal: Score of the normal model, shape (image,).
        logits: Pooled logit of the head, shape (image,).
        parts: The part of each image.
        labels: Good or the kind of defect of each image.
        faulty: Whether it shows a defect, shape (image,).
    """

    normal: Values
    logits: Values
    parts: Sequence[str]
    labels: Sequence[str]
    faulty: NDArray[np.bool_]


def learn_slope(fusion: Fusion, held_out: HeldOut) -> Fusion:
    """Return the fusion with the weight that ranks held-out faulty parts best.

    A weight is judged by the expected AUROC of the next faulty part. With probability u it is of a
    kind that the head was never shown, and its logit then that of a good image; for n parts of
    which s are the only ones of their kind, u = (s + 1) / (n + 2) (Good 1953, with one part of
    either sort added). So a weight costs something even where every training part is recognised.

    The weight leaves `slope_for` only where the gain exceeds its standard error over parts, and is
    0 where the head does not improve on the normal model alone.
    """
    part_of = np.array(held_out.parts)[held_out.faulty]
    pairs = set(zip(np.array(held_out.labels)[held_out.faulty], part_of, strict=True))
    if len(set(part_of)) < MEASURED_PARTS:
        return fusion
    alone = sum(count == 1 for count in Counter(label for label, _ in pairs).values())
    unknown = (alone + 1) / (len(pairs) + 2)
    term = dataclasses.replace(fusion, slope=1.0).score_term(held_out.logits)

    def ranks(slope: float) -> Values:
        return expected_ranks(held_out.normal, slope * term, held_out.faulty, unknown)

    slopes = (fusion.slope, *SLOPES)
    ranked = [ranks(slope) for slope in slopes]
    gains = [each - ranked[0] for each in ranked]
    best = int(np.argmax([gain.mean() - standard_error(gain, part_of) for gain in gains]))
    helps = ranked[best].mean() > ranks(0.0).mean() or ranks(0.0).mean() == 1
    return dataclasses.replace(fusion, slope=slopes[best] if helps else 0.0)


def expected_ranks(
    normal: Values, term: Values, faulty: NDArray[np.bool_], unknown: float
) -> Values:
    """Return the share of good images below each faulty one, shape (faulty image,); ties half.

    Args:
        normal: Score of the normal model, shape (image,).
        term: What the head adds, shape (image,).
        faulty: Shape (image,).
        unknown: Probability that a part is of an unknown kind: then the head adds to it what it
            adds to a good image, for which 20 quantiles stand.
    """
    good = np.sort((normal + term)[~faulty])

    def below(scores: Values) -> Values:
        pair = np.searchsorted(good, scores, "left") + np.searchsorted(good, scores, "right")
        return np.asarray(pair / (2 * len(good)), dtype=np.float64)

    usual = np.quantile(term[~faulty], (np.arange(20) + 0.5) / 20)
    # (faulty image, 1) + (quantile,) -> mean over quantiles
    unrecognised = below(normal[faulty][:, None] + usual).mean(1)
    return (1 - unknown) * below((normal + term)[faulty]) + unknown * unrecognised


def standard_error(values: Values, groups: NDArray[np.str_]) -> float:
    """Return the standard error of the mean of values (image,) that are alike within a group."""
    _, group = np.unique(groups, return_inverse=True)
    sums = np.bincount(group, values - values.mean())
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))


def robust_std(values: Values) -> float:
    """Return the standard deviation, from the middle 80 % as of a Gaussian, at least MIN_SPREAD."""
    low, high = np.quantile(values, (0.1, 0.9))
    return max(MIN_SPREAD, float(high - low) / 2.563)
