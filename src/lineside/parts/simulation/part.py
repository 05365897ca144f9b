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
class Shot:
    """One photograph of a part.

    Attributes:
        picture: uint8, shape (height, width, 3).
        mask: The defect, shape (height, width); all False on a good part.
        highlight: (row, column) of the part's brightest highlight.
    """

    picture: NDArray[np.uint8]
    mask: Mask
    highlight: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One simulated part.

    Attributes:
        truth: ``"good"`` or the kind of defect.
        section: Section of the catheter.
        shots: Its photographs, from dark to bright.
        visibility: Contrast of the defect times the root of its area in pixels, 0 on a good part.
    """

    truth: str
    section: str
    shots: tuple[Shot, ...]
    visibility: float


def make_part(
    rng: np.random.Generator,
    lamps: Lamps,
    truth: str,
    area: float,
    exposures: int,
    size_px: int,
) -> Part:
    """Make one part and photograph it.

    Args:
        rng: Draws everything about the part.
        lamps: Lighting of its batch.
        truth: ``"good"`` or a kind of defect.
        area: Area of the defect as a share of the picture.
        exposures: Number of photographs.
        size_px: Side of a typical picture.
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
    highlight = _brightest(light)
    shots = tuple(
        Shot(
            picture=photograph(light[window], float(gain * brightness), rng),
            mask=mask[window],
            highlight=(highlight[0] - window[0].start, highlight[1] - window[1].start),
        )
        for gain, window in zip(gains, windows, strict=True)
    )
    return Part(truth=truth, section=section, shots=shots, visibility=visibility)


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
