"""Scores without what image size explains, standardised on held-out good images.

The maximum over more pixels is larger, so a raw score grows with the size of the image. Per score

    score = w0 + w1 * z(log width) + w2 * z(log height) + residual,   z-score = residual / std

is fitted by ridge regression with one pseudo-observation on the slopes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_EQUAL_SIZES = 1e-3
"""Below this standard deviation of a log length, all images count as equally long."""


@dataclass(frozen=True, kw_only=True)
class SizeRegression:
    """Linear regression of scores on log width and log height.

    Attributes:
        weights: Intercept and two slopes per score, shape (3, score).
        std: Standard deviation of the residuals, shape (score,).
        size_mean: Mean log width and height, shape (2,).
        size_std: Their standard deviations, 1 where all images are equally long, shape (2,).
        size_min: Smallest log width and height of the good images, shape (2,).
        size_max: Largest, shape (2,).
    """

    weights: Tensor
    std: Tensor
    size_mean: Tensor
    size_std: Tensor
    size_min: Tensor
    size_max: Tensor

    def z_scores(self, scores: Tensor, sizes: Tensor) -> Tensor:
        """Return standardised residuals, shape (image, score).

        Args:
            scores: Shape (image, score).
            sizes: Log width and height, shape (image, 2); sizes outside the range of the good
                images are clamped to it, so that the line is not extrapolated.
        """
        return (scores - self._design(sizes) @ self.weights) / self.std

    def _design(self, sizes: Tensor) -> Tensor:
        """Return the design matrix (image, 3): 1, z(log width), z(log height)."""
        clamped = sizes.minimum(self.size_max).maximum(self.size_min)
        return torch.cat([torch.ones(len(sizes), 1), (clamped - self.size_mean) / self.size_std], 1)


def fit_size_regression(scores: Tensor, sizes: Tensor) -> SizeRegression:
    """Fit on good images.

    Args:
        scores: Of images that the scoring model did not see, shape (image, score).
        sizes: Log width and height, shape (image, 2).
    """
    size_std = sizes.std(0, unbiased=False)
    size = {
        "size_mean": sizes.mean(0),
        "size_std": torch.where(size_std < _EQUAL_SIZES, torch.ones(2), size_std),
        "size_min": sizes.amin(0),
        "size_max": sizes.amax(0),
    }
    count = scores.shape[1]
    unfitted = SizeRegression(weights=torch.zeros(3, count), std=torch.ones(count), **size)
    design = unfitted._design(sizes).double()
    # (3, 3) normal equations; the ridge penalises the slopes, not the intercept
    normal = design.T @ design + torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    weights = torch.linalg.solve(normal, design.T @ scores.double())
    residuals = scores.double() - design @ weights
    std = residuals.std(0, unbiased=False).clamp_min(1e-6)
    return SizeRegression(weights=weights.float(), std=std.float(), **size)
