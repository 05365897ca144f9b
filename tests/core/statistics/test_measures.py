from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from benchmarks.core.adversarial import recall_at_fpr
from scipy import special, stats
from sklearn import metrics as reference

from lineside.core.contract import Metric, Outcome
from lineside.core.statistics.agreement import cohen_kappa
from lineside.core.statistics.estimates import (
    RankMetric,
    Units,
    area_under_roc,
    by_slice,
    estimate,
    fpr_at_recall,
    paired_difference,
    worst_cases,
)
from lineside.core.statistics.intervals import (
    FEWEST_RATE,
    auroc_interval,
    fpr_interval,
    median_interval,
    precision_interval,
    rate_interval,
)
from lineside.core.statistics.proportions import (
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
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

AUROC = Metric(name="auroc", unit="fraction", better="higher", of=area_under_roc())
PRECISION = RankMetric(statistic=Ranking.average_precision)


def slow_auroc(outcomes) -> float:
    scores = [o.value["score"] for o in outcomes]
    labels = [o.value["label"] for o in outcomes]
    return reference.roc_auc_score(labels, scores) if len(set(labels)) == 2 else float("nan")


def slow_precision(outcomes) -> float:
    scores = [o.value["score"] for o in outcomes]
    labels = [o.value["label"] for o in outcomes]
    return reference.average_precision_score(labels, scores) if any(labels) else float("nan")


def positive(outcome) -> bool:
    return outcome.value["label"] == 1


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
    return cohen_kappa(first, second, groups=range(len(first)))


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
    # The jackknife over items agrees with it; its quantile is that of Student.
    assert found.high - found.low == pytest.approx(2 * 1.959964 * variance**0.5, rel=0.02)


def test_kappa_by_hand_and_its_edges():
    first, second = ["a"] * 25 + ["b"] * 25, ["a"] * 20 + ["b"] * 5 + ["a"] * 10 + ["b"] * 15
    assert independent_kappa(first, second).value == pytest.approx(0.4)
    assert np.isnan(independent_kappa(["a", "a"], ["a", "a"]).value)
    perfect = independent_kappa(["a", "b"], ["a", "b"])
    assert perfect.value == 1.0
    assert perfect.low is None
    assert perfect.reason


def test_the_interval_of_kappa_over_groups_is_wider_when_groups_repeat_themselves():
    rng = np.random.default_rng(1)
    first = np.repeat(rng.integers(0, 2, 60), 6)
    second = np.repeat(np.where(rng.random(60) < 0.8, first[::6], 1 - first[::6]), 6)
    groups = list(np.repeat(np.arange(60), 6))
    naive = independent_kappa(list(first), list(second))
    grouped = cohen_kappa(list(first), list(second), groups=groups)
    single = independent_kappa(list(first[::6]), list(second[::6]))
    assert grouped.n == 60
    assert grouped.high - grouped.low > 2 * (naive.high - naive.low)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_the_jackknife_of_weights_is_that_of_subsets():
    precision = Metric(name="ap", unit="fraction", better="higher", of=PRECISION)
    slow = dataclasses.replace(precision, of=slow_precision)
    outcomes = outcomes_of(0)
    fast, other = (estimate(outcomes, m, np.random.default_rng(5)) for m in (precision, slow))
    assert (fast.value, fast.low, fast.high) == pytest.approx((other.value, other.low, other.high))
    assert fast.low < fast.value < fast.high
    assert fast.n == 20 and fast.positives == len({o.groups for o in outcomes if positive(o)})
    assert "jackknife over groups" in fast.method
    assert f"(n = {fast.positives} positive + {20 - fast.positives} negative)" in fast.text()


def test_the_jackknife_of_an_area_is_that_of_delong():
    """DeLong, DeLong and Clarke-Pearson 1988, by its structural components."""
    outcomes = outcomes_of(3, groups=60, each=1)
    scores = np.array([o.value["score"] for o in outcomes])
    positive, negative = (scores[[o.value["label"] == y for o in outcomes]] for y in (1.0, 0.0))
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(1).var(ddof=1) / len(positive) + wins.mean(0).var(ddof=1) / len(negative)
    area = Metric(name="m", unit="", better="higher", of=RankMetric(statistic=Ranking.auroc))
    found = estimate(outcomes, area, np.random.default_rng(0))
    wide = stats.t.ppf(0.975, 57) / 1.959964  # Student's quantile, about 57 degrees of freedom
    assert found.high - found.low == pytest.approx(2 * 1.959964 * wide * variance**0.5, rel=0.01)


def test_newcombe_holds_the_areas_whose_variance_fits():
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])
    for m, n in ((2, 2), (5, 200), (30, 7)):
        low, high = auroc_interval(scores, labels, m, n)
        for end in (low, high):
            rest = (m + n) / 2 - 1
            spread = 1 + rest * ((1 - end) / (2 - end) + end / (1 + end))
            error = (end * (1 - end) / (m * n) * spread) ** 0.5
            assert abs(end - 0.75) == pytest.approx(1.959964 * error, rel=1e-5)
        assert low < 0.75 < high
    low, high = auroc_interval(scores, np.array([0, 0, 0, 1]), 5, 60)
    assert high == 1.0 and 0.4 < low < 0.9  # a perfect ranking of few is not certain
    low, high = auroc_interval(-scores, np.array([0, 0, 0, 1]), 5, 60)
    assert low == 0.0 and 0.1 < high < 0.6


