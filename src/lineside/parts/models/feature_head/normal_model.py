"""One-class model of good images: an ensemble of four Gaussian deviation scores.

view    features                               model                    score
near    block 14 of the backbone at 256 px     Gaussian per grid cell   log of the mean of the
                                               (PaDiM, Defard 2021)     3 largest distances
far     the same at 192 px                     the same                 the same
whole   mean and std of block 15 at 256 px     one Gaussian             log distance
lines   line-filter maxima, native resolution  mean and std per region  mean squared positive z

Distances are Mahalanobis distances.
Each score is regressed on log image size (larger images have larger maxima), then standardised with
cross-fitted scores of the training images (5 folds by part): an unseen good part has mean 0 and
standard deviation 1. The score of an image is the standardised mean of the four.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.core.errors import UserError
from lineside.parts.models.detector import Prediction
from lineside.parts.models.feature_head.deviations import (
    Deviations,
    ViewGaussians,
    ViewScores,
    cross_fit,
    pool,
    shrink_to_accepted,
)
from lineside.parts.models.feature_head.image_features import Features, extractor, fieldwise, stack
from lineside.parts.models.size_regression import SizeRegression, fit_size_regression

VIEWS = ("near", "far", "whole", "lines")
MAP_CELLS = 32
"""Rows and columns of the map, whatever the image's size."""
MAP_WEIGHTS = {"near": 0.25, "far": 0.25, "lines": 0.5}
"""In the map the backbone's two scales count as one view; the whole image has no position."""
INNER_FOLDS = 5
MAX_ACCEPTED = 64
"""Only the newest MAX_ACCEPTED accepted images are kept."""

Scale = tuple[float, float]
"""Mean and standard deviation over cross-fitted good images."""


@dataclass(frozen=True, kw_only=True)
class NormalModel:
    """Fitted one-class model of good images; immutable.

    Attributes:
        gaussians: Per view, see the module docstring.
        distance_size: Regression of the log distances of near, far and whole on image size.
        peak_size: The same of the largest deviation of each line response.
        score_scale: Scale of the mean squared peak (``lines``), the mean of the views (``score``),
            the maps of three views (``near map``, ``far map``, ``lines map``) and the maximum of a
            map (``map``).
        held_out_scores: Sorted cross-fitted scores of the good images, shape (good images,).
        accepted: Deviations of good images that were falsely rejected, or None.
        extractor: Hash of the image features that it was fitted on.

    Raises:
        UserError: If this installation computes other image features.
    """

    gaussians: ViewGaussians
    distance_size: SizeRegression
    peak_size: SizeRegression
    score_scale: Mapping[str, Scale]
    held_out_scores: Tensor
    accepted: Deviations | None = None
    extractor: str

    def __post_init__(self) -> None:
        if self.extractor != extractor():
            raise UserError(
                "the model of good parts was fitted on other image features than these",
                "install the versions named in the model card, or train again",
            )

    @torch.inference_mode()
    def predict(self, features: Features) -> Prediction:
        """Score one image.

        Returns:
            The score in standard deviations above unseen good images; a map (32, 32) whose maximum
            has mean 0 and standard deviation 1 over unseen good images; the standardised score of
            each view as contributions.
        """
        image = stack([features])
        deviations = self.gaussians.deviations(image)
        if self.accepted is not None:
            deviations = shrink_to_accepted(deviations, self.accepted)
        raw, size = pool(deviations), image.size.float()
        views = _view_z(raw, size, self.distance_size, self.peak_size, self.score_scale)
        heat = _z(_mean_map(raw, self.score_scale), self.score_scale["map"])
        return Prediction(
            score=float(_z(views.mean(1), self.score_scale["score"])),
            map=heat[0].numpy(),
            contributions=dict(zip(VIEWS, views[0].tolist(), strict=True)),
        )

    def accept(self, images: Sequence[Features]) -> NormalModel:
        """Return a derived model that accepts what these good images show where they show it.

        A cell whose features are closer to those of an accepted image than to the mean of the
        good ones is scored by the distance to the accepted image; everything else is unchanged.
        """
        if not images:
            return self
        new = fieldwise(Tensor.half, self.gaussians.deviations(stack(images)))
        known = (new,) if self.accepted is None else (self.accepted, new)
        newest = fieldwise(lambda *values: torch.cat(values)[-MAX_ACCEPTED:], *known)
        return replace(self, accepted=newest)


def fit_normal_model(
    images: Sequence[Features],
    parts: Sequence[str] | None = None,
    *,
    inner_folds: int = INNER_FOLDS,
) -> NormalModel:
    """Fit on good images; deterministic. See `cross_fit_normal_model`."""
    return cross_fit_normal_model(images, parts, inner_folds=inner_folds)[0]


