"""The distance between two neighbouring staff lines, which sets the scale of everything else.

Columns of a page repeat at one, two, three and four staff spaces, so the autocorrelation along the
columns has peaks there: the spacing whose multiples lie on the highest peaks is the staff space, to
a fraction of a pixel. Run lengths (black and next white run; Fujinaga 2004) count whole pixels and
fail below 9 px; here they only say which peaks to look at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

SMALLEST_PX, LARGEST_PX = 4.0, 64.0
COLUMNS = 400  # columns that are looked at, spread over the page
AROUND = 0.25  # share of the run-length estimate that is searched
STEPS_PER_PX = 100
CANDIDATES = 4
FEWEST_RUNS = 16
LEAST_HEIGHT = 0.02  # of the peaks, in variances of the columns
LINES = 4  # spaces between the five lines of a staff


def staff_space(grey: NDArray[np.uint8]) -> float | None:
    """Return the staff space of a page in pixels; None where no staff lines are found.

    Args:
        grey: Page, shape (height, width), 0 black.
    """
    ink = 255.0 - grey[:, _columns(grey.shape[1])].astype(np.float32)
    candidates = _run_lengths(ink >= _threshold(ink))
    if not candidates:
        return None
    repeated = _autocorrelation(ink, round(LARGEST_PX * (LINES + 1)))
    found = [_refined(repeated, candidate) for candidate in candidates]
    height, spacing = max(found)
    return spacing if height > LEAST_HEIGHT else None


def _columns(width: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, width - 1, min(width, COLUMNS)).astype(np.int64))


def _threshold(ink: NDArray[np.float32]) -> float:
    """Return Otsu's threshold; of an image of two values the upper one."""
    counts = np.bincount(ink.astype(np.uint8).ravel(), minlength=256).astype(float)
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * np.arange(256))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(np.nanargmax(np.nan_to_num(between))) + 1.0


def _run_lengths(dark: NDArray[np.bool_]) -> list[int]:
    """Return the commonest lengths of a black run and the white run below it, in pixels."""
    padded = np.zeros((dark.shape[0] + 2, dark.shape[1]), np.int8)
    padded[1:-1] = dark
    column, row = np.nonzero(np.diff(padded, axis=0).T == 1)  # where black runs begin
    same = np.diff(column) == 0
    lengths = np.diff(row)[same]
    counts = np.bincount(lengths[lengths <= LARGEST_PX].astype(int), minlength=int(LARGEST_PX) + 2)
    counts[: int(SMALLEST_PX)] = 0
    near = counts[:-1] + counts[1:]  # a spacing of 7.5 px has runs of 7 and of 8
    found = []
    for _ in range(CANDIDATES):
        best = int(near.argmax())
        if near[best] < FEWEST_RUNS:
            break
        found.append(best if counts[best] >= counts[best + 1] else best + 1)
        near[max(0, best - 2) : best + 3] = 0
    return found


def _autocorrelation(ink: NDArray[np.float32], lags: int) -> NDArray[np.float64]:
    """Return the mean autocorrelation of the columns at 0, 1 ... pixels, without its trend."""
    height = ink.shape[0]
    centred = ink - ink.mean(axis=0)
    power = np.abs(np.fft.rfft(centred, 2 * height, axis=0)) ** 2
    mean = np.fft.irfft(power.mean(axis=1))[: min(lags, height)]
    return mean / max(mean[0], 1e-9) * height / np.arange(height, height - len(mean), -1)


def _refined(repeated: NDArray[np.float64], candidate: int) -> tuple[float, float]:
    """Return how high the peaks at multiples of the best spacing near a candidate are, and it."""
    low = max(SMALLEST_PX, candidate * (1 - AROUND))
    high = min(LARGEST_PX, candidate * (1 + AROUND))
    spacings = np.arange(low, high, 1 / STEPS_PER_PX)
    multiples = np.arange(1, LINES + 1)[:, None]
    weights = (LINES + 1 - multiples) / (LINES + 1)  # pairs of lines that far apart
    on = map_coordinates(repeated, [multiples * spacings], order=3, mode="nearest")
    halves = np.arange(LINES + 1)[:, None] + 0.5
    between = map_coordinates(repeated, [halves * spacings], order=3, mode="nearest")
    # Against both sides, since text and white space make the whole curve fall or rise.
    heights = ((on - (between[:-1] + between[1:]) / 2) * weights).sum(axis=0)
    best = int(heights.argmax())
    return float(heights[best]), float(spacings[best])
