"""Hand-made features of grid cells: LBP and HOG histograms and multi-scale filters.

The grid covers the image exactly: pixel (y, x) is in cell (y*rows//height, x*columns//width), so
that cells are about `cell_px` wide and no pixel is padded, rescaled or left out.

texture_features   LBP and HOG of 3 x 3 cells at three scales, shape (rows, columns, 60)
filter_features    blobs, lines, edges and steps, largest response per cell, (rows, columns, 29)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.detector import Image

Array = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
DARK = 8 / 255
"""Offset of the logarithm of grey values: sensor noise must not become contrast in the dark."""
NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
ORIENTATIONS = 9
LEVELS = 3
CELL_PX = 8
"""Side of a cell of `filter_features`."""
POINTS = ("bright blob", "dark blob", "edge across", "edge along", "dark line", "bright line")
STEPS = ("step down", "texture step down", "step right", "texture step right")
STEP_LEVELS = 2
STEP_PX = (5, 15)
"""Depth and length of the two boxes whose means and deviations a step compares."""
FILTER_NAMES: tuple[str, ...] = tuple(
    f"{name}, scale {2**level}" for level in range(LEVELS) for name in (*POINTS, "roughness")
) + tuple(f"{name}, scale {2**level}" for level in range(STEP_LEVELS) for name in STEPS)


def grey_of(image: Image) -> Array:
    """Return the luminance, shape (height, width), values 0..1."""
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0], dtype=np.float32)
    return (image[..., :3] @ LUMA).astype(np.float32)


def grid_of(height: int, width: int, cell_px: int) -> tuple[int, int]:
    """Return (rows, columns) of the cells of about `cell_px` pixels that cover an image."""
    return max(1, round(height / cell_px)), max(1, round(width / cell_px))


def cell_index(height: int, width: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return the flat cell number of every pixel, shape (height, width)."""
    rows = np.arange(height) * grid[0] // height
    columns = np.arange(width) * grid[1] // width
    return rows[:, None] * grid[1] + columns[None, :]


def cell_mean(values: Array, grid: tuple[int, int]) -> Array:
    """Average a pixel map over each cell, shape (rows, columns); the nearest pixel if finer."""
    counts = _reduce_cells(np.ones(values.shape, dtype=np.float32), grid, np.add)
    mean = _reduce_cells(values, grid, np.add) / np.maximum(counts, 1)
    return mean.astype(np.float32, copy=False)


def cell_max(values: Array, grid: tuple[int, int]) -> Array:
    """Return the largest value in each cell, shape (rows, columns)."""
    return _reduce_cells(values, grid, np.maximum)


def _edges(length: int, cells: int) -> NDArray[np.int64]:
    """First pixel of each cell: the smallest y with y * cells // length == cell."""
    return np.minimum(-(-np.arange(cells) * length // cells), length - 1)


def _reduce_cells(values: Array, grid: tuple[int, int], ufunc: np.ufunc) -> Array:
    rows = ufunc.reduceat(values, _edges(values.shape[0], grid[0]), axis=0)
    return ufunc.reduceat(rows, _edges(values.shape[1], grid[1]), axis=1).astype(np.float32)


def lbp_codes(grey: Array) -> NDArray[np.uint8]:
    """Local binary patterns of the 3x3 neighbourhood, shape (height, width), values 0..255.

    Bit i is set if neighbour i (clockwise from the top left) is at least as bright as the centre.
    Border pixels are compared with mirrored neighbours.

    Source: Ojala, Pietikainen & Maenpaa, 2002, section 2.
    """
    height, width = grey.shape
    padded = np.pad(grey, 1, mode="symmetric")
    codes = np.zeros((height, width), dtype=np.uint8)
    for bit, (dy, dx) in enumerate(NEIGHBOURS):
        shifted = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        codes |= (shifted >= grey).astype(np.uint8) << bit
    return codes


def uniform_table() -> NDArray[np.int64]:
    """Map the 256 codes to 10 bins that do not change when the image is rotated.

    A uniform pattern (at most two changes around the circle) goes to the number of its ones, 0..8,
    every other pattern to bin 9.

    Source: Ojala, Pietikainen & Maenpaa, 2002, section 2.3 (riu2).
    """
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, bits.sum(axis=1), 9)


UNIFORM = uniform_table()
LBP_BINS = 10


def lbp_histograms(grey: Array, grid: tuple[int, int]) -> Array:
    """Count the uniform patterns of every cell, shape (rows, columns, 10)."""
    bins = UNIFORM[lbp_codes(grey)]
    flat = cell_index(grey.shape[0], grey.shape[1], grid) * LBP_BINS + bins
    counts = np.bincount(flat.ravel(), minlength=grid[0] * grid[1] * LBP_BINS)
    return counts.reshape(*grid, LBP_BINS).astype(np.float32)


def hog_histograms(grey: Array, grid: tuple[int, int]) -> Array:
    """Sum gradient magnitude by unsigned orientation for every cell, shape (rows, columns, 9).

    Bin i is centred on i * 20 degrees of the gradient's direction (0: to the right, 90: down); a
    gradient between two centres is shared linearly.

    Source: Dalal & Triggs, 2005, section 6.
    """
    dy, dx = gradient_of(grey)
    magnitude = np.hypot(dx, dy)
    position = np.mod(np.arctan2(dy, dx), np.pi) * (ORIENTATIONS / np.pi)
    low = np.floor(position).astype(np.int64)
    share = position - low
    base = cell_index(grey.shape[0], grey.shape[1], grid) * ORIENTATIONS
    size = grid[0] * grid[1] * ORIENTATIONS
    total = np.zeros(size)
    for bins, weight in ((low, 1 - share), (low + 1, share)):
        flat = (base + bins % ORIENTATIONS).ravel()
        total += np.bincount(flat, weights=(magnitude * weight).ravel(), minlength=size)
    return total.reshape(*grid, ORIENTATIONS).astype(np.float32)


def gradient_of(grey: Array) -> tuple[Array, Array]:
    """Central differences (down, right); one-sided at the border, 0 on an axis of one pixel."""
    parts = [
        np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey)
        for axis in (0, 1)
    ]
    return parts[0].astype(np.float32), parts[1].astype(np.float32)


