"""PCA of whole good patches: the linear autoencoder, on the patches that f-AnoGAN sees.

The method `pca` looks at small patches, at two scales, along and outside its components; this one
is the plain rival of the deep reconstructions: same patches, same pooling, only the reconstruction
is linear. With no component it is the residual against the mean patch, the trivial rival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.reconstruction.reconstruction import (
    Frame,
    Patches,
    fit_frame,
    good_patches,
)


@dataclass(frozen=True, kw_only=True)
class PatchPca:
    """A fitted detector.

    Attributes:
        mean: The mean patch, shape (side * side,).
        components: Orthonormal, shape (component, side * side).
        frame: How pictures are cut and scored.
    """

    mean: Tensor
    components: Tensor
    frame: Frame

    def predict(self, image: Image) -> Prediction:
        """Score one picture in robust deviations; the map is the pixel residual."""
        return self.frame.predict(image, self.judge)

    def judge(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean squared residual (patch,) and residual (patch, side, side)."""
        return judge_patches(self.mean, self.components, patches)


def judge_patches(mean: Tensor, components: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean squared residual and residual of patches outside mean and components."""
    centred = patches.flatten(1) - mean
    residual = centred - (centred @ components.T) @ components
    return residual.square().mean(1), residual.view(len(patches), *patches.shape[2:])


def fit_patch_pca(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    components: int = 64,
    patch_px: int = 32,
    reduce: int = 3,
    top_tiles: int = 8,
) -> PatchPca:
    """Fit on patches of the good pictures of `train`.

    Args:
        train: Examples; only the good ones are used.
        validation: Other parts; the good ones set the scale of the score, if there are 20.
        rng: Random stream.
        log: Receives one row.
        components: How many are kept; 0 compares with the mean patch.
        patch_px: Side of a patch.
        reduce: The picture's sides are divided by this first.
        top_tiles: The score of a picture looks at its worst tiles.

    Raises:
        UserError: no good picture.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((96, 96, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_patch_pca(images, [], rng=rng, components=8)
        >>> detector.predict(images[0].image()).map.shape
        (32, 32)
    """
    pool_rng, scale_rng = rng.spawn(2)
    patches = Patches(patch_px=patch_px, reduce=reduce, top_tiles=top_tiles)
    pool = good_patches(train, patches, pool_rng).flatten(1)
    mean = pool.mean(0)
    centred = pool - mean
    vectors = np.linalg.eigh((centred.T @ centred).double().numpy())[1]
    kept = vectors.T[::-1][:components]
    basis = torch.from_numpy(np.ascontiguousarray(kept, dtype=np.float32))
    log({"event": "components", "count": components, "patches": len(pool)})
    frame = fit_frame(
        train, validation, patches, lambda tiles: judge_patches(mean, basis, tiles), scale_rng
    )
    return PatchPca(mean=mean, components=basis, frame=frame)
