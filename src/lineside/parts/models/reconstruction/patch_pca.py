"""PCA of whole good patches: a linear autoencoder on the patches that f-AnoGAN sees.

The method `pca` scores small patches at two scales, inside and outside its components; this one is
the linear baseline of the deep reconstructions: same patches, same pooling. With no component it is
the residual against the mean patch, the trivial baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineside.parts.models.detector import Image, Prediction, TrainingImage
from lineside.parts.models.reconstruction.patch_scoring import (
    ImageScorer,
    Patches,
    fit_image_scorer,
    good_patches,
)


@dataclass(frozen=True, kw_only=True)
class PatchPca:
    """A fitted detector.

    Attributes:
        mean: The mean patch, shape (side * side,).
        components: Orthonormal, shape (component, side * side).
        scorer: Cuts images and turns the scores of patches into a prediction.
    """

    mean: Tensor
    components: Tensor
    scorer: ImageScorer

    def predict(self, image: Image) -> Prediction:
        """Score one image in robust deviations; the map is the pixel residual."""
        return self.scorer.predict(image, partial(score_patches, self.mean, self.components))


def score_patches(mean: Tensor, components: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean squared residual outside mean and components, and that residual.

    Shapes (patch,) and (patch, side, side), of patches (patch, 1, side, side).
    """
    centred = patches.flatten(1) - mean  # (patch, 1, side, side) -> (patch, side * side)
    residual = centred - (centred @ components.T) @ components
    return residual.square().mean(1), residual.view(len(patches), *patches.shape[2:])


def fit_patch_pca(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Callable[[dict[str, Any]], None] = lambda row: None,
    components: int = 64,
) -> PatchPca:
    """Fit on patches of the good images of `train`.

    Args:
        train: Only the good images are used.
        validation: Other parts; good images set the scale of the score, if there are 20.
        rng: Random stream.
        log: Receives one row.
        components: Number of components; 0 compares with the mean patch.

    Raises:
        UserError: no good image.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((96, 96, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_patch_pca(images, [], rng=rng, components=8)
        >>> detector.predict(images[0].image()).map.shape
        (32, 32)
    """
    pool_rng, scale_rng = rng.spawn(2)
    patches = Patches()
    pool = good_patches(train, patches, pool_rng).flatten(1)
    mean = pool.mean(0)
    centred = pool - mean
    vectors = np.linalg.eigh((centred.T @ centred).double().numpy())[1]
    largest = vectors.T[::-1][:components]  # eigh sorts eigenvalues in ascending order
    basis = torch.from_numpy(np.ascontiguousarray(largest, dtype=np.float32))
    log({"event": "components", "count": components, "patches": len(pool)})
    score = partial(score_patches, mean, basis)
    scorer = fit_image_scorer(train, validation, patches, score, scale_rng)
    return PatchPca(mean=mean, components=basis, scorer=scorer)