def pyramid(grey: Array, levels: int = LEVELS) -> list[Array]:
    """Return the image and its halvings (Gaussian, sigma 1 px), as long as 8 px remain."""
    octaves = [grey]
    while len(octaves) < levels and min(octaves[-1].shape) >= 16:
        octaves.append(ndimage.gaussian_filter(octaves[-1], 1.0, mode="reflect")[::2, ::2])
    return octaves + [octaves[-1]] * (levels - len(octaves))


def texture_features(grey: Array, cell_px: int) -> Array:
    """LBP and HOG of overlapping patches at three scales, shape (rows, columns, 60).

    A patch is 3 x 3 cells and there is one around every cell. Histograms enter as square roots of
    their shares (so that a linear model compares them by Hellinger distance), with the logarithm of
    the mean gradient; all relative to the image's median.
    """
    grid = grid_of(grey.shape[0], grey.shape[1], cell_px)
    features: list[Array] = []
    for octave in pyramid(grey):
        # the filter's running sum leaves -1e-20 where a cell of a flat background holds 0
        patterns, gradients = (
            np.maximum(ndimage.uniform_filter(counts, (3, 3, 1), mode="nearest"), 0)
            for counts in (lbp_histograms(octave, grid), hog_histograms(octave, grid))
        )
        total = gradients.sum(axis=-1, keepdims=True)
        features += [
            np.sqrt(patterns / (patterns.sum(axis=-1, keepdims=True) + np.float32(1e-6))),
            np.sqrt(gradients / (total + np.float32(1e-2))),
            np.log(total + np.float32(1e-2)),
        ]
    stacked = np.concatenate(features, axis=-1).astype(np.float32)
    return (stacked - np.median(stacked, axis=(0, 1))).astype(np.float32, copy=False)


def filter_features(grey: Array) -> Array:
    """Return log responses relative to the image's median, shape (rows, columns, 29).

    All responses are of log grey values, so that exposure adds a constant, and each map of
    logarithms is taken relative to its median in the image: a defect differs from its own
    surroundings more than good parts do at that position.
    """
    grid = grid_of(grey.shape[0], grey.shape[1], CELL_PX)
    logs = np.log(np.maximum(grey, 0) + np.float32(DARK))
    maps: list[Array] = []
    for level, octave in enumerate(pyramid(logs - np.median(logs))):
        points = [cell_max(values, grid) for values in _point_responses(octave)]
        maps += [*points, cell_mean(_local_std(octave), grid)]
        if level == STEP_LEVELS - 1:
            step_inputs = [logs, octave]
    responses = np.stack(maps, axis=-1)
    steps = [cell_max(v, grid) for octave in step_inputs for v in _step_responses(flatten(octave))]
    features = np.concatenate(
        [np.log(responses + np.float32(3e-3)), np.log(np.stack(steps, axis=-1) + np.float32(1e-2))],
        axis=-1,
    )
    return features - np.median(features, axis=(0, 1))


def _point_responses(image: Array) -> list[Array]:
    """Blobs (difference of Gaussians), edges and lines (curvatures) at sigma 1 px."""
    smooth = ndimage.gaussian_filter(image, 1.0, mode="reflect")
    blob = smooth - ndimage.gaussian_filter(image, 2.0, mode="reflect")
    down, right = gradient_of(smooth)
    yy, xy = gradient_of(down)
    xx = gradient_of(right)[1]
    # eigenvalues of the Hessian ((xx, xy), (xy, yy)) are middle +- half
    half = np.sqrt((xx - yy) ** 2 / 4 + xy**2)
    middle = (yy + xx) / 2
    return [
        np.maximum(blob, 0),
        np.maximum(-blob, 0),
        np.abs(right),
        np.abs(down),
        np.maximum(middle + half, 0),
        np.maximum(half - middle, 0),
    ]


def _local_std(image: Array) -> Array:
    """Local standard deviation in 5 x 5 pixels."""
    mean = ndimage.uniform_filter(image, 5, mode="reflect")
    square = ndimage.uniform_filter(image**2, 5, mode="reflect")
    return np.sqrt(np.maximum(square - mean**2, 0))


def flatten(image: Array) -> Array:
    """Subtract slow changes of illumination."""
    return image - ndimage.uniform_filter(image, 31, mode="reflect")


def _step_responses(image: Array) -> list[Array]:
    """Differences of mean and of log deviation between boxes on either side, down and right."""
    depth, length = STEP_PX
    result: list[Array] = []
    for across, along in ((0, 1), (1, 0)):
        means = ndimage.uniform_filter1d(image, length, axis=along, mode="reflect")
        squares = ndimage.uniform_filter1d(image**2, length, axis=along, mode="reflect")
        sides = []
        for origin in (depth // 2, -(depth // 2)):
            box = [
                ndimage.uniform_filter1d(v, depth, axis=across, origin=origin, mode="reflect")
                for v in (means, squares)
            ]
            sides.append((box[0], np.log(np.maximum(box[1] - box[0] ** 2, 1e-6)) / 2))
        (mean_a, spread_a), (mean_b, spread_b) = sides
        result += [np.abs(mean_a - mean_b), np.abs(spread_a - spread_b)]
    return result
