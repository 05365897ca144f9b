"""Features of one whole image for the model of good images: about 0.1 MB, whatever its size.

near    block 14 of the backbone (stride 32, 192 channels) of the image squashed to 256 px
far     the same at 192 px
whole   mean and standard deviation over the grid of block 15 (320 channels) at 256 px
lines   strongest line, spot, edge and bar in each of 16 x 16 regions at native resolution

A thin crack of a large part is gone after resampling to a network's input size; Gaussian
derivatives at native resolution keep it. They are taken at three octaves, with both polarities and
in both directions, on log brightness. Hessian eigenvalues tell lines from spots (Frangi et al.
1998), with scale-normalised derivatives (Lindeberg 1998); bars of 15 px gather faint long edges,
as in matched filtering. Nothing is learned.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models import backbone
from lineside.parts.models.detector import Image

NEAR_PX, FAR_PX = 256, 192
"""Side of the squashed image at the two scales."""
GRID_BLOCK, WHOLE_BLOCK = 14, 15
LEVELS = 3
"""Octaves: the image itself, half and quarter size."""
RESPONSES = 8
"""Dark line, bright line, dark spot, bright spot; long edge across, along; long bar across, along.
"""
DERIVATIVES = 6
"""Larger and smaller curvature, and the long edges and bars, see `_filter`."""
REGIONS = 16
"""Rows and columns of regions that the image is cut into."""
SIGMA_PX = 1.5
BAR_PX = 15
BLOCK_PX = 32
PASS_PIXELS = 1 << 17
"""Images are filtered about this many pixels at once, in bands of whole rows: bounded memory."""

Record = TypeVar("Record", bound=Any)

_VERSION = "description 1"
_REACH_PX = BAR_PX // 2
_FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of one image, float16; of several images with a leading image axis.

    Attributes:
        near: Block 14 at 256 px, shape (64, 192): an 8 x 8 grid.
        far: Block 14 at 192 px, shape (36, 192): a 6 x 6 grid.
        whole: Mean and standard deviation over the grid of block 15 at 256 px, shape (640,).
        lines: Log response of 16 x 16 regions, shape (24, 16, 16).
        size: Log of width and height in px, shape (2,).
    """

    near: Tensor
    far: Tensor
    whole: Tensor
    lines: Tensor
    size: Tensor

    def rows(self, index: Tensor) -> Features:
        """Return the images of a boolean or index tensor."""
        return fieldwise(lambda values: values[index], self)


def fieldwise(function: Callable[..., Any], *records: Record) -> Record:
    """Return a dataclass each of whose fields is a function of that field of the given ones."""
    names = [field.name for field in fields(records[0])]
    values = {name: function(*(getattr(record, name) for record in records)) for name in names}
    return type(records[0])(**values)


def stack(images: Sequence[Features]) -> Features:
    """Return the features of several images with a leading image axis, taking one at a time."""
    first = images[0]
    table = fieldwise(lambda values: values.new_empty(len(images), *values.shape), first)
    for number, image in enumerate(images):
        for field in fields(table):
            getattr(table, field.name)[number] = getattr(image, field.name)
    return table


@functools.cache
def extractor() -> str:
    """Return the hash of everything but the image that decides its features."""
    settings = (_VERSION, NEAR_PX, FAR_PX, LEVELS, SIGMA_PX, BAR_PX)
    return hashlib.sha256(repr((settings, backbone.weight_digest())).encode()).hexdigest()


@torch.inference_mode()
def image_features(image: Image) -> Features:
    """Return the features of an image of any size, shape (height, width, 1 or 3), values 0..1."""
    near = backbone.block_maps(backbone.resize(image, NEAR_PX, NEAR_PX), (GRID_BLOCK, WHOLE_BLOCK))
    far = backbone.block_maps(backbone.resize(image, FAR_PX, FAR_PX), (GRID_BLOCK,))
    whole = near[WHOLE_BLOCK].flatten(1)  # (320, 8, 8) -> (320, 64)
    height, width = image.shape[:2]
    return Features(
        near=near[GRID_BLOCK].flatten(1).T.half().contiguous(),  # (192, 8, 8) -> (64, 192)
        far=far[GRID_BLOCK].flatten(1).T.half().contiguous(),  # (192, 6, 6) -> (36, 192)
        whole=torch.cat([whole.mean(1), whole.std(1)]).half(),
        lines=line_responses(image).half(),
        size=torch.tensor([math.log(width), math.log(height)]).half(),
    )


