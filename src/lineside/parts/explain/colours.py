"""Colours of maps, even to the eye: computed in Oklab, so that equal steps look equal."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def heat_colours() -> NDArray[np.float32]:
    """Return 256 colours from dim violet over red to light yellow, values 0..255, shape (256, 3).

    Lightness rises evenly in Oklab, so equal steps of evidence look equal, also in grey print.
    """
    share = np.linspace(0, 1, 256)
    chroma = 0.13 + 0.09 * np.sin(np.pi * np.clip(share, 0, 1)) - 0.02 * share
    return srgb(0.32 + 0.6 * share, chroma, 305 + 160 * share)


def srgb(lightness: Any, chroma: Any, hue_degrees: Any) -> NDArray[np.float32]:
    """Return sRGB 0..255 of Oklab cylinder coordinates (Ottosson 2020), clipped to the gamut."""
    hue = np.radians(hue_degrees)
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    ).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).astype(np.float32)
