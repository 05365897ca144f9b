"""PatchCore: distance to a bounded memory bank of good patches.

Roth et al. 2022: patch features of strides 8 and 16 of a frozen backbone on the image brought to
one size, pooled over 3 x 3 neighbours (section 3.1); a greedy k-centre coreset chosen on random
projections (section 3.2, algorithm 1); distance to the nearest stored patch (section 3.3).
Differences: the position of a patch is two more features, because parts lie still; candidates are
a random sample of all patches, which bounds memory; the score of an image is the log of the mean
of its highest distances instead of a re-weighted maximum; scores are standardised on good images
whose own part is left out of the bank while they are scored.

Shapes: an image has 32 x 32 = 1024 patches of 152 backbone features (blocks 4 and 10, strides 8 and
16), with row and column appended 154.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineside.core.errors import UserError
from lineside.core.explain.feature_visualisation import round_robin
from lineside.core.run.cache import FeatureCache
from lineside.parts.models import backbone
from lineside.parts.models.backbone import check_weights, weight_digest
from lineside.parts.models.detector import Image, Log, Prediction, TrainingImage, good_of
from lineside.parts.models.size_regression import SizeRegression, fit_size_regression

SIDE_PX = 256
"""Side of the squashed image; its patches lie on a grid of 32 x 32 cells."""
GRID = SIDE_PX // backbone.CELL_PX
POSITION_WEIGHT = 1.0
"""Distance across the whole image, in standard deviations of every feature."""
PROJECTED = 64
"""Dimensions of the random projections."""
_SLICES = {4: (24, 64), 10: (144, 256)}
"""Channels of the blocks used here among those of `backbone.grid_features`."""


def patch_features(image: Image) -> Tensor:
    """Return patch features of the squashed image, cell by cell, (1024, 152) float32."""
    cells = backbone.grid_features(backbone.resize(image, SIDE_PX, SIDE_PX))
    features = torch.cat([cells[:, :, start:end] for start, end in _SLICES.values()], 2)
    # (32, 32, 152) -> (1, 152, 32, 32): mean over 3 x 3 neighbours, then one row per cell
    pooled = F.avg_pool2d(features.permute(2, 0, 1)[None], 3, 1, 1, count_include_pad=False)
    return pooled[0].flatten(1).T


def scale_patches(features: Tensor, std: Tensor) -> Tensor:
    """Return features and position of all cells of one image as stored, (1024, 154)."""
    return append_position(features / std, torch.arange(len(features)))


def append_position(features: Tensor, cell: Tensor) -> Tensor:
    """Append row and column of the cell, weighed against all features together."""
    weight = POSITION_WEIGHT * features.shape[1] ** 0.5 / GRID
    position = torch.stack([cell // GRID, cell % GRID], 1) * weight
    return torch.cat([features, position], 1)


def block_std(features: Tensor) -> Tensor:
    """Return each block's root mean variance, repeated for its features, (152,)."""
    widths = [end - start for start, end in _SLICES.values()]
    variances = features.var(0, unbiased=False).split(widths)
    return torch.cat([v.mean().clamp_min(1e-6).sqrt().expand(len(v)) for v in variances])


@functools.cache
def extractor() -> str:
    """Return the hash of everything but the image that decides its patches."""
    settings = ("patches 1", SIDE_PX, tuple(_SLICES.items()), backbone.weight_digest())
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def nearest_distance(features: Tensor, vectors: Tensor) -> Tensor:
    """Return the distance of each patch to the nearest vector, shape (patch,)."""
    # |f - v|^2 = |f|^2 + (|v|^2 - 2 f.v); (patch, 154) x (vector, 154) -> (patch, vector)
    squared = torch.addmm(vectors.square().sum(1), features, vectors.T, alpha=-2)
    return (squared.min(1).values + features.square().sum(1)).clamp_min(1e-8).sqrt()


def k_centre(features: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Return indices of a greedy k-centre subset: the coreset (Roth et al. 2022, algorithm 1).

    Args:
        features: Shape (candidate, feature).
        count: Size of the subset; all candidates if there are fewer.
        rng: Draws the Johnson-Lindenstrauss projection and the first centre.
    """
    if len(features) <= count:
        return torch.arange(len(features))
    projection = rng.standard_normal((features.shape[1], PROJECTED)) / math.sqrt(PROJECTED)
    small = features @ torch.from_numpy(projection.astype(np.float32))
    first = int(rng.integers(len(features)))
    distance = (small - small[first]).square().sum(1).sqrt()
    return torch.cat([torch.tensor([first]), farthest_first(small, distance, count - 1)])


def farthest_first(features: Tensor, distance: Tensor, count: int) -> Tensor:
    """Return indices chosen one by one, each the farthest from all chosen before.

    Args:
        features: Shape (candidate, feature).
        distance: Distance of each candidate to what is chosen already, shape (candidate,).
        count: How many to choose; fewer if all distances become 0.
    """
    squared_norm = features.square().sum(1)
    squared_gap = distance.square()
    chosen = []
    for _ in range(min(count, len(features))):
        farthest = int(squared_gap.argmax())
        if squared_gap[farthest] <= 0:
            break
        chosen.append(farthest)
        squared = squared_norm + squared_norm[farthest] - 2 * (features @ features[farthest])
        squared_gap = squared_gap.minimum(squared.clamp_min(0))
        squared_gap[farthest] = 0
    return torch.tensor(chosen, dtype=torch.long)


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

    @torch.inference_mode()
    def update(self, examples: Sequence[TrainingImage], *, rng: np.random.Generator) -> PatchCore:
        """Return a derived bank with the good ones of wrongly judged images; defects are ignored.

        Of each image the patches that are farthest from the bank are added one by one. The scale of
        scores stays, so an operating point has to be calibrated again.
        """
        derived = self
        for example in good_of(examples):
            features = scale_patches(patch_features(example.image()), self.std)
            farthest = farthest_first(features, derived._distances(features), ACCEPTED_VECTORS)
            derived = replace(derived, bank=torch.cat([derived.bank, features[farthest].half()]))
        return derived

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
