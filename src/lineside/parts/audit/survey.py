"""Image statistics for the audit: each image is decoded once, and only small numbers are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.ndimage import laplace

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.parts.data.ignored import IgnoredRegion
from lineside.parts.data.images import (
    CACHE,
    FileState,
    digest,
    file_state,
    read_mask_values,
    read_picture,
    region_of,
)
from lineside.parts.data.items import IgnoreFile, PartImage
from lineside.parts.data.masks import MASK_THRESHOLD, is_inverted

SAMPLE_PIXELS = 500_000
CLIPPED = 0.5 / 255
"""Values this near to 0 or 1 carry no more detail."""
SPECTRUM_PX = 128
SPECTRUM_BINS = 12
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_Files = tuple[str, Path, Path | None, FileState, FileState | None, IgnoreFile | None]
"""Id, picture and mask of an item, the states of both files, and what is ignored."""


@dataclass(frozen=True, kw_only=True)
class MaskStatistics:
    """What a mask file holds.

    Attributes:
        area_px: Pixels over the threshold.
        grey: Share of the pixels that are neither 0 nor 255, of all that are not 0.
        largest: Largest value, 0..255.
        inverted: Whether it marks what surrounds a defect.
        ignored: Whether all of it lies where nothing counts.
        error: Why it cannot be used (wrong size, damaged, unclear), or ``""``.
    """

    area_px: int = 0
    grey: float = 0.0
    largest: float = 0.0
    inverted: bool = False
    ignored: bool = False
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageStatistics:
    """What is measured on one picture.

    Attributes:
        id: The item's id.
        file_sha256: Hash of the file.
        content_sha256: Hash of the decoded values and their shape.
        mode: Storage mode of the file.
        bits: Bits per channel.
        height: Pixels.
        width: Pixels.
        channels: 1 or 3 after decoding.
        file_bytes: Size of the file.
        brightness: Mean value, 0..1.
        contrast: Standard deviation, 0..1.
        sharpness: log10 of the variance of the Laplacian over the variance of the picture, which
            makes it blind to exposure.
        clipped: Share of pixels that are black or white to the last level.
        used: Share of the value range between the 0.1st and 99.9th percentile.
        features: Fixed cheap description, see `describe`.
        mask: What its mask file holds, None if there is none.
    """

    id: str
    file_sha256: str
    content_sha256: str
    mode: str
    bits: int
    height: int
    width: int
    channels: int
    file_bytes: int
    brightness: float
    contrast: float
    sharpness: float
    clipped: float
    used: float
    features: NDArray[np.float64]
    mask: MaskStatistics | None = None


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Statistics per readable picture, and what cannot be used.

    Attributes:
        images: Of the pictures that can be decoded.
        refusals: One per picture that cannot.
        unplaced: One per picture whose mask or boxes cannot be used; it counts by its label.
    """

    images: tuple[ImageStatistics, ...]
    refusals: tuple[Refusal, ...]
    unplaced: tuple[Refusal, ...]


_MEASURED: dict[_Files, ImageStatistics | Refusal] = {}
"""The last survey; reading, audit and the search for equal parts ask for the same one."""


def survey(items: Sequence[PartImage]) -> Survey:
    """Decode every picture and mask once; the statistics are kept until the next survey.

    Decoded pictures go to the cache of `lineside.parts.data.images`, as far as they fit.
    """
    files = [_files(item) for item in items]
    for other in _MEASURED.keys() - set(files):
        del _MEASURED[other]
    if not _MEASURED:
        CACHE.clear()
    for item, key in zip(items, files, strict=True):
        if key not in _MEASURED:
            try:
                _MEASURED[key] = measure_image(*key[:3], region_of(item))
            except UserError as error:
                refusal = Refusal(item=key[0], message=error.message, hint=error.hint)
                _MEASURED[key] = refusal
    images, refusals, unplaced = [], [], []
    for item, key in zip(items, files, strict=True):
        measured = _MEASURED[key]
        if isinstance(measured, Refusal):
            refusals.append(measured)
            continue
        images.append(measured)
        wrong = measured.mask.error if measured.mask is not None else ""
        if not wrong and not all(box.usable for box in item.boxes):
            wrong = f"boxes of {item.path} have coordinates that are not numbers"
        if wrong:
            hint = "correct it; until then only the label counts"
            unplaced.append(Refusal(item=item.id, message=wrong, hint=hint))
    return Survey(images=tuple(images), refusals=tuple(refusals), unplaced=tuple(unplaced))


