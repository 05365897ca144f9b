"""Gaussians of good features: one per grid cell, and one of the image as a whole.

PaDiM (Defard et al. 2021, section 3.1) fits N(mean_i, C_i) at every grid cell i. Here

    C = 0.4 C_i + 0.3 (mean over the 3 x 3 neighbours) + 0.3 (mean over all cells) + ridge,

so that twenty good images are enough and small shifts of a part do not count. Moments are additive,
so a fold of parts is left out by subtraction, without a second pass over the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

OWN, NEAR, ALL = 0.4, 0.3, 0.3
"""Shares of a cell's own covariance, of its 3x3 neighbourhood's and of all cells'."""
RIDGE = 0.1
"""Added to the diagonal, as a fraction of the mean variance (the whole: of a correlation of 1)."""
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, sum (cell, feature) and sum of products (cell, feature, feature) of vectors."""

    count: int
    total: Tensor
    product: Tensor

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """Return the moments of both samples together; with sign -1, without a part of them."""
        return Moments(
            count=self.count + sign * other.count,
            total=self.total + sign * other.total,
            product=self.product + sign * other.product,
        )


def moments(x: Tensor, shift: Tensor) -> Moments:
    """Return the moments of x - shift.

    Args:
        x: Any float type, shape (image, cell, feature).
        shift: About the mean, shape (cell, feature); keeps float32 sums accurate.
    """
    total = torch.zeros_like(shift)
    product = torch.zeros(*shift.shape, shift.shape[1])
    for chunk in x.split(_CHUNK):
        centred = (chunk.float() - shift).transpose(0, 1)  # (cell, image, feature)
        total += centred.sum(1)
        # (cell, feature, image) @ (cell, image, feature) -> (cell, feature, feature)
        product += centred.transpose(1, 2) @ centred
    return Moments(count=len(x), total=total, product=product)


@dataclass(frozen=True, kw_only=True)
class GridGaussian:
    """A Gaussian at every cell of a square grid.

    Attributes:
        mean: Shape (cell, feature).
        whitening: Lower triangular W with W C W^T = 1, shape (cell, feature, feature).
    """

    mean: Tensor
    whitening: Tensor

    def deviations(self, x: Tensor) -> Tensor:
        """Return whitened deviations W (x - mean), shape (image, cell, feature).

        Their squared norm is the squared Mahalanobis distance.
        """
        centred = (x.float() - self.mean).transpose(0, 1)
        # (cell, image, feature) @ (cell, feature, feature) -> (cell, image, feature)
        return (centred @ self.whitening.transpose(1, 2)).transpose(0, 1)


def fit_grid_gaussian(sample: Moments, shift: Tensor) -> GridGaussian:
    """Fit the Gaussians of a square grid of cells from moments about `shift`."""
    mean = sample.total / sample.count
    own = sample.product / sample.count - mean[:, :, None] * mean[:, None, :]
    cells, width = mean.shape
    side = round(cells**0.5)
    # (cell, feature, feature) -> (1, feature * feature, row, column): every entry of the covariance
    # is an image, and pooling it averages over the neighbouring cells
    entries = own.reshape(side, side, width * width).permute(2, 0, 1)[None]
    near = F.avg_pool2d(entries, 3, 1, 1, count_include_pad=False)
    near = near[0].permute(1, 2, 0).reshape(own.shape)
    covariance = OWN * own + NEAR * near + ALL * own.mean(0)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    diagonal += RIDGE * diagonal.mean(1, keepdim=True) + 1e-6
    eye = torch.eye(width).expand(cells, width, width)
    factor = torch.linalg.cholesky(covariance)
    whitening = torch.linalg.solve_triangular(factor, eye, upper=False)  # L^-1
    return GridGaussian(mean=mean + shift, whitening=whitening)


@dataclass(frozen=True, kw_only=True)
class VectorGaussian:
    """A Gaussian of one vector per image.

    Attributes:
        mean: Shape (feature,).
        whitening: Shape (feature, feature), applied from the right.
    """

    mean: Tensor
    whitening: Tensor

    def deviations(self, x: Tensor) -> Tensor:
        """Return whitened deviations of x, shape (image, feature)."""
        return (x.float() - self.mean) @ self.whitening


def fit_vector_gaussian(x: Tensor) -> VectorGaussian:
    """Fit one Gaussian to vectors (image, feature) by their shrunken correlations."""
    values = x.double()
    mean = values.mean(0)
    std = values.std(0, unbiased=False) + 1e-6
    standard = (values - mean) / std
    shrunk = (1 - RIDGE) * (standard.T @ standard) / len(standard)
    shrunk.diagonal().add_(RIDGE)
    eye = torch.eye(len(mean), dtype=torch.float64)
    factor = torch.linalg.cholesky(shrunk)
    whitening = torch.linalg.solve_triangular(factor, eye, upper=False).T / std[:, None]
    return VectorGaussian(mean=mean.float(), whitening=whitening.float().contiguous())
