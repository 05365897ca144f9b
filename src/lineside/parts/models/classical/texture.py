"""LBP and HOG of overlapping patches with a linear model: the classical baseline of patch networks.

With labelled defects a class-balanced logistic regression of each patch on LBP, HOG and multi-scale
filters (w . [max(z, 0), min(z, 0)]), added to the largest z over good images, since a linear model
alone misses kinds of defect it was not shown. Without labels the largest z of LBP and HOG alone.
Sources: Ojala et al. 2002 (LBP), Dalal & Triggs 2005 (HOG), Andrews et al. 2003 (multiple-instance
learning of images without a mask).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.classical.descriptors import (
    CELL_PX,
    FILTER_NAMES,
    Array,
    cell_mean,
    filter_features,
    grey_of,
    texture_features,
)
from lineside.parts.models.classical.position_statistics import (
    TOP_CELLS,
    PositionStatistics,
    ScoreScale,
    StatisticsAccumulator,
    require_good,
    score_scales_of,
    top_mean,
    zone_grid,
)
from lineside.parts.models.detector import Image, Log, Mask, Prediction, TrainingImage

FILTERS = len(FILTER_NAMES)
POSITIVE_CELLS = 60
"""Maximum of patches of a defect."""
GOOD_CELLS = 100
OTHER_CELLS = 40
"""Maximum of patches far from the defect in the same image."""
COVERED = 0.3
"""Share of a cell under the mask that makes it a defect."""
CANDIDATES = 40
"""Most suspicious patches kept of an image without a mask."""
POSITIVES = 5
"""Candidates that are taken as positives in each round."""
ROUNDS = 3
PENALTY = 0.003
"""scikit-learn's inverse strength `C` of the ridge penalty."""
SCALE_IMAGES = 100
"""Maximum of good images that set the scale of the scores."""