@functools.cache
def _banded_kernels() -> Tensor:
    """Return smooth, first and second derivative and bar as matrices (4, BLOCK_PX, BLOCK_PX + 14).

    Row i of a matrix holds the 15 taps from column i on: a product with BLOCK_PX + 14 pixels is the
    correlation at BLOCK_PX of them. Convolutions with one channel take longer, and 14 ms more for
    every new image size.
    """
    x = np.arange(-_REACH_PX, _REACH_PX + 1)
    smooth = np.where(np.abs(x) <= 3 * SIGMA_PX + 0.5, np.exp(-(x**2) / (2 * SIGMA_PX**2)), 0.0)
    smooth /= smooth.sum()
    first = -x / SIGMA_PX * smooth
    second = (x**2 / SIGMA_PX**2 - 1) * smooth
    second -= np.where(smooth > 0, second.sum() / (smooth > 0).sum(), 0.0)
    bar = np.full(BAR_PX, 1 / BAR_PX)
    taps = torch.tensor(np.stack([smooth, first, second, bar]), dtype=torch.float32)
    matrices = torch.zeros(4, BLOCK_PX, BLOCK_PX + 2 * _REACH_PX)
    for row in range(BLOCK_PX):
        matrices[:, row, row : row + BAR_PX] = taps
    return matrices


@torch.inference_mode()
def line_responses(image: Image) -> Tensor:
    """Return the log of the strongest response per region, shape (24, 16, 16) float32.

    Args:
        image: Shape (height, width, 1 or 3), values 0..1. Colours are averaged.
    """
    level = torch.log(backbone.grey_values(image) * 255.0 + 8.0)
    octaves = []
    for octave in range(LEVELS):
        if octave:
            level = F.avg_pool2d(level, 2, ceil_mode=True)
        octaves.append(_region_maxima(level))
    return torch.log(torch.cat(octaves) + _FLOOR)


def _region_maxima(level: Tensor) -> Tensor:
    """Return the maximum of each response in each region, >= 0: (1, 1, h, w) -> (8, 16, 16)."""
    height, width = level.shape[2:]
    below, right = -height % BLOCK_PX, -width % BLOCK_PX  # to whole blocks; left out of the maxima
    padded = F.pad(
        level, (_REACH_PX, _REACH_PX + right, _REACH_PX, _REACH_PX + below), mode="replicate"
    )[0, 0]
    step = max(1, PASS_PIXELS // width // BLOCK_PX) * BLOCK_PX
    high, low = np.zeros((2, DERIVATIVES, REGIONS, width), np.float32)  # of the rows of each region
    for first in range(0, height, step):
        filtered = _filter(padded[first : first + step + 2 * _REACH_PX])
        planes = filtered[:, : height - first, :width].numpy()
        for region, (top, bottom) in enumerate(_spans(height)):
            rows = planes[:, max(top - first, 0) : max(bottom - first, 0)]
            if rows.shape[1]:  # NumPy's calls are shorter than PyTorch's
                np.maximum(high[:, region], rows.max(1), out=high[:, region])
                np.minimum(low[:, region], rows.min(1), out=low[:, region])
    strongest = np.stack([high[0], -low[1], high[1], -low[0], *np.maximum(high[2:], -low[2:])])
    return F.adaptive_max_pool2d(torch.from_numpy(strongest), REGIONS)


def _spans(size: int) -> list[tuple[int, int]]:
    """Return first and end pixel of each region, as adaptive pooling cuts them."""
    return [(i * size // REGIONS, math.ceil((i + 1) * size / REGIONS)) for i in range(REGIONS)]


def _filter(padded: Tensor) -> Tensor:
    """Return the larger and smaller curvature, edge across, along, bar across, along.

    Curvatures are the eigenvalues of the Hessian ((xx, xy), (xy, yy)): both of one sign at a spot,
    one at a line.

    Args:
        padded: Logarithm of grey values of whole blocks with 7 px of border, (height + 14,
            width + 14).

    Returns:
        Shape (6, height, width).
    """
    smooth, first, second, bar = _banded_kernels()
    planes = torch.empty(DERIVATIVES, len(padded) - 2 * _REACH_PX, padded.shape[1] - 2 * _REACH_PX)
    (xx,) = _across(_down(padded, smooth), second)
    xy, planes[2] = _across(_down(padded, first), first, bar)
    yy, planes[4] = _across(_down(padded, second), smooth, bar)
    planes[3], planes[5] = _across(_down(padded, bar), first, second)
    middle, half = (xx + yy).mul_(0.5), (xx - yy).mul_(0.5)
    spread = half.square_().add_(xy.square_()).sqrt_()
    torch.add(middle, spread, out=planes[0])
    torch.sub(middle, spread, out=planes[1])
    return planes


def _down(padded: Tensor, kernel: Tensor) -> Tensor:
    """Correlate along columns: (height + 14, width) -> (height, width)."""
    # windows (block, BLOCK_PX + 14, width) -> (block, BLOCK_PX, width)
    windows = padded.unfold(0, kernel.shape[1], BLOCK_PX).transpose(1, 2)
    return (kernel @ windows).flatten(0, 1)


def _across(rows: Tensor, *kernels: Tensor) -> list[Tensor]:
    """Correlate along rows with each kernel: (height, width + 14) -> (height, width)."""
    windows = rows.unfold(1, BLOCK_PX + 2 * _REACH_PX, BLOCK_PX)  # (height, block, BLOCK_PX + 14)
    flat = windows.flatten(0, 1)
    return [(flat @ kernel.T).view(len(rows), -1) for kernel in kernels]
