"""Label noise: labels that contradict items that look alike, judged on fixed features.

Both functions use neighbours and models from other groups only, since items of one group look
alike for reasons that have nothing to do with the label.

`check_labels` is the audit's check for two classes. It lists items whose neighbours carry the other
label, with a threshold that finds labels exchanged on purpose.

`estimate_label_noise` is called before a training, for any number of classes. The network being
trained cannot judge labels: it flags correct ones while it diverges and memorises wrong ones. A
second, cross-validated model joins the neighbours. Hard items are contradicted too, so the set as a
whole is judged on its clearest items: where the classes are separated without error, the share with
another label is the share of wrong labels (Menon et al. 2015, anchor points; Northcutt et al. 2021,
confident learning). A rare class is judged by itself as well: of the items that look most like it,
those with another label are few among all, but the rare class may have lost half of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.checks import MOST_ITEMS, members_of
from lineside.core.audit.outliers import robust_scores
from lineside.core.audit.shortcuts import (
    FEWEST_GROUPS,
    FOLDS,
    Bools,
    Floats,
    enough_groups,
    too_few,
)
from lineside.core.contract import Check
from lineside.core.statistics.units import NEUTRAL, Words

Integers = NDArray[np.int64]

BLOCK_ROWS = 512

CHECK_NEIGHBOURS = 10
EXCHANGED = 0.03
"""Share of the groups whose label is exchanged in a trial."""
LEAST_FOUND = 0.5
LEAST_LIFT = 3.0
"""How much more often an exchanged label must be found than any other is flagged."""
THRESHOLDS = (0.6, 0.7, 0.8, 0.9, 0.95)
TRIALS = 39

NEIGHBOURS = 20
NOISY_SHARE = 0.15
"""Largest share of contradicted labels among the clearest items without a warning."""
CLEAREST = 0.3
PERMUTATIONS = 19
FEWEST_ITEMS = 100
RARE = 0.6
"""Of the mean size of a class; a smaller class is judged by itself."""
RARE_SHARE = 0.1
"""Largest share of other labels among the items that look most like a rare class."""
FEWEST_LOST = 3
FLATTEST = ((0.6, 2.0), (0.8, 3.0))
"""Among the clearest 60 and 80 % of a rare class, other labels to own ones may be so many times
what they are among the clearest 30 %: wrong labels are as frequent in all, similar items are not.
"""
TOLD_APART = 0.05
"""A class is judged if half of the other items look less like it than this."""
MOST_LOST = 2.0
"""Other labels to own ones among the clearest 80 %; with more the features do not tell a class."""
REPETITIONS = 3
"""Divisions into folds that the regression is averaged over."""
_PENALTY = 0.1


def check_labels(
    ids: Sequence[str],
    features: ArrayLike,
    positive: Sequence[bool],
    groups: Sequence[str],
    rng: np.random.Generator,
    *,
    words: Words = NEUTRAL,
) -> Check:
    """Find items whose label contradicts their nearest neighbours from other groups.

    The score is the share of opposite labels among the 10 neighbours, classes weighted equally.
    Threshold and trust come from trials: labels of some groups are exchanged on purpose; the
    threshold of a label separates exchanged from given ones best (Youden 1950). If too few are
    found, or hardly more often than given ones are flagged, that label is not judged; if this
    holds for both, the answer is ``unknown``. A rare class that has lost many of its items to the
    other label, beyond what neighbours can show, is looked for by `estimate_label_noise`.

    Args:
        ids: Item ids.
        features: Shape (items, features), any fixed description.
        positive: Label by item.
        groups: The independent unit by item; neighbours from the same group do not count.
        rng: Random stream of the trials.
        words: The application's words for the labels.
    """
    name, y = "doubtful labels", np.asarray(positive, dtype=bool)
    if not enough_groups(y, groups) or len(set(groups)) <= CHECK_NEIGHBOURS:
        return Check(name=name, status="unknown", evidence=too_few(y, groups))
    near = neighbours(standardise(features), groups, CHECK_NEIGHBOURS)
    score = _contradiction(near, y)
    trials = [_exchange_labels(near, y, groups, score, side, rng) for side in (False, True)]
    rates = _rates(trials, words)
    sides = [words.positive if label else words.negative for label in y]
    lost = estimate_label_noise(ids, features, sides, groups, rng)
    if not any(trial.trusted for trial in trials) and not lost.rare_items:
        return Check(
            name=name,
            status="unknown",
            evidence=f"simple features do not tell the classes apart: {rates}",
            hint="look at the cases that the trained model gets most wrong",
        )
    limits = np.array([trial.threshold if trial.trusted else np.inf for trial in trials])
    doubtful = score >= limits[y.astype(int)]
    order = [ids[i] for i in np.argsort(-score, kind="stable") if doubtful[i]]
    found = tuple(dict.fromkeys([*lost.rare_items, *order]))
    whole = f"{lost.sentence}; " if lost.rare_items else ""
    return Check(
        name=name,
        status="warn" if found else "ok",
        count=len(found),
        evidence=f"{whole}{len(order)} of {len(ids)} labels contradict the {CHECK_NEIGHBOURS} "
        f"nearest neighbours from other groups ({rates})",
        hint="look at these first" if found else "",
        items=found[:MOST_ITEMS],
    )


def _rates(trials: Sequence[_Trial], words: Words) -> str:
    return "; ".join(
        f"{name}: of labels exchanged on purpose {t.found:.0%} are noticed, "
        f"{t.flagged:.0%} of those given"
        for name, t in zip((words.negative, words.positive), trials, strict=True)
    )


@dataclass(frozen=True, kw_only=True)
class LabelNoise:
    """Estimated label noise of a training set.

    Attributes:
        share: Share of contradicted labels among the clearest items, classes weighted equally;
            NaN if the set is too small, or the features do not separate the classes.
        count: Items whose own label is contradicted.
        items: Number of different items.
        ranked: Ids, the most contradicted first.
        rare: A rare class of which many items carry another label; ``""`` if there is none.
        rare_share: Share of other labels among the items that look most like it.
        rare_items: Ids of these, the clearest first.
    """

    share: float
    count: int
    items: int
    ranked: tuple[str, ...]
    rare: str = ""
    rare_share: float = 0.0
    rare_items: tuple[str, ...] = ()

    @property
    def noisy(self) -> bool:
        """Whether too many labels are contradicted."""
        return self.share > NOISY_SHARE or bool(self.rare_items)

    @property
    def sentence(self) -> str:
        """What a rare class has lost, without a full stop."""
        return (
            f"of the items that look most like the rare class {self.rare}, {self.rare_share:.0%} "
            "carry another label"
        )


def estimate_label_noise(
    ids: Sequence[str],
    features: ArrayLike,
    labels: Sequence[str] | Sequence[bool] | Sequence[int],
    groups: Sequence[str],
    rng: np.random.Generator,
) -> LabelNoise:
    """Judge the labels of a data set by nearest neighbours and a cross-validated regression.

    Whether the features separate the classes at all is tested in every data set: the neighbours
    must agree with the labels better than with any of 19 permutations that exchange labels
    between groups.

    Args:
        ids: Item of each row; several rows (views) of one item are judged together.
        features: Shape (rows, features): a fixed description, not the trained network's own.
        labels: Class by row.
        groups: The independent unit by row; neighbours from the same group do not count.
        rng: Random stream of folds and permutations, used for nothing else.
    """
    names_of_classes, index = np.unique(np.asarray(labels), return_inverse=True)
    y = index.astype(np.int64)
    if not _enough(y, groups):
        return LabelNoise(share=math.nan, count=0, items=len(set(ids)), ranked=())
    x = standardise(features)
    near = neighbours(x, groups, NEIGHBOURS)
    classes = int(y.max()) + 1
    votes = class_votes(near, y, classes)
    separable = _agreement(votes, y) > max(
        _agreement(class_votes(near, p, classes), p) for p in _permute_groups(y, groups, rng)
    )
    predicted = [_cross_validate(x, y, groups, rng) for _ in range(REPETITIONS)]
    # (rows, classes): probability of each class by neighbours and regression
    belief = (votes + np.mean(predicted, axis=0)) / 2
    score = 1.0 - belief[np.arange(len(y)), y]
    names, row_of = np.unique(np.asarray(ids, dtype=str), return_inverse=True)
    by_item = np.bincount(row_of, weights=score) / np.bincount(row_of)
    wrong = belief.argmax(axis=1) != y
    rare, lost = _lost_by_rare_class(belief, y) if separable else (0, np.zeros(0, dtype=np.int64))
    own = _clearest(belief[:, rare], y == rare, CLEAREST)[1]
    return LabelNoise(
        rare=str(names_of_classes[rare]) if lost.size else "",
        rare_share=lost.size / (lost.size + own),
        rare_items=tuple(dict.fromkeys(names[row_of[lost]].tolist())),
        share=_clearest_share(belief, y, wrong) if separable else math.nan,
        count=len(set(row_of[wrong].tolist())),
        items=len(names),
        ranked=tuple(names[np.argsort(-by_item, kind="stable")].tolist()),
    )


def standardise(features: ArrayLike) -> Floats:
    """Return features in robust standard deviations from their medians, cut off at five."""
    x = np.asarray(features, dtype=np.float64)
    return np.clip(np.stack([robust_scores(column) for column in x.T], axis=1), -5, 5)


def neighbours(x: Floats, groups: Sequence[str], k: int) -> Integers:
    """Return the k nearest items of other groups, shape (items, k)."""
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    squares = (x * x).sum(axis=1)
    nearest = np.empty((len(x), k), dtype=np.int64)
    for start in range(0, len(x), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        # |b|^2 - 2 a.b: squared distances up to a constant of each row
        distance = squares[None] - 2 * x[rows] @ x.T
        distance[group[rows, None] == group[None]] = np.inf
        nearest[rows] = np.argpartition(distance, k, axis=1)[:, :k]
    return nearest


def class_votes(near: Integers, labels: Integers, classes: int) -> Floats:
    """Return each class's share of the neighbours' votes; every class has the same total weight.

    Args:
        near: Neighbours by item, shape (items, neighbours).
        labels: Class by item, 0 to ``classes - 1``.
        classes: Number of classes.

    Returns:
        Shape (items, classes); rows sum to 1.
    """
    share = np.bincount(labels, minlength=classes) / len(labels)
    weight = ((1.0 / classes) / np.maximum(share, 1e-9))[labels][near]
    total = weight.sum(axis=1)
    votes = [(weight * (labels[near] == c)).sum(axis=1) / total for c in range(classes)]
    return np.stack(votes, axis=1)


def _contradiction(near: Integers, y: Bools) -> Floats:
    """Return the class-weighted share of neighbours with the opposite label."""
    votes = class_votes(near, y.astype(np.int64), 2)
    opposite: Floats = votes[np.arange(len(y)), 1 - y.astype(np.int64)]
    return opposite


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Shares of exchanged labels that are found, and of given labels that are flagged."""

    threshold: float
    found: float
    flagged: float

    @property
    def trusted(self) -> bool:
        return self.found >= LEAST_FOUND and self.found >= LEAST_LIFT * self.flagged


