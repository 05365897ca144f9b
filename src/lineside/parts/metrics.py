"""The measures of visual inspection: ranking by image and by part, and how well maps find faults.

Pixels of a map are counted by score, picture by picture (`map_details`), so that memory does not
grow with the size of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.core.contract import Metric, Outcome
from lineside.core.statistics.estimates import RankMetric, Units, area_under_roc, fpr_at_recall
from lineside.core.statistics.ranking import Ranking
from lineside.core.statistics.units import Words, per_unit
from lineside.parts.models.detector import Mask

Floats = NDArray[np.float64]
Map = NDArray[np.float32]

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner belong to the same fault."""


WORDS = Words(positive="faulty", negative="good", unit="part", units="parts")


def parts(outcomes: Sequence[Outcome]) -> Units:
    """Return one unit per part; none where every part is one image.

    Metrics by part are undefined then, so that a report does not repeat those by image.
    """
    units = per_unit("any")(outcomes)
    if len(units.scores) < len(outcomes):
        return units
    return Units(scores=np.zeros(0), labels=np.zeros(0), index=np.zeros(0, dtype=np.int64))


BINS_PER_UNIT = 64
"""Bins of map scores: about 1.6 % wide, relative to the distance from the usual score."""
AUPRO_LIMIT = 0.30


def map_details(
    cells: Map, mask: Mask, *, usual: float, threshold: float, ignored: Mask | None = None
) -> tuple[dict[str, Any], ...]:
    """Count the pixels of one map by score, for `MapOverlap`.

    A score s falls into bin floor(64 asinh(8 u)) with u = (s - usual) / (threshold - usual):
    even steps around the usual score, steps of even ratio far above it. The bins are the same for
    all maps of a model, so that counts of single images can be added up and resampled.

    Args:
        cells: Anomaly map, shape (rows, columns).
        mask: Where the faults are, shape (height, width) of the picture.
        usual: Score of what is normal, bin 0.
        threshold: Score from which on a place stands out.
        ignored: Pixels that do not count, shape (height, width).

    Returns:
        A row with the number of good pixels by bin, then one row per fault (8-connected).
    """
    height, width = mask.shape
    scores = to_pixels(cells, (height, width)).astype(np.float64)
    steps = np.arcsinh(8 * (scores - usual) / max(threshold - usual, 1e-12))
    bins = np.floor(BINS_PER_UNIT * steps).astype(np.int64)
    if ignored is not None:
        mask = mask & ~ignored
    faults, count = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
    if ignored is not None:
        faults[ignored] = count + 1
    return tuple(
        {"fault": fault, "pixels_by_bin": _count_by_bin(bins[faults == fault])}
        for fault in range(count + 1)
    )


