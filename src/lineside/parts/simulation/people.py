"""Who says what about a part: the label on record, and two people who look again."""

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
class Opinions:
    """Labels of one part: on record and by two raters."""

    label: str
    raters: tuple[str, str]


def ask(
    rng: np.random.Generator, truths: Sequence[str], visibility: Sequence[float]
) -> list[Opinions]:
    """Return what the record and two raters say about every part.

    The record is wrong for `MISLABELLED_SHARE` of the parts, rounded: two thirds of these are
    faulty parts taken for good, the faint ones first; the others are good parts taken for faulty.
    Raters miss faint defects more often, confuse kinds that look alike, and do not look at the
    record.

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
        labels[index] = _mistaken(rng)
    return [
        Opinions(
            label=label,
            raters=(
                _opinion(rng, truth, seen / typical, FALSE_ALARM[0]),
                _opinion(rng, truth, seen / typical, FALSE_ALARM[1]),
            ),
        )
        for label, truth, seen in zip(labels, truths, visibility, strict=True)
    ]


def _pick(
    rng: np.random.Generator, indices: Sequence[int], count: int, weights: Sequence[float]
) -> set[int]:
    if not indices:
        return set()
    shares = np.asarray(weights) / np.sum(weights)
    return {int(i) for i in rng.choice(indices, min(count, len(indices)), replace=False, p=shares)}


def _opinion(rng: np.random.Generator, truth: str, clearness: float, false_alarm: float) -> str:
    """Return what one person says; clearness is 1 for the typical defect."""
    chance, confusion = rng.random(2)
    if truth == GOOD:
        return _mistaken(rng) if chance < false_alarm else GOOD
    odds = MISS_AT_MEDIAN / (1 - MISS_AT_MEDIAN) / max(clearness, 1e-3) ** 2
    if chance < odds / (1 + odds):
        return GOOD
    return CONFUSED_WITH[truth] if confusion < OTHER_KIND_SHARE else truth


def _mistaken(rng: np.random.Generator) -> str:
    """Return what a highlight or a mark on a good part is taken for."""
    return str(rng.choice(["bubble", "contamination", "scratch"]))