def test_false_rejects_of_few_positives_have_no_upper_end():
    rng = np.random.default_rng(0)
    for positives, end in ((20, 1.0), (71, 1.0), (200, 0.6)):
        scores = np.concatenate([rng.normal(2.5, 1, positives), rng.normal(0, 1, 300)])
        labels = np.repeat([1, 0], [positives, 300])
        low, high = fpr_interval(scores, labels, positives, 300, 0.95)
        value = float(rank(scores, labels).fpr_at_recall(0.95))
        assert low <= value <= high <= end
        assert (high == 1.0) == (end == 1.0)


def test_the_interval_is_over_groups_and_not_items():
    few = outcomes_of(2, groups=16, each=1)
    many = [
        Outcome(item=f"{o.item}.{i}", groups=o.groups, unit=o.unit, value=o.value)
        for o in few
        for i in range(20)
    ]
    for metric in (AUROC, SLOW):
        once = estimate(few, metric, np.random.default_rng(0))
        often = estimate(many, metric, np.random.default_rng(0))
        assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_many_groups_are_left_out_in_blocks():
    outcomes = outcomes_of(4, groups=1500, each=1)
    metric = Metric(name="ap", unit="fraction", better="higher", of=PRECISION)
    found = estimate(outcomes, metric, np.random.default_rng(0))
    without = {0.0: [], 1.0: []}
    for left in outcomes:
        value = PRECISION([o for o in outcomes if o is not left])
        without[left.value["label"]].append(special.logit(value))
    error = sum((len(x) - 1) * np.var(x) for x in without.values()) ** 0.5
    half = (special.logit(found.high) - special.logit(found.low)) / 2
    assert half == pytest.approx(1.96 * error, rel=0.15)


def test_pairs_of_groups_leave_out_all_pairs_of_a_group():
    rng = np.random.default_rng(0)
    people = rng.normal(size=12)
    pairs = [
        Outcome(
            item=f"{a}-{b}", groups=(f"p{a}", f"p{b}"), unit=f"{a}-{b}",
            value={"score": float(people[a] + people[b]), "label": float((a + b) % 2)},
        )
        for a, b in itertools.combinations(range(12), 2)
    ]  # fmt: skip
    found = estimate(pairs, AUROC, np.random.default_rng(0))
    assert found.n == 12 and "jackknife" in found.method
    without = [AUROC.of([o for o in pairs if f"p{p}" not in o.groups]) for p in range(12)]
    error = (11 / 12 * np.var(special.logit(without)) * 12) ** 0.5
    half = (special.logit(found.high) - special.logit(found.low)) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 11) * error)


def test_intervals_cover_the_truth_with_few_groups():
    truth = stats.norm.cdf(1 / (2 * (1 + 0.09)) ** 0.5)
    hits = []
    for seed in range(120):
        outcomes = outcomes_of(seed, groups=24, each=2)
        found = estimate(outcomes, AUROC, np.random.default_rng(10_000 + seed))
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) >= 0.92


def test_precision_at_a_prevalence_by_simulation_and_at_its_edges():
    rng = np.random.default_rng(0)
    truth = 1 / (1 + 0.1 / 0.9 * 0.98 / 0.02)
    held = []
    for found, called in zip(rng.binomial(15, 0.9, 400), rng.binomial(60, 0.1, 400), strict=True):
        low, high = precision_interval(found, 15, called, 60, prevalence=0.02)
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.93
    low, high = precision_interval(15, 15, 0, 60, prevalence=0.02)  # no false alarm was seen
    assert 0 < low < 0.5 and high == 1
    low, high = precision_interval(0, 15, 6, 60, prevalence=0.02)
    assert low == 0 and 0 < high < 0.2
    assert precision_interval(0, 15, 0, 60, prevalence=0.02) == "nothing is held back"
    assert precision_interval(0, 0, 3, 60, prevalence=0.02) == "groups of one class only"


