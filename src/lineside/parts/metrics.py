"""The measures of visual inspection: ranking by image and by part, and how well maps find faults.

Pixel measures stream: one pass over the small maps finds the range of scores, a second one counts
pixels in score bins, so memory does not grow with the number or the size of the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.statistics import Ranking, RankMetric, Units, Words, per_unit, proportion
from lineside.parts.models.detector import Mask

Floats = NDArray[np.float64]
Map = NDArray[np.float32]

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
"""Pixels that touch at a corner belong to the same fault."""
THRESHOLDS = 4096
CELLS_PER_MAP = 4096
"""How many values of a map help to place the score bins; the extremes always do."""
SIZE_EDGES_PX = (1, 25, 100, 400, 1600, 6400)


WORDS = Words(positive="faulty", negative="good", unit="part", units="parts")


def _false_rejects_95(ranking: Ranking) -> Floats:
    return ranking.fpr_at_recall(0.95)


def _false_rejects_all(ranking: Ranking) -> Floats:
    return ranking.fpr_at_recall(1.0)


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
    cells: Map, mask: Mask, *, usual: float, threshold: float
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

    Returns:
        A row with the number of good pixels by bin, then one row per fault (8-connected).
    """
    height, width = mask.shape
    scores = to_pixels(cells, (height, width)).astype(np.float64)
    steps = np.arcsinh(8 * (scores - usual) / max(threshold - usual, 1e-12))
    bins = np.floor(BINS_PER_UNIT * steps).astype(np.int64)
    faults, count = ndimage.label(mask, structure=EIGHT_NEIGHBOURS)
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

    NaN where no outcome has a fault with a mask. See `PixelCounts.aupro`.
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
            return np.array(
                [
                    _aupro(*counts, self.limit)
                    for counts in zip(
                        weights @ good, weights @ overlap, weights @ faults, strict=True
                    )
                ]
            )

        return value


def _aupro(good: Floats, overlap: Floats, faults: float, limit: float) -> float:
    if not faults or not good.sum():
        return float("nan")
    fpr = np.append(0.0, np.cumsum(good) / good.sum())
    pro = np.append(0.0, np.cumsum(overlap) / faults)
    return partial_area(fpr, pro, limit) / limit


