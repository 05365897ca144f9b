"""Demodulation band of the envelope: the most impulsive one of a fast kurtogram, or a default.

Spectral kurtosis of a band with complex envelope c: mean |c|^4 / (mean |c|^2)^2 - 2. It is 0 for
Gaussian noise, -1 for a tone, large for impulses (Antoni, "Fast computation of the kurtogram for
the detection of transient faults", Mechanical Systems and Signal Processing 21, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

DEFAULT_HZ = (2000.0, 10000.0)
"""Usual resonances of ball bearings; used when the healthy data hold no impulses."""
NARROWEST_HZ = 600.0
"""A band must hold several harmonics of a fault and their sidebands."""
SIGMAS = 6.0
"""Standard errors by which a kurtosis must exceed that of Gaussian noise."""


@dataclass(frozen=True, kw_only=True)
class BandKurtosis:
    """Spectral kurtosis of one band.

    Attributes:
        low_hz: Lower edge.
        high_hz: Upper edge.
        kurtosis: Spectral kurtosis, mean over snapshots.
        sigma: Its standard error for Gaussian noise.
    """

    low_hz: float
    high_hz: float
    kurtosis: float
    sigma: float


def kurtogram(waves: NDArray[np.float32], rate_hz: float) -> list[BandKurtosis]:
    """Return the kurtosis of every band of the 1/3-binary tree (Antoni 2007, section 3).

    Level k splits 0 to half the rate into 2^k bands, the levels in between into 3 x 2^k. The
    filters are slices of one spectrum with sine edges, transformed back at the band's rate.

    Args:
        waves: Shape (snapshot, sample), finite.
        rate_hz: Samples per second.
    """
    centred = waves - waves.mean(axis=1, keepdims=True)
    spectrum = fft.rfft(centred, axis=1)  # (snapshot, sample // 2 + 1)
    bands = []
    parts = sorted({2**k for k in range(1, 12)} | {3 * 2**k for k in range(10)})
    for number in parts:
        if rate_hz / 2 / number < NARROWEST_HZ:
            break
        edges = np.linspace(0, spectrum.shape[1] - 1, number + 1).astype(int)
        for first, last in pairwise(edges):
            if last - first >= 16:
                hz = rate_hz / waves.shape[1]
                bands.append(
                    _band_kurtosis(spectrum[:, first:last], float(first * hz), float(last * hz))
                )
    return bands


def choose_band(waves: NDArray[np.float32], rate_hz: float) -> tuple[float, float]:
    """Return the lower and upper edge of the demodulation band in Hz.

    Args:
        waves: Healthy snapshots, shape (snapshot, sample).
        rate_hz: Samples per second.
    """
    finite = waves[np.isfinite(waves).all(axis=1)]
    bands = [band for band in kurtogram(finite, rate_hz) if band.low_hz > 0] if len(finite) else []
    best = max(bands, key=lambda band: band.kurtosis, default=None)
    if best is not None and best.kurtosis > max(SIGMAS * best.sigma, 0.5):
        return best.low_hz, best.high_hz
    return min(DEFAULT_HZ[0], 0.15 * rate_hz), min(DEFAULT_HZ[1], 0.45 * rate_hz)


def _band_kurtosis(slices: NDArray[np.complex64], low_hz: float, high_hz: float) -> BandKurtosis:
    """Return the kurtosis of slices of spectra, shape (snapshot, bin)."""
    bins = slices.shape[1]
    edge = max(2, bins // 8)
    taper = np.ones(bins, dtype=np.float32)
    taper[:edge] = np.sin(np.pi / 2 * (np.arange(edge) + 0.5) / edge)
    taper[-edge:] = taper[:edge][::-1]
    power = np.abs(fft.ifft(slices * taper, axis=1)).astype(np.float64) ** 2
    # (snapshot, bin) -> squared envelope (snapshot, bin); its ends hold the jump of the period
    inner = power[:, bins // 32 : bins - bins // 32]
    square = np.maximum(inner.mean(axis=1), 1e-300) ** 2
    kurtosis = (inner**2).mean(axis=1) / square - 2
    # The ratio's variance for complex Gaussian noise is 4 / m; times 1.5, as the taper correlates
    # neighbours.
    sigma = np.sqrt(4 * 1.5 / (inner.shape[1] * len(slices)))
    return BandKurtosis(
        low_hz=low_hz, high_hz=high_hz, kurtosis=float(kurtosis.mean()), sigma=float(sigma)
    )
