"""PatchCore: distance to a bounded memory bank of good patches.

Roth et al. 2022: patch features of strides 8 and 16 of a frozen backbone on the image brought to
one size, pooled over 3 x 3 neighbours (section 3.1); a greedy k-centre coreset chosen on random
projections (section 3.2); distance to the nearest stored patch (section 3.3). Differences: the
position of a patch is two more features, because parts lie still; candidates are a random sample of
all patches, which bounds memory; the score of an image is the log of the mean of its highest
distances instead of a re-weighted maximum; scores are standardised on good images whose own part is
left out of the bank while they are scored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lineside.core.errors import UserError
from lineside.core.explain.feature_visualisation import round_robin
from lineside.core.run.cache import FeatureCache
from lineside.parts.models.backbone import check_weights, weight_digest
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage, good_of
from lineside.parts.models.patchcore.coreset import (
    GRID,
    append_position,
    block_std,
    extractor,
    farthest_first,
    k_centre,
    nearest_distance,
    patch_features,
    scale_patches,
)
from lineside.parts.models.size_regression import SizeRegression, fit_size_regression

VECTORS = 2048
CANDIDATES = 20_000
TOP_CELLS = GRID * GRID // 100
"""The highest hundredth of the patch distances makes the score."""
REFERENCE_IMAGES = 150
"""Maximum of good images, taken part by part in turn, that set the scale of scores."""
ACCEPTED_POSITION_WEIGHT = 10.0
"""Weight of the position of patches of accepted images: they excuse what they show where they show
it, not the same appearance elsewhere."""
ACCEPTED_VECTORS = 64
"""Maximum of patches of an accepted image that are added."""


@dataclass(frozen=True, kw_only=True)
class PatchCore:
    """The fitted memory bank; immutable.

    Attributes:
        bank: Scaled patch features and position, float16, shape (vector, 154).
        fitted: The first `fitted` vectors are from training, the others from accepted images.
        std: Root mean variance of the features of each block, shape (152,).
        size: Regression of the score on image size.
        map_scale: Mean and standard deviation of the log of a good image's largest distance.
        backbone: SHA-256 of the backbone's weights that it was fitted with.

    Raises:
        UserError: If the installed backbone weights are others.
    """

    bank: Tensor
    fitted: int
    std: Tensor
    size: SizeRegression
    map_scale: tuple[float, float]
    backbone: str

    def __post_init__(self) -> None:
        check_weights(self.backbone)

    @torch.inference_mode()
    def predict(self, image: Image) -> Prediction:
        """Score one image of any size.

        Returns:
            The score in standard deviations above unseen good images, and a map of 32 x 32 cells
            whose maximum has mean 0 and standard deviation 1 over unseen good images.
        """
        distance = self._distances(scale_patches(patch_features(image), self.std))
        score = self.size.z_scores(_score(distance)[None, None], _log_size(image))
        mean, std = self.map_scale
        heat = (distance.reshape(GRID, GRID).log() - mean) / std
        return Prediction(score=float(score), map=heat.numpy())

    def update(self, examples: Sequence[TrainingImage], *, rng: np.random.Generator) -> PatchCore:
        """Return a derived bank with the good ones of wrongly judged images; defects are ignored.

        Of each image the patches that are farthest from the bank are added one by one. The scale of
        scores stays, so an operating point has to be calibrated again.
        """
        derived = self
        for example in good_of(examples):
            derived = derived._accept(example.image())
        return derived

    @torch.inference_mode()
    def _accept(self, image: Image) -> PatchCore:
        features = scale_patches(patch_features(image), self.std)
        farthest = farthest_first(features, self._distances(features), ACCEPTED_VECTORS)
        return replace(self, bank=torch.cat([self.bank, features[farthest].half()]))

    def _distances(self, features: Tensor) -> Tensor:
        """Return the distance of each patch (patch, 154) to the nearest vector, shape (patch,)."""
        distance = nearest_distance(features, self.bank[: self.fitted].float())
        accepted = self.bank[self.fitted :].float()
        if len(accepted):
            weight = torch.ones(features.shape[1])
            weight[-2:] = ACCEPTED_POSITION_WEIGHT
            distance = distance.minimum(nearest_distance(features * weight, accepted * weight))
        return distance


@torch.inference_mode()
def fit_patchcore(
    train: Sequence[TrainingImage],
    validation: Sequence[TrainingImage],
    *,
    rng: np.random.Generator,
    log: Log = lambda row: None,
    vectors: int = VECTORS,
    candidates: int = CANDIDATES,
) -> PatchCore:
    """Fill a memory bank from the good images among labelled ones; defects are ignored.

    Args:
        train: Labelled images.
        validation: More of them, used alike.
        rng: Chooses candidate patches, the projection and the first centre.
        log: Receives progress.
        vectors: Size of the bank.
        candidates: Patches drawn evenly from all good images, among which the bank is chosen.

    Raises:
        UserError: With fewer than two good images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> images = [TrainingImage.from_array(rng.random((64, 48, 1), np.float32)) for _ in "1234"]
        >>> detector = fit_patchcore(images, [], rng=rng, vectors=100)
        >>> detector.bank.shape
        torch.Size([100, 154])
    """
    goods = good_of([*train, *validation])
    if len(goods) < 2:
        raise UserError(
            f"only {len(goods)} good image(s) to learn from", "give two or more good images"
        )
    order = round_robin(np.arange(len(goods)), [e.part for e in goods])
    reference = {goods[i].id for i in order[:REFERENCE_IMAGES]}
    (raw, owner, cell), images = _draw_candidates(goods, candidates, reference, rng, log)
    std = block_std(raw)
    features = append_position(raw / std, cell)
    chosen = k_centre(features, vectors, rng)
    bank = features[chosen].half()
    owners = [goods[i] for i in owner[chosen].tolist()]
    size, map_scale = _fit_scale(bank.float(), owners, images, std)
    return PatchCore(
        bank=bank,
        fitted=len(bank),
        std=std,
        size=size,
        map_scale=map_scale,
        backbone=weight_digest(),
    )


_Reference = tuple[TrainingImage, Tensor, Tensor]
"""A good image with all its patches, float16 (1024, 152), and log width and height (2,)."""


def _draw_candidates(
    goods: Sequence[TrainingImage],
    count: int,
    reference: set[str],
    rng: np.random.Generator,
    log: Log,
) -> tuple[tuple[Tensor, Tensor, Tensor], list[_Reference]]:
    """Draw patches evenly from all good images, and keep all patches of the reference images.

    Returns:
        Features (patch, 152), number of the image and of the cell of each patch (patch,); and the
        reference images.
    """
    quota = math.ceil(count / len(goods))
    cache = FeatureCache()
    features: list[Tensor] = []
    cells: list[Tensor] = []
    images: list[_Reference] = []
    for number, example in enumerate(goods, 1):
        patches, size = _cached_patches(example, cache)
        rows = torch.from_numpy(rng.permutation(len(patches))[:quota])
        features.append(patches[rows])
        cells.append(rows)
        if example.id in reference:
            images.append((example, patches.half(), size))
        if number % 50 == 0 or number == len(goods):
            log({"stage": "patches of good images", "done": number, "of": len(goods)})
    owner = torch.arange(len(goods)).repeat_interleave(torch.tensor([len(c) for c in cells]))
    return (torch.cat(features), owner, torch.cat(cells)), images


def _fit_scale(
    bank: Tensor, owners: Sequence[TrainingImage], images: Sequence[_Reference], std: Tensor
) -> tuple[SizeRegression, tuple[float, float]]:
    """Return the scales of scores and of map maxima, every image scored without its own part.

    With a single part, it is scored without the image itself.
    """
    several = len({e.part for e in owners}) > 1
    scores, maxima, sizes = [], [], []
    for example, patches, size in images:
        foreign = torch.tensor(
            [(e.part != example.part) if several else (e.id != example.id) for e in owners]
        )
        if foreign.any():
            distance = nearest_distance(scale_patches(patches.float(), std), bank[foreign])
            scores.append(_score(distance))
            maxima.append(distance.amax().log())
            sizes.append(size)
    if not scores:
        raise UserError("all good patches come from one image", "give more good images")
    peak = torch.stack(maxima)
    regression = fit_size_regression(torch.stack(scores)[:, None], torch.stack(sizes))
    return regression, (float(peak.mean()), max(float(peak.std(unbiased=False)), 1e-6))


def _cached_patches(example: TrainingImage, cache: FeatureCache) -> tuple[Tensor, Tensor]:
    """Return an image's patches (1024, 152) and log width and height (2,)."""

    def compute() -> dict[str, NDArray[np.float32]]:
        image = example.image()
        return {
            "patches": patch_features(image).contiguous().numpy(),
            "size": _log_size(image)[0].numpy(),
        }

    arrays = cache.fetch(example.digest, extractor(), compute)
    return torch.from_numpy(arrays["patches"]), torch.from_numpy(arrays["size"])


def _score(distance: Tensor) -> Tensor:
    """Return the log of the mean of the highest distances."""
    return distance.topk(TOP_CELLS).values.mean().log()


def _log_size(image: Image) -> Tensor:
    """Return log width and height, shape (1, 2)."""
    return torch.tensor([[math.log(image.shape[1]), math.log(image.shape[0])]])