METRICS: tuple[Metric, ...] = (
    Metric(
        name="image_auroc", unit="fraction", better="higher",
        of=RankMetric(statistic=Ranking.auroc),
        help="Probability that a faulty image scores higher than a good one.",
    ),
    Metric(
        name="image_average_precision", unit="fraction", better="higher",
        of=RankMetric(statistic=Ranking.average_precision),
        help="Mean precision over recall by image; depends on the share of faulty images.",
    ),
    Metric(
        name="part_auroc", unit="fraction", better="higher",
        of=RankMetric(statistic=Ranking.auroc, units=parts),
        help="Probability that a faulty part scores higher than a good one (its worst image).",
    ),
    Metric(
        name="image_false_rejects_at_95_recall", unit="fraction", better="lower",
        of=RankMetric(statistic=_false_rejects_95),
        help="Good images rejected where 95 % of faulty images are found (oracle threshold).",
    ),
    Metric(
        name="image_false_rejects_at_100_recall", unit="fraction", better="lower",
        of=RankMetric(statistic=_false_rejects_all),
        help="Good images rejected where all faulty ones are found: one image decides it.",
    ),
    Metric(
        name="part_false_rejects_at_95_recall", unit="fraction", better="lower",
        of=RankMetric(statistic=_false_rejects_95, units=parts),
        help="Good parts rejected where 95 % of faulty parts are found (oracle threshold).",
    ),
    Metric(
        name="part_false_rejects_at_100_recall", unit="fraction", better="lower",
        of=RankMetric(statistic=_false_rejects_all, units=parts),
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
        """Return the normalised area under the per-region overlap curve up to a pixel FPR.

        Mean overlap of the faults against the share of good pixels called faulty, from (0, 0),
        linear between thresholds and cut linearly at the limit, divided by the limit (Bergmann
        et al. 2021, section 5.2). NaN without faults or good pixels.
        """
        return _aupro(self.good, self.overlap, self.components, limit)

    def average_precision(self) -> float:
        """Return the stepwise average precision of pixels; NaN without faulty ones."""
        return float(self._ranking().average_precision())

    def auroc(self) -> float:
        """Return the area under the pixel ROC curve; NaN without both kinds of pixels."""
        return float(self._ranking().auroc())

    def oracle_f1_max(self) -> float:
        """Return the largest pixel F1, its threshold chosen on the same pixels (an oracle)."""
        true, called = np.cumsum(self.faulty), np.cumsum(self.faulty + self.good)
        return float((2 * true / (called + true[-1])).max()) if true[-1] else float("nan")

    def _ranking(self) -> Ranking:
        return Ranking(
            thresholds=self.thresholds, true=np.cumsum(self.faulty), false=np.cumsum(self.good)
        )


@dataclass(frozen=True, kw_only=True)
class SizeRecall:
    """Share of faults found among those of a size.

    Attributes:
        low_px: Smallest area, inclusive, in pixels.
        high_px: Largest area, exclusive; infinite for the last bin.
        recall: Found faults / faults, with a Clopper-Pearson interval that takes faults as
            independent (several in one part are not: read it as the narrowest one).
    """

    low_px: float
    high_px: float
    recall: Estimate


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


def pixel_average_precision(
    maps: Sequence[Map], masks: Iterable[Mask], thresholds: int = THRESHOLDS
) -> float:
    """Return `PixelCounts.average_precision` of these maps and masks."""
    return pixel_counts(maps, masks, thresholds).average_precision()


def component_recall(
    maps: Iterable[Map],
    masks: Iterable[Mask],
    threshold: float,
    edges_px: Sequence[float] = SIZE_EDGES_PX,
    overlap: float = 0.0,
) -> tuple[SizeRecall, ...]:
    """Return the share of faults found, by their area in pixels.

    Args:
        maps: One map per picture.
        masks: One boolean mask per picture at its resolution.
        threshold: A pixel is called faulty if its score reaches it.
        edges_px: Lower ends of the size bins; the last bin has no upper end.
        overlap: Share of a fault's pixels to be called before it counts as found; with 0 a
            single pixel is enough.
    """
    found = np.zeros(len(edges_px), dtype=np.int64)
    total = np.zeros(len(edges_px), dtype=np.int64)
    for cells, mask in zip(maps, masks, strict=True):
        truth = np.asarray(mask, dtype=bool)
        if not truth.any():
            continue
        called = to_pixels(cells, (truth.shape[0], truth.shape[1])) >= threshold
        named, _ = ndimage.label(truth, structure=EIGHT_NEIGHBOURS)
        area = np.bincount(named[truth])[1:]
        hit = np.bincount(named[truth & called], minlength=len(area) + 1)[1:]
        place = np.searchsorted(edges_px, area, side="right") - 1
        seen = (hit > 0) & (hit >= overlap * area)
        counted = place >= 0
        total += np.bincount(place[counted], minlength=len(edges_px))
        found += np.bincount(place[counted & seen], minlength=len(edges_px))
    ends = [*edges_px[1:], float("inf")]
    return tuple(
        SizeRecall(low_px=low, high_px=high, recall=proportion(int(k), int(n)))
        for low, high, k, n in zip(edges_px, ends, found, total, strict=True)
    )


def partial_area(x: Floats, y: Floats, limit: float) -> float:
    """Return the area under a piecewise linear curve from x = 0 to the limit, x ascending."""
    inside = x <= limit
    # Where x stands still at the limit, the curve is cut after its last point there.
    at_limit = float(np.interp(limit, x, y)) if not (x == limit).any() else float(y[inside][-1])
    return float(np.trapezoid(np.append(y[inside], at_limit), np.append(x[inside], limit)))


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


def _taps(cells: int, pixels: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Map]:
    """Return (cell below, cell above, share of the one above) for each pixel along one axis."""
    centre = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    low = np.floor(centre).astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), (centre - low).astype(np.float32)
