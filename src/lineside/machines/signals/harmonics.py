"""Families of lines in an envelope spectrum: harmonics, slip, sidebands, and what is a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from scipy.signal import find_peaks

from lineside.machines.signals.spectra import FINENESS, Spectrum

Curve = NDArray[np.float64]
BACKGROUND_BINS = 41
"""Width of the running median, in bins of the true resolution."""
FALSE_LINES = 0.001
"""Expected number of noise peaks that pass for lines in one spectrum."""
SUPPORT = 2.5
"""Height that supports a family at a place fixed by its other lines: 1.3 % of noise has it."""
HARMONICS = (1, 2, 3)


@dataclass(frozen=True, kw_only=True)
class LineHeights:
    """How high an envelope spectrum stands over its background.

    Attributes:
        hz: Frequencies, finer than the resolution.
        height: Amplitude over the running median, 1 is background.
        depth: Amplitude over the mean of the envelope: depth of modulation.
        resolution_hz: 1 / length of the snapshot.
        threshold: Heights above it are lines, not noise.
    """

    hz: Curve
    height: Curve
    depth: Curve
    resolution_hz: float
    threshold: float

    def at(self, hz: Curve | float) -> Curve:
        """Return the height at a frequency, interpolated; background beyond the ends."""
        return np.asarray(np.interp(hz, self.hz, self.height, left=1.0, right=1.0))

    def depth_at(self, hz: float) -> float:
        """Return the depth of modulation at a frequency."""
        return float(np.interp(hz, self.hz, self.depth, left=0.0, right=0.0))

    def near(self, hz: float, reach_hz: float) -> float:
        """Return the greatest height around a frequency."""
        inside = self.height[(self.hz >= hz - reach_hz) & (self.hz <= hz + reach_hz)]
        return float(inside.max(initial=0.0))

    def lines(self, low_hz: float, high_hz: float) -> list[tuple[float, float]]:
        """Return (Hz, height) of the lines between two frequencies, highest first."""
        places, _ = find_peaks(self.height, height=self.threshold, distance=FINENESS)
        found = [
            (float(self.hz[p]), float(self.height[p]))
            for p in places
            if low_hz <= self.hz[p] <= high_hz
        ]
        return sorted(found, key=lambda line: -line[1])


@dataclass(frozen=True, kw_only=True)
class HarmonicSeries:
    """Harmonics of one frequency.

    Attributes:
        hz: The frequency that fits best within the slip tolerance.
        heights: Height of each harmonic, 1 where it cannot be told from a shaft line.
        score: Mean logarithm of the heights.
        hits: How many harmonics are high enough to support it.
    """

    hz: float
    heights: tuple[float, ...]
    score: float
    hits: int


def line_heights_of(spectra: Sequence[Spectrum]) -> LineHeights:
    """Return the mean height of envelope spectra of the same length (channels or snapshots)."""
    first = spectra[0]
    alike = [s for s in spectra if len(s.envelope) == len(first.envelope)]
    power, depth = np.zeros(len(first.envelope)), np.zeros(len(first.envelope))
    for spectrum in alike:
        envelope = spectrum.envelope
        width = min(BACKGROUND_BINS * FINENESS, len(envelope)) | 1
        thin = median_filter(envelope[::FINENESS], max(3, width // FINENESS), mode="nearest")
        background = np.interp(spectrum.envelope_hz, spectrum.envelope_hz[::FINENESS], thin)
        power += (envelope / np.maximum(background, 1e-30)) ** 2
        depth += envelope / max(spectrum.envelope_level, 1e-30) / len(alike)
    # Noise has Rayleigh heights: P(height > t medians) = 2^-t2; an average is no wilder.
    threshold = float(np.sqrt(np.log2(len(power) / FINENESS / FALSE_LINES)))
    return LineHeights(
        hz=first.envelope_hz, height=np.sqrt(power / len(alike)), depth=depth,
        resolution_hz=1 / first.seconds, threshold=threshold,
    )  # fmt: skip


def fit_harmonics(
    heights: LineHeights, hz: float, slip: float, *, shaft_hz: float | None = None
) -> HarmonicSeries:
    """Return the harmonics of the frequency near `hz` that stand highest together.

    Args:
        heights: Of the envelope spectrum.
        hz: Where theory puts it.
        slip: Largest relative distance from there.
        shaft_hz: Harmonics within a bin of a multiple of it do not count.
    """
    step = heights.resolution_hz / (FINENESS * max(HARMONICS))
    grid = np.arange(hz * (1 - slip), hz * (1 + slip) + step, step)
    stack = np.stack([heights.at(harmonic * grid) for harmonic in HARMONICS])
    if shaft_hz:
        places = np.outer(HARMONICS, grid)
        away = np.abs(places - shaft_hz * np.round(places / shaft_hz))
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
    """Return the shaft's speed and how far it may be off, relative.

    Its own lines tell it to a quarter of a bin; without any the stated one may be off by all of
    the tolerance.
    """
    family = fit_harmonics(heights, speed_hz, tolerance)
    if family.hits < 2 or max(family.heights) < heights.threshold:
        return speed_hz, tolerance
    return family.hz, min(tolerance, heights.resolution_hz / (8 * speed_hz))


def strongest_family(heights: LineHeights, low_hz: float, high_hz: float) -> HarmonicSeries | None:
    """Return the family of the strongest line, at its fundamental; None if there is no line.

    The strongest line may itself be the second or third harmonic: the lowest divisor whose own
    line stands at a third of its height or more is taken.
    """
    found = heights.lines(low_hz, high_hz)
    if not found:
        return None
    slip = 0.5 * heights.resolution_hz / found[0][0]
    best = fit_harmonics(heights, found[0][0], slip)
    for divisor in (3, 2):
        family = fit_harmonics(heights, found[0][0] / divisor, slip)
        enough = max(heights.threshold, found[0][1] / 3)
        if found[0][0] / divisor >= low_hz and family.heights[0] >= enough:
            return family
    return best
