"""Statistics of good images by position in the image, and scores that do not depend on its size.

Illumination falls off towards the border of a part and its edges have structure of their own, so a
value is compared with good images at a similar position: the distance to the nearest border in
cells and, inside, the third of the image. Per zone, z = (x - mean) / std. It needs no registration
and works for images of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import Array
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of

AXIS_ZONES = 9
"""Zones along an axis: cell 0, 1, 2-3 from the start; three thirds; 2-3, 1, 0 from the end."""
ZONES = AXIS_ZONES * AXIS_ZONES
PRIOR_CELLS = 50.0
"""Weight, in cells, of the statistics of the whole image in those of a zone."""
TOP_CELLS = 5
"""The score of an image is the mean of its highest TOP_CELLS cells."""
VALIDATION_IMAGES = 20
"""With at least this many good validation images, they set the scale of the score."""
SCALE_IMAGES = 200
"""Maximum of good images that set it."""


def axis_zones(count: int) -> NDArray[np.int64]:
    """Return the zone (0..8) of every cell along an axis of `count` cells."""
    index = np.arange(count)
    from_end = count - 1 - index
    near = np.minimum(index, from_end)
    rank = np.array([0, 1, 2, 2])[np.minimum(near, 3)]
    border = np.where(index <= from_end, rank, AXIS_ZONES - 1 - rank)
    return np.where(near <= 3, border, 3 + index * 3 // count)


def zone_grid(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return the zone (0..80) of every cell, shape (rows, columns)."""
    return axis_zones(grid[0])[:, None] * AXIS_ZONES + axis_zones(grid[1])[None, :]


@dataclass(frozen=True, kw_only=True)
class PositionStatistics:
    """Mean and standard deviation of features by zone, each of shape (81, feature)."""

    mean: Array
    std: Array

    def z(self, features: Array) -> Array:
        """Standardise features of shape (rows, columns, feature)."""
        zones = zone_grid((features.shape[0], features.shape[1]))
        return (features - self.mean[zones]) / self.std[zones]


class StatisticsAccumulator:
    """Accumulates features of good images one by one; `result` returns the statistics."""

    def __init__(self) -> None:
        self._count = np.zeros(ZONES)
        self._sums: NDArray[np.float64] = np.zeros((0, 0, 0))

    def add(self, features: Array) -> None:
        """Add the features of one good image, shape (rows, columns, feature)."""
        size = features.shape[2]
        if not self._sums.size:
            self._sums = np.zeros((2, ZONES, size))
        zones = zone_grid((features.shape[0], features.shape[1])).ravel()
        flat = features.reshape(-1, size).astype(np.float64)
        # (zone, cell) indicator @ (cell, feature) -> sums by zone (zone, feature)
        member = np.zeros((ZONES, len(zones)))
        member[zones, np.arange(len(zones))] = 1
        self._count += member.sum(axis=1)
        self._sums[0] += member @ flat
        self._sums[1] += member @ flat**2

    def result(self) -> PositionStatistics:
        """Return mean and deviation by zone, shrunken towards those of the whole image."""
        total = self._sums.sum(axis=1, keepdims=True) / self._count.sum()
        weight = (self._count + PRIOR_CELLS)[:, None]
        mean, square = (self._sums + PRIOR_CELLS * total) / weight
        std = np.sqrt(np.maximum(square - mean**2, 1e-6))
        return PositionStatistics(mean=mean.astype(np.float32), std=std.astype(np.float32))


def require_good(examples: Sequence[TrainingImage]) -> list[TrainingImage]:
    """Return the good examples.

    Raises:
        UserError: if there is none.
    """
    good = good_of(examples)
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    return good


def fit_largest_z(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    features: Callable[[Image], Array],
    rng: np.random.Generator,
) -> tuple[PositionStatistics, ScoreScale]:
    """Fit the statistics of features and the scale of a score: the mean of the highest cells.

    A cell counts by its largest z over all features.
    """
    accumulator = StatisticsAccumulator()
    for example in good_of(train):
        accumulator.add(features(example.image()))
    statistics = accumulator.result()

    def raw(image: Image) -> list[float]:
        return [top_mean(statistics.z(features(image)).max(axis=-1), TOP_CELLS)]

    (scale,) = score_scales_of(raw, train, validation, rng)
    return statistics, scale


