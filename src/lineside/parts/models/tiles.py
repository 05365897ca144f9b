"""Overlapping square tiles at native resolution, and the map of their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lineside.parts.models.crops import Corner
from lineside.parts.models.detector import Image


def tile_corners(shape: tuple[int, ...], tile_px: int) -> list[Corner]:
    """Return top and left of tiles that cover the image at half a tile's stride or less.

    The first and last tiles touch the borders and the ones between are spread evenly.

    Args:
        shape: Height and width of the image, each at least `tile_px`.
        tile_px: Side of a tile.
    """
    tops, lefts = (_starts(side, tile_px) for side in shape[:2])
    return [(top, left) for top in tops for left in lefts]


def tile_batches(
    image: Image, corners: Sequence[Corner], tile_px: int, batch: int
) -> Iterator[NDArray[np.float32]]:
    """Yield tiles of shape (batch, channel, tile, tile), cut one batch at a time."""
    for first in range(0, len(corners), batch):
        tiles = [
            image[top : top + tile_px, left : left + tile_px].transpose(2, 0, 1)
            for top, left in corners[first : first + batch]
        ]
        yield np.stack(tiles).astype(np.float32)


def tile_map(
    values: NDArray[np.float32],
    corners: Sequence[Corner],
    shape: tuple[int, ...],
    tile_px: int,
) -> NDArray[np.float32]:
    """Return the mean value of the tiles over each cell's centre; cells are a quarter tile wide.

    Args:
        values: One per tile.
        corners: Top and left of each tile, in pixels of the image.
        shape: Height and width of the image.
        tile_px: Side of a tile.

    Returns:
        Shape (rows, columns), float32; the cells cover the image exactly.
    """
    counts = [max(1, math.ceil(4 * side / tile_px)) for side in shape[:2]]
    total = np.zeros(counts)
    tiles = np.zeros(counts)
    for value, corner in zip(values, corners, strict=True):
        covered = tuple(
            slice(*(_first_centre(edge, side, count) for edge in (start, start + tile_px)))
            for start, side, count in zip(corner, shape, counts, strict=False)
        )
        total[covered] += value
        tiles[covered] += 1
    return (total / tiles).astype(np.float32)


def _starts(side: int, tile_px: int) -> list[int]:
    slack = side - tile_px
    count = math.ceil(slack / (tile_px / 2)) + 1
    return [round(index * slack / max(count - 1, 1)) for index in range(count)]


def _first_centre(edge: int, side: int, count: int) -> int:
    """Return the first of `count` cells along a side whose centre is not before an edge."""
    return min(max(math.ceil(edge * count / side - 0.5), 0), count)
