"""Shortcut and drift tests: can a depth-2 tree predict the label, or the sample, from metadata?

p = (1 + number of permutations with at least this AUC) / (1 + permutations). Labels are permuted
between whole groups, since items of one group resemble each other and are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lineside.core.audit.checks import members_of
from lineside.core.contract import Check
from lineside.core.statistics.ranking import auroc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST_GROUPS = 5
FOLDS = 5
SHORTCUT_AUC = 0.7
PERMUTATIONS = 19
SIGNIFICANT = 0.05


def check_shortcuts(
    features: ArrayLike,
    names: Sequence[str],
    positive: Sequence[bool],
    groups: Sequence[str],
    rng: np.random.Generator,
) -> Check:
    """Try to predict the label from properties that should say nothing about it.

    A decision tree of depth 2, cross-validated by group; its AUC counts only if it is rarely
    reached with labels permuted between groups (on shortcuts: Geirhos et al. 2020).

    Args:
        features: Shape (items, features), e.g. file size, width, height, brightness.
        names: Names of the features.
        positive: Label by item.
        groups: The independent unit by item.
        rng: Random stream of folds and permutations.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(positive, dtype=bool)
    name = "shortcuts"
    if not enough_groups(y, groups):
        return Check(name=name, status="unknown", evidence=too_few(y, groups))
    folds = _folds(y, groups, rng)
    value, p = _tree_test(x, y, groups, folds, rng)
    alone = [_tree_auc(x[:, [j]], y, folds) for j in range(len(names))]
    best = int(np.argmax(alone))
    strong = value > SHORTCUT_AUC and p <= SIGNIFICANT
    return Check(
        name=name,
        status="warn" if strong else "ok",
        count=int(strong),
        evidence=f"a depth-2 tree on {', '.join(names)} predicts the label with AUC {value:.2f} "
        f"(cross-validated by group; permuted labels reach it with p = {p:.2f}); "
        f"best alone is {names[best]}, AUC {alone[best]:.2f}",
        hint=f"record both classes in the same way: a model may learn {names[best]} instead"
        if strong
        else "",
    )


def check_drift(
    old: ArrayLike,
    new: ArrayLike,
    names: Sequence[str],
    old_groups: Sequence[str],
    new_groups: Sequence[str],
    rng: np.random.Generator,
    *,
    name: str = "drift",
) -> Check:
    """Compare two samples: can a classifier separate them, and by which feature?

    A depth-2 tree cross-validated by group (classifier two-sample test, Lopez-Paz & Oquab 2017),
    and Kolmogorov-Smirnov tests of the group medians with Holm's correction (1979).

    Args:
        old: Shape (items, features).
        new: Shape (items, features).
        names: Names of the features.
        old_groups: The independent unit by item of `old`.
        new_groups: The independent unit by item of `new`.
        rng: Random stream.
        name: Title of the check.
    """
    x = np.concatenate([np.asarray(old, dtype=np.float64), np.asarray(new, dtype=np.float64)])
    y = np.arange(len(x)) >= len(old_groups)
    groups = [f"old {g}" for g in old_groups] + [f"new {g}" for g in new_groups]
    if not enough_groups(y, groups):
        return Check(name=name, status="unknown", evidence=too_few(y, groups))
    folds = _folds(y, groups, rng)
    value, p = _tree_test(x, y, groups, folds, rng)
    features = _shifted_features(x, y, groups, names)
    shifted = bool(features) or (p <= SIGNIFICANT and value > SHORTCUT_AUC)
    return Check(
        name=name,
        status="warn" if shifted else "ok",
        count=len(features),
        evidence=f"a depth-2 tree tells the samples apart with AUC {value:.2f} (p = {p:.2f}); "
        + (f"shifted: {', '.join(features)}" if features else "no single feature has shifted"),
        hint="find out what changed before trusting a model across" if shifted else "",
    )


def _tree_test(
    x: Floats, y: Bools, groups: Sequence[str], folds: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """Return the AUC of a depth-2 tree and its p-value under labels permuted between groups."""
    value = _tree_auc(x, y, folds)
    chance = [_tree_auc(x, p, folds) for p in _permute_labels(y, groups, rng, PERMUTATIONS)]
    return value, (1 + sum(c >= value for c in chance)) / (1 + len(chance))


def _shifted_features(
    x: Floats, y: Bools, groups: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Return the features whose group medians differ, by Holm's step-down procedure."""
    from scipy.stats import ks_2samp

    members = members_of(groups)
    # (groups, features): one value per independent unit
    medians = np.array([np.median(x[indices], axis=0) for indices in members])
    side = np.array([y[indices[0]] for indices in members])
    values = [float(ks_2samp(m[side], m[~side]).pvalue) for m in medians.T]
    shifted = []
    for step, j in enumerate(np.argsort(values, kind="stable")):
        if values[j] > SIGNIFICANT / (len(values) - step):
            break
        shifted.append(f"{names[j]} (p = {values[j]:.1g})")
    return shifted


def _class_groups(y: Bools, groups: Sequence[str]) -> tuple[int, int]:
    positive = {g for g, label in zip(groups, y, strict=True) if label}
    return len(positive), len(set(groups) - positive)


def enough_groups(y: Bools, groups: Sequence[str]) -> bool:
    """Return whether both classes have enough independent groups for a verdict."""
    return min(_class_groups(y, groups)) >= FEWEST_GROUPS


def too_few(y: Bools, groups: Sequence[str]) -> str:
    """Return the sentence with the number of groups of each class."""
    one, other = _class_groups(y, groups)
    return f"{one} and {other} independent groups are too few ({FEWEST_GROUPS} each are needed)"


def _permute_labels(
    y: Bools, groups: Sequence[str], rng: np.random.Generator, repetitions: int
) -> list[Bools]:
    """Return labels with whole groups exchanged; a mixed group counts as positive."""
    members = members_of(groups)
    label = np.array([y[indices].any() for indices in members])
    group_of = np.empty(len(y), dtype=int)
    for number, indices in enumerate(members):
        group_of[indices] = number
    return [rng.permutation(label)[group_of] for _ in range(repetitions)]


def _folds(y: Bools, groups: Sequence[str], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of every item: groups stay whole, classes are shared out evenly."""
    fold = np.empty(len(y), dtype=np.int64)
    members = members_of(groups)
    label = np.array([y[indices].any() for indices in members])
    for side in (False, True):
        order = rng.permutation(np.flatnonzero(label == side))
        for rank, number in enumerate(order):
            fold[members[number]] = rank % FOLDS
    return fold


def _tree_auc(x: Floats, y: Bools, folds: NDArray[np.int64]) -> float:
    """Return the mean AUC over folds of a depth-2 tree; 0.5 where a fold has one class."""
    from sklearn.tree import DecisionTreeClassifier

    values = []
    for fold in range(FOLDS):
        test = folds == fold
        if len(set(y[test])) < 2 or len(set(y[~test])) < 2:
            values.append(0.5)
            continue
        tree = DecisionTreeClassifier(
            max_depth=2, class_weight="balanced", min_samples_leaf=5, random_state=0
        ).fit(x[~test], y[~test])
        values.append(auroc(tree.predict_proba(x[test])[:, 1], y[test]))
    return float(np.mean(values))
