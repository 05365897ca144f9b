"""How far an image is from the good ones, view by view: before any scale is put on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.core.training.checkpoint import under
from lineside.parts.models.feature_head.description import Stack
from lineside.parts.models.feature_head.gaussians import (
    Moments,
    PlaceGaussian,
    WholeGaussian,
    load_place_gaussian,
    load_whole_gaussian,
    moments,
    place_gaussian,
    whole_gaussian,
)

TOP_PLACES = 3
"""The evidence of a grid of places is the mean of its highest few: a bare maximum is noisy."""
OWN_PICTURE, SURROUNDINGS = 0.5, 0.5
"""Shares of a response's mean over the picture and over 5x5 regions that are taken off it."""
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Deviations of images from good ones, in good standard deviations.

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
class Evidence:
    """Raw evidence of images.

    Attributes:
        scores: Log distances of near, far and whole, shape (image, 3).
        peaks: Largest deviation of each line response, shape (image, 24).
        near: Log distance per place, shape (image, 8, 8).
        far: The same, shape (image, 6, 6).
        lines: Log of the mean squared positive deviation, shape (image, 16, 16).
    """

    scores: Tensor
    peaks: Tensor
    near: Tensor
    far: Tensor
    lines: Tensor


@dataclass(frozen=True, kw_only=True)
class Normal:
    """Models of the four views, fitted on good images.

    Attributes:
        near: Gaussian per place at 256 px.
        far: Gaussian per place at 192 px.
        whole: Gaussian of the picture.
        lines_mean: Shape (24, 16, 16).
        lines_spread: Shape (24, 16, 16).
    """

    near: PlaceGaussian
    far: PlaceGaussian
    whole: WholeGaussian
    lines_mean: Tensor
    lines_spread: Tensor

    def deviations(self, stack: Stack) -> Deviations:
        """Compare images with good ones."""
        return Deviations(
            near=self.near.deviations(stack.near),
            far=self.far.deviations(stack.far),
            whole=self.whole.deviations(stack.whole),
            lines=(relative(stack.lines.float()) - self.lines_mean) / self.lines_spread,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        found = {"lines_mean": self.lines_mean, "lines_spread": self.lines_spread}
        models = (("near", self.near.tensors()), ("far", self.far.tensors()))
        for name, arrays in (*models, ("whole", self.whole.tensors())):
            found |= {f"{name}.{key}": value for key, value in arrays.items()}
        return found


def load_normal(tensors: Mapping[str, Tensor]) -> Normal:
    """Rebuild from `Normal.tensors`."""
    return Normal(
        near=load_place_gaussian(under(tensors, "near.")),
        far=load_place_gaussian(under(tensors, "far.")),
        whole=load_whole_gaussian(under(tensors, "whole.")),
        lines_mean=tensors["lines_mean"],
        lines_spread=tensors["lines_spread"],
    )


def relative(lines: Tensor) -> Tensor:
    """Return log responses relative to their own picture, shape (image, response, row, column).

    Roughness of the whole surface and grain of the neighbourhood are not defects.
    """
    around = F.avg_pool2d(F.pad(lines, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return lines - OWN_PICTURE * lines.mean((2, 3), keepdim=True) - SURROUNDINGS * around


def evidence_of(away: Deviations) -> Evidence:
    """Pool deviations to scores and maps."""
    near, far = _distances(away.near), _distances(away.far)
    whole = away.whole.square().mean(1).clamp_min(1e-12).sqrt().log()
    raised = away.lines.relu().square().mean(1)
    return Evidence(
        scores=torch.stack([_pooled(near), _pooled(far), whole], 1),
        peaks=away.lines.flatten(2).amax(2),
        near=near.log(),
        far=far.log(),
        lines=(raised + 0.05).log(),
    )


def _distances(whitened: Tensor) -> Tensor:
    """Return root mean square deviations on the square grid, (image, side, side)."""
    distance = whitened.square().mean(2).clamp_min(1e-12).sqrt()
    side = round(distance.shape[1] ** 0.5)
    return distance.reshape(-1, side, side)


def _pooled(distances: Tensor) -> Tensor:
    """Return the log of the mean of the highest distances after 1-2-1 smoothing, (image,)."""
    kernel = torch.tensor([0.25, 0.5, 0.25])
    padded = F.pad(distances[:, None], (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, (kernel[:, None] * kernel)[None, None])
    return smooth.flatten(1).topk(TOP_PLACES, 1).values.mean(1).log()


def none_like(away: Deviations) -> Deviations:
    """Return deviations of no image, float16."""
    return Deviations(**{f.name: getattr(away, f.name)[:0].half() for f in fields(Deviations)})


def accepted(away: Deviations, taught: Deviations) -> Deviations:
    """Return deviations of one image, no larger than its distance to an accepted good image.

    Args:
        away: Of one image.
        taught: Of images that are good although they deviate, float16.
    """
    lines = away.lines.relu().movedim(1, -1)
    known = taught.lines.float().relu().movedim(1, -1)
    return Deviations(
        near=_nearer(away.near, taught.near.float()),
        far=_nearer(away.far, taught.far.float()),
        whole=_nearer(away.whole, taught.whole.float()),
        lines=away.lines.minimum(_nearer(lines, known).movedim(-1, 1)),
    )


def _nearer(away: Tensor, known: Tensor) -> Tensor:
    """Shrink vectors (last axis) to the distance to the nearest known one, not below 1 rms."""
    length = away.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    to_known = (away - known).norm(dim=-1, keepdim=True).amin(0, keepdim=True)
    wanted = to_known.clamp_min(away.shape[-1] ** 0.5)
    return away * (wanted / length).clamp_max(1.0)


def judged(normal: Normal, stack: Stack) -> Evidence:
    """Return the evidence of many images, a few hundred at a time."""
    chunks = [
        evidence_of(normal.deviations(stack.rows(rows)))
        for rows in torch.arange(len(stack)).split(_CHUNK)
    ]
    return joined(chunks)


def joined(chunks: Sequence[Evidence]) -> Evidence:
    """Concatenate evidence of several groups of images."""
    names = [f.name for f in fields(Evidence)]
    return Evidence(**{n: torch.cat([getattr(c, n) for c in chunks]) for n in names})


def fit_normals(stack: Stack, fold: Tensor) -> tuple[Normal, Evidence]:
    """Fit on all images, and judge each image by models that never saw its fold.

    Args:
        stack: Good images.
        fold: Inner fold of each image, shape (image,); a part is in one fold.

    Returns:
        The model of all images, and the evidence of each image when held out.
    """
    shift = {"near": stack.near.float().mean(0), "far": stack.far.float().mean(0)}
    folds = sorted(set(fold.tolist()))
    samples = [_sample(stack.rows(fold == number), shift) for number in folds]
    everything = _added(samples)
    held = []
    for number, sample in zip(folds, samples, strict=True):
        rest = {name: everything[name].minus(sample[name]) for name in sample}
        normal = _fitted(rest, shift, stack.rows(fold != number))
        held.append(judged(normal, stack.rows(fold == number)))
    order = torch.cat([torch.nonzero(fold == number)[:, 0] for number in folds]).argsort()
    out = joined(held)
    return _fitted(everything, shift, stack), Evidence(
        **{f.name: getattr(out, f.name)[order] for f in fields(Evidence)}
    )


def _sample(stack: Stack, shift: Mapping[str, Tensor]) -> dict[str, Moments]:
    return {name: moments(getattr(stack, name), shift[name]) for name in shift}


def _added(samples: Sequence[dict[str, Moments]]) -> dict[str, Moments]:
    total = dict(samples[0])
    for sample in samples[1:]:
        total = {name: total[name].plus(sample[name]) for name in total}
    return total


def _fitted(sample: Mapping[str, Moments], shift: Mapping[str, Tensor], stack: Stack) -> Normal:
    mean, spread = _line_statistics(stack.lines)
    return Normal(
        near=place_gaussian(sample["near"], shift["near"]),
        far=place_gaussian(sample["far"], shift["far"]),
        whole=whole_gaussian(stack.whole),
        lines_mean=mean,
        lines_spread=spread,
    )


def _line_statistics(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of relative responses over 3x3 regions of all images."""
    total, square = torch.zeros(lines.shape[1:]), torch.zeros(lines.shape[1:])
    for chunk in lines.split(_CHUNK):
        values = relative(chunk.float())
        total += values.sum(0)
        square += values.square().sum(0)
    around = [
        F.avg_pool2d(F.pad(x[None] / len(lines), (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
        for x in (total, square)
    ]
    return around[0], (around[1] - around[0].square()).clamp_min(1e-4).sqrt()