def test_rates_of_few_groups_are_exact_for_independent_events_and_wider_where_groups_differ():
    time = np.ones(8)
    low, high = rate_interval(np.array([2.0, 0, 1, 1, 0, 2, 1, 1]), time)
    exact = stats.chi2.ppf(0.025, 16) / 16, stats.chi2.ppf(0.975, 18) / 16
    assert (low, high) == pytest.approx(exact)  # Garwood: groups agree better than by chance
    low, high = rate_interval(np.array([8.0, 0, 0, 0, 0, 0, 0, 0]), time)
    assert low < exact[0] / 3 and high > 2 * exact[1]
    low, high = rate_interval(np.zeros(8), time)
    assert (low, high) == (0, pytest.approx(stats.chi2.ppf(0.975, 2) / 16))
    few = FEWEST_RATE - 1
    assert "needs" in rate_interval(np.ones(few), np.ones(few))


def test_the_interval_of_a_median_is_that_of_the_table():
    # David and Nagaraja 2003: for n = 10, x(2) and x(9) enclose the median with 97.9 %
    assert median_interval(np.arange(1.0, 11.0)) == (2.0, 9.0)
    assert median_interval(np.arange(1.0, 7.0)) == (1.0, 6.0)
    assert "at least 6" in median_interval(np.arange(5.0))


def test_no_interval_but_a_reason():
    rng = np.random.default_rng(0)
    single = [o for o in outcomes_of(0) if o.groups[0] == "g1"]
    assert "undefined" in estimate(single, AUROC, rng).reason
    count = Metric(name="n", unit="count", better="higher", of=len)
    assert "at least 2" in estimate(single, count, rng).reason
    assert "agree" in estimate(outcomes_of(0), count, rng).reason
    precision = Metric(name="ap", unit="fraction", better="higher", of=PRECISION)
    two = [o for o in outcomes_of(0) if o.groups[0] in ("g1", "g2")]
    assert "without one of its groups" in estimate(two, precision, rng).reason
    perfect = outcomes_of(0, effect=50.0)
    found = estimate(perfect, precision, rng)
    assert (found.value, found.low) == (1.0, None)
    assert "agree" in found.reason
    sure = estimate(perfect, AUROC, rng)
    assert (sure.value, sure.high) == (1.0, 1.0) and 0.6 < sure.low < 0.95
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
    found = paired_difference(a, b, AUROC, np.random.default_rng(2))
    alone = estimate(a, AUROC, np.random.default_rng(2))
    assert found.value == pytest.approx(AUROC.of(a) - AUROC.of(b))
    assert found.high - found.low < 0.5 * (alone.high - alone.low)
    slow, fast = (paired_difference(a, b, m, np.random.default_rng(2)) for m in (SLOW, AUROC))
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high))
    part = paired_difference(a, b[:-3], AUROC, np.random.default_rng(2))
    assert "3 items left out" in part.method
    assert paired_difference(a, [], AUROC, np.random.default_rng(2)).reason


def test_a_difference_of_false_rejects_has_no_interval_but_a_reason():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    a, b = (
        [
            Outcome(item=str(i), groups=(str(i),), value={"score": float(s), "label": float(y)})
            for i, (s, y) in enumerate(zip(rng.normal(labels), labels, strict=True))
        ]
        for _ in range(2)
    )
    metric = Metric(name="m", unit="fraction", better="lower", of=fpr_at_recall(0.95))
    found = paired_difference(a, b, metric, rng)
    assert found.value == metric.of(a) - metric.of(b)
    assert found.low is None and "few items decide it" in found.reason


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


def test_an_outcome_of_two_groups_is_left_out_with_either():
    outcomes = pairs_of_people(np.random.default_rng(3), 12)
    plain = Metric(name="mean", unit="", better="higher", of=mean_score)
    fast = Metric(name="mean", unit="", better="higher", of=WeightedMean())
    one_by_one = estimate(outcomes, plain, np.random.default_rng(0))
    weighted = estimate(outcomes, fast, np.random.default_rng(0))
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
            found = estimate(rows, fast, np.random.default_rng(seed))
            covered[name] += found.low <= 0 <= found.high
    assert covered["people"] >= 50
    assert covered["pairs"] <= 40
