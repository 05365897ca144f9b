from __future__ import annotations

import numpy as np
import pytest

from lineside.core.audit import checks
from lineside.core.audit.outliers import check_one_value, check_outliers, robust_scores
from lineside.core.statistics.agreement import cohen_kappa
from lineside.core.statistics.proportions import wilson

IDS = [f"i{n}" for n in range(6)]


def balance(positive: int, negative: int, share: float = 0.2):
    labels = ["good"] * negative + ["bad"] * positive
    groups = [str(n) for n in range(len(labels))]
    return checks.check_class_balance(labels, groups, normal="good", shares={"test": share})


def test_balance_states_the_width_of_the_recall():
    check = balance(50, 100)
    low, high = wilson(9, 10)
    assert check.status == "warn" and check.count == 50
    assert "about 10 positive in test" in check.evidence
    assert f"{high - low:.2f} wide" in check.evidence


def test_balance_warns_by_ratio_and_is_content_with_plenty():
    assert balance(3000, 3000, 0.2).status == "ok"
    assert balance(3000, 40_000, 0.2).status == "warn"
    only_good = balance(0, 10)
    assert only_good.status == "info" and "no recall" in only_good.hint


def test_balance_counts_groups_not_items():
    check = checks.check_class_balance(
        ["bad"] * 6 + ["good"] * 2, ["a"] * 6 + ["b", "c"], normal="good", shares={}
    )
    assert check.count == 1 and "1 positive (1 : 2.0)" in check.evidence


def copies(digests, labels=None, groups=None, roles=None):
    return checks.check_copies(IDS, digests, labels or ["g"] * 6, groups or IDS, roles or [""] * 6)


def test_copies():
    assert copies(list("abcdef")).status == "ok"
    twice = copies(list("aabcde"))
    assert twice.status == "warn" and twice.count == 1 and twice.items == ("i0", "i1")
    assert copies(list("aabcde"), groups=["p", "p", *IDS[2:]]).status == "info"


def test_copies_with_two_labels_or_roles_fail_and_come_first():
    torn = copies(list("aabbcd"), labels=["g", "g", "g", "x", "g", "g"])
    assert (
        torn.status == "fail" and torn.items[:2] == ("i2", "i3") and "1 sets carry" in torn.evidence
    )
    across = copies(list("aabcde"), roles=["train", "test", "", "", "", ""])
    assert across.status == "fail"
    assert copies(list("aabcde"), roles=["train", "", "", "", "", ""]).status == "warn"


def test_leakage():
    groups = ["p", "p", "q", "q", "r", "r"]
    roles = ["train", "train", "test", "test", "train", "test"]
    leak = checks.check_leakage(IDS, groups, roles)
    assert leak.status == "fail" and leak.count == 1 and leak.items == ("i4", "i5")
    clean = checks.check_leakage(IDS, groups, ["train"] * 4 + ["test"] * 2)
    assert clean.status == "ok"
    assert checks.check_leakage(IDS, IDS, ["train"] * 4 + ["test"] * 2).status == "unknown"
    assert checks.check_leakage(IDS, groups, [""] * 6).status == "info"


def test_mixed_labels():
    groups = ["p", "p", "q", "q", "r", "r"]
    mixed = checks.check_mixed_labels(IDS, groups, [True, False, True, True, False, False])
    assert mixed.status == "warn" and mixed.items == ("i0", "i1")
    assert (
        checks.check_mixed_labels(IDS, groups, [True, True, False, False, True, True]).status
        == "ok"
    )
    assert checks.check_mixed_labels(IDS, IDS, [True] * 6).status == "unknown"


def test_one_value():
    assert check_one_value("mode", ["L"] * 6, IDS).status == "ok"
    odd = check_one_value("mode", ["L", "L", "L", "RGB", "L", "P"], IDS, hint="h")
    assert odd.status == "warn" and odd.count == 2 and odd.items == ("i5", "i3")
    assert check_one_value("mode", [], []).status == "unknown"


def test_robust_scores_against_a_hand_computed_case():
    # median 3, absolute deviations 2 1 0 1 97 with median 1
    np.testing.assert_allclose(
        robust_scores([1, 2, 3, 4, 100]), np.array([-2, -1, 0, 1, 97]) / 1.4826
    )
    assert robust_scores([5, 5, 5, 5, 6])[-1] > 3  # MAD is 0
    np.testing.assert_array_equal(robust_scores([5, 5]), [0, 0])
    np.testing.assert_allclose(robust_scores([5, 5, 5, 6], smallest=0.5)[-1], 2)
    assert robust_scores([]).size == 0


def test_outliers():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50)
    ids = [str(n) for n in range(50)]
    assert check_outliers("o", {"x": values}, ids, smallest={}).status == "ok"
    values[[7, 3]] = 20, -50
    found = check_outliers("o", {"y": np.zeros(50), "x": values}, ids, smallest={}, hint="look")
    assert found.status == "warn" and found.items == ("3", "7") and "y 0, x 2" in found.evidence
    assert check_outliers("o", {"x": values}, ids, smallest={"x": 10.0}).count == 0
    assert check_outliers("o", {"x": [1, 2]}, ["a", "b"], smallest={}).status == "unknown"


def agree(ratings):
    ids = [str(n) for n in range(len(next(iter(ratings.values()), [])))]
    return checks.check_rater_agreement(ids, ratings, ids)


def test_agreement_is_unknown_without_two_raters():
    assert agree({}).status == "unknown"
    assert agree({"anna": ["g"] * 4}).status == "unknown"
    assert agree({"anna": ["g", "", ""], "bert": ["", "g", "x"]}).status == "unknown"


def test_agreement_of_two_raters():
    anna = ["g", "x"] * 20
    bert = list(anna)
    bert[0] = "x"
    good = agree({"anna": anna, "bert": bert})
    assert good.status == "info" and good.items == ("0",)
    kappa = cohen_kappa(anna, bert, groups=range(40))
    assert f"kappa {kappa.value:.2f} (" in good.evidence
    assert agree({"anna": anna, "bert": ["g"] * 20 + ["x"] * 20}).status == "warn"


def test_agreement_lists_the_most_disputed_first():
    ratings = {"a": ["g", "g", "x", "x"], "b": ["g", "x", "x", "x"], "c": ["g", "y", "x", "g"]}
    assert agree(ratings).items == ("1", "3")


@pytest.mark.parametrize("n", [0, 1, 10])
def test_width_shrinks(n):
    assert checks._recall_width(n) >= checks._recall_width(n + 5)
