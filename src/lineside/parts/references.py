"""What every model of a run holds beside its detector, made once from the training images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineside.parts.explain.exemplars import Library, build_library
from lineside.parts.models.detector import TrainingImage
from lineside.parts.monitoring.image_quality import HealthReference, fit_health

HEALTH_IMAGES = 200
FEWEST_HEALTHY = 5


@dataclass(frozen=True, kw_only=True)
class References:
    """Patches to compare with, and limits of image quality.

    Attributes:
        library: Known good and bad patches.
        health: Limits of image quality; None if the good images are too few.
    """

    library: Library
    health: HealthReference | None


def fit_references(train: Sequence[TrainingImage], rng: np.random.Generator) -> References:
    """Choose the patches, and learn the limits of image quality from up to 200 good images."""
    good = [example for example in train if not example.faulty]
    some = sorted(rng.choice(len(good), min(len(good), HEALTH_IMAGES), replace=False))
    return References(
        library=build_library(train, rng),
        health=fit_health(good[i].image() for i in some) if len(some) >= FEWEST_HEALTHY else None,
    )
