"""Defects of catheters: where they are, how large they are, and what they do to the light.

The shape of a defect is a field over the canvas that grows away from its middle; the mask is made
of the pixels with the lowest values, as many as the area asks for, so areas are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.models.detector import Mask
from lineside.parts.simulation.optics import Relief, blurred, display, radiance
from lineside.parts.simulation.scene import Colour, Plane, Scene
from lineside.parts.simulation.shapes import SHAPES, Place

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
    """Damage a part and form its image; where glare hides the defect it is put elsewhere.

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
    tries = [_damage(rng, scene, clean, kind, allowed, count)]
    while tries[-1].contrast < CONTRAST_RANGE[0] * 0.99 and len(tries) < MOST_TRIES:
        tries.append(_damage(rng, scene, clean, kind, allowed, count))
    return max(tries, key=lambda one: one.contrast)


def _damage(
    rng: np.random.Generator, scene: Scene, clean: Colour, kind: str, allowed: Mask, count: int
) -> Defect:
    """Put a defect of `count` pixels somewhere on the allowed ones, as strong as drawn."""
    place = _place(rng, scene, allowed, count)
    field = np.where(allowed, SHAPES[kind](rng, scene, place, count), np.float32(np.inf))
    limit = np.partition(field[allowed], count - 1)[count - 1]
    mask = field <= limit
    relief = _relief(rng, kind, field / limit, float(limit))
    damaged = blurred(scene, radiance(scene, relief))
    wanted = np.exp(np.log(CONTRAST_MEDIAN) + CONTRAST_SIGMA * rng.standard_normal())
    light, contrast = _with_contrast(clean, damaged, mask, float(np.clip(wanted, *CONTRAST_RANGE)))
    return Defect(mask=mask, light=light, contrast=contrast)


def _place(rng: np.random.Generator, scene: Scene, allowed: Mask, count: int) -> Place:
    """Return (row, column) of the middle: on the body, and far from the border if it is large."""
    room = min(np.sqrt(count) * 1.2, 0.25 * min(allowed.shape))
    rows, columns = np.nonzero(allowed & (np.abs(scene.across) < REACH))
    height, width = allowed.shape
    far = (np.minimum(rows, height - rows) > room) & (np.minimum(columns, width - columns) > room)
    choice = rng.choice(np.flatnonzero(far) if far.any() else np.arange(len(rows)))
    return float(rows[choice]), float(columns[choice])


def _relief(rng: np.random.Generator, kind: str, s: Plane, half_width: float) -> Relief:
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


def _with_contrast(
    clean: Colour, damaged: Colour, mask: Mask, wanted: float
) -> tuple[Colour, float]:
    """Strengthen or weaken the damage until the displayed picture changes as much as wanted."""
    low, high = GAIN_RANGE
    inside, before = (clean[mask], damaged[mask]), display(clean[mask])
    for _ in range(12):  # bisection in the logarithm
        gain = float(np.sqrt(low * high))
        seen = float(np.abs(display(_mixed(*inside, gain)) - before).mean())
        low, high = (gain, high) if seen < wanted else (low, gain)
    return _mixed(clean, damaged, gain), seen


def _mixed(clean: Colour, damaged: Colour, gain: float) -> Colour:
    """Return the clean light with a multiple of the damage, never quite black."""
    mixed: Colour = np.maximum(clean + np.float32(gain) * (damaged - clean), 0.2 * clean)
    return mixed
