"""From reconstruction errors of patches to the score of an image; shared by three methods.

f-AnoGAN, the convolutional autoencoder and the PCA of patches see the same patches: an image is
converted to grey, reduced by averaging, centred on its median and divided by its own contrast, so
that exposure does not count; training patches are drawn anywhere on good images. At prediction an
image is cut into tiles at half a patch's stride. Its score is the log of the mean of the
`top_tiles` worst tile scores, standardised by what is usual for good images of its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.parts.models.classical.descriptors import Array, cell_mean, grey_of
from lineside.parts.models.classical.position_statistics import (
    ScoreScale,
    require_good,
    score_scales_of,
    top_mean,
)
from lineside.parts.models.crops import Corner, pad, random_corners, tile_batches, tile_corners
from lineside.parts.models.detector import Image, Prediction, TrainingImage

PatchScorer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes patches x, shape (patch, 1, side, side), values -1..1, to a score each, shape (patch,), and
the residual x - x' of their reconstruction x', shape (patch, side, side)."""

CONTRAST_DEVIATIONS = 4.0
"""Grey values this many standard deviations of the image from its median become -1 and 1."""
LEAST_DEVIATION = 0.01
"""The contrast of an image flatter than this is not stretched further: it would be noise."""
_TILES = 32
_POOL_BYTES = 256_000_000


@dataclass(frozen=True, kw_only=True)
class Patches:
    """How an image is cut into patches.

    Attributes:
        patch_px: Side of a patch in pixels of the reduced image.
        reduce: The image's sides are divided by this first.
        top_tiles: The score is the mean of this many worst tiles.
    """

    patch_px: int = 32
    reduce: int = 3
    top_tiles: int = 8

    def normalise(self, image: Image) -> Array:
        """Return the reduced grey image, shape (rows, columns), contrast -1..1, median 0."""
        shape = (round(image.shape[0] / self.reduce), round(image.shape[1] / self.reduce))
        grey = cell_mean(grey_of(image), (max(shape[0], 1), max(shape[1], 1)))
        deviation = max(float(grey.std()), LEAST_DEVIATION)
        centred = (grey - np.median(grey)) / (CONTRAST_DEVIATIONS * deviation)
        return np.clip(centred, -1.0, 1.0).astype(np.float32)


