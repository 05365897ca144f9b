"""Features of one waveform itself."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

TINY = 1e-12


def time_features(
    centred: NDArray[np.float32], scratch: NDArray[np.float32], ones: NDArray[np.float32]
) -> tuple[float, ...]:
    """Return rms, peak, peak to peak, crest, excess kurtosis, skew, shape, impulse, clearance.

    One row with its scratch stays in the processor's cache, several rows do not. Sums run in
    parallel lanes, so that float32 keeps four digits or more; samples between 1e-8 and 1e8 in
    their unit neither vanish nor overflow.

    Args:
        centred: Samples without their mean, shape (sample,).
        scratch: Same shape; overwritten.
        ones: Same shape: a dot product with them is the fastest sum.
    """
    count = len(centred)
    power = max(float(centred.dot(centred)) / count, TINY * TINY)
    rms = math.sqrt(power)
    np.square(centred, out=scratch)
    third = float(scratch.dot(centred)) / (count * power * rms)
    fourth = float(scratch.dot(scratch)) / (count * power * power)
    np.abs(centred, out=scratch)
    np.sqrt(scratch, out=scratch)
    # A dot product does not depend on where in memory its rows begin, as the BLAS's sum does.
    mean = max(float(scratch.dot(scratch)) / count, TINY)
    spread = max((float(scratch.dot(ones)) / count) ** 2, TINY)
    top, bottom = float(np.maximum.reduce(centred)), float(np.minimum.reduce(centred))
    peak = max(top, -bottom, TINY)
    return (
        rms, peak, max(top - bottom, TINY), peak / rms, fourth - 3, third, rms / mean,
        peak / mean, peak / spread,
    )  # fmt: skip