@dataclass(frozen=True, kw_only=True)
class ScoreScale:
    """Turns a raw image score into robust standard deviations from good images of its size.

    A larger image has more cells that can be extreme, so its maximum is larger. The score expected
    of a good image is w0 + w1 log(height) + w2 log(width), with sizes clamped to the range of the
    good images.

    Attributes:
        weights: Intercept and slopes of log height and log width.
        size_min: Smallest log height and log width of a good image.
        size_max: Largest ones.
        std: Robust standard deviation of the residuals.
    """

    weights: tuple[float, float, float]
    size_min: tuple[float, float]
    size_max: tuple[float, float]
    std: float

    def expected(self, height: int, width: int) -> float:
        """Return the raw score of a typical good image of this size."""
        size = np.clip(np.log([height, width]), self.size_min, self.size_max)
        return float(self.weights[0] + size @ np.array(self.weights[1:]))

    def z(self, raw: float, height: int, width: int) -> float:
        """Return the score in robust standard deviations."""
        return (raw - self.expected(height, width)) / self.std

    def predict(
        self, cells: Array, image: Image, contributions: dict[str, float] | None = None
    ) -> Prediction:
        """Return score and map of an image from the raw scores of its cells (rows, columns)."""
        height, width = image.shape[:2]
        return Prediction(
            score=self.z(top_mean(cells, TOP_CELLS), height, width),
            map=((cells - self.expected(height, width)) / self.std).astype(np.float32),
            contributions=contributions or {},
        )


def fit_score_scale(raw: Sequence[float], sizes: Sequence[tuple[int, int]]) -> ScoreScale:
    """Fit the expected score of good images by (height, width).

    Slopes need sizes that differ by more than a few percent, and 20 images; otherwise they are 0.
    """
    scores, logs = np.asarray(raw, dtype=np.float64), np.log(np.asarray(sizes, dtype=np.float64))
    weights = np.array([np.median(scores), 0.0, 0.0])
    varies = logs.std(axis=0) > 0.03
    if varies.any() and len(scores) >= 20:
        columns = np.column_stack([np.ones(len(scores)), logs[:, varies]])
        solution = np.linalg.lstsq(columns, scores, rcond=None)[0]
        weights[0] = solution[0]
        weights[1:][varies] = solution[1:]
    residuals = scores - weights[0] - logs @ weights[1:]
    mad = 1.4826 * np.median(np.abs(residuals - np.median(residuals)))
    return ScoreScale(
        weights=(float(weights[0]), float(weights[1]), float(weights[2])),
        size_min=(float(logs[:, 0].min()), float(logs[:, 1].min())),
        size_max=(float(logs[:, 0].max()), float(logs[:, 1].max())),
        std=float(max(mad, 0.1 * residuals.std(), 1e-6)),
    )


def score_scales_of(
    raw_scores: Callable[[Image], Sequence[float]],
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    rng: np.random.Generator,
    count: int = SCALE_IMAGES,
) -> list[ScoreScale]:
    """Return the scale of each score, from up to `count` good images.

    They are unseen ones, of `validation`, if there are enough.
    """
    unseen = good_of(validation)
    good = unseen if len(unseen) >= VALIDATION_IMAGES else good_of(train)
    raw, sizes = [], []
    for index in np.sort(rng.permutation(len(good))[:count]):
        image = good[int(index)].image()
        raw.append(raw_scores(image))
        sizes.append((image.shape[0], image.shape[1]))
    return [fit_score_scale(column, sizes) for column in np.transpose(raw)]


def top_mean(values: NDArray[np.float32], count: int) -> float:
    """Return the mean of the `count` largest values: less noisy than a bare maximum."""
    flat = values.ravel()
    count = min(count, flat.size)
    return float(np.partition(flat, -count)[-count:].mean())