@dataclass(frozen=True, kw_only=True)
class TexturePatches:
    """A fitted detector.

    Attributes:
        statistics: Mean and standard deviation of every feature by position.
        weights: Of the positive and the negative part of each feature; None without labels.
        novelty: Scale of the largest z over good images.
        linear: Scale of the linear model; None without labels.
    """

    statistics: PositionStatistics
    weights: Array | None
    novelty: ScoreScale
    linear: ScoreScale | None

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust deviations; the contributions are the two terms."""
        novelty, linear = _maps(self.statistics, self.weights, image)
        found = {"novelty": self.novelty.predict(novelty, image)}
        if linear is not None and self.linear is not None:
            found["linear"] = self.linear.predict(linear, image)
        terms = {name: term.score for name, term in found.items()}
        heat = np.sum([term.map for term in found.values()], axis=0)
        return Prediction(score=float(sum(terms.values())), map=heat, contributions=terms)


def fit_texture_patches(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
) -> TexturePatches:
    """Fit on good and, where there are any, defective images; a mask is used if it is known.

    With an image label only, the patches that stand out most from good images are the first
    positives, and the linear model chooses them again in three rounds (multiple instances).

    Args:
        train: Images to learn from.
        validation: Its good images set the scale of the scores if there are at least 20.
        rng: Draws the patches.
        log: Receives progress.

    Raises:
        UserError: If `train` has no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_texture_patches(images, [], rng=rng)
        >>> list(detector.predict(images[0].image()).contributions)
        ['novelty']
    """
    require_good(train)
    statistics, samples = _gather(train, rng)
    weights = None
    if any(example.faulty for example in train):
        bags = [
            _candidates(statistics, example.image())
            for example in train
            if example.faulty and not _has_mask(example)
        ]
        weights = _fit_weights(statistics, samples, bags)
        patches = sum(len(row[2]) for row in samples)
        log({"event": "linear model", "patches": patches, "unmarked": len(bags)})

    def raw(image: Image) -> list[float]:
        maps = _maps(statistics, weights, image)
        return [top_mean(values, TOP_CELLS) for values in maps if values is not None]

    novelty, *linear = score_scales_of(raw, train, validation, rng, SCALE_IMAGES)
    return TexturePatches(
        statistics=statistics,
        weights=weights,
        novelty=novelty,
        linear=linear[0] if linear else None,
    )


def _features(image: Image) -> Array:
    grey = grey_of(image)
    return np.concatenate([filter_features(grey), texture_features(grey, CELL_PX)], axis=-1)


def _maps(
    statistics: PositionStatistics, weights: Array | None, image: Image
) -> tuple[Array, Array | None]:
    """Return largest z over good images and logit of the linear model, both (rows, columns)."""
    z = statistics.z(_features(image))
    if weights is None:
        return z[..., FILTERS:].max(axis=-1), None
    return z[..., :FILTERS].max(axis=-1), _signed_parts(z) @ weights


def _signed_parts(z: Array) -> Array:
    """Return positive and negative parts side by side: (..., feature) -> (..., 2 * feature).

    Too much and too little of a feature get weights of their own.
    """
    return np.concatenate([np.maximum(z, 0), np.minimum(z, 0)], axis=-1)


def _has_mask(example: TrainingImage) -> bool:
    mask = example.mask()
    return mask is not None and bool(mask.any())


_Samples = list[tuple[Array, NDArray[np.int64], NDArray[np.bool_], NDArray[np.float64]]]
"""Per training image: raw features, zone, label and weight of patches drawn from it."""


def _gather(
    train: Sequence[TrainingImage], rng: np.random.Generator
) -> tuple[PositionStatistics, _Samples]:
    """Read every image once: statistics of the good ones and patches of all with a known mask."""
    labelled = any(example.faulty for example in train)
    accumulator = StatisticsAccumulator()
    rows: _Samples = []
    for example in train:
        if example.faulty and not _has_mask(example):
            continue
        features = _features(example.image())
        if not example.faulty:
            accumulator.add(features)
        if labelled:
            defect, clean = _draw_cells(features.shape[:2], example.mask(), example.faulty, rng)
            index = np.concatenate([defect, clean])
            label = np.arange(len(index)) < len(defect)
            # A large defect must not drown the small ones.
            weight = np.where(label, 1 / np.sqrt(max(len(defect), 1)), 1.0)
            flat = features.reshape(-1, features.shape[2])
            rows.append((flat[index], zone_grid(features.shape[:2]).ravel()[index], label, weight))
    return accumulator.result(), rows


def _draw_cells(
    grid: tuple[int, ...], mask: Mask | None, faulty: bool, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw flat indices of defect cells and of clean cells of one image."""
    if not faulty or mask is None:
        none = np.zeros(0, dtype=np.int64)
        return none, rng.permutation(grid[0] * grid[1])[:GOOD_CELLS]
    cover = cell_mean(mask.astype(np.float32), (grid[0], grid[1]))
    defect = cover >= min(COVERED, float(cover.max()))
    # The inside of a large area often looks like any other surface: its rim is the evidence.
    rim = defect & ~ndimage.binary_erosion(defect, iterations=2)
    far = ndimage.maximum_filter(cover, 5) == 0
    chosen = [
        rng.permutation(np.flatnonzero(cells))[:most]
        for cells, most in ((rim, POSITIVE_CELLS), (far, OTHER_CELLS))
    ]
    return chosen[0], chosen[1]


def _candidates(statistics: PositionStatistics, image: Image) -> Array:
    """Return the standardised features of the most suspicious cells, strongest first."""
    z = statistics.z(_features(image)).reshape(-1, statistics.mean.shape[1])
    return z[np.argsort(-z[:, :FILTERS].max(axis=1))[:CANDIDATES]]


def _fit_weights(statistics: PositionStatistics, samples: _Samples, bags: list[Array]) -> Array:
    """Fit the logistic regression; it chooses the positives of images without a mask itself."""
    from sklearn.linear_model import LogisticRegression

    features, zone, known, given = (np.concatenate(column) for column in zip(*samples, strict=True))
    z = (features - statistics.mean[zone]) / statistics.std[zone]
    inputs, weights = _signed_parts(z), np.zeros(0, dtype=np.float32)
    for _ in range(ROUNDS if bags else 1):
        positives = [_strongest(bag, weights) for bag in bags]
        rows = np.concatenate([inputs, *positives])
        label = np.concatenate([known, *(np.ones(len(p), bool) for p in positives)])
        share = [np.full(len(p), 1 / np.sqrt(len(p))) for p in positives]
        weight = np.concatenate([given, *share])
        weight[label] *= weight[~label].sum() / weight[label].sum()
        model = LogisticRegression(C=PENALTY, max_iter=100, tol=1e-3)
        model.fit(rows, label, sample_weight=weight)
        weights = model.coef_[0].astype(np.float32)
    return weights


def _strongest(bag: Array, weights: Array) -> Array:
    """Return the strongest cells of a bag: by the model, in the first round by novelty."""
    cells = _signed_parts(bag)
    return cells[np.argsort(-(cells @ weights))[:POSITIVES]] if weights.size else cells[:POSITIVES]
