from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import pytest
from benchmarks.core.adversarial import recall_at_fpr
from scipy import stats
from sklearn import metrics as reference

from lineside.core.contract import Metric, Outcome
from lineside.core.statistics.bootstrap import (
    RankMetric,
    Units,
    by_slice,
    estimate,
    paired_difference,
    worst_cases,
)
from lineside.core.statistics.proportions import (
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    cohen_kappa,
    proportion,
    wilson,
)
from lineside.core.statistics.ranking import (
    Ranking,
    auroc,
    average_precision,
    pr_curve,
    rank,
    roc_curve,
)

AUROC = Metric(
    name="auroc", unit="fraction", better="higher", of=RankMetric(statistic=Ranking.auroc)
)


def slow_auroc(outcomes) -> float:
    scores = [o.value["score"] for o in outcomes]
    labels = [o.value["label"] for o in outcomes]
    return reference.roc_auc_score(labels, scores) if len(set(labels)) == 2 else float("nan")


SLOW = Metric(name="auroc", unit="fraction", better="higher", of=slow_auroc)


def tied(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return np.round(rng.normal(labels * 0.8, 1), 1), labels


def outcomes_of(seed: int, groups: int = 20, each: int = 5, effect: float = 1.0) -> list[Outcome]:
    rng = np.random.default_rng(seed)
    rows = []
    for g in range(groups):
        label = float(g % 2)
        level = rng.normal(effect * label, 1)
        for i in range(each):
            score = round(level + rng.normal(0, 0.3), 1)
            rows.append(
                Outcome(
                    item=f"{g}/{i}", groups=(f"g{g}",), unit=f"g{g}",
                    value={"score": score, "label": label},
                    slices={"kind": ["good", "crack", "good", "hole"][g % 4]},
                )
            )  # fmt: skip
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_ranking_measures_agree_with_sklearn_under_ties(seed):
    scores, labels = tied(seed)
    assert auroc(scores, labels) == pytest.approx(reference.roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(
        reference.average_precision_score(labels, scores)
    )


def test_auroc_is_the_share_of_ordered_pairs():
    scores, labels = tied(7, 40)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs))
    assert auroc([1, 1, 1], [0, 1, 1]) == 0.5
    assert np.isnan(auroc([1, 2], [1, 1]))


def test_weights_are_repeated_items():
    scores, labels = tied(3, 60)
    weights = np.random.default_rng(0).integers(0, 4, 60)
    again = np.repeat(np.arange(60), weights)
    assert auroc(scores, labels, weights) == pytest.approx(auroc(scores[again], labels[again]))
    assert average_precision(scores, labels, weights) == pytest.approx(
        average_precision(scores[again], labels[again])
    )
    several = rank(scores, labels, np.stack([weights, np.ones(60)]))
    assert several.auroc() == pytest.approx([auroc(scores, labels, weights), auroc(scores, labels)])
    assert several.fpr_at_recall(0.9)[0] == rank(scores[again], labels[again]).fpr_at_recall(0.9)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_rates_at_a_level_by_brute_force(seed, level):
    scores, labels = tied(seed, 80)
    rates = [
        (np.mean(scores[labels == 1] >= t), np.mean(scores[labels == 0] >= t))
        for t in [*scores, np.inf]
    ]
    assert rank(scores, labels).fpr_at_recall(level) == pytest.approx(
        min(f for r, f in rates if r >= level - 1e-12)
    )
    assert recall_at_fpr(rank(scores, labels), 1 - level) == pytest.approx(
        max(r for r, f in rates if f <= 1 - level + 1e-12)
    )


def test_rates_at_a_level_by_hand():
    scores, labels = [4, 3, 3, 2, 1], [1, 1, 0, 0, 1]
    assert rank(scores, labels).fpr_at_recall(0.5) == 0.5  # the tie at 3 brings the good one along
    assert rank(scores, labels).fpr_at_recall(1.0) == 1.0
    assert recall_at_fpr(rank(scores, labels), 0.0) == pytest.approx(1 / 3)
    assert rank([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], [1] * 9 + [0]).fpr_at_recall(1 / 9) == 0