def _exchange_labels(
    near: Integers,
    y: Bools,
    groups: Sequence[str],
    score: Floats,
    side: bool,
    rng: np.random.Generator,
) -> _Trial:
    """Give some groups the label `side` on purpose; return the threshold that finds them best."""
    others = [members for members in members_of(groups) if (y[members] != side).all()]
    if not others:
        return _Trial(threshold=1.0, found=0.0, flagged=1.0)
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
    flagged = [float((given >= t).mean()) for t in THRESHOLDS]
    best = int(np.argmax(np.subtract(found, flagged)))
    return _Trial(threshold=THRESHOLDS[best], found=found[best], flagged=flagged[best])


def _enough(y: Integers, groups: Sequence[str]) -> bool:
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    apart = len(y) - np.bincount(group).max() > NEIGHBOURS
    by_class = [len(np.unique(group[y == c])) for c in range(int(y.max()) + 1)]
    few = len(by_class) < 2 or min(by_class) < FEWEST_GROUPS
    return len(y) >= FEWEST_ITEMS and bool(apart) and not few


def _agreement(votes: Floats, y: Integers) -> float:
    return float(votes[np.arange(len(y)), y].mean())


def _permute_groups(y: Integers, groups: Sequence[str], rng: np.random.Generator) -> list[Integers]:
    """Return labelings in which the labels of groups, in their order, went to other groups."""
    members = members_of(groups)
    order = np.concatenate(members)
    labelings = []
    for _ in range(PERMUTATIONS):
        shuffled = np.concatenate([members[i] for i in rng.permutation(len(members))])
        labels = np.empty_like(y)
        labels[order] = y[shuffled]
        labelings.append(labels)
    return labelings