@torch.inference_mode()
def cross_fit_normal_model(
    images: Sequence[Features],
    parts: Sequence[str] | None = None,
    faulty: Sequence[Features] = (),
    faulty_parts: Sequence[str] = (),
    *,
    inner_folds: int = INNER_FOLDS,
    watch: Callable[[Tensor, Tensor], None] = lambda scores, maps: None,
) -> tuple[NormalModel, Tensor]:
    """Fit on good images, and score all images by models without their parts; deterministic.

    Args:
        images: Features of good images only.
        parts: The physical part of each, so that a part is in one inner fold. Without it every
            image counts as a part of its own: several views of one part then make the
            standardisation too optimistic.
        faulty, faulty_parts: The same of faulty images, on which the model never depends.
        inner_folds: Number of inner folds, at most.
        watch: Gets score (image,) and map (image, 32, 32) of each good image when held out.

    Returns:
        The model, and the scores of good and faulty images by models without their parts, shape
        (good image + faulty image,); the good ones have mean 0 and standard deviation 1.

    Raises:
        UserError: With fewer than two good images.
    """
    if len(images) < 2:
        message = f"only {len(images)} good image(s) to learn from"
        raise UserError(message, "give two or more good images")
    stacked, others = stack(images), stack(faulty) if faulty else None
    names = parts or [str(i) for i in range(len(images))]
    fold, faulty_fold = _inner_folds(names, faulty_parts, inner_folds)
    gaussians, held_out, of_faulty = cross_fit(stacked, fold, others, faulty_fold)
    size = stacked.size.float()
    distance_size = fit_size_regression(held_out.distances, size)
    peak_size = fit_size_regression(held_out.peaks, size)
    scale = {
        "near map": _mean_std(held_out.near),
        "far map": _mean_std(held_out.far),
        "lines map": _mean_std(held_out.lines),
        "lines": _mean_std(_squared_peak(held_out, size, peak_size)),
    }
    total = _view_z(held_out, size, distance_size, peak_size, scale).mean(1)
    scale["score"] = _mean_std(total)
    maps = _mean_map(held_out, scale)
    scale["map"] = _mean_std(maps.amax((1, 2)))
    scores = good = _z(total, scale["score"])
    watch(good, _z(maps, scale["map"]))
    if others is not None and of_faulty is not None:
        views = _view_z(of_faulty, others.size.float(), distance_size, peak_size, scale)
        scores = torch.cat([good, _z(views.mean(1), scale["score"])])
    model = NormalModel(
        gaussians=gaussians,
        distance_size=distance_size,
        peak_size=peak_size,
        score_scale=scale,
        held_out_scores=good.sort().values,
        extractor=extractor(),
    )
    return model, scores


def _inner_folds(
    parts: Sequence[str], faulty_parts: Sequence[str], count: int
) -> tuple[Tensor, Tensor]:
    """Return the fold of each good image, and of each faulty one.

    A faulty part has the fold of its good images; those without any are dealt out one by one.
    """
    fold = assign_folds(parts, count)
    of_part = dict(zip(parts, fold.tolist(), strict=True))
    for number, name in enumerate(n for n in dict.fromkeys(faulty_parts) if n not in of_part):
        of_part[name] = number % (int(fold.max()) + 1)
    return fold, torch.tensor([of_part[part] for part in faulty_parts], dtype=torch.long)


def assign_folds(parts: Sequence[str], count: int) -> Tensor:
    """Deal parts out to at most `count` folds, largest first to the smallest fold.

    With a single part, images are dealt out instead.
    """
    names = list(dict.fromkeys(parts))
    if len(names) == 1:
        return torch.arange(len(parts)) % min(count, len(parts))
    sizes = dict.fromkeys(names, 0)
    for part in parts:
        sizes[part] += 1
    fold_sizes = [0] * min(count, len(names))
    fold = {}
    for name in sorted(names, key=lambda n: -sizes[n]):
        fold[name] = fold_sizes.index(min(fold_sizes))
        fold_sizes[fold[name]] += sizes[name]
    return torch.tensor([fold[part] for part in parts])


def _squared_peak(raw: ViewScores, size: Tensor, peak_size: SizeRegression) -> Tensor:
    """Return the mean squared positive peak of an image, (image,): many weak or one strong."""
    return peak_size.z_scores(raw.peaks, size).relu().square().mean(1)


def _view_z(
    raw: ViewScores,
    size: Tensor,
    distance_size: SizeRegression,
    peak_size: SizeRegression,
    scale: Mapping[str, Scale],
) -> Tensor:
    """Return the standardised score of each view, (image, 4)."""
    lines = _z(_squared_peak(raw, size, peak_size), scale["lines"])
    return torch.cat([distance_size.z_scores(raw.distances, size), lines[:, None]], 1)


def _mean_map(raw: ViewScores, scale: Mapping[str, Scale]) -> Tensor:
    """Return the weighted mean of standardised maps on the common grid, (image, 32, 32)."""
    total = torch.zeros(len(raw.near), MAP_CELLS, MAP_CELLS)
    for name, weight in MAP_WEIGHTS.items():
        values = _z(getattr(raw, name), scale[f"{name} map"])[:, None]
        size = (MAP_CELLS, MAP_CELLS)
        total += weight * F.interpolate(values, size, mode="bilinear", align_corners=False)[:, 0]
    return total


def _z(values: Tensor, scale: Scale) -> Tensor:
    return (values - scale[0]) / scale[1]


def _mean_std(values: Tensor) -> Scale:
    return float(values.mean()), max(float(values.std(unbiased=False)), 1e-6)
