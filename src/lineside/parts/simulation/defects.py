"""Defects of catheters: their place, size and shape, and what they do to the light.

The shape of a defect is a field over the canvas that grows away from its middle, in pixels; the
mask is made of the pixels with the lowest values, as many as the area asks for, so areas are exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.detector import Mask
from lineside.parts.simulation.scene import Colour, Plane, Relief, Scene, blurred, display, radiance

KIND_SHARES = {"bubble": 0.25, "contamination": 0.25, "scratch": 0.2, "fold": 0.16, "crack": 0.14}
"""Kinds of defects and their shares."""
AREA_MODE, AREA_SIGMA = 0.003, 0.45
TAIL_SHARE, TAIL_MEDIAN, TAIL_SIGMA = 0.04, 0.03, 0.6
AREA_RANGE = (0.0005, 0.1)
CONTRAST_MEDIAN, CONTRAST_SIGMA, CONTRAST_RANGE = 0.085, 0.4, (0.04, 0.25)
GAIN_RANGE = (0.15, 2.5)
MOST_TRIES = 5
LEAST_PX = 12
REACH = 0.78
"""Defects start at most this far from the axis, in radii."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A defect as it was made.

    Attributes:
        mask: Where it is, shape of the canvas.
        light: Radiance of the part with it, after the lens.
        contrast: Mean change of the displayed picture inside the mask, 0..1.
    """

    mask: Mask
    light: Colour
    contrast: float


def draw_areas(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return defect areas as a share of the picture: mode 0.3 %, few above 1 %, none above 10 %.

    A mix of two log-normal distributions; a log-normal with mode m has the median m exp(sigma^2).
    """
    usual = AREA_MODE * np.exp(AREA_SIGMA**2 + AREA_SIGMA * rng.standard_normal(count))
    large = TAIL_MEDIAN * np.exp(TAIL_SIGMA * rng.standard_normal(count))
    return np.clip(np.where(rng.random(count) < TAIL_SHARE, large, usual), *AREA_RANGE)


def add_defect(
    rng: np.random.Generator, scene: Scene, clean: Colour, kind: str, area_px: int, margin_px: int
) -> Defect:
    """Add a defect to a part and form its image; where glare hides it, it is put elsewhere.

    Args:
        rng: Draws place, shape and contrast.
        scene: The good part.
        clean: Its radiance after the lens.
        kind: One of `KIND_SHARES`.
        area_px: Number of pixels of the mask.
        margin_px: What may be cut off the canvas on a side, at most.
    """
    allowed = np.zeros(scene.u.shape, dtype=bool)
    allowed[margin_px:-margin_px, margin_px:-margin_px] = True
    allowed &= np.abs(scene.across) < 0.93
    count = int(np.clip(area_px, LEAST_PX, 0.5 * allowed.sum()))
    tries = [_make_defect(rng, scene, clean, kind, allowed, count)]
    while tries[-1].contrast < CONTRAST_RANGE[0] * 0.99 and len(tries) < MOST_TRIES:
        tries.append(_make_defect(rng, scene, clean, kind, allowed, count))
    return max(tries, key=lambda one: one.contrast)


def _make_defect(
    rng: np.random.Generator, scene: Scene, clean: Colour, kind: str, allowed: Mask, count: int
) -> Defect:
    """Put a defect of `count` pixels somewhere on the allowed ones, as strong as drawn."""
    place = _choose_place(rng, scene, allowed, count)
    field = np.where(allowed, SHAPES[kind](rng, scene, place, count), np.float32(np.inf))
    limit = np.partition(field[allowed], count - 1)[count - 1]
    mask = field <= limit
    relief = _make_relief(rng, kind, field / limit, float(limit))
    damaged = blurred(scene, radiance(scene, relief))
    wanted = np.exp(np.log(CONTRAST_MEDIAN) + CONTRAST_SIGMA * rng.standard_normal())
    light, contrast = _scale_to_contrast(
        clean, damaged, mask, float(np.clip(wanted, *CONTRAST_RANGE))
    )
    return Defect(mask=mask, light=light, contrast=contrast)


