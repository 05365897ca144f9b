"""Features of every 8 x 8 px grid cell, the inputs of the head.

256  backbone blocks 2, 4, 7 and 10 at full scale, brought to stride 8
256  the same of the image at half scale, linearly interpolated to the full grid
 25  hand-made contrast: what a frozen network trained on objects averages away
  4  row and column as fractions of the image, and the distances to the nearest borders

Contrast: small blobs (difference of Gaussians, Marr & Hildreth 1980), lines and edges at three
scales of a binomial pyramid (Burt & Adelson 1983), on the logarithm of brightness, so that exposure
is an offset. Every filter has both signs and both directions, and a cell keeps its strongest
response.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models import backbone
from lineside.parts.models.backbone import CELL_PX
from lineside.parts.models.detector import Image

BAND_CELLS = 4096
"""The head is applied to about this many cells at once: bounded memory for large images."""
CONTRASTS = 25
"""Contrast features per cell."""
TILE_CELLS = 96
HALO_CELLS = 8
_DARK = 8 / 255
"""Added to brightness before the logarithm: noise of black pixels must not dominate."""


@dataclass(frozen=True, kw_only=True)
class CellFeatures:
    """Features of the grid cells of one image.

    Attributes:
        native: Backbone features at full scale, shape (rows, columns, 256).
        half: At half scale, shape (about rows / 2, about columns / 2, 256).
        contrast: Hand-made contrast, shape (rows, columns, 25).
    """

    native: Tensor
    half: Tensor
    contrast: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.native.shape[0], self.native.shape[1]


def cell_features(image: Image) -> CellFeatures:
    """Pass an image (height, width, 1 or 3) through the frozen backbone at both scales."""
    return CellFeatures(
        native=backbone.grid_features(image),
        half=backbone.grid_features(backbone.halve(image)),
        contrast=cell_contrast(image),
    )


@torch.inference_mode()
def head_inputs(features: CellFeatures, first_row: int = 0, last_row: int | None = None) -> Tensor:
    """Return the head's inputs for some rows of cells, shape (cell, 541), row by row.

    Args:
        features: Of the image.
        first_row: First row of cells.
        last_row: The row after the last one; None for all.
    """
    rows, columns = features.grid
    last_row = rows if last_row is None else last_row
    # (rows / 2, columns / 2, 256) -> (row, column, 256)
    coarse = enlarge(features.half, first_row, last_row, columns)
    native, contrast = (x[first_row:last_row] for x in (features.native, features.contrast))
    position = cell_positions(features.grid, first_row, last_row)
    return torch.cat([native, coarse, contrast, position], 2).flatten(0, 1)


def cell_positions(grid: tuple[int, int], first_row: int, last_row: int) -> Tensor:
    """Return where the cells of some rows of a grid lie, shape (row, column, 4)."""
    row, column = torch.arange(first_row, last_row), torch.arange(grid[1])
    return _position(row[:, None], column[None], grid)


@torch.inference_mode()
def inputs_at(features: CellFeatures, index: Tensor) -> Tensor:
    """Return the rows of `head_inputs` of chosen cells, shape (cell, 541).

    Args:
        features: Of the image.
        index: Numbers of cells, row by row, shape (cell,).
    """
    row, column = index // features.grid[1], index % features.grid[1]
    top, bottom, down = _between(row, features.half.shape[0])
    left, right, along = _between(column, features.half.shape[1])
    half = features.half
    coarse = torch.lerp(
        torch.lerp(half[top, left], half[bottom, left], down[:, None]),
        torch.lerp(half[top, right], half[bottom, right], down[:, None]),
        along[:, None],
    )
    position = _position(row, column, features.grid)
    at = (row, column)
    return torch.cat([features.native[at], coarse, features.contrast[at], position], 1)


def _position(row: Tensor, column: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return row, column and distances to the nearest borders, as fractions, on a last axis."""
    row, column = torch.broadcast_tensors((row + 0.5) / grid[0], (column + 0.5) / grid[1])
    return torch.stack([row, column, row.minimum(1 - row), column.minimum(1 - column)], -1)


