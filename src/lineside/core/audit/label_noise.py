"""Doubtful labels: items that look like their neighbours but are labelled otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.checks import MOST_ITEMS
from lineside.core.audit.outliers import robust_scores
from lineside.core.audit.shortcuts import Bools, Floats, enough_groups, members_of, too_few
from lineside.core.contract import Check

NEIGHBOURS = 10
BLOCK_ROWS = 512
EXCHANGED = 0.03
"""Share of the groups whose label is exchanged to see whether that is noticed."""
LEAST_FOUND = 0.5
LEAST_LIFT = 3.0
"""How much more often an exchanged label must be noticed than any other."""
THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95)
TRIALS = 39


def label_doubts(
    ids: Sequence[str],
    features: ArrayLike,
    positive: Sequence[bool],
    groups: Sequence[str],
    rng: np.random.Generator,
    *,
    names: tuple[str, str] = ("negative", "positive"),
) -> Check:
    """Find items whose label contradicts their nearest neighbours from other groups.

    The score is the share of opposite labels among the 10 neighbours, classes weighted equally.
    Threshold and trust come from trials: labels of some groups are exchanged on purpose; the
    threshold of a label separates exchanged from given ones best (Youden 1950). If too few are
    found again, or hardly more often than given ones are accused, that label is not judged;
    if this holds for both, the answer is ``unknown``.

    Args:
        ids: Item ids.
        features: Shape (items, features), any fixed description.
        positive: Label by item.
        groups: The independent unit by item; neighbours from the same group do not count.
        rng: Random stream of the trials.
        names: What negative and positive labels are called.
    """
    name, y = "doubtful labels", np.asarray(positive, dtype=bool)
    if not enough_groups(y, groups) or len(set(groups)) <= NEIGHBOURS:
        return Check(name=name, status="unknown", evidence=too_few(y, groups))
    near = neighbours(scaled(features), groups, NEIGHBOURS)
    score = _contradiction(near, y)
    trials = [_trial(near, y, groups, score, side, rng) for side in (False, True)]
    told = [
        f"{names[side]}: of labels exchanged on purpose {t.found:.0%} are noticed, "
        f"{t.accused:.0%} of those given"
        for side, t in enumerate(trials)
    ]
    if not any(trial.trusted for trial in trials):
        return Check(
            name=name,
            status="unknown",
            evidence=f"simple features do not tell the classes apart: {'; '.join(told)}",
            hint="look at the cases that the trained model gets most wrong",
        )
    limits = np.array([trial.threshold if trial.trusted else np.inf for trial in trials])
    doubtful = score >= limits[y.astype(int)]
    order = [i for i in np.argsort(-score, kind="stable") if doubtful[i]]
    return Check(
        name=name,
        status="warn" if order else "ok",
        count=len(order),
        evidence=f"{len(order)} of {len(ids)} labels contradict the {NEIGHBOURS} nearest "
        f"neighbours from other groups ({'; '.join(told)})",
        hint="look at these first" if order else "",
        items=tuple(ids[i] for i in order[:MOST_ITEMS]),
    )


def scaled(features: ArrayLike) -> Floats:
    """Return features in robust standard deviations from their medians, cut off at five."""
    x = np.asarray(features, dtype=np.float64)
    return np.clip(np.stack([robust_scores(column) for column in x.T], axis=1), -5, 5)


def neighbours(x: Floats, groups: Sequence[str], k: int) -> NDArray[np.int64]:
    """Return the k nearest items of other groups, shape (items, k)."""
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    squares = (x * x).sum(axis=1)
    found = np.empty((len(x), k), dtype=np.int64)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        distance = squares[None] - 2 * x[rows] @ x.T
        distance[number[rows, None] == number[None]] = np.inf
        found[rows] = np.argpartition(distance, k, axis=1)[:, :k]
    return found


def class_votes(near: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Floats:
    """Return each class's share of the neighbours' votes; every class has the same total weight.

    Args:
        near: Neighbours by item, shape (items, neighbours).
        labels: Class by item, 0 to ``classes - 1``.
        classes: How many there are.

    Returns:
        Shape (items, classes); rows sum to 1.
    """
    share = np.bincount(labels, minlength=classes) / len(labels)
    weight = ((1.0 / classes) / np.maximum(share, 1e-9))[labels][near]
    total = weight.sum(axis=1)
    votes = [(weight * (labels[near] == c)).sum(axis=1) / total for c in range(classes)]
    return np.stack(votes, axis=1)


def _contradiction(near: NDArray[np.int64], y: Bools) -> Floats:
    """Return the class-weighted share of neighbours with the opposite label."""
    votes = class_votes(near, y.astype(np.int64), 2)
    opposite: Floats = votes[np.arange(len(y)), 1 - y.astype(np.int64)]
    return opposite


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """How well wrong labels of one side are noticed: shares of exchanged and of given labels."""

    threshold: float
    found: float
    accused: float

    @property
    def trusted(self) -> bool:
        return self.found >= LEAST_FOUND and self.found >= LEAST_LIFT * self.accused


def _trial(
    near: NDArray[np.int64],
    y: Bools,
    groups: Sequence[str],
    score: Floats,
    side: bool,
    rng: np.random.Generator,
) -> _Trial:
    """Give some groups the label `side` on purpose, and see which threshold finds them best."""
    others = [places for places in members_of(groups) if (y[places] != side).all()]
    if not others:
        return _Trial(threshold=1.0, found=0.0, accused=1.0)
    number = max(1, round(EXCHANGED * len(others)))
    scores = []
    for _ in range(TRIALS):
        chosen = rng.choice(len(others), number, replace=False)
        flipped = np.concatenate([others[i] for i in chosen])
        labels = y.copy()
        labels[flipped] = side
        scores.append(_contradiction(near, labels)[flipped])
    exchanged, given = np.concatenate(scores), score[y == side]
    found = [float((exchanged >= t).mean()) for t in THRESHOLDS]
    accused = [float((given >= t).mean()) for t in THRESHOLDS]
    best = int(np.argmax(np.subtract(found, accused)))
    return _Trial(threshold=THRESHOLDS[best], found=found[best], accused=accused[best])