def _count_by_bin(bins: NDArray[np.int64]) -> dict[str, int]:
    values, counts = np.unique(bins, return_counts=True)
    return {str(value): int(n) for value, n in zip(values, counts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class MapOverlap:
    """AUPRO of outcomes whose details are those of `map_details`; others do not count.

    NaN where no outcome has a fault with a mask. See `area_under_overlap`.
    """

    limit: float = AUPRO_LIMIT

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """Return the value on these outcomes."""
        return float(self.weighted(outcomes)(np.ones((1, len(outcomes))))[0])

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        """Return a function from weights (repetitions, outcomes) to values (repetitions,)."""
        rows = [
            (place, row["fault"], {int(b): n for b, n in row["pixels_by_bin"].items()})
            for place, outcome in enumerate(outcomes)
            for row in outcome.details
        ]
        used = sorted({b for _, _, counts in rows for b in counts}, reverse=True)
        column = {b: i for i, b in enumerate(used)}  # the highest score first
        good, overlap = (np.zeros((len(outcomes), len(used))) for _ in range(2))
        faults = np.zeros(len(outcomes))
        for place, fault, counts in rows:
            pixels = sum(counts.values())
            faults[place] += fault > 0
            for b, n in counts.items():
                if fault:
                    overlap[place, column[b]] += n / pixels
                else:
                    good[place, column[b]] += n

        def value(weights: Floats) -> Floats:
            # (repetitions, outcomes) @ (outcomes, bins): counts of each resample by bin
            resamples = zip(weights @ good, weights @ overlap, weights @ faults, strict=True)
            return np.array([area_under_overlap(*counts, self.limit) for counts in resamples])

        return value


def area_under_overlap(good: Floats, overlap: Floats, faults: float, limit: float) -> float:
    """Return the normalised area under the per-region overlap curve up to a pixel FPR (AUPRO).

    Mean overlap of the faults against the share of good pixels called faulty, from (0, 0), linear
    between thresholds and cut linearly at the limit, divided by the limit (Bergmann et al. 2021,
    section 5.2). NaN without faults or good pixels.

    Args:
        good: Good pixels by bin, the highest score first, shape (bins,).
        overlap: Sum over faults of the share of its pixels in the bin, shape (bins,).
        faults: Number of faults.
        limit: Largest share of good pixels.
    """
    if not faults or not good.sum():
        return float("nan")
    fpr = np.append(0.0, np.cumsum(good) / good.sum())
    pro = np.append(0.0, np.cumsum(overlap) / faults)
    return partial_area(fpr, pro, limit) / limit


METRICS: tuple[Metric, ...] = (
    Metric(
        name="image_auroc", unit="fraction", better="higher",
        of=area_under_roc(),
        help="Probability that a faulty image scores higher than a good one.",
    ),
    Metric(
        name="image_average_precision", unit="fraction", better="higher",
        of=RankMetric(statistic=Ranking.average_precision),
        help="Mean precision over recall by image; depends on the share of faulty images.",
    ),
    Metric(
        name="part_auroc", unit="fraction", better="higher",
        of=area_under_roc(parts),
        help="Probability that a faulty part scores higher than a good one (its worst image).",
    ),
    Metric(
        name="image_false_rejects_at_95_recall", unit="fraction", better="lower",
        of=fpr_at_recall(0.95),
        help="Good images rejected where 95 % of faulty images are found (oracle threshold).",
    ),
    Metric(
        name="image_false_rejects_at_100_recall", unit="fraction", better="lower",
        of=fpr_at_recall(1.0),
        help="Good images rejected where all faulty ones are found: one image decides it.",
    ),
    Metric(
        name="part_false_rejects_at_95_recall", unit="fraction", better="lower",
        of=fpr_at_recall(0.95, parts),
        help="Good parts rejected where 95 % of faulty parts are found (oracle threshold).",
    ),
    Metric(
        name="part_false_rejects_at_100_recall", unit="fraction", better="lower",
        of=fpr_at_recall(1.0, parts),
        help="Good parts rejected where all faulty ones are found: one part decides it.",
    ),
    Metric(
        name="map_aupro_30", unit="fraction", better="higher", of=MapOverlap(),
        help="Mean overlap of maps with masked faults, up to 30 % of good pixels (AUPRO@30).",
    ),
)  # fmt: skip
"""Ranking measures over outcomes with ``score`` and ``label`` (1 faulty); the first is primary.

Those by part are NaN where every part is one image.
"""


def to_pixels(cells: Map, shape: tuple[int, int]) -> Map:
    """Return a map at the resolution of its picture, bilinear between cell centres.

    Args:
        cells: Shape (rows, columns); the grid covers the picture exactly.
        shape: (height, width) of the picture in pixels. Beyond the outermost cell centres the
            nearest one counts.
    """
    rows = _taps(cells.shape[0], shape[0])
    columns = _taps(cells.shape[1], shape[1])
    values = np.asarray(cells, dtype=np.float32)
    low, high, part = rows
    values = values[low] + (values[high] - values[low]) * part[:, None]
    low, high, part = columns
    return values[:, low] + (values[:, high] - values[:, low]) * part


def partial_area(x: Floats, y: Floats, limit: float) -> float:
    """Return the area under a piecewise linear curve from x = 0 to the limit, x ascending."""
    inside = x <= limit
    # Where x stands still at the limit, the curve is cut after its last point there.
    at_limit = float(np.interp(limit, x, y)) if not (x == limit).any() else float(y[inside][-1])
    return float(np.trapezoid(np.append(y[inside], at_limit), np.append(x[inside], limit)))


def _taps(cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Map]:
    """Return (cell below, cell above, share of the one above) for each pixel along one axis."""
    centre = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), (centre - low).astype(np.float32)
