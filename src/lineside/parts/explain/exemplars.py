"""Exemplars: known good and bad patches of the training, shown beside a verdict.

Patches are unscaled 64 px crops; two patches are compared by the cosine of their mean backbone
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lineside.parts.explain.overlays import as_rgb
from lineside.parts.models.detector import Image, TrainingImage, good_of

PATCH_PX = 64
GOOD_PATCHES = 200
BAD_PATCHES = 200
NEAREST = 3


@dataclass(frozen=True, kw_only=True)
class Library:
    """Patches with their embeddings.

    Attributes:
        sources: Id of the image of each patch.
        labels: Label of each patch.
        patches: uint8, shape (patch, 64, 64, 3).
        embeddings: float16, shape (patch, feature), unit length.
    """

    sources: tuple[str, ...]
    labels: tuple[str, ...]
    patches: Tensor
    embeddings: Tensor

    def nearest(self, patch: Image, *, faulty: bool) -> list[tuple[int, float]]:
        """Return the most similar good (or bad) patches, most similar first, one per image.

        Returns:
            Index of each patch, and the cosine similarity of the features, -1..1.
        """
        candidates = [i for i, label in enumerate(self.labels) if (label != "good") == faulty]
        if not candidates:
            return []
        similarity = self.embeddings[candidates].float() @ embed(patch)
        nearest: dict[str, tuple[int, float]] = {}
        for position in torch.argsort(similarity, descending=True).tolist():
            index = candidates[position]
            nearest.setdefault(self.sources[index], (index, float(similarity[position])))
            if len(nearest) == NEAREST:
                break
        return list(nearest.values())


def build_library(examples: Sequence[TrainingImage], rng: np.random.Generator) -> Library:
    """Cut one patch per image: at the defect where its place is known, anywhere in good images."""
    good = _sample(good_of(examples), GOOD_PATCHES, rng)
    bad = _sample([e for e in examples if e.faulty and e.mask() is not None], BAD_PATCHES, rng)
    chosen = [*good, *bad]
    patches = [crop_at(e.image(), *_centre(e, rng)) for e in chosen]
    return Library(
        sources=tuple(e.id for e in chosen),
        labels=tuple(e.label for e in chosen),
        patches=torch.stack([torch.from_numpy(as_rgb(patch).copy()) for patch in patches]),
        embeddings=torch.stack([embed(patch).half() for patch in patches]),
    )


def crop_at(image: Image, row_px: float, column_px: float, size_px: int = PATCH_PX) -> Image:
    """Return the unscaled square crop around a pixel, mirrored beyond the border."""
    half = size_px // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="symmetric")
    top = int(np.clip(round(row_px), 0, image.shape[0] - 1))
    left = int(np.clip(round(column_px), 0, image.shape[1] - 1))
    return padded[top : top + size_px, left : left + size_px]


def embed(patch: Image) -> Tensor:
    """Return the unit-length mean and spread of a patch's backbone features, shape (feature,)."""
    from lineside.parts.models.backbone import grid_features

    features = grid_features(patch).flatten(0, 1)
    summary = torch.cat([features.mean(0), features.std(0)])
    return summary / summary.norm().clamp_min(1e-6)


def _centre(example: TrainingImage, rng: np.random.Generator) -> tuple[float, float]:
    mask = example.mask() if example.faulty else None
    if mask is not None and mask.any():
        rows, columns = np.nonzero(mask)
        middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        return float(rows[middle]), float(columns[middle])
    height, width = example.image().shape[:2]
    return float(rng.uniform(0, height)), float(rng.uniform(0, width))


def _sample(
    examples: list[TrainingImage], count: int, rng: np.random.Generator
) -> list[TrainingImage]:
    if len(examples) <= count:
        return examples
    return [examples[i] for i in sorted(rng.choice(len(examples), count, replace=False))]
