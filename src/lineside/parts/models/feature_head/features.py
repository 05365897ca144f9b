"""What the frozen trunk saw in one image: seen once, read by the good-only model and the head."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lineside.parts.models import backbone as trunk
from lineside.parts.models.detector import Image
from lineside.parts.models.feature_head.cell_contrast import contrast_cells

BAND_CELLS = 16384
"""The head works on about so many cells at once: memory stays bounded for large images."""


@dataclass(frozen=True, kw_only=True)
class View:
    """The cells of one image, on its stride-8 grid.

    Attributes:
        native: Trunk features at full scale, shape (rows, columns, 256).
        half: At half scale, shape (about rows / 2, about columns / 2, 256).
        contrast: Hand-made contrast, shape (rows, columns, 25).
    """

    native: Tensor
    half: Tensor
    contrast: Tensor

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the cells."""
        return self.native.shape[0], self.native.shape[1]


def view_of(image: Image) -> View:
    """Pass an image through the frozen trunk at both scales."""
    return View(
        native=trunk.cells(image),
        half=trunk.cells(trunk.halved(image)),
        contrast=contrast_cells(image),
    )


@torch.inference_mode()
def head_inputs(seen: View, first_row: int = 0, last_row: int | None = None) -> Tensor:
    """Return the head's features of the cells of some rows, shape (cell, feature), row by row.

    Native and half-scale trunk features, contrast, position (row, column) as a fraction of the
    image and distance to the nearest border.

    Args:
        seen: The image.
        first_row: First row of cells.
        last_row: The row after the last one; None for all.
    """
    rows, columns = seen.grid
    wanted = torch.arange(first_row, rows if last_row is None else last_row)
    across = torch.arange(columns)
    coarse = _doubled(_doubled(seen.half, wanted, 0), across, 1)
    row = ((wanted + 0.5) / rows)[:, None].expand(len(wanted), columns)
    column = ((across + 0.5) / columns)[None].expand(len(wanted), columns)
    place = torch.stack([row, column, row.minimum(1 - row), column.minimum(1 - column)], 2)
    return torch.cat([seen.native[wanted], coarse, seen.contrast[wanted], place], 2).flatten(0, 1)


def bands(seen: View) -> Iterator[tuple[int, int]]:
    """Yield first row and the row after the last of bands of about `BAND_CELLS` cells."""
    rows, columns = seen.grid
    step = max(1, BAND_CELLS // columns)
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _doubled(half: Tensor, wanted: Tensor, axis: int) -> Tensor:
    """Return half-scale cells at the places of native ones along an axis, linear in between."""
    place = ((wanted + 0.5) / 2 - 0.5).clamp(0, half.shape[axis] - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=half.shape[axis] - 1)
    shape = [1, 1, 1]
    shape[axis] = len(wanted)
    return torch.lerp(
        half.index_select(axis, low), half.index_select(axis, high), (place - low).view(shape)
    )


def on_grid(values: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float32]:
    """Resample a map to a grid, bilinear between cell centres."""
    if values.shape == (rows, columns):
        return values
    x = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    y = F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False)
    result: NDArray[np.float32] = y[0, 0].numpy()
    return result
