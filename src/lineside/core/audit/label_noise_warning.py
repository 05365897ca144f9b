"""How many labels of a training set are wrong, judged on fixed features, before training begins.

The trained network is no witness: it accuses right labels while it is dead or diverging, and
learns wrong ones by heart. Two judges that know other groups only, the nearest neighbours and a
cross-validated logistic regression, give each item its doubt. Hard items are doubted too, so the
set as a whole is judged on its clearest items: where the classes are told apart without error,
the share that is labelled otherwise is the share of wrong labels (Menon et al. 2015, anchor
points; Northcutt et al. 2021, confident learning).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.label_noise import class_votes, neighbours, scaled
from lineside.core.audit.shortcuts import FEWEST_GROUPS, FOLDS, Floats, members_of

Integers = NDArray[np.int64]

NEIGHBOURS = 20
NOISY_SHARE = 0.15
"""Largest share of contradicted labels among the clearest items that is no cause for a warning."""
CLEAREST = 0.3
PERMUTATIONS = 19
FEWEST_ITEMS = 100
REPETITIONS = 3
"""Divisions into folds that the regression is averaged over."""
_PENALTY = 0.1


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """What the neighbours say about the labels.

    Attributes:
        share: Share of contradicted labels among the clearest items, classes weighted equally;
            NaN if the set is too small, or the features do not tell the classes apart.
        count: Items whose own label is contradicted.
        items: Number of different items.
        ranked: Ids, the most doubtful first.
    """

    share: float
    count: int
    items: int
    ranked: tuple[str, ...]

    @property
    def noisy(self) -> bool:
        """Whether too many labels are contradicted."""
        return self.share > NOISY_SHARE


def label_noise(
    ids: Sequence[str],
    features: ArrayLike,
    labels: Sequence[str] | Sequence[bool] | Sequence[int],
    groups: Sequence[str],
    rng: np.random.Generator,
) -> LabelNoise:
    """Judge the labels of a data set by the neighbours that its items have in other groups.

    Whether the features tell the classes apart at all is held against chance in every data set
    anew: the neighbours must agree with the labels better than with any of 19 permutations that
    exchange labels between groups.

    Args:
        ids: Item of each row; several rows (views) of one item are judged together.
        features: Shape (rows, features): a fixed description, not the trained network's own.
        labels: Class by row.
        groups: The independent unit by row; neighbours from the same group do not count.
        rng: Random stream of folds and permutations, used for nothing else.
    """
    y = np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)
    if not _enough(y, groups):
        return LabelNoise(share=math.nan, count=0, items=len(set(ids)), ranked=())
    x = scaled(features)
    near = neighbours(x, groups, NEIGHBOURS)
    classes = int(y.max()) + 1
    votes = class_votes(near, y, classes)
    told_apart = _agreement(votes, y) > max(
        _agreement(class_votes(near, p, classes), p) for p in _exchanged(y, groups, rng)
    )
    predicted = [_predicted(x, y, groups, rng) for _ in range(REPETITIONS)]
    belief = (votes + np.mean(predicted, axis=0)) / 2
    doubt = 1.0 - belief[np.arange(len(y)), y]
    names, row_of = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    each = np.bincount(row_of, weights=doubt) / np.bincount(row_of)
    wrong = belief.argmax(axis=1) != y
    return LabelNoise(
        share=_clearest_share(belief, y, wrong) if told_apart else math.nan,
        count=len(set(row_of[wrong].tolist())),
        items=len(names),
        ranked=tuple(names[np.argsort(-each, kind="stable")].tolist()),
    )


def _enough(y: Integers, groups: Sequence[str]) -> bool:
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    apart = len(y) - np.bincount(number).max() > NEIGHBOURS
    by_class = [len(np.unique(number[y == c])) for c in range(int(y.max()) + 1)]
    few = len(by_class) < 2 or min(by_class) < FEWEST_GROUPS
    return len(y) >= FEWEST_ITEMS and bool(apart) and not few


def _agreement(votes: Floats, y: Integers) -> float:
    return float(votes[np.arange(len(y)), y].mean())


def _exchanged(y: Integers, groups: Sequence[str], rng: np.random.Generator) -> list[Integers]:
    """Return labelings in which the labels of groups, in their order, went to other groups."""
    members = members_of(groups)
    place = np.concatenate(members)
    found = []
    for _ in range(PERMUTATIONS):
        shuffled = np.concatenate([members[i] for i in rng.permutation(len(members))])
        labels = np.empty_like(y)
        labels[place] = y[shuffled]
        found.append(labels)
    return found


def _predicted(x: Floats, y: Integers, groups: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return class probabilities of every row by a regression that never saw its group."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = int(y.max()) + 1
    belief = np.full((len(y), classes), 1.0 / classes)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    for train, test in splitter.split(x, y, groups):
        if len(np.unique(y[train])) < classes:
            continue
        regression = LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=300)
        model = make_pipeline(StandardScaler(), regression)
        belief[test] = model.fit(x[train], y[train]).predict_proba(x[test])
    return belief


def _clearest_share(belief: Floats, y: Integers, wrong: NDArray[np.bool_]) -> float:
    """Return the contradicted share among the clearest items of each predicted class."""
    predicted, sure = belief.argmax(axis=1), belief.max(axis=1)
    weight = 1.0 / np.bincount(y)[y]
    shares = []
    for c in range(belief.shape[1]):
        own = np.flatnonzero(predicted == c)
        if not own.size:
            return math.nan
        top = own[np.argsort(-sure[own], kind="stable")][: max(5, round(CLEAREST * own.size))]
        shares.append(float((weight[top] * wrong[top]).sum() / weight[top].sum()))
    return float(np.mean(shares))
