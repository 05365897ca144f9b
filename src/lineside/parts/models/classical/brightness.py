"""The trivial baseline: global brightness of the image, blind to the defect itself.

z = |x - median| / robust std of good images for mean, standard deviation, 1 % and 99 % quantile of
grey; the score is the mean of the four.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.parts.models.classical.descriptors import cell_mean, grey_of, grid_of
from lineside.parts.models.classical.position_statistics import require_good
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage

MEASURES = ("mean", "contrast", "darkest", "brightest")
CELL_PX = 16


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """A fitted detector: median and robust deviation of four global measures of good images."""

    median: NDArray[np.float32]
    std: NDArray[np.float32]

    def predict(self, image: Image) -> Prediction:
        """Score the mean of the absolute robust deviations; the map shows brightness only."""
        z = np.abs(_measure(image) - self.median) / self.std
        grey = grey_of(image)
        local = cell_mean(grey, grid_of(grey.shape[0], grey.shape[1], CELL_PX))
        return Prediction(
            score=float(z.mean()),
            map=(np.abs(local - self.median[0]) / self.std[0]).astype(np.float32),
            contributions={name: float(value) for name, value in zip(MEASURES, z, strict=True)},
        )


def _measure(image: Image) -> NDArray[np.float32]:
    grey = grey_of(image)
    low, high = np.quantile(grey, [0.01, 0.99])
    return np.array([grey.mean(), grey.std(), low, high], dtype=np.float32)


def fit_brightness(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
) -> Brightness:
    """Measure the good images of `train`.

    Raises:
        UserError: If there is no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_brightness(images, [], rng=rng)
        >>> detector.predict(np.ones((64, 48, 1), np.float32)).score > 3
        True
    """
    good = require_good(train)
    rows = np.stack([_measure(example.image()) for example in good])
    median = np.median(rows, axis=0)
    mad = 1.4826 * np.median(np.abs(rows - median), axis=0)
    std = np.maximum(np.maximum(mad, 0.1 * rows.std(axis=0)), 1 / 255)
    log({"event": "statistics", "good_images": len(good)})
    return Brightness(median=median.astype(np.float32), std=std.astype(np.float32))
