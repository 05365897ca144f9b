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
"""Regions of a picture that are measured, the strongest ones; each takes about 10 ms."""
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
    named, count = ndimage.label(evidence >= threshold, structure=EIGHT_NEIGHBOURS)
    boxes = ndimage.find_objects(named)
    peaks = ndimage.maximum(evidence, named, range(1, count + 1))
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
        Shape of the region's box, grown by its surroundings and cut at the border of the picture.
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
    levels = z.max() * LEVELS
    pieces = [_piece(z >= level, np.unravel_index(z.argmax(), z.shape)) for level in levels]
    areas = np.array([piece.sum() for piece in pieces], dtype=np.float64)
    # area lost from a level 4 steps below to one 4 steps above: the threshold doubles
    shrinkage = (areas[: -2 * STEPS] - areas[2 * STEPS :]) / areas[STEPS:-STEPS]
    usable = (levels[: -2 * STEPS] >= LEAST_Z) & (areas[: -2 * STEPS] <= SHARES[1] * region.sum())
    if not usable.any():
        return None
    best = int(np.where(usable, shrinkage, np.inf).argmin())
    area = areas[best + STEPS]
    stable = shrinkage[best] <= MOST_SHRINKAGE
    return pieces[best + STEPS] if z.max() >= CLEAR_Z and stable and area >= least else None


def _distances(window: Image, region: Mask, around: Mask) -> Iterable[Floats]:
    """Return z of brighter and of darker pixels for each channel, 0 outside of the region."""
    for channel in np.moveaxis(window.astype(np.float64), -1, 0):
        noise = np.abs(channel - ndimage.gaussian_filter(channel, 1.0))[around]
        spread = max(1.4826 * float(np.median(noise)), NOISE_FLOOR)
        values = ndimage.gaussian_filter(channel, SMOOTH_PX)
        z = (values - _interpolate(values, region)) / spread
        yield z
        yield -z


def _interpolate(values: Floats, region: Mask) -> Floats:
    """Return values whose region is continued from its border: each is the mean of its neighbours.

    Args:
        values: Shape (rows, columns).
        region: What is filled in; neighbours are the four beside a pixel.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    count = int(region.sum())
    index = np.full(region.shape, -1)
    index[region] = np.arange(count)
    rows, columns = np.nonzero(region)
    border, neighbours = np.zeros(count), np.zeros(count)
    places = []  # (unknown, unknown beside it)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = rows + down, columns + right
        exists = (y >= 0) & (x >= 0) & (y < region.shape[0]) & (x < region.shape[1])
        y, x = np.where(exists, y, rows), np.where(exists, x, columns)
        unknown = exists & region[y, x]
        border += np.where(exists & ~unknown, values[y, x], 0)
        neighbours += exists
        places.append(np.stack([np.flatnonzero(unknown), index[y, x][unknown]]))
    beside = np.concatenate(places, axis=1)
    diagonal = np.stack([np.arange(count)] * 2)
    weights = np.concatenate([-np.ones(beside.shape[1]), neighbours])
    i, j = np.concatenate([beside, diagonal], axis=1)
    filled = values.copy()
    filled[region] = spsolve(coo_array((weights, (i, j)), shape=(count, count)).tocsc(), border)
    return filled


def _piece(mask: Mask, place: tuple[np.intp, ...]) -> Mask:
    """Return the connected piece of a mask that holds a place."""
    pieces, _ = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
    piece: Mask = pieces == pieces[place]
    return piece


def _diagonal(mask: Mask) -> float:
    rows, columns = np.nonzero(mask)
    return math.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)
