"""PCA of small patches: energy outside the main components of good images, and along each.

Patches x are the pixels around each position of the halved and quartered log image, without their
mean. With orthonormal components v_i, as in statistical process control both the residual
Q = |x|^2 - sum (v_i . x)^2 and the energies (v_i . x)^2 are monitored: their logarithms are
standardised by good images at a similar position, and the largest z of a cell counts. The residual
alone misses changes of texture.

Source: Jackson & Mudholkar, 1979 (residuals of principal components).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage

from lineside.parts.models.classical.descriptors import (
    CELL_PX,
    DARK,
    Array,
    cell_max,
    flatten,
    grey_of,
    grid_of,
    pyramid,
)
from lineside.parts.models.classical.position_statistics import (
    PositionStatistics,
    ScoreScale,
    fit_largest_z,
    require_good,
)
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage

PATCH_PX = 9
COMPONENTS = 4
PATCHES_PER_IMAGE = 300
SCALES = 2
"""The halved and the quartered image."""


@dataclass(frozen=True, kw_only=True)
class Pca:
    """A fitted detector.

    Attributes:
        components: Orthonormal patches, shape (scale, component, patch_px, patch_px).
        statistics: Mean and standard deviation of the log energies by position.
        scale: Scale of the image score.
    """

    components: Array
    statistics: PositionStatistics
    scale: ScoreScale

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust standard deviations; the map has the same unit."""
        cells = self.statistics.z(log_energies(image, self.components)).max(axis=-1)
        return self.scale.predict(cells, image)


def _octaves(image: Image) -> list[Array]:
    """Return the halved and quartered log image without slow changes of illumination."""
    logs = np.log(np.maximum(grey_of(image), 0) + np.float32(DARK))
    return [flatten(level) for level in pyramid(logs, SCALES + 1)[1:]]


def log_energies(image: Image, components: Array) -> Array:
    """Log energy outside and along the components, shape (rows, columns, scale * (1 + count)).

    Outside: the energy of a patch without its mean, less that in the components (they are
    orthonormal and have mean 0, so energies subtract). The largest value in each cell counts, and
    logarithms are relative to the image's median.
    """
    grid = grid_of(image.shape[0], image.shape[1], CELL_PX)
    maps: list[Array] = []
    for octave, bank in zip(_octaves(image), components, strict=True):
        area = bank.shape[1] * bank.shape[2]
        mean = ndimage.uniform_filter(octave, bank.shape[1], mode="reflect")
        square = ndimage.uniform_filter(octave**2, bank.shape[1], mode="reflect")
        along = _responses(octave, bank) ** 2
        outside = np.maximum(area * (square - mean**2) - along.sum(axis=0), 0)
        maps += [cell_max(values, grid) for values in (outside, *along)]
    logs = np.log(np.stack(maps, axis=-1) + np.float32(1e-2))
    return logs - np.median(logs, axis=(0, 1))


def _responses(octave: Array, bank: Array) -> Array:
    """Correlate an image with every component, shape (component, height, width)."""
    half = bank.shape[1] // 2
    padded = torch.from_numpy(np.pad(octave, half, mode="symmetric"))[None, None]
    return torch.nn.functional.conv2d(padded, torch.from_numpy(bank)[:, None])[0].numpy()


def fit_pca(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
    components: int = COMPONENTS,
) -> Pca:
    """Fit on the good images of `train`; those of `validation` set the scale if there are 20.

    Raises:
        UserError: If `train` has no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_pca(images, [], rng=rng, components=2)
        >>> detector.components.shape
        (2, 2, 9, 9)
    """
    good = require_good(train)
    bank = _components(good, components, rng)
    log({"event": "components", "count": components, "good_images": len(good)})
    features = partial(log_energies, components=bank)
    statistics, scale = fit_largest_z(train, validation, features, rng)
    return Pca(components=bank, statistics=statistics, scale=scale)


def _components(good: Sequence[TrainingImage], count: int, rng: np.random.Generator) -> Array:
    """Return the main components of random patches of good images, one set per scale."""
    size = PATCH_PX * PATCH_PX
    scatter = np.zeros((SCALES, size, size))
    for example in good:
        for scale, octave in enumerate(_octaves(example.image())):
            padded = np.pad(octave, PATCH_PX // 2, mode="symmetric")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (PATCH_PX, PATCH_PX))
            rows = rng.integers(windows.shape[0], size=PATCHES_PER_IMAGE)
            columns = rng.integers(windows.shape[1], size=PATCHES_PER_IMAGE)
            patches = windows[rows, columns].reshape(PATCHES_PER_IMAGE, size)
            patches = patches - patches.mean(axis=1, keepdims=True)
            # Patches of equal weight: otherwise a few rough images decide the components.
            patches = patches / (np.linalg.norm(patches, axis=1, keepdims=True) + 1e-3)
            scatter[scale] += patches.T.astype(np.float64) @ patches
    # ascending eigenvectors in columns: (scale, pixel, component) -> (scale, component, side, side)
    vectors = np.linalg.eigh(scatter)[1][:, :, ::-1][:, :, :count]
    bank = vectors.transpose(0, 2, 1).reshape(SCALES, -1, PATCH_PX, PATCH_PX)
    return np.ascontiguousarray(bank, dtype=np.float32)
