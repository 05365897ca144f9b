"""PCA of small patches: energy outside the main components of good pictures, and along each.

Patches are the pixels around each position of the halved and quartered log picture, without their
mean. As in statistical process control both the residual (Q) and the components (as in T squared)
are watched: the logarithms are standardised by good pictures at a similar place, and the largest
excess of a cell counts. The residual alone misses changes of texture.

Source: Jackson & Mudholkar, 1979 (residuals of principal components).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from lineside.core.errors import UserError
from lineside.parts.models.classical.descriptors import (
    DARK,
    Array,
    cell_max,
    grey_of,
    grid_of,
    pyramid,
)
from lineside.parts.models.classical.gaussian import fit_normal, scale_examples
from lineside.parts.models.classical.position_statistics import (
    Normal,
    Standard,
    standard_of,
    top_mean,
)
from lineside.parts.models.detector import Image, Prediction, TrainingImage, good_of

CELL_PX = 8
PATCH_PX = 9
COMPONENTS = 4
PATCHES_PER_IMAGE = 300
SCALES = 2
"""The halved and the quartered picture."""
TOP_CELLS = 5


@dataclass(frozen=True, kw_only=True)
class Pca:
    """A fitted detector.

    Attributes:
        components: Orthonormal patches, shape (scale, component, patch_px, patch_px).
        normal: Mean and deviation of the log energies by place.
        standard: Turns the largest deviation into the score.
    """

    components: Array
    normal: Normal
    standard: Standard

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the map has the same unit."""
        excess = self.normal.z(energies(image, self.components)).max(axis=-1)
        height, width = image.shape[:2]
        expected = self.standard.expected(height, width)
        return Prediction(
            score=self.standard.score(top_mean(excess, TOP_CELLS), height, width),
            map=((excess - expected) / self.standard.scale).astype(np.float32),
        )

    def spec(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"standard": self.standard.spec()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the arrays."""
        return {"components": torch.from_numpy(self.components), **self.normal.tensors()}


def load_pca(spec: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Pca:
    """Return the detector that `spec` and `tensors` were made of."""
    return Pca(
        components=tensors["components"].numpy(),
        normal=Normal.of(tensors),
        standard=Standard.of(spec["standard"]),
    )


def _levels(image: Image) -> list[Array]:
    """Return the halved and quartered log picture without slow changes of light."""
    logs = np.log(np.maximum(grey_of(image), 0) + np.float32(DARK))
    return [
        level - ndimage.uniform_filter(level, 31, mode="reflect")
        for level in pyramid(logs, SCALES + 1)[1:]
    ]


def energies(image: Image, components: Array) -> Array:
    """Log energy outside and along the components, shape (rows, columns, scale * (1 + count)).

    Outside: the energy of a patch without its mean, less that in the components (they are
    orthonormal and have mean 0, so energies subtract). The largest value in each cell counts, and
    logarithms are relative to the picture's median.
    """
    grid = grid_of(image.shape[0], image.shape[1], CELL_PX)
    maps: list[Array] = []
    for picture, bank in zip(_levels(image), components, strict=True):
        area = bank.shape[1] * bank.shape[2]
        mean = ndimage.uniform_filter(picture, bank.shape[1], mode="reflect")
        square = ndimage.uniform_filter(picture**2, bank.shape[1], mode="reflect")
        along = _responses(picture, bank) ** 2
        outside = np.maximum(area * (square - mean**2) - along.sum(axis=0), 0)
        maps += [cell_max(values, grid) for values in (outside, *along)]
    logs = np.log(np.stack(maps, axis=-1) + np.float32(1e-2))
    return logs - np.median(logs, axis=(0, 1))


def _responses(picture: Array, bank: Array) -> Array:
    """Correlate a picture with every component, shape (component, height, width)."""
    half = bank.shape[1] // 2
    padded = torch.from_numpy(np.pad(picture, half, mode="symmetric"))[None, None]
    return torch.nn.functional.conv2d(padded, torch.from_numpy(bank)[:, None])[0].numpy()


def fit_pca(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None],
    components: int = COMPONENTS,
    patch_px: int = PATCH_PX,
) -> Pca:
    """Fit on the good pictures of `train`; those of `validation` set the scale if there are 20.

    Raises:
        UserError: If `train` has no good picture.
    """
    good = good_of(train)
    if not good:
        raise UserError("there is no good picture to learn from", "label some pictures as good")
    bank = _components(good, components, patch_px, rng)
    log({"event": "components", "count": components, "good_images": len(good)})
    normal = fit_normal(good, lambda image: energies(image, bank))

    def raw(image: Image) -> float:
        return top_mean(normal.z(energies(image, bank)).max(axis=-1), TOP_CELLS)

    images = [example.image for example in scale_examples(train, validation)]
    return Pca(components=bank, normal=normal, standard=standard_of(raw, images, rng))


def _components(
    good: Sequence[TrainingImage], count: int, patch_px: int, rng: np.random.Generator
) -> Array:
    """Return the main components of random patches of good pictures, one set per scale."""
    size = patch_px * patch_px
    scatter = np.zeros((SCALES, size, size))
    for example in good:
        for scale, picture in enumerate(_levels(example.image())):
            padded = np.pad(picture, patch_px // 2, mode="symmetric")
            windows = np.lib.stride_tricks.sliding_window_view(padded, (patch_px, patch_px))
            rows = rng.integers(windows.shape[0], size=PATCHES_PER_IMAGE)
            columns = rng.integers(windows.shape[1], size=PATCHES_PER_IMAGE)
            patches = windows[rows, columns].reshape(PATCHES_PER_IMAGE, size)
            patches = patches - patches.mean(axis=1, keepdims=True)
            # Patches of equal weight: otherwise a few rough pictures decide the components.
            patches = patches / (np.linalg.norm(patches, axis=1, keepdims=True) + 1e-3)
            scatter[scale] += patches.T.astype(np.float64) @ patches
    vectors = np.linalg.eigh(scatter)[1][:, :, ::-1][:, :, :count]
    bank = vectors.transpose(0, 2, 1).reshape(SCALES, -1, patch_px, patch_px)
    return np.ascontiguousarray(bank, dtype=np.float32)