def good_patches(
    examples: Sequence[TrainingImage],
    patches: Patches,
    rng: np.random.Generator,
    *,
    per_image: int = 48,
) -> Tensor:
    """Return random patches of the good images, shape (patch, 1, side, side), values -1..1.

    Raises:
        UserError: if there is no good image.
    """
    good = require_good(examples)
    side = patches.patch_px
    count = int(np.clip(_POOL_BYTES // (4 * side * side * len(good)), 1, per_image))
    pool = []
    for example in good:
        grey, _ = pad(patches.normalise(example.image()), side)
        corners = random_corners(grey.shape, side, count, rng)
        pool += [grey[top : top + side, left : left + side] for top, left in corners]
    return torch.from_numpy(np.stack(pool)[:, None])  # (patch, side, side) -> with one channel


def score_tiles(
    grey: NDArray[np.float32], score_patches: PatchScorer, patch_px: int
) -> tuple[NDArray[np.float32], Array]:
    """Return the scores of all tiles, and the absolute residual averaged over the tiles.

    Tiles are scored in fixed, padded batches, so that a score never depends on its neighbours.

    Args:
        grey: From `Patches.normalise`; an image smaller than a patch is mirrored outwards.
        score_patches: Scores a batch.
        patch_px: Side of a tile.

    Returns:
        Shapes (tile,) and that of `grey`.
    """
    mirrored, (top_margin, left_margin) = pad(grey, patch_px)
    corners = tile_corners(mirrored.shape, patch_px)
    scores: list[NDArray[np.float32]] = []
    total, tiles_over = np.zeros(mirrored.shape), np.zeros(mirrored.shape)
    remaining = iter(corners)
    for tiles in tile_batches(mirrored[..., None], corners, patch_px, _TILES):
        batch_scores, residuals = _score_batch(tiles, score_patches)
        scores.append(batch_scores)
        for residual in np.abs(residuals):
            top, left = next(remaining)
            total[top : top + patch_px, left : left + patch_px] += residual
            tiles_over[top : top + patch_px, left : left + patch_px] += 1
    mean = (total / tiles_over)[top_margin:, left_margin:][: grey.shape[0], : grey.shape[1]]
    return np.concatenate(scores), mean.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ImageScorer:
    """Turns the scores of tiles into the prediction for an image.

    Attributes:
        patches: How images are cut.
        scale: Raw scores that are usual for good images, by size.
    """

    patches: Patches
    scale: ScoreScale

    def predict(self, image: Image, score_patches: PatchScorer) -> Prediction:
        """Score an image in robust deviations of good ones; the map is the pixel residual.

        The residual is that of the reduced image: one cell stands for `reduce` x `reduce` pixels,
        its unit is the full contrast of the image (1 = four standard deviations).
        """
        grey = self.patches.normalise(image)
        scores, residual = score_tiles(grey, score_patches, self.patches.patch_px)
        raw = _raw_score(scores, self.patches.top_tiles)
        return Prediction(
            score=self.scale.z(raw, image.shape[0], image.shape[1]),
            map=residual,
            contributions={"worst tile": float(scores.max())},
        )


def fit_image_scorer(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    patches: Patches,
    score_patches: PatchScorer,
    rng: np.random.Generator,
) -> ImageScorer:
    """Fit the scale to good images (of `validation`, if there are 20)."""

    def raw(image: Image) -> list[float]:
        scores, _ = score_tiles(patches.normalise(image), score_patches, patches.patch_px)
        return [_raw_score(scores, patches.top_tiles)]

    (scale,) = score_scales_of(raw, train, validation, rng)
    return ImageScorer(patches=patches, scale=scale)


def example_patches(
    examples: Sequence[TrainingImage], patches: Patches, rng: np.random.Generator, count: int
) -> tuple[Tensor, list[str]]:
    """Return one patch each of up to `count` images, and their labels.

    Patches of a defect with a mask are centred on it; others lie anywhere.
    """
    chosen, labels = [], []
    side = patches.patch_px
    for index in rng.permutation(len(examples))[:count].tolist():
        example = examples[index]
        grey = patches.normalise(example.image())
        top, left = _corner(example, grey.shape, side, rng)
        mirrored, _ = pad(grey, side)
        chosen.append(mirrored[top : top + side, left : left + side])
        labels.append(example.label)
    return torch.from_numpy(np.stack(chosen)[:, None]), labels


def _corner(
    example: TrainingImage, shape: tuple[int, ...], side: int, rng: np.random.Generator
) -> Corner:
    padded_shape = tuple(max(size, side) for size in shape)
    mask = example.mask() if example.faulty else None
    if mask is None or not mask.any():
        return random_corners(padded_shape, side, 1, rng)[0]
    # Median position of the defect, from pixels of the image to pixels of the reduced image.
    centre = np.median(np.argwhere(mask), axis=0) / mask.shape * shape
    largest = [size - side for size in padded_shape]
    top, left = np.clip(centre - side / 2, 0, largest).astype(int).tolist()
    return top, left


def _score_batch(
    tiles: NDArray[np.float32], score_patches: PatchScorer
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score up to `_TILES` tiles, shape (tile, 1, side, side), in a batch filled up with zeros."""
    filled = np.zeros((_TILES, *tiles.shape[1:]), dtype=np.float32)
    filled[: len(tiles)] = tiles
    with torch.inference_mode():
        scores, residual = score_patches(torch.from_numpy(filled))
    return scores[: len(tiles)].cpu().numpy(), residual[: len(tiles)].cpu().numpy()


def _raw_score(scores: NDArray[np.float32], top_tiles: int) -> float:
    """Return log mean of the worst tiles: squared residuals spread over orders of magnitude."""
    return float(np.log(max(top_mean(scores, top_tiles), 1e-12)))