def _cross_validate(
    x: Floats, y: Integers, groups: Sequence[str], rng: np.random.Generator
) -> Floats:
    """Return class probabilities (rows, classes) by a regression that never saw the row's group."""
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


def _lost_by_rare_class(belief: Floats, y: Integers) -> tuple[int, Integers]:
    """Return a rare class and the rows that it seems to have lost to others, clearest first.

    Labels that are wrong at random leave the look of the class as it is: above any of its
    quantiles, wrong rows stand to right ones as in the whole class. Rows of other classes that
    merely look similar become rare towards the clear end.
    """
    sizes = np.bincount(y)
    for c in np.flatnonzero(sizes < RARE * len(y) / len(sizes)).tolist():
        lost, kept = _clearest(belief[:, c], y == c, CLEAREST)
        ratio = lost.size / kept
        wider = [(_clearest(belief[:, c], y == c, share), most) for share, most in FLATTEST]
        flat = all(others.size / own <= most * ratio for (others, own), most in wider)
        others, own = wider[-1][0]
        told_apart = np.median(belief[y != c, c]) < TOLD_APART and others.size / own <= MOST_LOST
        many = lost.size >= FEWEST_LOST and lost.size > RARE_SHARE * (lost.size + kept)
        if many and flat and told_apart:
            return c, lost
    return 0, np.zeros(0, dtype=np.int64)


def _clearest(belief: Floats, own: Bools, share: float) -> tuple[Integers, int]:
    """Return the other rows above the quantile that a share of the own ones exceeds.

    Beside them, how many of the own rows that are.
    """
    count = min(max(5, round(share * int(own.sum()))), int(own.sum()))
    limit = np.sort(belief[own])[-count]
    others = np.flatnonzero(~own & (belief >= limit))
    return others[np.argsort(-belief[others], kind="stable")], count


def _clearest_share(belief: Floats, y: Integers, wrong: Bools) -> float:
    """Return the contradicted share among the clearest items of each predicted class."""
    predicted, confidence = belief.argmax(axis=1), belief.max(axis=1)
    weight = 1.0 / np.bincount(y)[y]
    shares = []
    for c in range(belief.shape[1]):
        members = np.flatnonzero(predicted == c)
        if not members.size:
            return math.nan
        order = members[np.argsort(-confidence[members], kind="stable")]
        top = order[: max(5, round(CLEAREST * members.size))]
        shares.append(float((weight[top] * wrong[top]).sum() / weight[top].sum()))
    return float(np.mean(shares))