def _choose_place(rng: np.random.Generator, scene: Scene, allowed: Mask, count: int) -> Place:
    """Return (row, column) of the middle: on the body, and far from the border if it is large."""
    room = min(np.sqrt(count) * 1.2, 0.25 * min(allowed.shape))
    rows, columns = np.nonzero(allowed & (np.abs(scene.across) < REACH))
    height, width = allowed.shape
    far = (np.minimum(rows, height - rows) > room) & (np.minimum(columns, width - columns) > room)
    choice = rng.choice(np.flatnonzero(far) if far.any() else np.arange(len(rows)))
    return float(rows[choice]), float(columns[choice])


def _make_relief(rng: np.random.Generator, kind: str, s: Plane, half_width: float) -> Relief:
    """Return the optical effect; s is 0 in the middle and 1 at the border of the defect."""
    s = np.minimum(s, 50)
    grain = ndimage.gaussian_filter(rng.standard_normal(s.shape, dtype=np.float32), 2.0)
    grain = np.clip(0.6 + grain / grain.std() * 0.35, 0, 1.5)
    dome = np.sqrt(np.maximum(1 - s * s, 0))
    core, rim = np.exp(-2.0 * s * s), np.exp(-(((s - 0.85) / 0.2) ** 2))
    zero, tint = np.zeros_like(s), np.ones(3)
    if kind == "bubble":
        height, scatter, absorb = 0.45 * half_width * dome, 0.05 * core + 0.1 * rim, 0.5 * rim
    elif kind == "scratch":
        height, scatter, absorb = -0.9 * core, 0.35 * core * grain, zero
    elif kind == "crack":
        height, scatter, absorb = -0.8 * core, 0.06 * rim * grain, 0.7 * np.exp(-2 * s * s)
    elif kind == "fold":
        ridge = 0.5 + 0.5 * np.cos(np.pi * np.clip(s, 0, 1))
        height, scatter, absorb = 0.55 * half_width * ridge, 0.03 * ridge, 0.08 * ridge
    elif rng.random() < 0.5:  # bright lint
        height, scatter, absorb = 0.5 * core, 0.3 * core * grain, 0.3 * core
        tint = np.array([rng.uniform(0.8, 1.1), rng.uniform(0.8, 1), rng.uniform(0.7, 1)])
    else:  # dark dirt
        solid = np.clip((1.1 - s) * 4, 0, 1)
        height, scatter, absorb = 0.6 * solid * grain, 0.03 * solid * grain, 0.75 * solid
        tint = np.array([1.0, rng.uniform(0.6, 0.9), rng.uniform(0.3, 0.7)])
    return Relief(
        height_px=ndimage.gaussian_filter(height.astype(np.float32), 1.0),
        scatter=scatter.astype(np.float32),
        absorb=absorb.astype(np.float32),
        tint=np.broadcast_to(tint.astype(np.float32), (*s.shape, 3)),
    )


def _scale_to_contrast(
    clean: Colour, damaged: Colour, mask: Mask, wanted: float
) -> tuple[Colour, float]:
    """Scale the change by the defect until the displayed picture changes as much as wanted."""
    low, high = GAIN_RANGE
    inside, before = (clean[mask], damaged[mask]), display(clean[mask])
    for _ in range(12):  # bisection in the logarithm
        gain = float(np.sqrt(low * high))
        seen = float(np.abs(display(_add_damage(*inside, gain)) - before).mean())
        low, high = (gain, high) if seen < wanted else (low, gain)
    return _add_damage(clean, damaged, gain), seen


def _add_damage(clean: Colour, damaged: Colour, gain: float) -> Colour:
    """Return the clean radiance plus a multiple of the change by the defect, never quite black."""
    mixed: Colour = np.maximum(clean + np.float32(gain) * (damaged - clean), 0.2 * clean)
    return mixed


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
        along, across = _along_axis(scene, place, step * np.cos(turn), step * np.sin(turn))
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
    along, across = _along_axis(scene, place, 0.0, 0.0)
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


def _along_axis(
    scene: Scene, place: Place, along_px: float, across_px: float
) -> tuple[Plane, Plane]:
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
            box = _window_around((y0, y1), (x0, x1), shape)
            dy, dx = y1 - y0, x1 - x0
            share = ((y[box] - y0) * dy + (x[box] - x0) * dx) / max(dy * dy + dx * dx, 1e-9)
            share = np.clip(share, 0, 1)
            off = np.hypot(y[box] - y0 - share * dy, x[box] - x0 - share * dx)
            nearest[box] = np.minimum(nearest[box], off)
    return nearest


def _window_around(
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
