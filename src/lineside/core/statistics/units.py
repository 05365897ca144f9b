"""From scored items to scored units: one score and one label per independent unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Outcome
from lineside.core.errors import UserError
from lineside.core.statistics.estimates import Units

Rule = Literal["any", "every"]


@dataclass(frozen=True, kw_only=True)
class Words:
    """What an application calls its units in messages, e.g. faulty and good parts.

    Attributes:
        positive: Adjective of what is to be detected.
        negative: Adjective of everything else.
        unit: One independent unit.
        units: Several of them.
    """

    positive: str = "positive"
    negative: str = "negative"
    unit: str = "unit"
    units: str = "units"

    def of(self, n: int) -> str:
        """Return the word for n units."""
        return self.unit if n == 1 else self.units


NEUTRAL = Words()


@dataclass(frozen=True, kw_only=True)
class UnitScores:
    """One row per unit, in alphabetical order of the units.

    Attributes:
        units: Names, n of them.
        scores: Shape (n,), higher is more positive.
        labels: 1 positive, 0 negative, shape (n,).
        kinds: Kind of the positive, ``""`` for negatives or where it is unknown.
        index: An outcome of each unit, shape (n,).
        usual: False if an item of the unit is unlike those of the calibration (its value ``usual``
            is 0): prediction never accepts such a unit unseen, whatever its score. Shape (n,).
        rule: How the items of a unit were joined.
    """

    units: tuple[str, ...]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    kinds: tuple[str, ...]
    index: NDArray[np.int64]
    usual: NDArray[np.bool_]
    rule: Rule

    @property
    def positive(self) -> NDArray[np.float64]:
        """Scores of the positive units."""
        return np.asarray(self.scores[self.labels == 1], dtype=np.float64)

    @property
    def negative(self) -> NDArray[np.float64]:
        """Scores of the negative units."""
        return np.asarray(self.scores[self.labels == 0], dtype=np.float64)


def unit_scores(outcomes: Sequence[Outcome], rule: Rule = "any") -> UnitScores:
    """Join the items of each unit; labels and scores are joined in the same way.

    ``any``: a unit is positive if any of its items is; its score is the maximum over its items.
    ``every``: a unit is positive only if every item is; its score is the minimum, so it is held
    back only if every item raises an alarm. The guarantee then also holds for a single item.

    Args:
        outcomes: Outcomes whose value has ``score`` and ``label`` (1 positive, 0 negative).
        rule: How production sees a unit; calibrate and use with the same one.

    Raises:
        UserError: if a score or label is missing.
        ValueError: for an unknown rule.
    """
    if rule not in ("any", "every"):
        raise ValueError(f"unknown rule {rule!r}, expected 'any' or 'every'")
    members: dict[str, list[int]] = {}
    for i, outcome in enumerate(outcomes):
        _check(outcome)
        members.setdefault(outcome.unit or outcome.item, []).append(i)
    names = sorted(members)
    rows = [[outcomes[i] for i in members[name]] for name in names]
    joined = [_join(row, rule) for row in rows]
    return UnitScores(
        units=tuple(names),
        scores=np.array([score for score, _ in joined], dtype=np.float64),
        labels=np.array([label for _, label in joined], dtype=np.int64),
        kinds=tuple(
            _kind(row) if label else "" for row, (_, label) in zip(rows, joined, strict=True)
        ),
        index=np.array([members[name][0] for name in names], dtype=np.int64),
        usual=np.array([all(o.value.get("usual", 1.0) for o in row) for row in rows], dtype=bool),
        rule=rule,
    )


def per_unit(rule: Rule = "any") -> Callable[[Sequence[Outcome]], Units]:
    """Return the argument `units` of a `RankMetric` that counts units instead of items."""

    def units(outcomes: Sequence[Outcome]) -> Units:
        try:
            joined = unit_scores(outcomes, rule)
        except UserError:  # a missing score: the metric is undefined, not the program wrong
            nothing = np.array([np.nan])
            return Units(scores=nothing, labels=nothing, index=np.array([0]))
        return Units(
            scores=joined.scores, labels=joined.labels.astype(np.float64), index=joined.index
        )

    return units


def _join(row: Sequence[Outcome], rule: Rule) -> tuple[float, int]:
    scores = [o.value["score"] for o in row]
    labels = [int(o.value["label"]) for o in row]
    if rule == "every":
        return min(scores), min(labels)
    return max(scores), max(labels)


def _kind(row: Sequence[Outcome]) -> str:
    """Return the most frequent kind of the positive items."""
    kinds = Counter(o.slices.get("kind", "") for o in row if o.value["label"] == 1)
    return min(kinds, key=lambda kind: (-kinds[kind], kind)) if kinds else ""


def _check(outcome: Outcome) -> None:
    score = outcome.value.get("score", float("nan"))
    if np.isnan(score):
        raise UserError(f"{outcome.item} has no score", "leave out items that could not be judged")
    if outcome.value.get("label") not in (0.0, 1.0):
        raise UserError(f"{outcome.item} has no label", "label it or leave it out")
