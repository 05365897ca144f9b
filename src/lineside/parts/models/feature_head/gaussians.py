"""Gaussians of good features: one per place of the picture, and one of the picture as a whole.

PaDiM (Defard et al. 2021, section 3.1) fits a Gaussian per place; here its covariance is mixed with
that of the neighbouring places and of all places, so that twenty good images are enough and small
shifts of a part do not count. Moments can be added and taken apart, so leaving out a fold of parts
costs no second pass over the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

OWN, NEAR, ALL = 0.4, 0.3, 0.3
"""Shares of a place's own covariance, of its 3x3 neighbourhood's and of all places'."""
RIDGE = 0.1
"""Added to the diagonal, as a fraction of the mean variance (the whole: of a correlation of 1)."""
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, sum (place, feature) and sum of products (place, feature, feature) of vectors."""

    count: int
    total: Tensor
    product: Tensor

    def plus(self, other: Moments) -> Moments:
        """Return the moments of both samples together."""
        return Moments(
            count=self.count + other.count,
            total=self.total + other.total,
            product=self.product + other.product,
        )

    def minus(self, other: Moments) -> Moments:
        """Return the moments without a part of the sample."""
        return Moments(
            count=self.count - other.count,
            total=self.total - other.total,
            product=self.product - other.product,
        )


def moments(x: Tensor, shift: Tensor) -> Moments:
    """Return the moments of x - shift.

    Args:
        x: Any float type, shape (image, place, feature).
        shift: About the mean, shape (place, feature); keeps float32 sums accurate.
    """
    total = torch.zeros_like(shift)
    product = torch.zeros(*shift.shape, shift.shape[1])
    for chunk in x.split(_CHUNK):
        centred = (chunk.float() - shift).transpose(0, 1)
        total += centred.sum(1)
        product += centred.transpose(1, 2) @ centred
    return Moments(count=len(x), total=total, product=product)


@dataclass(frozen=True, kw_only=True)
class PlaceGaussian:
    """A Gaussian at every place of a square grid.

    Attributes:
        mean: Shape (place, feature).
        whitening: Lower triangular W with W C W^T = 1, shape (place, feature, feature).
    """

    mean: Tensor
    whitening: Tensor

    def deviations(self, x: Tensor) -> Tensor:
        """Return whitened deviations of x, shape (image, place, feature)."""
        centred = (x.float() - self.mean).transpose(0, 1)
        return (centred @ self.whitening.transpose(1, 2)).transpose(0, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return {"mean": self.mean, "whitening": self.whitening}


def load_place_gaussian(tensors: Mapping[str, Tensor]) -> PlaceGaussian:
    """Rebuild from `PlaceGaussian.tensors`."""
    return PlaceGaussian(mean=tensors["mean"], whitening=tensors["whitening"])


def place_gaussian(sample: Moments, shift: Tensor) -> PlaceGaussian:
    """Fit the Gaussians of a square grid of places from moments about `shift`."""
    mean = sample.total / sample.count
    own = sample.product / sample.count - mean[:, :, None] * mean[:, None, :]
    places, width = mean.shape
    side = round(places**0.5)
    picture = own.reshape(side, side, width * width).permute(2, 0, 1)[None]
    near = F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    near = near[0].permute(1, 2, 0).reshape(own.shape)
    covariance = OWN * own + NEAR * near + ALL * own.mean(0)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    diagonal += RIDGE * diagonal.mean(1, keepdim=True) + 1e-6
    eye = torch.eye(width).expand(places, width, width)
    factor = torch.linalg.cholesky(covariance)
    whitening = torch.linalg.solve_triangular(factor, eye, upper=False)
    return PlaceGaussian(mean=mean + shift, whitening=whitening)


@dataclass(frozen=True, kw_only=True)
class WholeGaussian:
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

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return {"mean": self.mean, "whitening": self.whitening}


def load_whole_gaussian(tensors: Mapping[str, Tensor]) -> WholeGaussian:
    """Rebuild from `WholeGaussian.tensors`."""
    return WholeGaussian(mean=tensors["mean"], whitening=tensors["whitening"])


def whole_gaussian(x: Tensor) -> WholeGaussian:
    """Fit one Gaussian to vectors (image, feature) by their shrunken correlations."""
    values = x.double()
    mean = values.mean(0)
    spread = values.std(0, unbiased=False) + 1e-6
    standard = (values - mean) / spread
    shrunk = (1 - RIDGE) * (standard.T @ standard) / len(standard)
    shrunk.diagonal().add_(RIDGE)
    eye = torch.eye(len(mean), dtype=torch.float64)
    factor = torch.linalg.cholesky(shrunk)
    whitening = torch.linalg.solve_triangular(factor, eye, upper=False).T / spread[:, None]
    return WholeGaussian(mean=mean.float(), whitening=whitening.float().contiguous())
