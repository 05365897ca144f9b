"""Patch features, greedy coreset selection and nearest-neighbour search of PatchCore.

Sources: Roth et al. 2022 (PatchCore), sections 3.1 and 3.2 and algorithm 1.

Shapes: an image has 32 x 32 = 1024 patches of 152 backbone features (blocks 4 and 10, strides 8 and
16), with row and column appended 154.
"""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models import backbone
from lineside.parts.models.detector import Image

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
