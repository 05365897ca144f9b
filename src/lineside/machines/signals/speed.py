"""Shaft speed from the comb of its harmonics, and the plausibility of a stated speed.

The score of a speed f is the mean log height of the lines at f, 2f ... 6f over the running median
of the amplitude spectrum. A speed must show its own line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.signals.spectra import FINENESS, over_background

Curve = NDArray[np.float64]
HARMONICS = np.arange(1, 7)
BACKGROUND_BINS = 61
LINE = 5.0
"""Height over the background from which on a peak counts as a line."""
CAP = 30.0
"""Upper bound on a height: a single large line is no comb."""
SAME = 0.03
"""Speeds that differ by less are the same: stated speeds are nominal, motors slip."""
SEARCH = 3.0
"""Other speeds are searched between a third and three times the stated one."""
MIN_LINES = 3
CONFIDENT = 0.25
MULTIPLES = (1 / 3, 1 / 2, 2 / 3, 1.0, 3 / 2, 2.0, 3.0)


@dataclass(frozen=True, kw_only=True)
class SpeedEstimate:
    """The speed whose harmonics stand out most.

    Attributes:
        hz: Shaft speed, turns per second.
        confidence: 0 to 1: (1 - score of the best unrelated speed / score) times the share of
            harmonics that are lines.
        heights: Height of the first six harmonics over the background.
    """

    hz: float
    confidence: float
    heights: tuple[float, ...]

    @property
    def lines(self) -> int:
        """Number of harmonics that are lines."""
        return sum(height > LINE for height in self.heights)


def estimate_speed(measurement: Measurement, low_hz: float, high_hz: float) -> SpeedEstimate | None:
    """Return the shaft speed between two limits whose harmonics stand highest together.

    None if no channel is long enough to resolve speeds (ten turns at the lowest speed).

    Args:
        measurement: Its channels are averaged.
        low_hz: Slowest speed to consider.
        high_hz: Fastest.
    """
    spectra = [
        line_heights(channel, HARMONICS[-1] * high_hz * 1.05)
        for channel in measurement.channels.values()
        if len(channel.samples) / channel.rate_hz * low_hz >= 10
    ]
    if not spectra:
        return None
    step = min(hz[1] for hz, _ in spectra) / HARMONICS[-1]
    grid = np.arange(low_hz, high_hz + step, step)
    # (channel, harmonic, speed) -> (harmonic, speed)
    logs = np.mean([_comb(hz, heights, grid) for hz, heights in spectra], axis=0)
    scores = logs.mean(axis=0) * (logs[0] > np.log(LINE))
    best = int(np.argmax(scores))
    if scores[best] <= 0:
        return SpeedEstimate(hz=float(grid[best]), confidence=0.0, heights=(1.0,) * len(logs))
    related = np.zeros(len(grid), dtype=bool)
    for multiple in MULTIPLES:
        related |= np.abs(grid / (multiple * grid[best]) - 1) < SAME
    runner_up = float(scores[~related].max(initial=0.0))
    heights = tuple(float(height) for height in np.exp(logs[:, best]))
    lines = sum(height > LINE for height in heights)
    confidence = (1 - runner_up / scores[best]) * lines / len(HARMONICS)
    return SpeedEstimate(hz=float(grid[best]), confidence=float(confidence), heights=heights)


def speed_contradiction(measurement: Measurement, stated_hz: float) -> str:
    """Return one sentence if the spectrum contradicts a stated speed, otherwise "".

    It takes a comb of harmonics of another speed, and the absence of the stated speed's own line
    and its odd harmonics, which distinguish a speed from its half or double. The estimate is
    reported, never used in place of the stated speed.

    Args:
        measurement: One snapshot.
        stated_hz: Stated shaft speed, turns per second.
    """
    if stated_hz <= 0:
        return ""
    estimate = estimate_speed(measurement, stated_hz / SEARCH, stated_hz * SEARCH)
    if estimate is None or estimate.lines < MIN_LINES or estimate.confidence < CONFIDENT:
        return ""
    if abs(estimate.hz / stated_hz - 1) < SAME or _has_lines(measurement, stated_hz):
        return ""
    return (
        f"the stated speed of {stated_hz:.2f} Hz has no line in the spectrum, but {estimate.lines} "
        f"of {len(HARMONICS)} harmonics of {estimate.hz:.2f} Hz stand out: the stated speed is "
        "doubtful and is not used"
    )


def line_heights(channel: Channel, top_hz: float) -> tuple[Curve, Curve]:
    """Return frequencies up to `top_hz` and the amplitude over its running median.

    Hann window, zero-padded to `FINENESS` points per resolution; the median is taken at the true
    resolution and interpolated.
    """
    samples = np.asarray(channel.samples, dtype=np.float64)
    samples = np.nan_to_num(samples - np.nanmean(samples))
    window = np.hanning(len(samples) + 1)[:-1]
    size = fft.next_fast_len(FINENESS * len(samples), real=True)
    amplitude = np.abs(fft.rfft(samples * window, size))
    hz = fft.rfftfreq(size, 1 / channel.rate_hz)
    inside = slice(0, int(np.searchsorted(hz, top_hz)) + BACKGROUND_BINS * FINENESS)
    amplitude, hz = amplitude[inside], hz[inside]
    return hz, over_background(hz, amplitude, BACKGROUND_BINS)


def _comb(hz: Curve, heights: Curve, grid: Curve) -> Curve:
    """Return the log height of every harmonic of every speed, shape (harmonic, speed)."""
    harmonics_hz = np.outer(HARMONICS, grid)
    return np.log(np.clip(np.interp(harmonics_hz, hz, heights, right=1.0), 1.0, CAP))


def _has_lines(measurement: Measurement, stated_hz: float) -> bool:
    """Return whether the stated speed has its own line, or two of its odd harmonics."""
    for channel in measurement.channels.values():
        hz, heights = line_heights(channel, 6 * stated_hz)
        odd = []
        for harmonic in (1, 3, 5):
            near = np.abs(hz / (harmonic * stated_hz) - 1) < SAME / harmonic
            odd.append(heights[near].max(initial=0.0) > LINE)
        if odd[0] or sum(odd) > 1:
            return True
    return False
