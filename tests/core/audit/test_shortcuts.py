from __future__ import annotations

import numpy as np

from lineside.core.audit import shortcuts

NAMES = ("size", "light")


def sample(n_groups: int = 60, per_group: int = 3, share: float = 0.4, seed: int = 0):
    """Return group effects, so that items of a group resemble each other, and labels by group."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    features = rng.normal(size=(n_groups, 2))[groups] + 0.1 * rng.normal(size=(len(groups), 2))
    positive = (np.arange(n_groups) < share * n_groups)[groups]
    return features, positive, [str(g) for g in groups]


def test_no_shortcut_where_there_is_none():
    statuses = [
        shortcuts.check_shortcuts(f, NAMES, y, g, np.random.default_rng(seed)).status
        for seed in range(3)
        for f, y, g in [sample(seed=seed)]
    ]
    assert statuses.count("warn") == 0


def test_planted_shortcut_is_named():
    features, positive, groups = sample()
    features[:, 1] += 3 * positive
    check = shortcuts.check_shortcuts(features, NAMES, positive, groups, np.random.default_rng(0))
    assert check.status == "warn" and "best alone is light" in check.evidence
    assert "light" in check.hint


def test_shortcut_by_group_does_not_recognise_groups():
    # Each group has a size of its own: ungrouped folds would find the label through it.
    features, positive, groups = sample(n_groups=12, per_group=40)
    check = shortcuts.check_shortcuts(features, NAMES, positive, groups, np.random.default_rng(0))
    assert check.status == "ok"


def test_too_few_groups_are_unknown():
    features, positive, groups = sample(n_groups=8, per_group=20)
    check = shortcuts.check_shortcuts(features, NAMES, positive, groups, np.random.default_rng(0))
    assert check.status == "unknown" and "4 and 4 independent groups" in check.evidence
    assert (
        shortcuts.check_shortcuts([[1.0]], ["a"], [False], ["g"], np.random.default_rng(0)).status
        == "unknown"
    )


def compare(shift: float, n: int = 40):
    rng = np.random.default_rng(3)
    groups = [str(g) for g in np.repeat(np.arange(n), 2)]
    old, new = (rng.normal(size=(n, 2)).repeat(2, axis=0) for _ in range(2))
    new[:, 1] += shift
    return shortcuts.check_drift(old, new, NAMES, groups, groups, np.random.default_rng(0))


def test_drift():
    assert compare(0.0).status == "ok"
    moved = compare(2.0)
    assert moved.status == "warn" and "light" in moved.evidence and "size" not in moved.evidence
    assert compare(0.0, n=3).status == "unknown"


def test_holm_against_a_hand_computed_order():
    # p-values of identical and of fully separated medians: only the latter survives
    x = np.column_stack([np.tile(np.arange(10.0), 2), np.arange(20.0)])
    y = np.arange(20) >= 10
    moved = shortcuts._shifted_features(x, y, [str(n) for n in range(20)], NAMES)
    assert len(moved) == 1 and moved[0].startswith("light (p = 1e-05")


def test_folds_keep_groups_whole_and_classes_even():
    _, positive, groups = sample()
    folds = shortcuts._folds(positive, groups, np.random.default_rng(0))
    by_group = {(g, int(f)) for g, f in zip(groups, folds, strict=True)}
    assert len(by_group) == 60
    positives = np.bincount(folds[positive], minlength=5)
    assert positives.max() - positives.min() <= 3


def test_permuted_labels_stay_together_in_a_group():
    _, positive, groups = sample()
    for labels in shortcuts._permute_labels(positive, groups, np.random.default_rng(0), 5):
        assert labels.sum() == positive.sum()
        assert (labels.reshape(60, 3) == labels.reshape(60, 3)[:, :1]).all()


def test_same_seed_same_check():
    features, positive, groups = sample()
    first, second = (
        shortcuts.check_shortcuts(features, NAMES, positive, groups, np.random.default_rng(1))
        for _ in range(2)
    )
    assert first == second
