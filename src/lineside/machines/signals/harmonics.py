"""Harmonic series in an envelope spectrum: line heights over the background, slip, harmonics.

The height of a point is its amplitude over a running median of the spectrum, 1 for background.
Noise has Rayleigh amplitudes, P(height > t) = 2^(-t^2), which gives the threshold of a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import find_peaks

from lineside.machines.signals.spectra import FINENESS, Spectrum, over_background

Curve = NDArray[np.float64]
BACKGROUND_BINS = 41
"""Width of the running median, in bins of the true resolution."""
FALSE_LINES = 0.001
"""Expected number of noise peaks above the threshold in one spectrum."""
SUPPORT = 2.5
"""Height that supports a harmonic at a known frequency: 1.3 % of noise exceeds it."""
HARMONICS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class LineHeights:
    """Heights of an envelope spectrum over its background, all of shape (frequency,).

    Attributes:
        hz: Frequencies, `FINENESS` per resolution.
        height: Amplitude over the running median.
        depth: Amplitude over the mean of the envelope: depth of modulation.
        resolution_hz: 1 / length of the snapshot.
        threshold: Heights above it are lines.
    """

    hz: Curve
    height: Curve
    depth: Curve
    resolution_hz: float
    threshold: float

    def at(self, hz: Curve | float) -> Curve:
        """Return the interpolated height at frequencies; 1 beyond the ends."""
        return np.asarray(np.interp(hz, self.hz, self.height, left=1.0, right=1.0))

    def depth_at(self, hz: float) -> float:
        """Return the depth of modulation at a frequency."""
        return float(np.interp(hz, self.hz, self.depth, left=0.0, right=0.0))

    def near(self, hz: float, reach_hz: float) -> float:
        """Return the largest height around a frequency."""
        inside = self.height[(self.hz >= hz - reach_hz) & (self.hz <= hz + reach_hz)]
        return float(inside.max(initial=0.0))

    def lines(self, low_hz: float, high_hz: float) -> list[tuple[float, float]]:
        """Return (Hz, height) of the lines between two frequencies, highest first."""
        peaks, _ = find_peaks(self.height, height=self.threshold, distance=FINENESS)
        lines = [
            (float(self.hz[p]), float(self.height[p]))
            for p in peaks
            if low_hz <= self.hz[p] <= high_hz
        ]
        return sorted(lines, key=lambda line: -line[1])


@dataclass(frozen=True, kw_only=True)
class HarmonicSeries:
    """Harmonics of one frequency.

    Attributes:
        hz: Fundamental that fits best within the slip tolerance.
        heights: Height of each harmonic, 1 where it coincides with a shaft line.
        score: Mean logarithm of the heights.
        hits: Number of harmonics above `SUPPORT`.
    """

    hz: float
    heights: tuple[float, ...]
    score: float
    hits: int


def line_heights_of(spectra: Sequence[Spectrum]) -> LineHeights:
    """Return the root mean square height of envelope spectra of the same length.

    Args:
        spectra: Of channels or of successive snapshots.
    """
    first = spectra[0]
    alike = [s for s in spectra if len(s.envelope) == len(first.envelope)]
    power, depth = np.zeros(len(first.envelope)), np.zeros(len(first.envelope))
    for spectrum in alike:
        envelope = spectrum.envelope
        width = min(BACKGROUND_BINS * FINENESS, len(envelope)) | 1
        power += over_background(spectrum.envelope_hz, envelope, max(3, width // FINENESS)) ** 2
        depth += envelope / max(spectrum.envelope_level, 1e-30) / len(alike)
    # t with 2^(-t^2) = FALSE_LINES / resolved frequencies; an average varies less than one spectrum
    threshold = float(np.sqrt(np.log2(len(power) / FINENESS / FALSE_LINES)))
    return LineHeights(
        hz=first.envelope_hz, height=np.sqrt(power / len(alike)), depth=depth,
        resolution_hz=1 / first.seconds, threshold=threshold,
    )  # fmt: skip


def fit_harmonics(
    heights: LineHeights, hz: float, slip: float, *, shaft_hz: float | None = None
) -> HarmonicSeries:
    """Return the harmonic series near `hz` whose lines stand highest together.

    Args:
        heights: Of the envelope spectrum.
        hz: Theoretical fundamental.
        slip: Largest relative deviation from it.
        shaft_hz: Harmonics within a bin of a shaft harmonic do not count.
    """
    step = heights.resolution_hz / (FINENESS * max(HARMONICS))
    grid = np.arange(hz * (1 - slip), hz * (1 + slip) + step, step)
    # (harmonic, candidate)
    stack = np.stack([heights.at(harmonic * grid) for harmonic in HARMONICS])
    if shaft_hz:
        lines_hz = np.outer(HARMONICS, grid)
        away = np.abs(lines_hz - shaft_hz * np.round(lines_hz / shaft_hz))
        stack = np.where(away < 0.75 * heights.resolution_hz, 1.0, stack)
    stack = np.maximum(stack, 1.0)
    scores = np.log(stack).mean(axis=0)
    best = int(np.argmax(scores))
    return HarmonicSeries(
        hz=float(grid[best]),
        heights=tuple(float(height) for height in stack[:, best]),
        score=float(scores[best]),
        hits=int((stack[:, best] > SUPPORT).sum()),
    )


def refine_shaft(heights: LineHeights, speed_hz: float, tolerance: float) -> tuple[float, float]:
    """Return the refined shaft speed and its relative uncertainty.

    The shaft's own harmonics give it to a quarter of a bin; without any, the stated speed has the
    full tolerance as its uncertainty.
    """
    family = fit_harmonics(heights, speed_hz, tolerance)
    if family.hits < 2 or max(family.heights) < heights.threshold:
        return speed_hz, tolerance
    return family.hz, min(tolerance, heights.resolution_hz / (8 * speed_hz))
