"""Gaussian of multi-scale filters: the largest z of 29 filter responses in each cell.

Each response is standardised by good images at a similar distance from the border
(`position_statistics`), z = (x - mean) / std; a cell's score is its largest z, the image's the mean
of its five largest. The covariance is taken as diagonal and only positive deviations count:
whitening inflates directions that hardly vary in good images, which made results worse in our
measurements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineside.parts.models.classical.descriptors import (
    FILTER_NAMES,
    Array,
    filter_features,
    grey_of,
)
from lineside.parts.models.classical.position_statistics import (
    PositionStatistics,
    ScoreScale,
    fit_largest_z,
    require_good,
)
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A fitted detector.

    Attributes:
        statistics: Mean and standard deviation of every filter by position.
        scale: Scale of the image score.
    """

    statistics: PositionStatistics
    scale: ScoreScale

    def predict(self, image: Image) -> Prediction:
        """Score one image; the contributions are the strongest filters of the highest cell."""
        z = self.statistics.z(_features(image))
        cells = z.max(axis=-1)
        strongest = z.reshape(-1, z.shape[-1])[int(cells.argmax())]
        order = np.argsort(-strongest)[:3]
        filters = {FILTER_NAMES[int(i)]: float(strongest[i]) for i in order}
        return self.scale.predict(cells, image, filters)


def fit_gaussian(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
) -> Gaussian:
    """Fit on the good images of `train`; those of `validation` set the scale if there are 20.

    Raises:
        UserError: If `train` has no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_gaussian(images, [], rng=rng)
        >>> detector.predict(images[0].image()).map.shape
        (8, 6)
    """
    good = require_good(train)
    statistics, scale = fit_largest_z(train, validation, _features, rng)
    log({"event": "statistics", "good_images": len(good)})
    return Gaussian(statistics=statistics, scale=scale)


def _features(image: Image) -> Array:
    return filter_features(grey_of(image))
