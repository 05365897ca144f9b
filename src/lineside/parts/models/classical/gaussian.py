"""Gaussian of multi-scale filters: how far above good pictures is the oddest response of a cell?

Each filter response is standardised by good pictures at a similar distance from the border. The
covariance is taken as diagonal and only the excess counts: whitening inflates directions
that hardly vary in good pictures, which made things worse in our measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import Array, grey_of
from lineside.parts.models.classical.filters import NAMES, filter_features
from lineside.parts.models.classical.position_statistics import (
    Normal,
    NormalFit,
    Standard,
    standard_of,
    top_mean,
)
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of

TOP_CELLS = 5


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A fitted detector.

    Attributes:
        normal: Mean and deviation of every filter by place.
        standard: Turns the largest excess into robust deviations of good pictures of that size.
        top_cells: Number of cells whose mean is the score.
    """

    normal: Normal
    standard: Standard
    top_cells: int = TOP_CELLS

    def predict(self, image: Image) -> Prediction:
        """Score one picture; the map holds robust deviations and the parts name the filters."""
        z = self.normal.z(filter_features(grey_of(image)))
        excess = z.max(axis=-1)
        height, width = image.shape[:2]
        score = self.standard.score(top_mean(excess, self.top_cells), height, width)
        expected = self.standard.expected(height, width)
        strongest = z.reshape(-1, z.shape[-1])[int(excess.argmax())]
        order = np.argsort(-strongest)[:3]
        return Prediction(
            score=score,
            map=((excess - expected) / self.standard.scale).astype(np.float32),
            contributions={NAMES[int(i)]: float(strongest[i]) for i in order},
        )

    def spec(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"standard": self.standard.spec(), "top_cells": self.top_cells}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays."""
        return self.normal.tensors()


def fit_gaussian(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None],
    top_cells: int = TOP_CELLS,
) -> Gaussian:
    """Fit on the good pictures of `train`; those of `validation` set the scale if there are 20.

    Raises:
        UserError: If `train` has no good picture.
    """
    normal = fit_normal(good_of(train), lambda image: filter_features(grey_of(image)))
    log({"event": "statistics", "good_images": len(good_of(train))})

    def raw(image: Image) -> float:
        z = normal.z(filter_features(grey_of(image)))
        return top_mean(z.max(axis=-1), top_cells)

    images = [example.image for example in scale_examples(train, validation)]
    standard = standard_of(raw, images, rng)
    return Gaussian(normal=normal, standard=standard, top_cells=top_cells)


def fit_normal(good: Sequence[TrainingImage], features: Callable[[Image], Array]) -> Normal:
    """Return the statistics by place of the features of good pictures, read one at a time."""
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    gathered = NormalFit()
    for example in good:
        gathered.add(features(example.image()))
    return gathered.done()


def scale_examples(
    train: Sequence[TrainingImage], validation: Sequence[TrainingImage]
) -> list[TrainingImage]:
    """Good pictures that set the scale of scores: unseen ones if there are at least 20."""
    unseen = good_of(validation)
    return unseen if len(unseen) >= 20 else good_of(train)


def load_gaussian(spec: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Gaussian:
    """Return the detector that `spec` and `tensors` were made of."""
    return Gaussian(
        normal=Normal.of(tensors),
        standard=Standard.of(spec["standard"]),
        top_cells=int(spec["top_cells"]),
    )
