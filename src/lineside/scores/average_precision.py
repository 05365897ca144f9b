"""Average precision of detected symbols by class.

VOC all-point interpolation; detections are matched to symbols of their class one to one, in the
order of falling confidence, each to the free symbol that it overlaps most (Everingham et al. 2010,
section 4.2; all points as in the development kit of 2010). Classes without a symbol in the test set
are left out. Two means are quoted: over classes, and over symbols (weighted by frequency).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]
Likeness = Callable[[Boxes, Boxes], NDArray[np.floating]]
"""Takes boxes (a, 4) and (b, 4) to numbers (a, b) that are higher the better two agree."""


@dataclass(frozen=True, kw_only=True)
class PageSymbols:
    """Symbols of one page: boxes (symbol, 4), class numbers and confidences."""

    boxes: Boxes
    classes: NDArray[np.integer]
    confidences: NDArray[np.floating]


def iou(a: Boxes, b: Boxes) -> NDArray[np.floating]:
    """Return the intersection over union of boxes (a, 4) and (b, 4), shape (a, b)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.clip(high - low, 0.0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)


def matched(
    found: PageSymbols, truth: PageSymbols, threshold: float, likeness: Likeness = iou
) -> NDArray[np.bool_]:
    """Say which detections of a page are right; of one class, see the module."""
    right = np.zeros(len(found.boxes), bool)
    for c in np.unique(found.classes):
        mine, theirs = np.flatnonzero(found.classes == c), np.flatnonzero(truth.classes == c)
        if not len(theirs):
            continue
        agreement = likeness(found.boxes[mine], truth.boxes[theirs])
        for row in np.argsort(-found.confidences[mine], kind="stable"):
            best = int(agreement[row].argmax())
            if agreement[row, best] >= threshold:
                right[mine[row]] = True
                agreement[:, best] = -np.inf
    return right


def average_precisions(
    pages: Sequence[tuple[PageSymbols, PageSymbols]], threshold: float, likeness: Likeness = iou
) -> dict[int, tuple[float, int]]:
    """Return average precision and number of symbols by class number.

    Args:
        pages: What was found, and the truth, of each page.
        threshold: Likeness at which a detection is right, e.g. an IoU of 0.5.
        likeness: Of two boxes.
    """
    if not pages:
        return {}
    right = np.concatenate([matched(found, truth, threshold, likeness) for found, truth in pages])
    classes = np.concatenate([found.classes for found, _ in pages])
    confidences = np.concatenate([found.confidences for found, _ in pages])
    counts = np.bincount(np.concatenate([truth.classes for _, truth in pages]).astype(int))
    return {
        int(c): (
            area_under(confidences[classes == c], right[classes == c], int(counts[c])),
            int(counts[c]),
        )
        for c in np.flatnonzero(counts)
    }


def area_under(
    confidences: NDArray[np.floating], right: NDArray[np.bool_], positives: int
) -> float:
    """Return the area under precision over recall, with precision made monotone."""
    order = np.argsort(-confidences, kind="stable")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = hits / positives
    return float(np.sum(precision * np.diff(recall, prepend=0.0)))
