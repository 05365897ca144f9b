"""Scores freed of what the size of a picture explains, in units of unseen good pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_SAME_SIZE = 1e-3
"""Below this standard deviation of a log length, all pictures count as equally long."""


@dataclass(frozen=True, kw_only=True)
class SizeScale:
    """A line through log width and log height per score, and the spread around it.

    Attributes:
        weights: Intercept and slopes, shape (3, score).
        spread: Standard deviation of the residuals, shape (score,).
        centre: Mean log width and height, shape (2,).
        stretch: Their standard deviations, 1 where all pictures are equal, shape (2,).
        low: Smallest log width and height seen, shape (2,).
        high: Largest, shape (2,).
    """

    weights: Tensor
    spread: Tensor
    centre: Tensor
    stretch: Tensor
    low: Tensor
    high: Tensor

    def standardised(self, scores: Tensor, sizes: Tensor) -> Tensor:
        """Return standardised residuals, (image, score).

        Args:
            scores: Shape (image, score).
            sizes: Log width and height, shape (image, 2); sizes outside those seen when fitting
                count as the nearest seen one, so that no line is followed into the unknown.
        """
        return (scores - self._design(sizes) @ self.weights) / self.spread

    def _design(self, sizes: Tensor) -> Tensor:
        inside = sizes.minimum(self.high).maximum(self.low)
        return torch.cat([torch.ones(len(sizes), 1), (inside - self.centre) / self.stretch], 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


def load_size_scale(tensors: Mapping[str, Tensor]) -> SizeScale:
    """Rebuild from `SizeScale.tensors`."""
    return SizeScale(**{f.name: tensors[f.name] for f in fields(SizeScale)})


def fit_size_scale(scores: Tensor, sizes: Tensor) -> SizeScale:
    """Fit by least squares, slopes held back by a ridge of one pseudo-observation.

    Args:
        scores: Of good images that the scoring model did not see, shape (image, score).
        sizes: Log width and height, shape (image, 2).
    """
    stretch = sizes.std(0, unbiased=False)
    unfitted = SizeScale(
        weights=torch.zeros(3, scores.shape[1]),
        spread=torch.ones(scores.shape[1]),
        centre=sizes.mean(0),
        stretch=torch.where(stretch < _SAME_SIZE, torch.ones(2), stretch),
        low=sizes.amin(0),
        high=sizes.amax(0),
    )
    design = unfitted._design(sizes).double()
    normal = design.T @ design + torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64))
    weights = torch.linalg.solve(normal, design.T @ scores.double())
    residuals = scores.double() - design @ weights
    spread = residuals.std(0, unbiased=False).clamp_min(1e-6)
    return SizeScale(**{**unfitted.tensors(), "weights": weights.float(), "spread": spread.float()})
