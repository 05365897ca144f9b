"""How far images are from good ones in the four views, before any score is standardised.

near, far   Mahalanobis distance of every grid cell; score: log of the mean of the 3 largest
whole       log Mahalanobis distance of one vector
lines       z of every response and region; peak: the largest z of a response

PaDiM (Defard et al. 2021, section 3.1) fits N(mean_i, C_i) at every grid cell i. Here

    C = 0.4 C_i + 0.3 (mean over the 3 x 3 neighbours) + 0.3 (mean over all cells) + ridge,

so that twenty good images are enough and small shifts of a part do not count. Moments are additive,
so a fold of parts is left out by subtraction, without a second pass over the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models.feature_head.image_features import Features, fieldwise

OWN, NEAR, ALL = 0.4, 0.3, 0.3
"""Shares of a cell's own covariance, of its 3x3 neighbourhood's and of all cells'."""
RIDGE = 0.1
"""Added to the diagonal, as a fraction of the mean variance (the whole: of a correlation of 1)."""
_CHUNK = 256
_SCORED = 64
"""Images scored at once: their whitened features are in memory in float32."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, sum (cell, feature) and sum of products (cell, feature, feature) of vectors."""

    count: int
    total: Tensor
    product: Tensor

    def plus(self, other: Moments, sign: int = 1) -> Moments:
        """Return the moments of both samples together; with sign -1, without a part of them."""
        return fieldwise(lambda own, added: own + sign * added, self, other)


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


TOP_CELLS = 3
"""The score of a grid is the mean of its highest few cells: a bare maximum is noisy."""
IMAGE_SHARE, NEIGHBOUR_SHARE = 0.5, 0.5
"""Shares of a response's mean over the image and over 5x5 regions that are subtracted from it."""


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Deviations of images from good ones, in standard deviations.

    Attributes:
        near: Shape (image, 64, 192), whitened.
        far: Shape (image, 36, 192), whitened.
        whole: Shape (image, 640), whitened.
        lines: Shape (image, 24, 16, 16).
    """

    near: Tensor
    far: Tensor
    whole: Tensor
    lines: Tensor


@dataclass(frozen=True, kw_only=True)
class ViewScores:
    """Raw scores and maps of images.

    Attributes:
        distances: Log distances of near, far and whole, shape (image, 3).
        peaks: Largest deviation of each line response, shape (image, 24).
        near: Log distance per cell, shape (image, 8, 8).
        far: The same, shape (image, 6, 6).
        lines: Log of the mean squared positive deviation, shape (image, 16, 16).
    """

    distances: Tensor
    peaks: Tensor
    near: Tensor
    far: Tensor
    lines: Tensor


@dataclass(frozen=True, kw_only=True)
class ViewGaussians:
    """Gaussians of the four views, fitted on good images.

    Attributes:
        near: Gaussian per grid cell at 256 px.
        far: Gaussian per grid cell at 192 px.
        whole: Gaussian of the image.
        lines_mean: Shape (24, 16, 16).
        lines_std: Shape (24, 16, 16).
    """

    near: GridGaussian
    far: GridGaussian
    whole: VectorGaussian
    lines_mean: Tensor
    lines_std: Tensor

    def deviations(self, images: Features) -> Deviations:
        """Compare images with good ones."""
        return Deviations(
            near=self.near.deviations(images.near),
            far=self.far.deviations(images.far),
            whole=self.whole.deviations(images.whole),
            lines=(relative_responses(images.lines.float()) - self.lines_mean) / self.lines_std,
        )


def relative_responses(lines: Tensor) -> Tensor:
    """Subtract from log responses those of their image and neighbourhood, (image, 24, 16, 16).

    Roughness of the whole surface and grain of the neighbourhood are not defects.
    """
    around = F.avg_pool2d(F.pad(lines, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return lines - IMAGE_SHARE * lines.mean((2, 3), keepdim=True) - NEIGHBOUR_SHARE * around


def pool(deviations: Deviations) -> ViewScores:
    """Pool deviations to scores and maps."""
    near, far = _distances(deviations.near), _distances(deviations.far)
    whole = deviations.whole.square().mean(1).clamp_min(1e-12).sqrt().log()
    raised = deviations.lines.relu().square().mean(1)
    return ViewScores(
        distances=torch.stack([_pool_grid(near), _pool_grid(far), whole], 1),
        peaks=deviations.lines.flatten(2).amax(2),  # (image, 24, 16, 16) -> (image, 24)
        near=near.log(),
        far=far.log(),
        lines=(raised + 0.05).log(),
    )


def _distances(whitened: Tensor) -> Tensor:
    """Return rms deviations on the square grid: (image, cell, feature) -> (image, side, side)."""
    distance = whitened.square().mean(2).clamp_min(1e-12).sqrt()
    side = round(distance.shape[1] ** 0.5)
    return distance.reshape(-1, side, side)


def _pool_grid(distances: Tensor) -> Tensor:
    """Return the log of the mean of the highest distances after 1-2-1 smoothing, (image,)."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(distances[:, None], (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, (kernel[:, None] * kernel)[None, None])
    return smooth.flatten(1).topk(TOP_CELLS, 1).values.mean(1).log()


