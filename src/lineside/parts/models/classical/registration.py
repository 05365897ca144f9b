"""Registration to a template: phase correlation with subpixel precision (Kuglin & Hines, 1975)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Displacement of an image against a template.

    Attributes:
        down_px: Displacement downwards; moving the image up by it aligns the two.
        right_px: Displacement to the right.
        peak: Height of the correlation peak above its surroundings, in their standard deviations;
            below about 8 the two do not match and the displacement means nothing.
    """

    down_px: float
    right_px: float
    peak: float

    @property
    def length_px(self) -> float:
        """Distance of the displacement."""
        return float(np.hypot(self.down_px, self.right_px))


def phase_shift(template: Array, image: Array, smooth_px: float = 1.0) -> Shift:
    """Estimate the displacement of `image` against `template` (equal shapes).

    The cross-power spectrum conj(T) P / |conj(T) P| of the two has its inverse transform's peak at
    the displacement. Both are windowed, so that the frame of the image does not cause a peak at
    zero; the peak is refined by a parabola through its neighbours. Brightness and contrast have no
    influence.

    Raises:
        ValueError: If the shapes differ.

    Source: Kuglin & Hines, 1975; window and parabola after Stone et al., 2001.
    """
    if template.shape != image.shape:
        raise ValueError(f"shapes differ: {template.shape} and {image.shape}")
    first, second = (fft.rfft2(_apply_window(x)) for x in (template, image))
    cross = np.conj(first) * second
    # Frequencies beyond the smoothing hold noise only; without them the peak is broad enough
    # for a parabola.
    rows = fft.fftfreq(template.shape[0])[:, None]
    columns = fft.rfftfreq(template.shape[1])[None, :]
    low = np.exp(-2 * (np.pi * smooth_px) ** 2 * (rows**2 + columns**2))
    correlation = fft.irfft2(cross / (np.abs(cross) + 1e-9) * low, s=template.shape)
    row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
    height = (correlation.max() - correlation.mean()) / (correlation.std() + 1e-12)
    return Shift(
        down_px=_refine_peak(correlation[:, column], int(row)),
        right_px=_refine_peak(correlation[row, :], int(column)),
        peak=float(height),
    )


def _apply_window(image: Array) -> Array:
    window = np.hanning(image.shape[0] + 2)[1:-1, None] * np.hanning(image.shape[1] + 2)[None, 1:-1]
    return ((image - image.mean()) * window).astype(np.float32)


def _refine_peak(line: Array, peak: int) -> float:
    """Signed position of the peak of a periodic line, by a parabola through three values."""
    size = len(line)
    before, at, after = line[(peak - 1) % size], line[peak], line[(peak + 1) % size]
    curvature = before - 2 * at + after
    fraction = 0.5 * (before - after) / curvature if curvature < 0 else 0.0
    position = peak + float(np.clip(fraction, -0.5, 0.5))
    return position - size if position > size / 2 else position


def align(image: Array, shift: Shift) -> Array:
    """Move an image back by a shift (linear interpolation, nearest value beyond the border)."""
    back = (-shift.down_px, -shift.right_px)
    return ndimage.shift(image, back, order=1, mode="nearest").astype(np.float32)


def resize(image: Array, height: int, width: int) -> Array:
    """Resize to (height, width) after a blur that fits the reduction (bilinear, pixel centres)."""
    factors = (image.shape[0] / height, image.shape[1] / width)
    sigma = [0.5 * np.sqrt(max(f * f - 1.0, 0.0)) for f in factors]
    smooth = ndimage.gaussian_filter(image, sigma, mode="nearest") if max(sigma) > 0 else image
    rows, columns = (
        np.clip((np.arange(n) + 0.5) * f - 0.5, 0, s - 1)
        for n, f, s in zip((height, width), factors, image.shape, strict=True)
    )
    return _interpolate(_interpolate(smooth, rows, axis=0), columns, axis=1)


def _interpolate(image: Array, positions: NDArray[np.float64], axis: int) -> Array:
    low = np.floor(positions).astype(int)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    share = (positions - low).astype(np.float32)
    share = share[:, None] if axis == 0 else share[None, :]
    return image.take(low, axis) * (1 - share) + image.take(high, axis) * share
