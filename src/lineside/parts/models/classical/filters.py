"""Multi-scale filters: blobs, lines, edges and steps, largest response in each cell.

All responses are of log grey values, so that exposure adds a constant, and each map of logarithms
is taken relative to its median in the picture: a defect is what differs from its own surroundings
more than good parts do at that place.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lineside.parts.models.classical.descriptors import (
    DARK,
    LEVELS,
    Array,
    cell_max,
    cell_mean,
    gradient_of,
    grid_of,
    pyramid,
)

CELL_PX = 8
POINTS = ("bright blob", "dark blob", "edge across", "edge along", "dark line", "bright line")
STEPS = ("step down", "texture step down", "step right", "texture step right")
STEP_LEVELS = 2
STEP_PX = (5, 15)
"""Depth and length of the two boxes whose means and deviations a step compares."""
NAMES: tuple[str, ...] = tuple(
    f"{name}, scale {2**level}" for level in range(LEVELS) for name in (*POINTS, "roughness")
) + tuple(f"{name}, scale {2**level}" for level in range(STEP_LEVELS) for name in STEPS)


def filter_features(grey: Array, cell_px: int = CELL_PX) -> Array:
    """Return log responses relative to the picture's median, shape (rows, columns, 29)."""
    grid = grid_of(grey.shape[0], grey.shape[1], cell_px)
    logs = np.log(np.maximum(grey, 0) + np.float32(DARK))
    maps: list[Array] = []
    for level, picture in enumerate(pyramid(logs - np.median(logs))):
        points = [cell_max(values, grid) for values in _points(picture)]
        maps += [*points, cell_mean(_roughness(picture), grid)]
        if level == STEP_LEVELS - 1:
            steps_from = [logs, picture]
    responses = np.stack(maps, axis=-1)
    steps = [cell_max(v, grid) for picture in steps_from for v in _steps(_flattened(picture))]
    features = np.concatenate(
        [np.log(responses + np.float32(3e-3)), np.log(np.stack(steps, axis=-1) + np.float32(1e-2))],
        axis=-1,
    )
    return features - np.median(features, axis=(0, 1))


def _points(picture: Array) -> list[Array]:
    """Blobs (difference of Gaussians), edges and lines (curvatures) at sigma 1 px."""
    smooth = ndimage.gaussian_filter(picture, 1.0, mode="reflect")
    blob = smooth - ndimage.gaussian_filter(picture, 2.0, mode="reflect")
    down, right = gradient_of(smooth)
    bend_down, twist = gradient_of(down)
    bend_right = gradient_of(right)[1]
    half = np.sqrt((bend_right - bend_down) ** 2 / 4 + twist**2)
    middle = (bend_down + bend_right) / 2
    return [
        np.maximum(blob, 0),
        np.maximum(-blob, 0),
        np.abs(right),
        np.abs(down),
        np.maximum(middle + half, 0),
        np.maximum(half - middle, 0),
    ]


def _roughness(picture: Array) -> Array:
    """Local standard deviation in 5 x 5 pixels."""
    mean = ndimage.uniform_filter(picture, 5, mode="reflect")
    square = ndimage.uniform_filter(picture**2, 5, mode="reflect")
    return np.sqrt(np.maximum(square - mean**2, 0))


def _flattened(picture: Array) -> Array:
    """Take slow changes of light away."""
    return picture - ndimage.uniform_filter(picture, 31, mode="reflect")


def _steps(picture: Array) -> list[Array]:
    """Differences of mean and of log deviation between boxes on either side, down and right."""
    depth, length = STEP_PX
    result: list[Array] = []
    for across, along in ((0, 1), (1, 0)):
        means = ndimage.uniform_filter1d(picture, length, axis=along, mode="reflect")
        squares = ndimage.uniform_filter1d(picture**2, length, axis=along, mode="reflect")
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
