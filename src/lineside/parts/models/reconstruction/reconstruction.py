"""What the methods share that judge a part by how badly its patches are reconstructed.

f-AnoGAN, the convolutional autoencoder and the PCA of patches see the very same patches: the
picture is made grey, reduced by averaging, centred on its median and divided by its own contrast,
so that exposure does not count; patches of good pictures are drawn anywhere. A picture is read in
tiles at half a patch's stride, and the mean of its worst tiles, compared with what is usual for
pictures of its size, is the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import Array, cell_mean, grey_of
from lineside.parts.models.classical.position_statistics import ScoreScale, score_scale_of, top_mean
from lineside.parts.models.crops import Corner, padded, random_corners
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of
from lineside.parts.models.tiles import tile_batches, tile_corners

Judge = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Takes patches (patch, 1, height, width), values -1..1, to a score each, shape (patch,), and
what was not reconstructed, x - x', shape (patch, height, width)."""

CONTRAST_DEVIATIONS = 4.0
"""Grey values this many standard deviations of the picture from its median become -1 and 1."""
LEAST_DEVIATION = 0.01
"""A picture flatter than this is not stretched further: it would be noise."""
_TILES = 32


@dataclass(frozen=True, kw_only=True)
class Patches:
    """How a picture becomes patches, and its tiles one score.

    Attributes:
        patch_px: Side of a patch in pixels of the reduced picture.
        reduce: The picture's sides are divided by this first.
        top_tiles: The score looks at the mean of this many worst tiles.
    """

    patch_px: int = 32
    reduce: int = 3
    top_tiles: int = 8

    def ground(self, image: Image) -> Array:
        """Return the reduced picture, shape (rows, columns), contrast -1..1, median 0."""
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
    pool_bytes: int = 256_000_000,
) -> Tensor:
    """Return random patches of the good pictures, shape (patch, 1, side, side), values -1..1.

    Raises:
        UserError: if there is no good picture.
    """
    good = good_of(examples)
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    side = patches.patch_px
    count = int(np.clip(pool_bytes // (4 * side * side * len(good)), 1, per_image))
    found = []
    for example in good:
        ground, _ = padded(patches.ground(example.image()), side)
        corners = random_corners(ground.shape, side, count, rng)
        found += [ground[top : top + side, left : left + side] for top, left in corners]
    return torch.from_numpy(np.stack(found)[:, None])


def judged(
    ground: NDArray[np.float32], judge: Judge, patch_px: int
) -> tuple[NDArray[np.float32], Array]:
    """Return the scores of all tiles, and the absolute residual averaged over the tiles.

    Tiles go through in fixed, padded batches, so that a score never depends on its neighbours.

    Args:
        ground: From `Patches.ground`; one smaller than a patch is mirrored outwards.
        judge: Scores patches.
        patch_px: Side of a tile.
    """
    whole, (above, before) = padded(ground, patch_px)
    corners = tile_corners(whole.shape, patch_px)
    scores: list[NDArray[np.float32]] = []
    total, cover = np.zeros(whole.shape), np.zeros(whole.shape)
    places = iter(corners)
    for tiles in tile_batches(whole[..., None], corners, patch_px, _TILES):
        found, residual = _in_full_batch(tiles, judge)
        scores.append(found)
        for one in np.abs(residual):
            top, left = next(places)
            total[top : top + patch_px, left : left + patch_px] += one
            cover[top : top + patch_px, left : left + patch_px] += 1
    mean = (total / cover)[above : above + ground.shape[0], before : before + ground.shape[1]]
    return np.concatenate(scores), mean.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Turns the judgement of patches into the reading of a picture."""

    patches: Patches
    scale: ScoreScale

    def predict(self, image: Image, judge: Judge) -> Prediction:
        """Score a picture in robust deviations of good ones; the map is the pixel residual.

        The residual is that of the reduced picture: one cell stands for `reduce` x `reduce`
        pixels, its unit is the full contrast of the picture (1 = four standard deviations).
        """
        scores, residual = judged(self.patches.ground(image), judge, self.patches.patch_px)
        raw = _raw(scores, self.patches.top_tiles)
        return Prediction(
            score=self.scale.z(raw, image.shape[0], image.shape[1]),
            map=residual,
            contributions={"worst tile": float(scores.max())},
        )


def fit_frame(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    patches: Patches,
    judge: Judge,
    rng: np.random.Generator,
) -> Frame:
    """Return the frame whose scale is that of good pictures (of `validation`, if there are 20)."""

    def raw(image: Image) -> float:
        return _raw(judged(patches.ground(image), judge, patches.patch_px)[0], patches.top_tiles)

    return Frame(patches=patches, scale=score_scale_of(raw, train, validation, rng))


def example_patches(
    examples: Sequence[TrainingImage], patches: Patches, rng: np.random.Generator, count: int
) -> tuple[Tensor, list[str]]:
    """Return one patch each of up to `count` pictures, and their labels.

    Patches of a defect with a mask are centred on it; others lie anywhere.
    """
    found, labels = [], []
    for index in rng.permutation(len(examples))[:count].tolist():
        example = examples[index]
        ground = patches.ground(example.image())
        top, left = _corner(example, ground.shape, patches.patch_px, rng)
        whole, _ = padded(ground, patches.patch_px)
        found.append(whole[top : top + patches.patch_px, left : left + patches.patch_px])
        labels.append(example.label)
    return torch.from_numpy(np.stack(found)[:, None]), labels


def _corner(
    example: TrainingImage, shape: tuple[int, ...], side: int, rng: np.random.Generator
) -> Corner:
    free = tuple(max(size, side) for size in shape)
    mask = example.mask() if example.faulty else None
    if mask is None or not mask.any():
        return random_corners(free, side, 1, rng)[0]
    places = np.argwhere(mask)
    centre = np.median(places, axis=0) / mask.shape * shape
    top, left = np.clip(centre - side / 2, 0, [size - side for size in free]).astype(int).tolist()
    return top, left


def _in_full_batch(
    tiles: NDArray[np.float32], judge: Judge
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    filled = np.zeros((_TILES, *tiles.shape[1:]), dtype=np.float32)
    filled[: len(tiles)] = tiles
    with torch.inference_mode():
        scores, residual = judge(torch.from_numpy(filled))
    return scores[: len(tiles)].cpu().numpy(), residual[: len(tiles)].cpu().numpy()


def _raw(scores: NDArray[np.float32], top_tiles: int) -> float:
    """The logarithm: squared residuals are spread over orders of magnitude."""
    return float(np.log(max(top_mean(scores, top_tiles), 1e-12)))
