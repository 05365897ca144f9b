"""Numbers of repeated cross-validation with intervals over parts.

A number is the mean over the folds of a split, averaged over the splits. The parts are the same in
every split, so splits are repeated measurements of them and no further evidence: a part is left out
of all splits at once, and n is the number of parts. What the interval leaves out is that other
training parts would have given other models: folds share them, and no unbiased estimate of that
variance exists (Bengio and Grandvalet 2004). `benchmarks.core --only coverage` simulates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.intervals import Interval, jackknife_interval, newcombe_interval
from lineside.core.statistics.ranking import auroc, average_precision, rank
from lineside.parts.data.items import GOOD


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What one method said about the test images of one fold.

    Attributes:
        scores: Shape (image,).
        labels: 1 faulty, 0 good, shape (image,).
        parts: The part of each image.
        kinds: Good or the kind of defect of each image.
        good_only: What the same fit says without its labelled defects, shape (image,); empty for
            methods that learn from good images only, or have no such term.
        aupro30: Of the maps; NaN where they were not made.
        fit_seconds: NaN where it was not measured.
        read_ms: Of each image; empty where it was not measured.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    parts: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    good_only: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    aupro30: float = float("nan")
    fit_seconds: float = float("nan")
    read_ms: tuple[float, ...] = ()

    def images(self, keep: NDArray[np.bool_]) -> Fold:
        """Return the fold with some of its images, shape (image,)."""

        def kept(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for name, k in zip(names, keep, strict=False) if k)

        return replace(
            self, scores=self.scores[keep], labels=self.labels[keep], parts=kept(self.parts),
            kinds=kept(self.kinds), good_only=self.good_only[keep[: len(self.good_only)]],
        )  # fmt: skip


MEASURES = {
    "auroc": auroc,
    "ap": average_precision,
    "frr95": lambda scores, labels: float(rank(scores, labels).fpr_at_recall(0.95)),
    "frr100": lambda scores, labels: float(rank(scores, labels).fpr_at_recall(1.0)),
}


def only_kind(fold: Fold, kind: str) -> Fold:
    """Return a fold with its good images and those of one kind of defect."""
    return fold.images(np.array([k in (GOOD, kind) for k in fold.kinds]))


def without_labels(fold: Fold) -> Fold:
    """Return a fold with the good-only scores of the same fit."""
    return replace(fold, scores=fold.good_only)


def mean_of(found: Sequence[Fold], measure: str) -> float:
    """Return the mean over folds, leaving out folds where the measure is not defined."""
    return float(np.nanmean([value_of(fold, measure) for fold in found]))


def value_of(fold: Fold, measure: str) -> float:
    """Return the measure on one fold; NaN without images of both classes."""
    if not 0 < fold.labels.sum() < fold.labels.size:
        return float("nan")
    return float(MEASURES[measure](fold.scores, fold.labels))


def estimate_of(found: Sequence[Fold], measure: str) -> Estimate:
    """Return the mean over folds and splits with a 95 % interval over parts.

    AUROC takes Newcombe's method 5 around the mean; the others a jackknife over parts.
    """
    value = mean_of(found, measure)
    faulty, good = (_parts(found, label) for label in (1, 0))
    interval: Interval | str
    if measure == "auroc":
        interval, method = newcombe_interval(value, len(faulty), len(good)), "Newcombe 2006"
    elif measure == "frr100":  # the lowest faulty image decides
        interval, method = "an extreme value", ""
    else:
        left_out, strata = _left_out([found], measure)
        interval, method = jackknife_interval(value, left_out, strata, fraction=True), "jackknife"
    return _estimate(
        value, interval, f"mean over folds and splits; {method} over parts, 95 %", found,
        better="lower" if measure.startswith("frr") else "higher",
    )  # fmt: skip


def difference_of(first: Sequence[Fold], second: Sequence[Fold], measure: str) -> Estimate:
    """Return the mean of the first less that of the second on the same folds; jackknife."""
    value = mean_of(first, measure) - mean_of(second, measure)
    left_out, strata = _left_out([first, second], measure)
    interval = jackknife_interval(value, left_out, strata, fraction=False)
    return _estimate(
        value, interval, "mean over folds and splits, paired; jackknife over parts, 95 %", first
    )


def _estimate(
    value: float,
    interval: Interval | str,
    method: str,
    found: Sequence[Fold],
    better: str = "higher",
) -> Estimate:
    low, high = (None, None) if isinstance(interval, str) else interval
    positives = len(_parts(found, 1))
    return Estimate(
        value=value, low=low, high=high, n=len(_parts(found, 1) | _parts(found, 0)),
        positives=positives, method=method, better="lower" if better == "lower" else "higher",
        reason=interval if isinstance(interval, str) else "",
    )  # fmt: skip


def _parts(found: Sequence[Fold], label: int) -> set[str]:
    """Return the parts with an image of this label."""
    return {part for f in found for part, y in zip(f.parts, f.labels, strict=True) if y == label}


def _left_out(
    sides: Sequence[Sequence[Fold]], measure: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the mean, or the difference of two, without each part; and which parts are faulty."""
    faulty = _parts(sides[0], 1)
    names = sorted(faulty | _parts(sides[0], 0))
    means = []
    for found in sides:
        values = np.array([value_of(fold, measure) for fold in found])
        each = np.tile(values, (len(names), 1))  # (part, fold): only a part's own folds change
        for column, fold in enumerate(found):
            held = np.array(fold.parts)
            for row, name in enumerate(names):
                if (keep := held != name).sum() < len(held):
                    each[row, column] = value_of(fold.images(keep), measure)
        means.append(np.nanmean(each, axis=1))
    left_out = means[0] if len(means) == 1 else means[0] - means[1]
    return left_out, np.array([int(name in faulty) for name in names])
