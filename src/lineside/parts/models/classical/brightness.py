"""The trivial rival: does the picture as a whole look unlike good ones? Blind to defects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.parts.models.classical.descriptors import cell_mean, grey_of, grid_of
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of

MEASURES = ("mean", "contrast", "darkest", "brightest")


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """A fitted detector: median and robust deviation of four global measures of good pictures."""

    center: NDArray[np.float32]
    deviation: NDArray[np.float32]

    def predict(self, image: Image) -> Prediction:
        """Score the mean of the absolute robust deviations; the map shows brightness only."""
        z = np.abs(_measures(image) - self.center) / self.deviation
        grey = grey_of(image)
        local = cell_mean(grey, grid_of(grey.shape[0], grey.shape[1], 16))
        return Prediction(
            score=float(z.mean()),
            map=(np.abs(local - self.center[0]) / self.deviation[0]).astype(np.float32),
            contributions={name: float(value) for name, value in zip(MEASURES, z, strict=True)},
        )

    def spec(self) -> dict[str, Any]:
        """Return plain JSON."""
        return encode(self)[0]

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays."""
        return encode(self)[1]


def _measures(image: Image) -> NDArray[np.float32]:
    grey = grey_of(image)
    low, high = np.quantile(grey, [0.01, 0.99])
    return np.array([grey.mean(), grey.std(), low, high], dtype=np.float32)


def fit_brightness(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None],
) -> Brightness:
    """Measure the good pictures of `train`.

    Raises:
        UserError: If there is no good picture.
    """
    good = good_of(train)
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    rows = np.stack([_measures(example.image()) for example in good])
    center = np.median(rows, axis=0)
    mad = 1.4826 * np.median(np.abs(rows - center), axis=0)
    deviation = np.maximum(np.maximum(mad, 0.1 * rows.std(axis=0)), 1 / 255)
    log({"event": "statistics", "good_images": len(good)})
    return Brightness(center=center.astype(np.float32), deviation=deviation.astype(np.float32))


def load_brightness(spec: dict[str, Any], tensors: dict[str, Tensor]) -> Brightness:
    """Return the detector that `spec` and `tensors` were made of."""
    return decode(Brightness, spec, tensors)
