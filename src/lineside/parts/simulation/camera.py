"""The camera: exposure, blooming, noise and tone curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.simulation.scene import Colour

FULL_WELL_ELECTRONS = 6000.0
READ_NOISE = 0.004
BLOOM_PX = 5.0
BLOOM_SHARE = 0.12
GAMMA = 2.2


def display(light: Colour, gain: float = 1.0) -> Colour:
    """Return the noiseless picture, values 0..1, of a linear radiance."""
    shown: Colour = np.clip(light * gain, 0, 1) ** np.float32(1 / GAMMA)
    return shown


def photograph(light: Colour, gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture, uint8, shape (height, width, 3).

    Args:
        light: Linear radiance, 1 is white at a gain of 1.
        gain: Exposure.
        rng: Draws shot and read noise.
    """
    caught = light * np.float32(gain)
    over = np.maximum(caught - 0.9, 0).mean(axis=2)
    bloom = ndimage.gaussian_filter(over, BLOOM_PX, truncate=3) * np.float32(BLOOM_SHARE)
    caught = np.clip(caught + bloom[..., None], 0, 1)
    noise = rng.standard_normal(caught.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.45, 0.45, 0), truncate=2.3)  # colour interpolation
    caught += noise * np.sqrt(caught / FULL_WELL_ELECTRONS + READ_NOISE**2)
    return (display(caught) * 255 + 0.5).astype(np.uint8)
