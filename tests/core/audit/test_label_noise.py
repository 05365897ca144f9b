from __future__ import annotations

import numpy as np

from lineside.core.audit.label_noise import _contradiction, check_labels, neighbours


def blobs(distance: float, positives: int = 40, n: int = 200, seed: int = 0):
    """Return ids, features, labels, groups of two; the classes lie apart by the distance."""
    rng = np.random.default_rng(seed)
    positive = np.arange(n) >= n - positives
    features = rng.normal(size=(n, 5))
    features[:, 0] += distance * positive
    return [str(i) for i in range(n)], features, positive, [str(i // 2) for i in range(n)]


def test_planted_wrong_labels_are_found_on_both_sides():
    ids, features, positive, groups = blobs(8.0)
    wrong = [4, 5, 196, 197]
    positive[wrong] = ~positive[wrong]
    check = check_labels(ids, features, positive, groups, np.random.default_rng(0))
    assert check.status == "warn"
    assert set(map(str, wrong)) <= set(check.items) and check.count <= 8


def test_right_labels_are_ok():
    check = check_labels(*blobs(12.0), np.random.default_rng(0))
    assert check.status == "ok" and check.count == 0


def test_features_that_say_nothing_are_unknown():
    for seed in range(3):
        assert check_labels(*blobs(0.0, seed=seed), np.random.default_rng(0)).status == "unknown"
    rare = blobs(0.0, positives=12)
    assert check_labels(*rare, np.random.default_rng(0)).status == "unknown"


def test_too_few_groups_are_unknown():
    check = check_labels(*blobs(8.0, positives=4, n=16), np.random.default_rng(0))
    assert check.status == "unknown" and "too few" in check.evidence


def test_mixed_groups_do_not_crash():
    ids, features, positive, _ = blobs(8.0)
    groups = [str(i % 40) for i in range(200)]
    check = check_labels(ids, features, positive, groups, np.random.default_rng(0))
    assert check.status in ("warn", "unknown", "ok")


def test_neighbours_come_from_other_groups():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]])
    near = neighbours(x, ["a", "a", "b", "c", "d"], 1)
    assert near[:, 0].tolist() == [2, 2, 1, 4, 3]


def test_contradiction_weights_the_classes_equally():
    y = np.array([True, False, False, False])
    # weights: positive 2, negative 2/3
    score = _contradiction(np.array([[1, 2], [0, 2], [1, 3], [0, 1]]), y)
    np.testing.assert_allclose(score, [1, 2 / (2 + 2 / 3), 0, 0.75])


def test_a_rare_class_that_lost_many_items_is_warned_of_as_a_set():
    for share in (0.2, 0.35, 0.5):
        ids, features, positive, groups = blobs(6.0, positives=60, n=500)
        lost = np.random.default_rng(1).permutation(np.arange(440, 500))[: round(60 * share)]
        positive[lost] = False
        check = check_labels(ids, features, positive, groups, np.random.default_rng(0))
        assert check.status == "warn" and "look most like the rare class positive" in check.evidence
        assert set(check.items[:3]) <= {str(i) for i in lost}
    clean = blobs(6.0, positives=60, n=500)
    assert "look most" not in check_labels(*clean, np.random.default_rng(0)).evidence