def test_curves_agree_with_sklearn():
    scores, labels = tied(1)
    fpr, recall, thresholds = roc_curve(scores, labels)
    theirs = reference.roc_curve(labels, scores, drop_intermediate=False)
    for ours, other in zip((fpr, recall, thresholds), theirs, strict=True):
        assert ours == pytest.approx(other)
    recall, precision, thresholds = pr_curve(scores, labels)
    p, r, t = reference.precision_recall_curve(labels, scores)
    assert precision == pytest.approx(p[:-1][::-1])
    assert recall == pytest.approx(r[:-1][::-1])
    assert thresholds == pytest.approx(t[::-1])


@pytest.mark.parametrize(
    ("scores", "labels"), [([], []), ([1.0], [1, 0]), ([np.nan, 1], [0, 1]), ([1, 2], [0, 2])]
)
def test_ranking_refuses_bad_input(scores, labels):
    with pytest.raises(ValueError, match=r"scores|labels"):
        auroc(scores, labels)


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 10), (97, 100), (1, 2000)])
def test_clopper_pearson_agrees_with_scipy(k, n):
    for confidence in (0.9, 0.95, 0.99):
        exact = stats.binomtest(k, n).proportion_ci(confidence, "exact")
        assert clopper_pearson(k, n, confidence) == pytest.approx((exact.low, exact.high))
        score = stats.binomtest(k, n).proportion_ci(confidence, "wilson")
        assert wilson(k, n, confidence) == pytest.approx((score.low, score.high), abs=1e-12)
        greater = stats.binomtest(k, n, alternative="greater").proportion_ci(confidence, "exact")
        less = stats.binomtest(k, n, alternative="less").proportion_ci(confidence, "exact")
        assert clopper_pearson_lower(k, n, confidence) == pytest.approx(greater.low)
        assert clopper_pearson_upper(k, n, confidence) == pytest.approx(less.high)


@pytest.mark.parametrize(
    ("n", "bound"), [(19, 0.854), (30, 0.905), (49, 0.941), (46, 0.937), (68, 0.957), (821, 0.996)]
)
def test_bound_without_a_miss(n, bound):
    assert clopper_pearson_lower(n, n) == pytest.approx(bound, abs=5e-4)


def test_proportion_says_what_it_is():
    share = proportion(3, 4, better="lower")
    assert (share.value, share.n, share.better) == (0.75, 4, "lower")
    assert share.low < 0.75 < share.high
    assert "Clopper" in share.method
    assert proportion(0, 0).reason
    with pytest.raises(ValueError, match="share"):
        clopper_pearson(3, 2)


def independent_kappa(first, second):
    return cohen_kappa(first, second, groups=range(len(first)), rng=np.random.default_rng(0))


def test_kappa_agrees_with_sklearn_and_a_numerical_delta_method():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 300)
    second = np.where(rng.random(300) < 0.7, first, rng.integers(0, 3, 300))
    found = independent_kappa(list(first), list(second))
    assert found.value == pytest.approx(reference.cohen_kappa_score(first, second))
    # Delta method with a numerical gradient over the multinomial cell shares.
    p = reference.confusion_matrix(first, second) / 300

    def kappa(table):
        chance = table.sum(0) @ table.sum(1)
        return (np.trace(table) - chance) / (1 - chance)

    gradient = np.zeros_like(p)
    for cell in itertools.product(range(3), range(3)):
        step = np.zeros_like(p)
        step[cell] = 1e-6
        gradient[cell] = (kappa(p + step) - kappa(p - step)) / 2e-6
    variance = ((gradient**2 * p).sum() - (gradient * p).sum() ** 2) / 300
    # The bootstrap over items agrees with it within its Monte-Carlo error.
    assert found.high - found.low == pytest.approx(2 * 1.959964 * variance**0.5, rel=0.08)


def test_kappa_by_hand_and_its_edges():
    first, second = ["a"] * 25 + ["b"] * 25, ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15
    assert independent_kappa(first, second).value == pytest.approx(0.4)
    assert np.isnan(independent_kappa(["a", "a"], ["a", "a"]).value)
    perfect = independent_kappa(["a", "b"], ["a", "b"])
    assert perfect.value == 1.0
    assert perfect.low is None
    assert perfect.reason


