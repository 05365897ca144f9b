"""Findings: the regions of a picture above the map threshold, and the size of the defect in them.

A map is coarse: its region is larger than a small defect, up to a hundred times. So the size is
measured in the picture itself, at full resolution, where the defect stands out there:

1. Within the region, grown by 3 px, the grey values of its border are continued smoothly (Laplace's
   equation), channel by channel: what the surface would look like without the defect.
2. z is the distance of the picture (smoothed by 0.7 px) from that, in standard deviations of the
   noise around; of darker and brighter, and of the channels, the one that reaches furthest counts.
3. The defect is the piece around the highest z at the threshold where its area changes least
   (maximally stable region, Matas et al. 2002): an outline that is seen is no matter of the
   threshold.

It is measured only if it is clear (z of 12 or more), stable (its area shrinks by at most 40 % while
the threshold doubles) and fills between 10 and 70 % of the region: a larger defect goes on beyond,
a smaller one is a detail of it. Otherwise the picture does not show the outline, e.g. that of an
uneven surface, and only the region is stated.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.parts.explain.overlays import fine_map
from lineside.parts.metrics import EIGHT_NEIGHBOURS, Map
from lineside.parts.models.detector import Image, Mask

Box = tuple[slice, slice]
Floats = NDArray[np.float64]

MOST_MEASURED = 5
"""Regions of a picture that are measured, the strongest ones; each takes about 3 ms."""
LARGEST_REGION_PX = 4096
LEAST_MARGIN_PX = 16
LEAST_SURROUNDINGS_PX = 64
GROWN_PX = 3
SMOOTH_PX = 0.7
NOISE_FLOOR = 1 / 510
"""Half a grey level: a surface without any noise."""
LEAST_Z, CLEAR_Z = 3.0, 12.0
LEVELS = 0.1 * 8 ** (np.arange(25) / 24)
"""Thresholds relative to the highest z, from 0.1 to 0.8; the one 8 steps on is twice as high."""
STEPS = 4
MOST_SHRINKAGE = 0.4
SHARES = (0.1, 0.7)
LEAST_PX = 9


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A connected region of a picture whose evidence reaches the threshold.

    Attributes:
        region_px: Pixels of the region of evidence; the defect in it may be far smaller.
        area_px: Measured pixels of the defect, None where its outline is not to be seen.
        box: (left, top, right, bottom) of the region in pixels, right and bottom exclusive.
        centroid: (x, y) of the region in pixels; a whole number is the middle of a pixel.
        peak: Highest evidence in the region.
        area_mm2: Measured area in square millimetres, None if it or the scale is unknown.
        length_mm: Diagonal of the defect's box in millimetres, None if it or the scale is unknown.
    """

    region_px: int
    area_px: int | None
    box: tuple[int, int, int, int]
    centroid: tuple[float, float]
    peak: float
    area_mm2: float | None = None
    length_mm: float | None = None


def findings(
    cells: Map, image: Image, threshold: float, px_per_mm: float | None = None
) -> list[Finding]:
    """Return the regions of a map that reach a threshold, highest peak first, however small.

    Args:
        cells: Shape (rows, columns); the grid covers the picture exactly.
        image: The picture, shape (height, width, 1 or 3).
        threshold: Pixels from this evidence on belong to a region; corners connect.
        px_per_mm: Pixels per millimetre, to state sizes in millimetres.
    """
    if not (np.asarray(cells) >= threshold).any():
        return []
    evidence = fine_map(cells, (image.shape[0], image.shape[1]), threshold)
    named, _ = ndimage.label(evidence >= threshold, structure=EIGHT_NEIGHBOURS)
    boxes = ndimage.find_objects(named)
    peaks = np.array(
        [evidence[box][named[box] == number].max() for number, box in enumerate(boxes, 1)]
    )
    found = []
    for place, index in enumerate(np.argsort(-peaks, kind="stable")):
        number, box = int(index) + 1, boxes[index]
        rows, columns = np.nonzero(named[box] == number)
        top, left = box[0].start, box[1].start
        defect = segment(image, named, number, box) if place < MOST_MEASURED else None
        area = None if defect is None else int(defect.sum())
        found.append(
            Finding(
                region_px=len(rows),
                area_px=area,
                box=(left, top, box[1].stop, box[0].stop),
                centroid=(float(columns.mean() + left), float(rows.mean() + top)),
                peak=float(peaks[index]),
                area_mm2=area / px_per_mm**2 if area and px_per_mm else None,
                length_mm=_diagonal(defect) / px_per_mm
                if defect is not None and px_per_mm
                else None,
            )
        )
    return found