def row_bands(features: CellFeatures) -> Iterator[tuple[int, int]]:
    """Yield first row and the row after the last of bands of about `BAND_CELLS` cells."""
    rows, columns = features.grid
    step = max(1, BAND_CELLS // columns)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def half_rows(first_row: int, last_row: int, rows: int) -> tuple[int, int]:
    """Return the half-scale rows, of so many, between which rows of cells are interpolated."""
    return max(0, (first_row - 1) // 2), min(rows, last_row // 2 + 1)


def enlarge(half: Tensor, first_row: int, last_row: int, columns: int, start: int = 0) -> Tensor:
    """Interpolate half-scale cells linearly at the centres of some rows of full-scale cells.

    Args:
        half: Rows of half-scale cells from number `start` on, shape (row, column, feature).
        first_row: First row of full-scale cells.
        last_row: The row after the last one.
        columns: Number of full-scale columns.
        start: See above.
    """
    for axis, index in enumerate((torch.arange(first_row, last_row), torch.arange(columns))):
        low, high, share = _between(index, half.shape[axis], 0 if axis else start)
        shape = [1, 1, 1]
        shape[axis] = len(index)
        half = torch.lerp(
            half.index_select(axis, low), half.index_select(axis, high), share.view(shape)
        )
    return half


def _between(index: Tensor, size: int, start: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return the half-scale cells beside full-scale cells, and the share of the second.

    The centre of full-scale cell i lies at (i + 0.5) / 2 - 0.5 on the half-scale grid, of which
    `size` cells from `start` on are there.
    """
    position = ((index + 0.5) / 2 - 0.5 - start).clamp(0, size - 1)
    low = position.floor().long()
    return low, (low + 1).clamp(max=size - 1), position - low


def resample_map(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resample a map (any rows, any columns) to a grid, bilinear between cell centres."""
    if values.shape == (rows, columns):
        return values
    x = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    y = F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = y[0, 0].numpy()
    return result


@torch.inference_mode()
def cell_contrast(image: Image) -> Tensor:
    """Return the contrast of all cells, shape (ceil(height / 8), ceil(width / 8), 25), float32.

    Large images are processed in tiles with a halo, so that memory stays bounded.
    """
    grey = backbone.grey_values(image)
    rows, columns = backbone.grid_of(image)
    padding = (0, columns * CELL_PX - image.shape[1], 0, rows * CELL_PX - image.shape[0])
    grey = F.pad(grey, padding, mode="replicate")
    result = torch.empty(rows, columns, CONTRASTS)
    for cells, pixels, inside in backbone.halo_tiles((rows, columns), TILE_CELLS, HALO_CELLS):
        result[cells] = _window_contrast(grey[..., *pixels])[inside]
    return result


def _window_contrast(grey: Tensor) -> Tensor:
    """Map grey values (1, 1, 8 * rows, 8 * columns) to contrast (rows, columns, 25)."""
    log = torch.log(grey + _DARK)
    mean = F.avg_pool2d(log, CELL_PX)
    surroundings = F.avg_pool2d(_pad(mean, 3, 3), 7, 1)
    channels = [mean, mean - surroundings]
    level = log
    for octave in range(3):
        if octave:
            level = backbone.mean_2x2(level)
        fine = _blur(level, 1)
        if octave == 0:
            roughness = F.avg_pool2d((log - fine) ** 2, CELL_PX)
        responses = [*_blobs_and_lines(fine), *(_edges(level) if octave == 2 else ())]
        size = CELL_PX >> octave  # pixels of this octave per cell
        for response in responses:
            channels += _strongest(response, size)
    channels.append((roughness + 1e-6).log())
    return torch.cat(channels, 1)[0].permute(1, 2, 0)


def _pad(x: Tensor, rows: int, columns: int) -> Tensor:
    return F.pad(x, (columns, columns, rows, rows), mode="replicate")


# One-channel convolutions and poolings of PyTorch take ten times as long as sums of shifted images.


def _strongest(response: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the largest value of either sign in each square of size x size pixels."""
    # (1, 1, height, width) -> (row of squares, pixel, width)
    rows = response.view(-1, size, response.shape[3])
    high, low = rows.amax(1), rows.amin(1)
    # (row, width) -> (row, column of squares, pixel)
    high, low = (x.view(len(x), -1, size) for x in (high, low))
    return high.amax(2)[None, None], -low.amin(2)[None, None]


def _blur(x: Tensor, dilation: int) -> Tensor:
    """Binomial blur, standard deviation 1 px times the dilation."""
    reach = 2 * dilation
    for axis, padded in ((3, lambda x: _pad(x, 0, reach)), (2, lambda x: _pad(x, reach, 0))):
        x = _sum_shifted(padded(x), (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16), axis, dilation)
    return x


def _mean_along(x: Tensor, count: int, axis: int) -> Tensor:
    """Return the mean of each `count` pixels in a row along an axis."""
    return _sum_shifted(x, (1 / count,) * count, axis)


def _sum_shifted(x: Tensor, taps: Sequence[float], axis: int, dilation: int = 1) -> Tensor:
    """Correlate with taps along an axis; the result is as much shorter as the taps reach."""
    size = x.shape[axis] - dilation * (len(taps) - 1)
    total = x.narrow(axis, 0, size) * taps[0]
    for number, tap in enumerate(taps[1:], 1):
        total.add_(x.narrow(axis, dilation * number, size), alpha=tap)
    return total


def _blobs_and_lines(fine: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return blob, vertical-line and horizontal-line responses; lines are averaged along 7 px.

    Args:
        fine: A level of the pyramid, blurred by 1 px.
    """
    blob = fine - _blur(fine, 2)
    wide = _pad(fine, 2, 2)
    # second differences over 2 px: left + right - 2 * middle, and the same vertically
    vertical = wide[:, :, 2:-2, 4:] + wide[:, :, 2:-2, :-4] - 2 * fine
    horizontal = wide[:, :, 4:, 2:-2] + wide[:, :, :-4, 2:-2] - 2 * fine
    return (
        blob,
        _mean_along(_pad(vertical, 3, 0), 7, 2),
        _mean_along(_pad(horizontal, 0, 3), 7, 3),
    )


def _edges(level: Tensor) -> tuple[Tensor, Tensor]:
    """Return steps downwards and to the right between pairs of pixels, averaged along 9 px."""
    rows, columns = level.shape[2:]
    pairs = _mean_along(_pad(level, 2, 0), 2, 2)
    down = (pairs[:, :, 3:] - pairs[:, :, :-3])[:, :, :rows]
    pairs = _mean_along(_pad(level, 0, 2), 2, 3)
    right = (pairs[..., 3:] - pairs[..., :-3])[..., :columns]
    return _mean_along(_pad(down, 0, 4), 9, 3), _mean_along(_pad(right, 4, 0), 9, 2)