def test_kappa_bootstrap_over_groups_is_wider_when_groups_repeat_themselves():
    rng = np.random.default_rng(1)
    first = np.repeat(rng.integers(0, 2, 60), 6)
    second = np.repeat(np.where(rng.random(60) < 0.8, first[::6], 1 - first[::6]), 6)
    groups = list(np.repeat(np.arange(60), 6))
    naive = independent_kappa(list(first), list(second))
    grouped = cohen_kappa(list(first), list(second), groups=groups, rng=rng)
    single = independent_kappa(list(first[::6]), list(second[::6]))
    assert grouped.n == 60
    assert grouped.high - grouped.low > 2 * (naive.high - naive.low)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_fast_and_slow_bootstrap_give_the_same_interval():
    outcomes = outcomes_of(0)
    fast = estimate(outcomes, AUROC, np.random.default_rng(5), 100)
    slow = estimate(outcomes, SLOW, np.random.default_rng(5), 100)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))
    assert fast.low < fast.value < fast.high
    assert fast.n == 20
    assert "groups" in fast.method


def test_a_group_drawn_twice_is_two_groups():
    def groups(outcomes):
        return float(len({o.groups[0] for o in outcomes}))

    count = Metric(name="groups", unit="count", better="higher", of=groups)
    found = estimate(outcomes_of(0), count, np.random.default_rng(0), 50)
    assert found.value == 20
    assert "agree" in found.reason  # every resample has 20 groups


def test_bootstrap_resamples_groups_and_not_items():
    few = outcomes_of(2, groups=16, each=1)
    many = [
        Outcome(item=f"{o.item}.{i}", groups=o.groups, unit=o.unit, value=o.value)
        for o in few
        for i in range(20)
    ]
    once = estimate(few, AUROC, np.random.default_rng(0))
    often = estimate(many, AUROC, np.random.default_rng(0))
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_bootstrap_covers_the_truth():
    truth = stats.norm.cdf(1 / (2 * (1 + 0.09)) ** 0.5)
    hits = []
    for seed in range(120):
        outcomes = outcomes_of(seed, groups=200, each=2)
        found = estimate(outcomes, AUROC, np.random.default_rng(10_000 + seed), 200)
        hits.append(found.low <= truth <= found.high)
    assert 0.90 <= np.mean(hits) <= 0.99


def test_no_interval_but_a_reason():
    rng = np.random.default_rng(0)
    single = [o for o in outcomes_of(0) if o.groups[0] == "g1"]
    assert "undefined" in estimate(single, AUROC, rng).reason
    count = Metric(name="n", unit="count", better="higher", of=len)
    assert "at least 2" in estimate(single, count, rng).reason
    two = [o for o in outcomes_of(0) if o.groups[0] in ("g1", "g2")]
    assert "resamples" in estimate(two, AUROC, rng).reason
    perfect = outcomes_of(0, effect=50.0)
    found = estimate(perfect, AUROC, rng)
    assert (found.value, found.low) == (1.0, None)
    assert "agree" in found.reason
    nothing = estimate([], AUROC, rng)
    assert np.isnan(nothing.value)
    assert nothing.reason
    missing = [*outcomes_of(0), Outcome(item="x", groups=("x",), unit="x", value={"label": 1.0})]
    assert np.isnan(estimate(missing, AUROC, rng).value)


def test_paired_difference_is_tighter_than_two_intervals():
    a = outcomes_of(1, groups=40)
    rng = np.random.default_rng(0)
    b = [
        Outcome(
            item=o.item,
            groups=o.groups,
            unit=o.unit,
            value={**o.value, "score": o.value["score"] + rng.normal(0, 0.2)},
        )
        for o in a
    ]
    found = paired_difference(a, b, AUROC, np.random.default_rng(2), 500)
    alone = estimate(a, AUROC, np.random.default_rng(2), 500)
    assert found.value == pytest.approx(AUROC.of(a) - AUROC.of(b))
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    slow, fast = (paired_difference(a, b, m, np.random.default_rng(2), 60) for m in (SLOW, AUROC))
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))
    part = paired_difference(a, b[:-3], AUROC, np.random.default_rng(2), 50)
    assert "3 items left out" in part.method
    assert paired_difference(a, [], AUROC, np.random.default_rng(2)).reason


def test_slices():
    outcomes = [
        dataclasses.replace(o, slices={"side": "right" if i % 3 else "left"})
        for i, o in enumerate(outcomes_of(3))
    ]
    found = by_slice([*outcomes, *outcomes_of(4)], AUROC, "side", np.random.default_rng(0))
    assert list(found) == ["left", "right"]
    chosen = [o for o in outcomes if o.slices["side"] == "left"]
    assert found["left"].value == pytest.approx(slow_auroc(chosen))
    assert found["left"].n == len({o.groups for o in chosen})
    assert found["left"].low < found["left"].value < found["left"].high
    assert by_slice(outcomes, AUROC, "material", np.random.default_rng(0)) == {}


