"""Lines, spots and edges of a picture at its own resolution: what a squashed view loses.

A thin crack of a large part is gone after resampling to a network's input size. Gaussian
derivatives at several scales, in both directions and both polarities, keep it: the strongest
response in each of 16 x 16 regions of the picture is one feature. Nothing is learned.

Sources: Lindeberg 1998 (scale-normalised derivatives), Frangi 1998 (Hessian eigenvalues tell lines
from spots); bars of 15 px gather faint long edges, as in matched filtering.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models.detector import Image

LEVELS = 3
"""Octaves: the picture itself, half and quarter size."""
RESPONSES = 8
"""Dark line, bright line, dark spot, bright spot; long edge and long bar, across and along."""
REGIONS = 16
"""The picture is cut into so many rows and columns of regions."""
SIGMA_PX = 1.5
BAR_PX = 15
WHOLE_PIXELS = 270_000
"""Larger pictures are taken region by region: bounded memory, and it stays in the CPU's cache."""

_REACH_PX = BAR_PX // 2
_FLOOR = 1e-3


@functools.cache
def _kernels() -> tuple[Tensor, Tensor]:
    """Return the vertical kernels (4, 1, 15, 1) and horizontal ones (7, 1, 1, 15).

    Vertical order: smooth, first and second derivative, bar. The horizontal ones complete the
    pairs of `_PAIRS`.
    """
    x = np.arange(-_REACH_PX, _REACH_PX + 1)
    smooth = np.where(np.abs(x) <= 3 * SIGMA_PX + 0.5, np.exp(-(x**2) / (2 * SIGMA_PX**2)), 0.0)
    smooth /= smooth.sum()
    first = -x / SIGMA_PX * smooth
    second = (x**2 / SIGMA_PX**2 - 1) * smooth
    second -= np.where(smooth > 0, second.sum() / (smooth > 0).sum(), 0.0)
    bar = np.full(BAR_PX, 1 / BAR_PX)
    table = torch.tensor(np.stack([smooth, first, second, bar]), dtype=torch.float32)
    across = table[[pair[1] for pair in _PAIRS]]
    return table[:, None, :, None], across[:, None, None, :]


_PAIRS = ((0, 2), (1, 1), (1, 3), (2, 0), (2, 3), (3, 1), (3, 2))
"""(vertical, horizontal) kernel of L_xx, L_xy, edge and L_yy, bar across; edge, bar along."""


@torch.inference_mode()
def contrast(image: Image) -> Tensor:
    """Return log of the strongest response, shape (LEVELS * RESPONSES, REGIONS, REGIONS) float32.

    Args:
        image: Shape (height, width, 1 or 3), values 0..1. Colours are averaged.
    """
    grey = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).mean(2)
    level = torch.log(grey * 255.0 + 8.0)[None, None]
    found = []
    for _ in range(LEVELS):
        found.append(_regions(level))
        level = F.avg_pool2d(level, 2, ceil_mode=True)
    return torch.log(torch.cat(found) + _FLOOR)


def _regions(level: Tensor) -> Tensor:
    """Return the maximum of each response in each region, (RESPONSES, REGIONS, REGIONS)."""
    padded = F.pad(level, (_REACH_PX,) * 4, mode="replicate")
    height, width = level.shape[2:]
    if height * width <= WHOLE_PIXELS:
        return F.adaptive_max_pool2d(responses(padded), REGIONS)[0]
    found = torch.empty(RESPONSES, REGIONS, REGIONS)
    for row, (top, bottom) in enumerate(_spans(height)):
        for column, (left, right) in enumerate(_spans(width)):
            window = padded[:, :, top : bottom + 2 * _REACH_PX, left : right + 2 * _REACH_PX]
            found[:, row, column] = responses(window).amax((0, 2, 3))
    return found


def _spans(size: int) -> list[tuple[int, int]]:
    """Return first and end pixel of each region, as adaptive pooling cuts them."""
    return [(i * size // REGIONS, math.ceil((i + 1) * size / REGIONS)) for i in range(REGIONS)]


def responses(padded: Tensor) -> Tensor:
    """Return the eight responses, all >= 0, (1, RESPONSES, height, width).

    Args:
        padded: Logarithm of grey values with 7 px of border, (1, 1, height + 14, width + 14).
    """
    down, across = _kernels()
    columns = F.conv2d(padded, down)
    xx, xy, edge_y, yy, bar_y, edge_x, bar_x = F.conv2d(
        columns[:, [pair[0] for pair in _PAIRS]], across, groups=len(_PAIRS)
    ).split(1, 1)
    middle = (xx + yy) / 2
    spread = (((xx - yy) / 2).square() + xy.square()).sqrt()
    high, low = middle + spread, middle - spread
    return torch.cat(
        [
            *(high.relu(), (-low).relu(), low.relu(), (-high).relu()),
            *(edge_y.abs(), edge_x.abs(), bar_y.abs(), bar_x.abs()),
        ],
        1,
    )
