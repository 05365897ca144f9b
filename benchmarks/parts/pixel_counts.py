"""AUPRO of many full-resolution maps: pixels counted by score in one pass over the maps.

One pass over the small maps finds the range of scores, a second one counts pixels in score bins, so
memory does not grow with the number or the size of the pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lineside.parts.metrics import EIGHT_NEIGHBOURS, Floats, Map, area_under_overlap, to_pixels
from lineside.parts.models.detector import Mask

THRESHOLDS = 4096
CELLS_PER_MAP = 4096
"""Values of a map that help to place the score bins; the extremes always do."""


@dataclass(frozen=True, kw_only=True)
class PixelCounts:
    """Pixels per score bin over all pictures, bins from the highest score downwards.

    Attributes:
        thresholds: Lower ends of the bins, shape (k,).
        good: Pixels outside every fault, shape (k,).
        faulty: Pixels inside faults, shape (k,).
        overlap: Sum over faults of the share of its pixels in the bin, shape (k,).
        components: Number of faults (8-connected components of the masks).
    """

    thresholds: Floats
    good: Floats
    faulty: Floats
    overlap: Floats
    components: int

    def aupro(self, limit: float = 0.30) -> float:
        """Return the AUPRO up to a pixel FPR, see `area_under_overlap`."""
        return area_under_overlap(self.good, self.overlap, self.components, limit)


def pixel_counts(
    maps: Sequence[Map], masks: Iterable[Mask], thresholds: int = THRESHOLDS
) -> PixelCounts:
    """Count pixels by score over all pictures, good ones included.

    Args:
        maps: One map per picture, any resolution; read twice, so a lazy sequence works.
        masks: One boolean mask per picture at its resolution, all False for a good one.
        thresholds: Number of score bins (about); half of them lie evenly in rank with ever finer
            steps towards the highest scores, half evenly in score.

    Raises:
        ValueError: if the numbers differ, there are none, or a map is not finite.
    """
    edges = _edges(maps, thresholds)
    good, faulty, overlap = (np.zeros(len(edges)) for _ in range(3))
    components = 0
    for cells, mask in zip(maps, masks, strict=True):
        truth = np.asarray(mask, dtype=bool)
        scores = to_pixels(cells, (truth.shape[0], truth.shape[1]))
        # Bilinear rounding may fall below the lowest edge by one unit in the last place.
        place = np.maximum(np.searchsorted(edges, scores, side="right") - 1, 0)
        good += np.bincount(place[~truth], minlength=len(edges))
        if truth.any():
            named, count = ndimage.label(truth, structure=EIGHT_NEIGHBOURS)
            inside, owner = place[truth], named[truth]
            share = 1 / np.bincount(owner)[1:][owner - 1]
            faulty += np.bincount(inside, minlength=len(edges))
            overlap += np.bincount(inside, weights=share, minlength=len(edges))
            components += count
    down = slice(None, None, -1)
    return PixelCounts(
        thresholds=edges[down], good=good[down], faulty=faulty[down], overlap=overlap[down],
        components=components,
    )  # fmt: skip


def aupro(
    maps: Sequence[Map], masks: Iterable[Mask], limit: float = 0.30, thresholds: int = THRESHOLDS
) -> float:
    """Return `PixelCounts.aupro` of these maps and masks."""
    return pixel_counts(maps, masks, thresholds).aupro(limit)


def _edges(maps: Sequence[Map], thresholds: int) -> Floats:
    """Return ascending lower ends of score bins."""
    values = []
    for cells in maps:
        flat = np.asarray(cells, dtype=np.float32).ravel()
        if not np.isfinite(flat).all():
            raise ValueError("a map has values that are not finite")
        step = -(-len(flat) // CELLS_PER_MAP)
        values += [flat[::step], np.array([flat.min(), flat.max()])]
    if not values:
        raise ValueError("there are no maps")
    pooled = np.concatenate(values).astype(np.float64)
    quarter = max(2, thresholds // 4)
    tail = 1 - np.geomspace(1, 1e-6, quarter)
    return np.unique(
        np.concatenate(
            [
                np.quantile(pooled, np.linspace(0, 1, quarter)),
                np.quantile(pooled, tail),
                np.linspace(pooled.min(), pooled.max(), 2 * quarter),
            ]
        )
    )
