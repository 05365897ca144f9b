"""Simulated labels: the label on record, with errors, and the labels of two raters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineside.parts.data.items import GOOD

MISLABELLED_SHARE = 0.03
"""Share of the parts whose label on record is wrong."""
MISS_AT_MEDIAN = 0.07
FALSE_ALARM = (0.02, 0.05)
OTHER_KIND_SHARE = 0.06
CONFUSED_WITH = {
    "bubble": "contamination",
    "contamination": "bubble",
    "scratch": "crack",
    "crack": "scratch",
    "fold": "scratch",
}


@dataclass(frozen=True, kw_only=True)
class PartLabels:
    """Labels of one part: on record and by two raters."""

    label: str
    raters: tuple[str, ...]


def simulate_labels(
    rng: np.random.Generator, truths: Sequence[str], visibility: Sequence[float]
) -> list[PartLabels]:
    """Return the label on record and the labels of two raters for every part.

    The record is wrong for `MISLABELLED_SHARE` of the parts, rounded: two thirds of these are
    faulty parts labelled good, the faint ones first; the others are good parts labelled faulty.
    Raters miss faint defects more often, confuse similar kinds, and do not know
    the record.

    Args:
        rng: Draws all errors.
        truths: ``"good"`` or the kind of defect by part.
        visibility: Contrast times root of the area by part, any unit; ignored for good parts.
    """
    faulty = [i for i, truth in enumerate(truths) if truth != GOOD]
    good = [i for i, truth in enumerate(truths) if truth == GOOD]
    typical = float(np.median([visibility[i] for i in faulty])) if faulty else 1.0
    wrong = round(MISLABELLED_SHARE * len(truths))
    missed = _pick(rng, faulty, round(wrong * 2 / 3), [1 / visibility[i] ** 2 for i in faulty])
    alarmed = _pick(rng, good, wrong - len(missed), [1.0] * len(good))
    labels = [GOOD if i in missed else truth for i, truth in enumerate(truths)]
    for index in alarmed:
        labels[index] = _false_kind(rng)
    return [
        PartLabels(
            label=label,
            raters=tuple(_rate(rng, truth, contrast / typical, rate) for rate in FALSE_ALARM),
        )
        for label, truth, contrast in zip(labels, truths, visibility, strict=True)
    ]


def _pick(
    rng: np.random.Generator, indices: Sequence[int], count: int, weights: Sequence[float]
) -> set[int]:
    if not indices:
        return set()
    shares = np.asarray(weights) / np.sum(weights)
    return {int(i) for i in rng.choice(indices, min(count, len(indices)), replace=False, p=shares)}


def _rate(rng: np.random.Generator, truth: str, clearness: float, false_alarm: float) -> str:
    """Return one rater's label; clearness is 1 for the typical defect."""
    chance, confusion = rng.random(2)
    if truth == GOOD:
        return _false_kind(rng) if chance < false_alarm else GOOD
    odds = MISS_AT_MEDIAN / (1 - MISS_AT_MEDIAN) / max(clearness, 1e-3) ** 2
    if chance < odds / (1 + odds):
        return GOOD
    return CONFUSED_WITH[truth] if confusion < OTHER_KIND_SHARE else truth


def _false_kind(rng: np.random.Generator) -> str:
    """Return the kind that a highlight or a mark on a good part is mistaken for."""
    return str(rng.choice(["bubble", "contamination", "scratch"]))
