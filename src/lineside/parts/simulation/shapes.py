"""The shapes of defects: fields over the canvas that grow away from the middle, in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lineside.parts.simulation.scene import Plane, Scene

Place = tuple[float, float]
"""(row, column) on the canvas."""

REACH_PX = 60
"""Distances from a line are computed up to here."""


def _bubble(rng: np.random.Generator, scene: Scene, place: Place, count: int) -> Plane:
    """One round or long bubble, or a few close together."""
    number = 1 if rng.random() < 0.6 else int(rng.integers(2, 5))
    size = np.sqrt(count / number / np.pi)
    stretch = rng.uniform(1.0, 1.7)
    fields = []
    for index in range(number):
        scale = 1.0 if index == 0 else rng.uniform(0.5, 1.1)
        turn, step = rng.uniform(0, 2 * np.pi), (index > 0) * size * rng.uniform(2.2, 3.5)
        along, across = _local(scene, place, step * np.cos(turn), step * np.sin(turn))
        fields.append(np.hypot(along / stretch, across) / scale)
    nearest: Plane = np.stack(fields).min(axis=0)
    return nearest


def _scratch(rng: np.random.Generator, scene: Scene, place: Place, count: int) -> Plane:
    """Straight strands, nearly parallel."""
    length = 6.5 * np.sqrt(count) * rng.uniform(0.8, 1.2)
    longest = 0.6 * min(scene.u.shape)
    strands = int(max(np.ceil(length / longest), rng.integers(1, 3)))
    direction = rng.uniform(0, np.pi)
    lines = []
    for index in range(strands):
        turn = direction + rng.normal(0, 0.08)
        off = rng.normal(0, 3.0 + 1.5 * strands) * (index > 0)
        middle = (place[0] + off * np.cos(direction), place[1] - off * np.sin(direction))
        one = min(length / strands * rng.uniform(0.7, 1.3), longest)
        lines.append(_curve(rng, middle, turn, one, bend=0.002, jitter=0.0))
    return _distance(lines, scene.u.shape)


def _crack(rng: np.random.Generator, scene: Scene, place: Place, count: int) -> Plane:
    """A jagged line with branches."""
    length = min(5.5 * np.sqrt(count), 0.7 * min(scene.u.shape))
    direction = rng.uniform(0, np.pi)
    lines = [_curve(rng, place, direction, length, bend=0.0, jitter=0.45)]
    for _ in range(int(rng.integers(1, 3)) + int(count > 1500) * 3):
        root = lines[0][rng.integers(len(lines[0]) // 4, len(lines[0]) - 2)]
        turn = direction + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
        branch = _curve(rng, (0, 0), turn, length * rng.uniform(0.2, 0.4), bend=0.0, jitter=0.4)
        lines.append(branch - branch[0] + root)
    return _distance(lines, scene.u.shape)


def _contamination(rng: np.random.Generator, scene: Scene, place: Place, count: int) -> Plane:
    """A curled fibre, or a particle of irregular outline."""
    if rng.random() < 0.5 and count < 1500:
        length = 5.0 * np.sqrt(count)
        line = _curve(rng, place, rng.uniform(0, np.pi), length, bend=0.05, jitter=0.06)
        return _distance([line], scene.u.shape)
    along, across = _local(scene, place, 0.0, 0.0)
    turn = np.arctan2(across, along)
    outline: Plane = np.ones_like(turn)
    for order in range(2, 7):
        outline += rng.normal(0, 0.35 / order) * np.cos(order * turn + rng.uniform(0, 6))
    field: Plane = np.hypot(along, across) / np.maximum(outline, 0.3)
    return field


def _fold(rng: np.random.Generator, scene: Scene, place: Place, count: int) -> Plane:
    """One to three soft creases, roughly along the axis or round it."""
    number = 1 if count < 600 else int(rng.integers(1, 4))
    length = min(4.0 * np.sqrt(count / number), 0.6 * max(scene.u.shape))
    axis = scene.angle_rad + (np.pi / 2 if rng.random() < 0.4 else 0) + rng.normal(0, 0.25)
    spread = 1.9 * count / number / length
    lines = []
    for index in range(number):
        off = (index - (number - 1) / 2) * spread
        middle = (place[0] + off * np.cos(axis), place[1] - off * np.sin(axis))
        turn = axis + rng.normal(0, 0.12)
        lines.append(_curve(rng, middle, turn, length * rng.uniform(0.6, 1), 0.008, 0.02))
    return _distance(lines, scene.u.shape)


def _local(scene: Scene, place: Place, along_px: float, across_px: float) -> tuple[Plane, Plane]:
    """Return coordinates along and across the axis from a place that is shifted in this frame."""
    indices: tuple[Plane, ...] = tuple(np.indices(scene.u.shape, dtype=np.float32))
    y, x = indices[0] - place[0], indices[1] - place[1]
    cos, sin = math.cos(scene.angle_rad), math.sin(scene.angle_rad)
    return x * cos + y * sin - along_px, y * cos - x * sin - across_px


def _curve(
    rng: np.random.Generator,
    middle: tuple[float, float] | NDArray[np.float64],
    direction: float,
    length: float,
    bend: float,
    jitter: float,
) -> NDArray[np.float64]:
    """Return points (point, [row, column]) of a line that bends and jitters, in rad per px."""
    steps = int(np.clip(length / 4, 4, 60))
    step = length / steps
    turning = np.cumsum(rng.normal(0, bend, steps)) * step
    turning += rng.normal(0, bend) * step * np.arange(steps) + rng.normal(0, jitter, steps)
    turn = direction + turning - turning.mean()
    points = np.cumsum(np.stack([np.sin(turn), np.cos(turn)], axis=1) * step, axis=0)
    placed: NDArray[np.float64] = points - points.mean(axis=0) + np.asarray(middle)
    return placed


def _distance(lines: list[NDArray[np.float64]], shape: tuple[int, ...]) -> Plane:
    """Return the distance of every pixel from the nearest of some lines, px."""
    y, x = np.indices(shape, dtype=np.float32)
    nearest: Plane = np.full(shape, np.float32(1e6))
    for line in lines:
        for (y0, x0), (y1, x1) in pairwise(line):
            box = _around((y0, y1), (x0, x1), shape)
            dy, dx = y1 - y0, x1 - x0
            share = ((y[box] - y0) * dy + (x[box] - x0) * dx) / max(dy * dy + dx * dx, 1e-9)
            share = np.clip(share, 0, 1)
            off = np.hypot(y[box] - y0 - share * dy, x[box] - x0 - share * dx)
            nearest[box] = np.minimum(nearest[box], off)
    return nearest


def _around(
    rows: tuple[float, float], columns: tuple[float, float], shape: tuple[int, ...]
) -> tuple[slice, slice]:
    """Return a window round a segment: all distances that may matter are below its margin."""
    top, left = max(int(min(rows)) - REACH_PX, 0), max(int(min(columns)) - REACH_PX, 0)
    bottom, right = (
        min(int(max(rows)) + REACH_PX, shape[0]),
        min(int(max(columns)) + REACH_PX, shape[1]),
    )
    return slice(top, max(bottom, top)), slice(left, max(right, left))


Shape = Callable[[np.random.Generator, Scene, Place, int], Plane]
SHAPES: dict[str, Shape] = {
    "bubble": _bubble,
    "contamination": _contamination,
    "scratch": _scratch,
    "fold": _fold,
    "crack": _crack,
}
