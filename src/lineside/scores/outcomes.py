"""What a model found on pages whose symbols are known, and thresholds that follow from it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Outcome
from lineside.scores.average_precision import PageSymbols, matched
from lineside.scores.config import Config
from lineside.scores.data.dataset import PageItem
from lineside.scores.engraving.page import read_page
from lineside.scores.metrics import IOUS
from lineside.scores.model import ScoresModel, Thresholds
from lineside.scores.models.watershed.targets import CLASSES, Drawing

FEWEST = 20
"""Symbols of a class on the calibration pages below which it shares a threshold with others."""


def outcomes(model: ScoresModel, items: Sequence[PageItem]) -> Iterator[Outcome]:
    """Yield one outcome per page: for each class its symbols, and what was found, surest first.

    A row of `details` has ``class``, ``count`` (symbols on the page), ``confidences`` and
    ``right``: at how many of the thresholds of IoU (0.5, 0.55 ... 0.95) each detection is right.
    """
    for item in items:
        begin = time.perf_counter()
        read = model.read(item)
        seconds = time.perf_counter() - begin
        drawing = Drawing(read_page(item.truth).symbols)
        truth = PageSymbols(
            boxes=drawing.boxes, classes=drawing.classes,
            confidences=np.ones(len(drawing.classes)),
        )  # fmt: skip
        found = PageSymbols(
            boxes=read.boxes, classes=read.found.classes, confidences=read.found.confidences
        )
        right = np.sum([matched(found, truth, iou) for iou in IOUS], axis=0)
        believed = model.believed(read.found)
        hits = int((believed & (right > 0)).sum())
        yield Outcome(
            item=item.id,
            groups=item.groups,
            slices={"engraver": item.label},
            value={
                "symbols": float(len(truth.classes)),
                "believed": float(believed.sum()),
                "hits": float(hits),
                "ms": 1000 * seconds,
            },
            details=tuple(_row(c, truth, found, right) for c in _classes(truth, found)),
        )


def _classes(truth: PageSymbols, found: PageSymbols) -> NDArray[np.integer]:
    return np.union1d(truth.classes, found.classes)


def _row(
    c: int, truth: PageSymbols, found: PageSymbols, right: NDArray[np.integer]
) -> dict[str, Any]:
    mine = np.flatnonzero(found.classes == c)
    mine = mine[np.argsort(-found.confidences[mine], kind="stable")]
    return {
        "class": CLASSES[c],
        "count": int((truth.classes == c).sum()),
        "confidences": [round(float(value), 5) for value in found.confidences[mine]],
        "right": [int(value) for value in right[mine]],
    }


def calibrate(model: ScoresModel, pages: Sequence[Outcome], config: Config) -> ScoresModel:
    """Choose for each class the highest confidence above which few enough symbols are missed.

    A symbol that was not found at any confidence is missed whatever the threshold; where these
    alone are more than the config allows, everything that was found is believed.
    """
    by_class: dict[str, list[tuple[int, list[float]]]] = {}
    for page in pages:
        for row in page.details:
            hits = [c for c, r in zip(row["confidences"], row["right"], strict=True) if r]
            by_class.setdefault(row["class"], []).append((row["count"], hits))
    chosen, missed, rest = {}, {}, []
    for name, rows in sorted(by_class.items()):
        count, hits = sum(n for n, _ in rows), [c for _, found in rows for c in found]
        if count >= FEWEST:
            chosen[name], missed[name] = threshold(hits, count, config.max_miss)
        else:
            rest.append((count, hits))
    together = [c for _, hits in rest for c in hits]
    other, _ = threshold(together, max(1, sum(n for n, _ in rest)), config.max_miss)
    thresholds = Thresholds(by_class=chosen, other=other, max_miss=config.max_miss, missed=missed)
    return dataclasses.replace(model, thresholds=thresholds)


def threshold(hits: Sequence[float], count: int, max_miss: float) -> tuple[float, float]:
    """Return the highest threshold that misses at most a share of the symbols, and that share.

    Args:
        hits: Confidences of the symbols that were found.
        count: Number of symbols.
        max_miss: Share that may be missed.
    """
    ordered = sorted(hits, reverse=True)
    needed = min(len(ordered), int(np.ceil((1 - max_miss) * count - 1e-9)))
    if not needed:
        return 0.0, 1.0
    return ordered[needed - 1], 1.0 - needed / count