def segment(image: Image, named: NDArray[np.integer], number: int, box: Box) -> Mask | None:
    """Return where the defect of one region is, or None where its outline is not to be seen.

    Args:
        image: The picture, shape (height, width, channel).
        named: Number of the region of each pixel, 0 outside of all, shape (height, width).
        number: The region.
        box: Its box.

    Returns:
        Shape of the box of the region grown by 3 px, cut at the border of the picture.
    """
    margin = max(LEAST_MARGIN_PX, *((side.stop - side.start) // 2 for side in box))
    grown = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in box)
    region, around = named[grown] == number, named[grown] == 0
    least = max(LEAST_PX, SHARES[0] * region.sum())
    if region.sum() > LARGEST_REGION_PX or around.sum() < LEAST_SURROUNDINGS_PX:
        return None
    wide = ndimage.binary_dilation(region, EIGHT_NEIGHBOURS, iterations=GROWN_PX)
    region = wide & (region | around)
    z = max(_distances(image[grown], region, around), key=np.max)
    if not z.max() >= CLEAR_Z:
        return None
    levels = z.max() * LEVELS
    pieces = _pieces(z, levels)
    areas = pieces.sum((1, 2)).astype(np.float64)
    # area lost from a level 4 steps below to one 4 steps above: the threshold doubles
    shrinkage = (areas[: -2 * STEPS] - areas[2 * STEPS :]) / areas[STEPS:-STEPS]
    usable = (levels[: -2 * STEPS] >= LEAST_Z) & (areas[: -2 * STEPS] <= SHARES[1] * region.sum())
    if not usable.any():
        return None
    best = int(np.where(usable, shrinkage, np.inf).argmin())
    area = areas[best + STEPS]
    stable = shrinkage[best] <= MOST_SHRINKAGE
    return pieces[best + STEPS] if stable and area >= least else None


def _distances(window: Image, region: Mask, around: Mask) -> Iterable[Floats]:
    """Return z of brighter and of darker pixels for each channel, within the region's box.

    Pixels of the box that are not in the region have 0.
    """
    channels = np.moveaxis(window.astype(np.float64), -1, 0)
    smooth = np.stack([ndimage.gaussian_filter(channel, SMOOTH_PX) for channel in channels])
    (box,) = ndimage.find_objects(region.astype(np.int8))
    rest = (smooth - _interpolate(smooth, region))[:, *box]
    for channel, difference in zip(channels, rest, strict=True):
        noise = np.abs(channel - ndimage.gaussian_filter(channel, 1.0))[around]
        z = difference / max(1.4826 * float(np.median(noise)), NOISE_FLOOR)
        yield z
        yield -z


def _interpolate(values: Floats, region: Mask) -> Floats:
    """Return values whose region is continued from its border: each is the mean of its neighbours.

    The pixels of the region are numbered along its shorter side, so that neighbours have near
    numbers: the equations (symmetric, positive definite) are a narrow band.

    Args:
        values: Shape (channel, rows, columns).
        region: What is filled in, shape (rows, columns), not all of them; neighbours are the four
            beside a pixel.
    """
    from scipy.linalg import solveh_banded

    rows, columns = np.nonzero(region)
    if np.ptp(columns) > np.ptp(rows):
        return _interpolate(values.swapaxes(1, 2), region.T).swapaxes(1, 2)
    number = np.full(region.shape, -1)
    number[region] = np.arange(len(rows))
    border, neighbours = np.zeros((len(rows), len(values))), np.zeros(len(rows))
    after = []  # (unknown beside it and after it, unknown)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = rows + down, columns + right
        exists = (y >= 0) & (x >= 0) & (y < region.shape[0]) & (x < region.shape[1])
        y, x = np.where(exists, y, rows), np.where(exists, x, columns)
        unknown = exists & region[y, x]
        known = exists & ~unknown
        border[known] += values[:, y[known], x[known]].T
        neighbours += exists
        if down + right > 0:
            after.append(np.stack([number[y, x][unknown], np.flatnonzero(unknown)]))
    i, j = np.concatenate(after, axis=1)
    # lower form of a band: row d holds the entries (j + d, j)
    band = np.zeros((int((i - j).max(initial=0)) + 1, len(rows)))
    band[0] = neighbours
    band[i - j, j] = -1
    filled = values.copy()
    filled[:, region] = solveh_banded(band, border, lower=True, check_finite=False).T
    return filled


def _pieces(z: Floats, levels: Floats) -> NDArray[np.bool_]:
    """Return the piece around the highest z from each level on, (level, rows, columns)."""
    within = np.zeros((3, 3, 3), dtype=bool)  # levels do not connect
    within[1] = EIGHT_NEIGHBOURS
    named, _ = ndimage.label(z >= levels[:, None, None], structure=within)
    row, column = np.unravel_index(z.argmax(), z.shape)
    pieces: NDArray[np.bool_] = named == named[:, row, column, None, None]
    return pieces


def _diagonal(mask: Mask) -> float:
    rows, columns = np.nonzero(mask)
    return math.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
