"""Features of waveforms themselves, a batch of channels at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TINY = np.float32(1e-12)


def time_features(
    centred: NDArray[np.float32],
    scratch: NDArray[np.float32],
    ones: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write rms, peak, peak to peak, crest, kurtosis, skew, shape, impulse and clearance.

    All but kurtosis (asinh of the excess) and skewness (asinh) are natural logarithms. Sums
    run in parallel lanes, so that float32 keeps four digits or more; samples between 1e-8 and 1e8
    in their unit neither vanish nor overflow.

    Args:
        centred: Samples without their mean, shape (channel, sample).
        scratch: Same shape; overwritten.
        ones: Shape (sample,): a dot product with them is the fastest sum.
        out: Shape (channel, 9).
    """
    count = np.float32(centred.shape[1])
    power = np.maximum(np.vecdot(centred, centred) / count, TINY * TINY).astype(np.float64)
    root = np.sqrt(power)
    np.multiply(centred, centred, out=scratch)
    fourth = np.vecdot(scratch, scratch) / (count * power**2)
    third = np.vecdot(scratch, centred) / (count * power * root)
    top, bottom = centred.max(axis=1), centred.min(axis=1)
    peak = np.maximum(np.maximum(top, -bottom), TINY)
    np.abs(centred, out=scratch)
    mean = np.maximum(np.vecdot(scratch, ones) / count, TINY)
    np.sqrt(scratch, out=scratch)
    spread = np.maximum((np.vecdot(scratch, ones) / count) ** 2, TINY)
    logs = np.log([root, peak, np.maximum(top - bottom, TINY), mean, spread])
    out[:, :3] = logs[:3].T
    out[:, 3] = logs[1] - logs[0]
    out[:, 4] = np.arcsinh(fourth - 3)
    out[:, 5] = np.arcsinh(third)
    out[:, 6] = logs[0] - logs[3]
    out[:, 7] = logs[1] - logs[3]
    out[:, 8] = logs[1] - logs[4]
