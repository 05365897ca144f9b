"""Patches of a picture brought to one size, and how a bounded set of them is chosen and searched.

Sources: Roth et al. 2022 (PatchCore), sections 3.1 and 3.2 and algorithm 1.
"""

from __future__ import annotations

import functools
import hashlib
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import Image

SIDE_PX = 256
"""Side of the squashed picture; its patches lie on a grid of 32 x 32 cells."""
GRID = SIDE_PX // trunk.CELL_PX
PLACE_WEIGHT = 1.0
"""Moving across the whole picture is as far as so many standard deviations of every feature."""
PROJECTED = 64
"""Dimensions of the random projections."""
_SLICES = {4: (24, 64), 10: (144, 256)}
"""Where the blocks used here lie among the channels of `trunk.cells`."""


def patches(image: Image) -> Tensor:
    """Return patch features of the squashed image, cell by cell, (1024, 152) float32."""
    cells = trunk.cells(trunk.resized(image, SIDE_PX, SIDE_PX))
    picture = torch.cat([cells[:, :, start:end] for start, end in _SLICES.values()], 2)
    pooled = F.avg_pool2d(picture.permute(2, 0, 1)[None], 3, 1, 1, count_include_pad=False)
    return pooled[0].flatten(1).T


def scaled(features: Tensor, spread: Tensor) -> Tensor:
    """Return features and place of all cells of one image as stored, (1024, 154)."""
    return with_place(features / spread, torch.arange(len(features)))


def with_place(features: Tensor, cell: Tensor) -> Tensor:
    """Append row and column of the cell, weighed against all features together."""
    weight = PLACE_WEIGHT * features.shape[1] ** 0.5 / GRID
    place = torch.stack([cell // GRID, cell % GRID], 1) * weight
    return torch.cat([features, place], 1)


def block_spread(features: Tensor) -> Tensor:
    """Return each block's root mean variance, repeated for its features, (152,)."""
    widths = [end - start for start, end in _SLICES.values()]
    variances = features.var(0, unbiased=False).split(widths)
    return torch.cat([v.mean().clamp_min(1e-6).sqrt().expand(len(v)) for v in variances])


@functools.cache
def extractor() -> str:
    """Return the hash of everything but the image that decides its patches."""
    settings = ("patches 1", SIDE_PX, tuple(_SLICES.items()), trunk.weight_digest())
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def nearest_of(features: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance to and index of the nearest vector, (patch,)."""
    squared = torch.addmm(vectors.square().sum(1), features, vectors.T, alpha=-2)
    best = squared.min(1)
    return (best.values + features.square().sum(1)).clamp_min(1e-8).sqrt(), best.indices


def k_centre(features: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """Return indices of a greedy k-centre subset (Roth et al. 2022, algorithm 1).

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
    known = (small - small[first]).square().sum(1).sqrt()
    return torch.cat([torch.tensor([first]), farthest_from(small, known, count - 1)])


def farthest_from(features: Tensor, known: Tensor, count: int) -> Tensor:
    """Return indices picked one by one, each the farthest from all that is known by then."""
    length = features.square().sum(1)
    remaining = known.square()
    chosen = []
    for _ in range(min(count, len(features))):
        worst = int(remaining.argmax())
        if remaining[worst] <= 0:
            break
        chosen.append(worst)
        away = length + length[worst] - 2 * (features @ features[worst])
        remaining = remaining.minimum(away.clamp_min(0))
        remaining[worst] = 0
    return torch.tensor(chosen, dtype=torch.long)