def _files(item: PartImage) -> _Files:
    mask = file_state(item.mask) if item.mask is not None else None
    return item.id, item.path, item.mask, file_state(item.path), mask, item.ignore


def measure_image(
    name: str, path: Path, mask: Path | None = None, ignored: IgnoredRegion | None = None
) -> ImageStatistics:
    """Return the statistics of one picture, without the pixels that are ignored.

    Raises:
        UserError: if the picture cannot be decoded, or has another shape than what is ignored; a
            bad mask is noted in the answer.
    """
    picture = read_picture(path, keep=True)
    image = ignored.neutralise(picture.image) if ignored is not None else picture.image
    grey = image.mean(axis=2)
    height, width = grey.shape
    sample = grey[:: max(1, height * width // SAMPLE_PIXELS)]
    low, high = np.quantile(sample, (0.001, 0.999))
    content = hashlib.sha256(str(image.shape).encode())
    content.update(image.tobytes())
    return ImageStatistics(
        id=name,
        file_sha256=digest(path),
        content_sha256=content.hexdigest(),
        mode=picture.mode,
        bits=picture.bits,
        height=height,
        width=width,
        channels=image.shape[2],
        file_bytes=path.stat().st_size,
        brightness=float(grey.mean()),
        contrast=float(grey.std()),
        sharpness=sharpness(grey),
        clipped=float(((image <= CLIPPED) | (image >= 1 - CLIPPED)).all(axis=2).mean()),
        used=float(high - low),
        features=describe(grey),
        mask=measure_mask(mask, (height, width), ignored) if mask is not None else None,
    )


def sharpness(grey: NDArray[np.float32]) -> float:
    """Return log10 of the variance of the Laplacian relative to that of the picture.

    The variance of the Laplacian is the focus measure of Pech-Pacheco et al. (2000); dividing
    by the variance takes exposure and contrast out.
    """
    variance = float(grey.var())
    return float(np.log10((float(laplace(grey).var()) + 1e-9) / (variance + 1e-9)))


def describe(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return a fixed description: radial log power spectrum, then quantiles, both after
    taking mean and standard deviation out, then log of that standard deviation and the mean.

    Args:
        grey: Shape (height, width), values 0..1.
    """
    whole = Pillow.fromarray(grey.astype(np.float32))
    side = (SPECTRUM_PX, SPECTRUM_PX)
    small = np.asarray(whole.resize(side, Pillow.Resampling.BOX), dtype=np.float64)
    mean, deviation = float(small.mean()), float(small.std())
    normed = (small - mean) / (deviation + 1e-6)
    window = np.hanning(SPECTRUM_PX)
    power = np.abs(np.fft.fft2(normed * window[:, None] * window[None])) ** 2
    sums = np.bincount(_RADIUS.ravel(), weights=power.ravel(), minlength=SPECTRUM_BINS + 1)
    counts = np.bincount(_RADIUS.ravel(), minlength=SPECTRUM_BINS + 1)
    spectrum = np.log10(sums[:SPECTRUM_BINS] / counts[:SPECTRUM_BINS] + 1e-6)
    quantiles = np.quantile(normed, QUANTILES)
    return np.concatenate([spectrum, quantiles, [np.log10(deviation + 1e-4), mean]])


def _radius() -> NDArray[np.int64]:
    """Return the octave-spaced ring of every frequency; the corners are one ring more."""
    frequency = np.fft.fftfreq(SPECTRUM_PX) * SPECTRUM_PX
    radius = np.hypot(frequency[:, None], frequency[None])
    top = np.log2(SPECTRUM_PX / 2)
    ring = np.floor(np.log2(np.maximum(radius, 1)) / top * SPECTRUM_BINS)
    capped: NDArray[np.int64] = np.minimum(ring, SPECTRUM_BINS).astype(np.int64)
    return capped


_RADIUS = _radius()


def measure_mask(
    path: Path, shape: tuple[int, int], ignored: IgnoredRegion | None = None
) -> MaskStatistics:
    """Return the statistics of a mask; what is wrong with the file is noted in them."""
    try:
        values = read_mask_values(path, shape, keep=True)
    except UserError as error:
        return MaskStatistics(error=error.message)
    inside = (values > CLIPPED) & (values < 1 - CLIPPED)
    mask = values > MASK_THRESHOLD
    return MaskStatistics(
        inverted=is_inverted(mask),
        ignored=ignored is not None and bool(mask.any() and ignored.at(shape)[mask].all()),
        area_px=int(mask.sum()),
        grey=float(inside.sum() / max(1, int((values > CLIPPED).sum()))),
        largest=float(values.max()) * 255,
    )
