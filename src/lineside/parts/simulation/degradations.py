"""Graded degradations of a picture: exposure, blur, noise, JPEG, crop offset; grades 1 to 5.

Each is a pure function of (image, severity, rng) and each grade is a documented physical amount, so
that "robust up to grade 3" can be checked against a camera, a lens or a line.
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image as Picture
from scipy import ndimage

from lineside.parts.models.detector import Image, Mask, TrainingImage

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


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """One way in which pictures get worse.

    Attributes:
        name: Short name.
        apply: (image, severity 1..5, rng) -> image of the same shape, values 0..1.
        help: What it imitates and the amount of every grade.
        moves: The mask of a picture under the same change; None if pixels stay where they are.
    """

    name: str
    apply: Callable[[Image, int, np.random.Generator], Image]
    help: str
    moves: Callable[[Mask, int, np.random.Generator], Mask] | None = None


def _grade(values: tuple[float, ...], severity: int) -> float:
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}, got {severity!r}")
    return values[severity - 1]


def _clipped(image: np.ndarray) -> Image:
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def darken(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Take `DARKER_STOPS` of light away and keep 8 bits, so that dark detail is lost."""
    dim = image * 2.0 ** -_grade(DARKER_STOPS, severity)
    return _clipped(np.round(dim * 255) / 255)


def brighten(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Add `BRIGHTER_STOPS` of light; what exceeds the range saturates."""
    return _clipped(image * 2.0 ** _grade(BRIGHTER_STOPS, severity))


def bend_tones(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Apply another tone curve (`GAMMA`), as after a change of camera settings."""
    return _clipped(np.clip(image, 0.0, 1.0) ** _grade(GAMMA, severity))


def blur(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Defocus: Gaussian blur of `BLUR_SIGMA_PX`."""
    sigma = _grade(BLUR_SIGMA_PX, severity)
    return _clipped(ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="reflect"))


def smear(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Motion: mean over `MOTION_LENGTH_PX` along one axis, drawn at random."""
    length = int(_grade(MOTION_LENGTH_PX, severity))
    axis = int(rng.integers(2))
    return _clipped(ndimage.uniform_filter1d(image, length, axis=axis, mode="reflect"))


def add_noise(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Sensor noise: white Gaussian noise of `NOISE_GREY_LEVELS`, independent per channel."""
    sigma = _grade(NOISE_GREY_LEVELS, severity) / 255
    return _clipped(image + rng.normal(0.0, sigma, image.shape))


def compress(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Compress once more as JPEG of `JPEG_QUALITY`."""
    pixels = np.round(np.clip(image, 0.0, 1.0) * 255).astype(np.uint8)
    picture = Picture.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3])
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=int(_grade(JPEG_QUALITY, severity)), subsampling=2)
    decoded = np.asarray(Picture.open(stream), dtype=np.float32) / np.float32(255)
    return decoded.reshape(image.shape).astype(np.float32, copy=False)


def _offset_px(shape: tuple[int, ...], severity: int, rng: np.random.Generator) -> tuple[int, int]:
    """Displacement (down, right) of the grade's length in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    length = _grade(CROP_OFFSET_PX, severity)
    limits = (shape[0] // 4, shape[1] // 4)
    steps = (round(length * np.sin(angle)), round(length * np.cos(angle)))
    down, right = (int(np.clip(s, -m, m)) for s, m in zip(steps, limits, strict=True))
    return down, right


def _displaced(pixels: np.ndarray, offset: tuple[int, int], mode: str) -> np.ndarray:
    down, right = offset
    pads = [(max(down, 0), max(-down, 0)), (max(right, 0), max(-right, 0))]
    pads += [(0, 0)] * (pixels.ndim - 2)
    padded = np.pad(pixels, pads, mode=mode)  # type: ignore[call-overload]
    top, left = max(-down, 0), max(-right, 0)
    return padded[top : top + pixels.shape[0], left : left + pixels.shape[1]]


def displace(image: Image, severity: int, rng: np.random.Generator) -> Image:
    """Shift the part by `CROP_OFFSET_PX` in a random direction; the border is mirrored."""
    return _clipped(_displaced(image, _offset_px(image.shape, severity, rng), "symmetric"))


def displace_mask(mask: Mask, severity: int, rng: np.random.Generator) -> Mask:
    """Shift a mask as `displace` shifts its picture for an equal `rng`.

    A defect that leaves the picture is gone from the mask; mirrored pixels count as no defect.
    """
    return _displaced(mask, _offset_px(mask.shape, severity, rng), "constant")


def _amounts(values: tuple[float, ...], unit: str) -> str:
    return f"grades 1-5: {', '.join(f'{value:g}' for value in values)} {unit}"


SUITE: tuple[Degradation, ...] = (
    Degradation(
        name="darker",
        apply=darken,
        help=f"less light, kept at 8 bits; {_amounts(DARKER_STOPS, 'stops')}",
    ),
    Degradation(
        name="brighter",
        apply=brighten,
        help=f"more light, saturating; {_amounts(BRIGHTER_STOPS, 'stops')}",
    ),
    Degradation(
        name="gamma", apply=bend_tones, help=f"another tone curve; {_amounts(GAMMA, 'exponent')}"
    ),
    Degradation(
        name="blur", apply=blur, help=f"out of focus; {_amounts(BLUR_SIGMA_PX, 'px sigma')}"
    ),
    Degradation(
        name="motion", apply=smear, help=f"moving part; {_amounts(MOTION_LENGTH_PX, 'px')}"
    ),
    Degradation(
        name="noise",
        apply=add_noise,
        help=f"sensor noise; {_amounts(NOISE_GREY_LEVELS, 'grey levels of 255')}",
    ),
    Degradation(
        name="jpeg", apply=compress, help=f"compressed again; {_amounts(JPEG_QUALITY, 'quality')}"
    ),
    Degradation(
        name="offset",
        apply=displace,
        moves=displace_mask,
        help=f"part displaced, border mirrored; {_amounts(CROP_OFFSET_PX, 'px')}",
    ),
)


def degrade(
    example: TrainingImage, degradation: Degradation, severity: int, seed: int = 0
) -> TrainingImage:
    """Return the example with its picture degraded, decoded on demand like the original.

    The random stream depends on `seed`, the example, the degradation and the grade, never on the
    order of calls, so the picture and its mask agree and every run sees the same pictures.

    Raises:
        ValueError: If `severity` is not 1..5.
    """
    _grade((0.0,) * len(SEVERITIES), severity)
    key = [seed, severity, zlib.crc32(example.id.encode()), zlib.crc32(degradation.name.encode())]

    def image() -> Image:
        return degradation.apply(example.image(), severity, np.random.default_rng(key))

    def mask() -> Mask | None:
        original = example.mask()
        if original is None or degradation.moves is None:
            return original
        return degradation.moves(original, severity, np.random.default_rng(key))

    digest = f"{example.digest}+{degradation.name}{severity}.{seed}"
    return dataclasses.replace(example, image=image, mask=mask, digest=digest)