def test_worst_cases_come_first_and_once_per_group():
    def row(item, group, score, label):
        return Outcome(
            item=item, groups=(group,), unit=group, value={"score": score, "label": label}
        )

    rows = [
        row("a", "1", 0.1, 1.0), row("b", "1", 0.2, 1.0), row("c", "2", 0.9, 1.0),
        row("d", "3", 0.0, 0.0), row("e", "4", 0.3, 0.0), row("f", "5", 0.05, 0.0),
    ]  # fmt: skip
    assert [o.item for o in worst_cases(rows)] == ["e", "a"]
    assert worst_cases([]) == []


def test_a_thousand_repetitions_take_less_than_two_seconds():
    outcomes = outcomes_of(0, groups=200, each=5)
    start = time.process_time()
    estimate(outcomes, AUROC, np.random.default_rng(0), 1000)
    assert time.process_time() - start < 2.0


def test_rank_metric_takes_other_units():
    def first_of_group(outcomes):
        index = np.array([i for i, o in enumerate(outcomes) if o.item.endswith("/0")])
        return Units(
            scores=np.array([outcomes[i].value["score"] for i in index]),
            labels=np.array([outcomes[i].value["label"] for i in index]),
            index=index,
        )

    outcomes = outcomes_of(0)
    metric = RankMetric(statistic=Ranking.auroc, units=first_of_group)
    assert metric(outcomes) == pytest.approx(slow_auroc(outcomes[::5]))


def test_an_extreme_that_resampling_misses_gets_no_interval():
    """Few resamples hold every group, so the value lies outside of nearly all of them."""
    rows = [
        Outcome(
            item=str(i), groups=(str(i),), unit=str(i), value={"score": float(i == 0), "label": 0.0}
        )
        for i in range(8)
    ]
    spread = Metric(
        name="range", unit="", better="lower",
        of=lambda found: 2.0 * len(rows) - len({o.item for o in found}),
    )  # fmt: skip
    found = estimate(rows, spread, np.random.default_rng(0), 300)
    assert found.value == 8.0 and found.low is None and "misses the value" in found.reason


def pairs_of_people(rng, people):
    """Comparisons of two people each: the score depends on both, so pairs are not independent."""
    level = rng.normal(0, 1, people)
    return [
        Outcome(
            item=f"{a}-{b}",
            groups=(f"p{a}", f"p{b}"),
            value={"score": level[a] + level[b] + rng.normal(0, 0.1), "label": 1.0},
        )
        for a in range(people)
        for b in range(a)
    ]


def mean_score(outcomes):
    return float(np.mean([o.value["score"] for o in outcomes])) if outcomes else float("nan")


class WeightedMean:
    """The same mean by weights, as a `Weighted` measure."""

    def __call__(self, outcomes):
        return mean_score(outcomes)

    def weighted(self, outcomes):
        scores = np.array([o.value["score"] for o in outcomes])
        return lambda weights: (weights * scores).sum(1) / weights.sum(1)


def test_an_outcome_of_two_groups_weighs_the_product_of_their_counts():
    outcomes = pairs_of_people(np.random.default_rng(3), 12)
    plain = Metric(name="mean", unit="", better="higher", of=mean_score)
    fast = Metric(name="mean", unit="", better="higher", of=WeightedMean())
    one_by_one = estimate(outcomes, plain, np.random.default_rng(0), 200)
    weighted = estimate(outcomes, fast, np.random.default_rng(0), 200)
    assert one_by_one.n == weighted.n == 12
    assert one_by_one.low == pytest.approx(weighted.low)
    assert one_by_one.high == pytest.approx(weighted.high)


def test_intervals_of_pairs_cover_and_those_of_independent_pairs_do_not():
    """66 pairs of 12 people say as much as 12 people: taking pairs as independent claims more."""
    fast = Metric(name="mean", unit="", better="higher", of=WeightedMean())
    covered = {"people": 0, "pairs": 0}
    for seed in range(60):
        outcomes = pairs_of_people(np.random.default_rng(seed), 12)
        alone = [dataclasses.replace(o, groups=(o.item,)) for o in outcomes]
        for name, rows in (("people", outcomes), ("pairs", alone)):
            found = estimate(rows, fast, np.random.default_rng(seed), 200)
            covered[name] += found.low <= 0 <= found.high
    assert covered["people"] >= 50
    assert covered["pairs"] <= 40
