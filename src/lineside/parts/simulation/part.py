"""One part: made, perhaps damaged, and photographed several times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.data.items import GOOD
from lineside.parts.models.detector import Mask
from lineside.parts.simulation.defects import add_defect
from lineside.parts.simulation.optics import blurred, photograph, radiance
from lineside.parts.simulation.scene import SECTIONS, Colour, Lamps, make_scene

MARGIN_PX = 14
"""What the canvas is larger than a crop on every side."""
SHIFT_PX = 6
GROWTH_PX = 3
MOST_CUT_PX = MARGIN_PX + SHIFT_PX + GROWTH_PX
GAINS = (0.55, 1.7)
ELONGATED_SHARE = 0.2


@dataclass(frozen=True, kw_only=True)
class Part:
    """One simulated part, without its photographs.

    Attributes:
        truth: ``"good"`` or the kind of defect.
        section: Section of the catheter.
        visibility: Contrast of the defect times the root of its area in pixels, 0 on a good part.
        masks: The defect in each photograph, shape (height, width); all False on a good part.
        highlights: (row, column) of the brightest highlight in each photograph.
    """

    truth: str
    section: str
    visibility: float
    masks: tuple[Mask, ...]
    highlights: tuple[tuple[int, int], ...]


def make_part(
    rng: np.random.Generator,
    lamps: Lamps,
    truth: str,
    area: float,
    exposures: int,
    size_px: int,
) -> tuple[Part, list[NDArray[np.uint8]]]:
    """Make one part and photograph it, from dark to bright.

    Args:
        rng: Draws everything about the part.
        lamps: Lighting of its batch.
        truth: ``"good"`` or a kind of defect.
        area: Area of the defect as a share of the picture.
        exposures: Number of photographs.
        size_px: Side of a typical picture.

    Returns:
        The part, and its photographs, uint8, shape (height, width, 3).
    """
    height, width = _shape(rng, size_px)
    canvas = (height + 2 * MARGIN_PX, width + 2 * MARGIN_PX)
    section = str(rng.choice(SECTIONS))
    scene = make_scene(rng, canvas, section, lamps)
    light = blurred(scene, radiance(scene))
    mask, visibility = np.zeros(canvas, dtype=bool), 0.0
    if truth != GOOD:
        defect = add_defect(rng, scene, light, truth, round(area * height * width), MOST_CUT_PX)
        light, mask = defect.light, defect.mask
        visibility = float(defect.contrast * np.sqrt(mask.sum()))
    gains = np.geomspace(*GAINS, exposures) if exposures > 1 else np.ones(1)
    brightness = rng.uniform(0.8, 1.25)
    windows = [_window(rng, canvas) for _ in gains]
    row, column = _brightest(light)
    part = Part(
        truth=truth,
        section=section,
        visibility=visibility,
        masks=tuple(mask[window] for window in windows),
        highlights=tuple((row - w[0].start, column - w[1].start) for w in windows),
    )
    pictures = [
        photograph(light[window], float(gain * brightness), rng)
        for gain, window in zip(gains, windows, strict=True)
    ]
    return part, pictures


def _window(rng: np.random.Generator, canvas: tuple[int, int]) -> tuple[slice, slice]:
    """Return the crop of a part put down again: shifted and slightly larger or smaller."""
    shift = rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2)
    growth = rng.integers(-GROWTH_PX, GROWTH_PX + 1, 2)
    first = MARGIN_PX + shift
    last = np.array(canvas) - MARGIN_PX + shift + growth
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def _brightest(light: Colour) -> tuple[int, int]:
    """Return (row, column) of the brightest highlight that every crop shows."""
    edge = 2 * MARGIN_PX
    grey = ndimage.gaussian_filter(light.mean(axis=2)[edge:-edge, edge:-edge], 2.0)
    row, column = np.unravel_index(int(grey.argmax()), grey.shape)
    return int(row) + edge, int(column) + edge


def _shape(rng: np.random.Generator, size_px: int) -> tuple[int, int]:
    """Return (height, width) of the crop of a part."""
    size = size_px * rng.uniform(0.88, 1.12)
    aspect = rng.uniform(0.92, 1.1)
    if rng.random() < ELONGATED_SHARE:
        aspect = rng.uniform(1.5, 2.4) ** rng.choice([-1, 1])
    return round(size / np.sqrt(aspect)), round(size * np.sqrt(aspect))
