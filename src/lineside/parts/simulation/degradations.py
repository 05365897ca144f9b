"""Graded degradations of a picture: exposure, blur, noise, JPEG, crop offset; grades 1 to 5.

Each is a pure function of (image, severity, rng) and each grade is a documented physical amount, so
that "robust up to grade 3" can be checked against a camera, a lens or a line.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from lineside.parts.models.detector import Image, TrainingImage

SEVERITIES = (1, 2, 3, 4, 5)

DARKER_STOPS = (0.25, 0.5, 1.0, 1.5, 2.0)
"""Light lost, in photographic stops (1 stop halves the light)."""
BRIGHTER_STOPS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Light gained, in stops; what exceeds the sensor's range is clipped."""
GAMMA = (1.1, 1.25, 1.5, 1.8, 2.2)
"""Exponent of the tone curve, applied as value ** gamma; 1 is unchanged."""
BLUR_SIGMA_PX = (0.5, 1.0, 1.5, 2.5, 4.0)
"""Standard deviation of a Gaussian point spread."""
MOTION_LENGTH_PX = (3, 5, 9, 13, 19)
"""Length of a horizontal or vertical smear during the exposure."""
NOISE_GREY_LEVELS = (2.0, 4.0, 8.0, 16.0, 24.0)
"""Standard deviation of white noise, in grey levels of 255."""
JPEG_QUALITY = (80, 60, 40, 20, 10)
"""Quality of one more JPEG compression (4:2:0)."""
CROP_OFFSET_PX = (2, 4, 8, 16, 24)
"""How far the part is displaced; the far border is mirrored. At most a quarter of a side."""


@dataclass(frozen=True)
class Degradation:
    """One way in which pictures get worse.

    Attributes:
        name: Short name.
        effect: What it imitates.
        change: (image, amount, rng) -> image of the same shape, not yet clipped to 0..1.
        amounts: Of every grade, in the unit.
        unit: For people.
    """

    name: str
    effect: str
    change: Callable[[Image, float, np.random.Generator], np.ndarray]
    amounts: tuple[float, ...]
    unit: str

    @property
    def help(self) -> str:
        """What it imitates and the amount of every grade."""
        amounts = ", ".join(f"{amount:g}" for amount in self.amounts)
        return f"{self.effect}; grades 1-5: {amounts} {self.unit}"

    def apply(self, image: Image, severity: int, rng: np.random.Generator) -> Image:
        """Return an image of the same shape at a grade of 1..5, values 0..1.

        Raises:
            ValueError: If `severity` is not 1..5.
        """
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be one of {SEVERITIES}, got {severity!r}")
        changed = self.change(image, self.amounts[severity - 1], rng)
        return np.clip(changed, 0.0, 1.0).astype(np.float32)


def darken(image: Image, stops: float, rng: np.random.Generator) -> np.ndarray:
    """Take light away and keep 8 bits, so that dark detail is lost."""
    return np.round(image * 2.0**-stops * 255) / 255


def brighten(image: Image, stops: float, rng: np.random.Generator) -> np.ndarray:
    """Add light; what exceeds the range saturates."""
    return image * 2.0**stops


def bend_tones(image: Image, gamma: float, rng: np.random.Generator) -> np.ndarray:
    """Apply another tone curve, as after a change of camera settings."""
    return np.clip(image, 0.0, 1.0) ** gamma


def blur(image: Image, sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """Defocus: Gaussian blur."""
    return ndimage.gaussian_filter(image, (sigma_px, sigma_px, 0), mode="reflect")


def smear(image: Image, length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Motion: mean over a length along one axis, drawn at random."""
    axis = int(rng.integers(2))
    return ndimage.uniform_filter1d(image, int(length_px), axis=axis, mode="reflect")


def add_noise(image: Image, grey_levels: float, rng: np.random.Generator) -> np.ndarray:
    """Sensor noise: white and Gaussian, independent per channel."""
    return image + rng.normal(0.0, grey_levels / 255, image.shape)


def compress(image: Image, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Compress once more as JPEG."""
    pixels = np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    picture = Picture.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(quality), subsampling=2)
    decoded = np.asarray(Picture.open(stream), dtype=np.float32) / np.float32(255)
    return decoded.reshape(image.shape)


def displace(image: Image, length_px: float, rng: np.random.Generator) -> np.ndarray:
    """Shift the part in a random direction; the border is mirrored."""
    angle = rng.uniform(0, 2 * np.pi)
    height, width = image.shape[:2]
    down = int(np.clip(round(length_px * np.sin(angle)), -(height // 4), height // 4))
    right = int(np.clip(round(length_px * np.cos(angle)), -(width // 4), width // 4))
    pads = ((max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0)), (0, 0))
    padded = np.pad(image, pads, mode="symmetric")
    top, left = max(-down, 0), max(-right, 0)
    return padded[top : top + height, left : left + width]


SUITE = (
    Degradation("darker", "less light, kept at 8 bits", darken, DARKER_STOPS, "stops"),
    Degradation("brighter", "more light, saturating", brighten, BRIGHTER_STOPS, "stops"),
    Degradation("gamma", "another tone curve", bend_tones, GAMMA, "exponent"),
    Degradation("blur", "out of focus", blur, BLUR_SIGMA_PX, "px sigma"),
    Degradation("motion", "moving part", smear, MOTION_LENGTH_PX, "px"),
    Degradation("noise", "sensor noise", add_noise, NOISE_GREY_LEVELS, "grey levels of 255"),
    Degradation("jpeg", "compressed again", compress, JPEG_QUALITY, "quality"),
    Degradation("offset", "part displaced, border mirrored", displace, CROP_OFFSET_PX, "px"),
)


def degrade(
    example: TrainingImage, degradation: Degradation, severity: int, seed: int = 0
) -> Image:
    """Return the example's image degraded.

    The random stream depends on `seed`, the example, the degradation and the grade, never on the
    order of calls, so that every run sees the same images.
    """
    key = [seed, severity, zlib.crc32(example.id.encode()), zlib.crc32(degradation.name.encode())]
    return degradation.apply(example.image(), severity, np.random.default_rng(key))