def shrink_to_accepted(deviations: Deviations, accepted: Deviations) -> Deviations:
    """Return deviations of one image, no larger than its distance to an accepted good image.

    Args:
        deviations: Of one image.
        accepted: Of images that are good although they deviate, float16.
    """
    lines = deviations.lines.relu().movedim(1, -1)  # (image, 16, 16, 24)
    accepted_lines = accepted.lines.float().relu().movedim(1, -1)
    return Deviations(
        near=_shrink(deviations.near, accepted.near.float()),
        far=_shrink(deviations.far, accepted.far.float()),
        whole=_shrink(deviations.whole, accepted.whole.float()),
        lines=deviations.lines.minimum(_shrink(lines, accepted_lines).movedim(-1, 1)),
    )


def _shrink(vectors: Tensor, accepted: Tensor) -> Tensor:
    """Shrink vectors (last axis) to the distance to the nearest accepted one, but not below 1 rms.

    Args:
        vectors: Of one image, shape (1, ..., feature).
        accepted: Of accepted images, shape (accepted, ..., feature).
    """
    length = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    distance = (vectors - accepted).norm(dim=-1, keepdim=True).amin(0, keepdim=True)
    target = distance.clamp_min(vectors.shape[-1] ** 0.5)
    return vectors * (target / length).clamp_max(1.0)


def view_scores(gaussians: ViewGaussians, images: Features) -> ViewScores:
    """Return the raw scores of many images, a few hundred at a time."""
    chunks = [
        pool(gaussians.deviations(images.rows(index)))
        for index in torch.arange(len(images.near)).split(_SCORED)
    ]
    return fieldwise(lambda *values: torch.cat(values), *chunks)


NO_FOLD = torch.zeros(0, dtype=torch.long)


def cross_fit(
    images: Features, fold: Tensor, faulty: Features | None = None, faulty_fold: Tensor = NO_FOLD
) -> tuple[ViewGaussians, ViewScores, ViewScores | None]:
    """Fit on all good images, and score each image by Gaussians that were fitted without its fold.

    Args:
        images: Good images.
        fold: Inner fold of each image, shape (image,); a part is in one fold.
        faulty: Faulty images, which are scored only.
        faulty_fold: The fold without which each of them is scored, shape (faulty image,).

    Returns:
        The Gaussians of all images, the raw scores of each image when held out, and those of the
        faulty ones.
    """
    shift = {"near": images.near.float().mean(0), "far": images.far.float().mean(0)}
    folds = sorted(set(fold.tolist()))
    total = _moments(images, fold == folds[0], shift)
    for number in folds[1:]:
        sample = _moments(images, fold == number, shift)
        total = {name: total[name].plus(sample[name]) for name in total}
    held_out, of_faulty = [], []
    for number in folds:  # computed again, which takes less than the memory for all of them
        sample = _moments(images, fold == number, shift)
        rest = {name: total[name].plus(sample[name], -1) for name in sample}
        others = fold != number
        gaussians = _fit(rest, shift, images.whole[others], images.lines[others])
        held_out.append(view_scores(gaussians, images.rows(fold == number)))
        if faulty is not None and (faulty_fold == number).any():
            of_faulty.append(view_scores(gaussians, faulty.rows(faulty_fold == number)))
    scores = _in_order(held_out, fold)
    faulty_scores = _in_order(of_faulty, faulty_fold) if of_faulty else None
    return _fit(total, shift, images.whole, images.lines), scores, faulty_scores


def _in_order(by_fold: Sequence[ViewScores], fold: Tensor) -> ViewScores:
    """Return scores that lie fold by fold in the order of the images, whose folds are given."""
    order = fold.argsort(stable=True).argsort()
    return fieldwise(lambda *values: torch.cat(values)[order], *by_fold)


def _moments(images: Features, rows: Tensor, shift: Mapping[str, Tensor]) -> dict[str, Moments]:
    return {name: moments(getattr(images, name)[rows], shift[name]) for name in shift}


def _fit(
    sample: Mapping[str, Moments], shift: Mapping[str, Tensor], whole: Tensor, lines: Tensor
) -> ViewGaussians:
    mean, std = _line_statistics(lines)
    return ViewGaussians(
        near=fit_grid_gaussian(sample["near"], shift["near"]),
        far=fit_grid_gaussian(sample["far"], shift["far"]),
        whole=fit_vector_gaussian(whole),
        lines_mean=mean,
        lines_std=std,
    )


def _line_statistics(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of relative responses over 3x3 regions of all images."""
    total, square = torch.zeros(lines.shape[1:]), torch.zeros(lines.shape[1:])
    for chunk in lines.split(_CHUNK):
        values = relative_responses(chunk.float())
        total += values.sum(0)
        square += values.square().sum(0)
    mean, mean_square = (
        F.avg_pool2d(F.pad(x[None] / len(lines), (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
        for x in (total, square)
    )
    return mean, (mean_square - mean.square()).clamp_min(1e-4).sqrt()
