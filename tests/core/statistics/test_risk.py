from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from benchmarks.core.certificate_simulation import expected_violation, simulate_certificates
from scipy import stats

from lineside.core.contract import Metric, Outcome
from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.core.statistics.costs import (
    Prices,
    at_prevalence,
    cost_curve,
    misses_per_million,
    policies,
    precision_at_prevalence,
)
from lineside.core.statistics.decisions import (
    DecisionRates,
    decision_rates,
    rate_estimates,
    trade_off,
)
from lineside.core.statistics.estimates import RankMetric, estimate
from lineside.core.statistics.guarantees import certify_kinds, check_guarantee
from lineside.core.statistics.operating_points import (
    OperatingPoint,
    operating_point,
    reject_threshold,
)
from lineside.core.statistics.proportions import clopper_pearson, count_text
from lineside.core.statistics.ranking import Ranking, auroc
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    conformal_risk_threshold,
    false_alarm_threshold,
    order_statistic,
    order_statistic_threshold,
    units_needed,
)
from lineside.core.statistics.units import Words, per_unit, unit_scores

PARTS = Words(positive="faulty", negative="good", unit="part", units="parts")


def row(group, score, label, kind="", item="x"):
    return Outcome(
        item=f"{group}/{item}",
        groups=(group,),
        unit=group,
        value={"score": score, "label": float(label)},
        slices={"kind": kind} if kind else {},
    )


def groups_of(good, faulty, kinds=None):
    kinds = kinds or ["fault"] * len(faulty)
    rows = [row(f"g{i:05}", s, 0) for i, s in enumerate(good)]
    rows += [row(f"f{i:05}", s, 1, k) for i, (s, k) in enumerate(zip(faulty, kinds, strict=True))]
    return unit_scores(rows)


def normal_groups(n_good, n_faulty, seed=0, shift=2.0):
    rng = np.random.default_rng(seed)
    return groups_of(rng.normal(0, 1, n_good), rng.normal(shift, 1, n_faulty))


MIXED = [
    row("a", 0.3, 1, "crack", "1"), row("a", 0.6, 1, "hole", "2"), row("a", 0.9, 0, "", "3"),
    row("b", 0.1, 0), row("b", 0.4, 0, "", "2"), row("c", 0.2, 1, "crack"),
]  # fmt: skip


def test_groups_are_joined_by_rule():
    any_view, every = unit_scores(MIXED, "any"), unit_scores(MIXED, "every")
    assert any_view.units == every.units == ("a", "b", "c")
    assert any_view.scores.tolist() == [0.9, 0.4, 0.2]
    assert every.scores.tolist() == [0.3, 0.1, 0.2]
    assert any_view.labels.tolist() == [1, 0, 1]
    assert every.labels.tolist() == [0, 0, 1]
    assert every.kinds == ("", "", "crack")
    assert any_view.kinds == ("crack", "", "crack")
    assert any_view.negative.tolist() == [0.4]
    with pytest.raises(ValueError, match="rule"):
        unit_scores(MIXED, "most")
    with pytest.raises(UserError, match="no score"):
        unit_scores([row("a", float("nan"), 1)])
    with pytest.raises(UserError, match="no label"):
        unit_scores([row("a", 0.1, 0.5)])


def test_metric_per_unit():
    rng = np.random.default_rng(0)
    outcomes = [
        row(f"{g:02}", rng.normal(g % 2, 1), g % 2, item=str(i))
        for g in range(30)
        for i in range(4)
    ]
    fast = Metric(
        name="m", unit="fraction", better="higher",
        of=RankMetric(statistic=Ranking.auroc, units=per_unit("any")),
    )  # fmt: skip

    def by_hand(rows):
        best = {}
        for o in rows:
            best.setdefault(o.unit, []).append(o)
        joined = [(max(o.value["score"] for o in v), v[0].value["label"]) for v in best.values()]
        return auroc(*zip(*joined, strict=True))

    slow = Metric(name="m", unit="fraction", better="higher", of=by_hand)
    assert fast.of(outcomes) == pytest.approx(by_hand(outcomes))
    one = estimate(outcomes, fast, np.random.default_rng(1))
    two = estimate(outcomes, slow, np.random.default_rng(1))
    assert (one.low, one.high) == pytest.approx((two.low, two.high))
    assert math.isnan(fast.of([row("a", float("nan"), 1)]))


TABLE = {
    0: [14, 19, 29, 59, 149, 299, 2995],
    1: [22, 30, 46, 93, 236, 473, 4742],
    2: [30, 40, 61, 124, 313, 628, 6294],
}


@pytest.mark.parametrize("misses", TABLE)
def test_units_needed_table(misses):
    recalls = (0.80, 0.85, 0.90, 0.95, 0.98, 0.99, 0.999)
    assert [units_needed(r, 0.95, misses) for r in recalls] == TABLE[misses]


def test_units_needed_at_other_confidence():
    assert units_needed(0.9, 0.90) == 22
    assert units_needed(0.9) == math.ceil(math.log(0.05) / math.log(0.9))


@pytest.mark.parametrize("recall", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [5, 13, 14, 28, 29, 46, 61, 200])
def test_order_statistic_agrees_with_scipy(n, recall):
    allowed = [k for k in range(1, n + 1) if stats.binom.cdf(k - 1, n, 1 - recall) <= 0.05]
    assert order_statistic(n, recall, 0.95) == max(allowed, default=0)


def test_order_statistic_threshold_is_safe_under_ties():
    scores = [1.0] * 46
    assert order_statistic_threshold(scores, 0.9) == 1.0  # and 1.0 >= 1.0 is held back
    assert order_statistic_threshold(range(28), 0.9) is None
    assert order_statistic_threshold(range(29), 0.9) == 0
    assert order_statistic_threshold(range(46), 0.9) == 1


def test_true_recall_is_covered():
    rng = np.random.default_rng(0)
    n, repetitions = 60, 4000
    k = order_statistic(n, 0.9)
    exact = stats.binom.cdf(k - 1, n, 0.1)  # chance that the population recall is below 0.9
    below = 0
    for _ in range(repetitions):
        threshold = order_statistic_threshold(rng.random(n), 0.9)
        below += 1 - threshold < 0.9
    assert exact <= 0.05
    assert below / repetitions == pytest.approx(exact, abs=4 * (exact / repetitions) ** 0.5)


@pytest.mark.parametrize(
    ("n", "best"), [(13, 0.794), (6, 0.607), (5, 0.549), (24, 0.88265), (46, 0.937)]
)
def test_best_provable_recall(n, best):
    assert best_provable_recall(n) == pytest.approx(best, abs=5e-4)
    assert order_statistic(n, best_provable_recall(n) - 1e-9) == 1
    assert order_statistic(n, best_provable_recall(n) + 1e-9) == 0


@pytest.mark.parametrize(
    ("n_calibration", "n_test", "share", "digits"),
    [(196, 196, 0.098, 3), (34, 34, 0.057, 3), (29, 17, 0.131, 3), (30, 16, 0.116, 3),
     (29, 20, 0.062, 3), (30, 19, 0.145, 3)],
)  # fmt: skip
def test_expected_violation_numbers(n_calibration, n_test, share, digits):
    found = expected_violation(n_calibration, n_test, 0.9)
    assert round(found, digits) == share
    k = order_statistic(n_calibration, 0.9)
    m = next(m for m in range(n_test + 1) if (n_test - m) / n_test < 0.9 - 1e-12)
    law = stats.hypergeom(n_calibration + n_test, n_calibration, k - 1 + m)
    assert found == pytest.approx(law.cdf(k - 1), rel=1e-9)


def test_expected_violation_by_drawing():
    rng = np.random.default_rng(3)
    broken = 0
    for _ in range(4000):
        scores = rng.random(60)
        threshold = order_statistic_threshold(scores[:40], 0.9)
        broken += np.mean(scores[40:] >= threshold) < 0.9 - 1e-12
    expected = expected_violation(40, 20, 0.9)
    assert broken / 4000 == pytest.approx(expected, abs=3.5 * (expected / 4000) ** 0.5)
    assert math.isnan(expected_violation(20, 20, 0.9))


def test_conformal_risk_threshold_by_brute_force_and_on_average():
    rng = np.random.default_rng(0)
    for n in (8, 9, 19, 20, 35):
        scores = np.round(rng.normal(0, 1, n), 1)
        allowed = [t for t in scores if (np.sum(scores < t) + 1) / (n + 1) <= 0.1 + 1e-12]
        assert conformal_risk_threshold(scores, 0.1) == max(allowed, default=None)
    assert conformal_risk_threshold(range(99), 0.29) == 28
    escapes = []
    for _ in range(4000):
        escapes.append(conformal_risk_threshold(rng.random(24), 0.1))  # uniform: the escape rate
    assert np.mean(escapes) == pytest.approx(2 / 25, abs=0.004)


def conformal_p_values(good, scores):
    """(1 + number of good calibration scores >= score) / (n + 1), by the definition."""
    return np.array([(1 + sum(g >= s for g in good)) / (len(good) + 1) for s in scores])


def test_false_alarm_threshold_agrees_with_p_values():
    rng = np.random.default_rng(0)
    good = np.round(rng.normal(0, 1, 99), 1)
    threshold, rate = false_alarm_threshold(good, 0.05)
    assert rate == 0.05
    candidates = np.concatenate([good, rng.normal(1, 1, 200)])
    assert ((conformal_p_values(good, candidates) <= 0.05) == (candidates >= threshold)).all()
    threshold, rate = false_alarm_threshold([1.0, 2.0], 0.01)
    assert 2.0 < threshold < 2.0 + 1e-9
    assert rate == pytest.approx(1 / 3)


def test_false_reject_rate_holds_on_average():
    rng = np.random.default_rng(0)
    rates = [1 - false_alarm_threshold(rng.random(99), 0.05)[0] for _ in range(3000)]
    assert np.mean(rates) == pytest.approx(0.05, abs=0.002)


def test_certified_point():
    groups = normal_groups(80, 46)
    point = operating_point(groups, recall=0.9, words=PARTS, model="abc", date="2024-05-01")
    assert point.certified
    assert point.method == "order statistic"
    assert point.threshold == np.sort(groups.positive)[1]
    assert (point.n_negative, point.n_positive, point.misses, point.needed) == (80, 46, 1, 29)
    assert point.reject_threshold == point.threshold
    assert "certified with 46 faulty parts" in point.message
    assert point.decide(point.threshold) == "reject"
    assert point.decide(np.nextafter(point.threshold, -np.inf)) == "accept"
    assert point.decide(float("nan")) == "review"
    suspended = point.suspend("memory was extended")
    assert suspended.provable
    assert not suspended.certified


def test_unprovable_point_says_what_is_missing():
    point = operating_point(normal_groups(80, 24), recall=0.9, words=PARTS)
    assert not point.provable
    assert point.method == "conformal risk control"
    assert point.misses == 1
    assert "You have 24 faulty parts" in point.message
    assert "needs 29" in point.message
    assert "recall >= 0.882" in point.message
    assert "not certified" in point.message
    # The recall it names is provable with the same groups.
    assert operating_point(normal_groups(80, 24), recall=0.882).provable


def test_very_few_faulty_groups():
    groups = groups_of([0.0, 0.1], [0.5])
    point = operating_point(groups, recall=0.95, words=PARTS)
    assert point.method == "lowest positive score"
    assert point.threshold == 0.5
    assert point.bound == 0.5
    assert "1 faulty part," in point.message


def test_without_faulty_groups_nothing_is_claimed_about_recall():
    rng = np.random.default_rng(0)
    groups = groups_of(rng.random(199), [])
    point = operating_point(groups, recall=0.9, review_budget=0.04, words=PARTS)
    assert point.recall is None
    assert not point.provable
    assert (point.bound, point.n_positive) == (0.01, 0)
    assert "no recall is guaranteed" in point.message
    assert np.mean(groups.negative >= point.reject_threshold) <= 0.01
    assert np.mean(groups.negative >= point.threshold) <= 0.05
    assert point.threshold < point.reject_threshold
    assert check_guarantee(point, normal_groups(5, 5)).kept
    with pytest.raises(UserError, match="no parts"):
        operating_point(groups_of([], []), recall=0.9, words=PARTS)


def test_point_survives_json():
    point = operating_point(normal_groups(50, 40), recall=0.9, review_budget=0.1)
    block = json.loads(json.dumps(encode(point)[0], allow_nan=False))
    assert decode(OperatingPoint, block, {}) == point
    for wrong in (
        {**block, "colour": 1},
        {k: v for k, v in block.items() if k != "rule"},
        {**block, "threshold": None},
        {**block, "method": "magic"},
    ):
        with pytest.raises(UserError):
            decode(OperatingPoint, wrong, {})


def test_review_band_by_brute_force():
    rng = np.random.default_rng(0)
    groups = groups_of(np.round(rng.normal(0, 1, 60), 1), np.round(rng.normal(1, 1, 40), 1))
    for prevalence in (0.0, 0.3):
        for budget in (0.0, 0.05, 0.2, 0.9):
            low = 0.0
            best = low
            for end in np.unique(np.nextafter(groups.negative[groups.negative >= low], np.inf)):
                good = np.mean((groups.negative >= low) & (groups.negative < end))
                faulty = np.mean((groups.positive >= low) & (groups.positive < end))
                if (1 - prevalence) * good + prevalence * faulty <= budget + 1e-12:
                    best = end
            assert reject_threshold(groups, low, budget, prevalence) == best
    assert reject_threshold(groups, 99.0, 0.5) == 99.0


def test_decision_rates_by_hand():
    groups = groups_of([0.1, 0.4, 0.6, 0.9], [0.2, 0.5, 0.7, 0.8, 0.95])
    point = operating_point(groups, recall=0.9)
    point = dataclasses.replace(point, threshold=0.4, reject_threshold=0.7)
    rates = decision_rates(groups, point)
    assert (rates.miss, rates.false_alarm) == (0.2, 0.25)
    assert (rates.review_positive, rates.review_negative) == (0.2, 0.5)
    assert (rates.recall, rates.held_negative) == (0.8, 0.75)
    shares = rate_estimates(groups, point)
    assert shares["miss"].value == 0.2
    assert shares["false_alarm"].value == 0.25
    assert shares["accepted_negative"].value == 0.25
    assert shares["recall"].low == pytest.approx(stats.binomtest(4, 5).proportion_ci().low)
    assert shares["review_negative"].better == "lower"


def test_units_that_are_unusual_are_never_accepted():
    rows = [row(f"u{i}", score, label) for i, (score, label) in enumerate(MIXED_UNITS)]
    odd = [dataclasses.replace(o, value={**o.value, "usual": 0.0}) for o in rows[:1] + rows[4:5]]
    groups = unit_scores([*odd, *rows[1:4], *rows[5:]])
    point = operating_point(unit_scores(rows), recall=0.9)
    point = dataclasses.replace(point, threshold=0.4, reject_threshold=0.7)
    rates = decision_rates(groups, point)
    assert (rates.miss, rates.review_positive) == (0.0, 0.5)  # 0.2 is unusual
    assert (rates.held_negative, rates.false_alarm) == (0.75, 0.25)  # 0.1 is unusual
    assert rate_estimates(groups, point)["held_negative"].value == 0.75
    assert rate_estimates(groups, point)["miss"].value == 0.0
    two_views = [row("u", 0.1, 0, item="a"), row("u", 0.2, 0, item="b")]
    two_views[1] = dataclasses.replace(two_views[1], value={**two_views[1].value, "usual": 0.0})
    assert not unit_scores(two_views, "every").usual[0]  # one view is enough


MIXED_UNITS = [(0.1, 0), (0.3, 0), (0.5, 0), (0.9, 0), (0.2, 1), (0.6, 1), (0.8, 1), (0.95, 1)]


def test_trade_off_by_hand():
    calibration = groups_of([0.0, 0.1, 0.2], np.arange(1, 21) / 10)
    test = groups_of([0.05, 0.15, 0.55, 1.5], [0.5, 0.9, 1.8])
    point = operating_point(calibration, recall=0.8)
    rows = trade_off(calibration, test, point)
    thresholds = [r.threshold for r in rows]
    assert thresholds == pytest.approx([0.1, 0.2, 0.3, 0.5, 0.7, 1.1])  # 0, 1, 2, 4, 6, 10 of 20
    assert [r.in_use for r in rows] == [t == point.threshold for t in thresholds]
    assert sum(r.in_use for r in rows) == 1
    assert [r.miss.value for r in rows] == pytest.approx([0, 0, 0, 0, 1 / 3, 2 / 3])
    assert [r.held_negative.value for r in rows] == [0.75, 0.5, 0.5, 0.5, 0.25, 0.25]
    for r, missed in zip(rows, (0, 1, 2, 4, 6, 10), strict=True):
        bound = stats.binomtest(missed, 20, alternative="less").proportion_ci().high
        assert r.proven_miss == pytest.approx(bound)
    good_only = groups_of(np.arange(100.0), [])
    rows = trade_off(good_only, good_only, operating_point(good_only, recall=0.9))
    assert all(r.proven_miss is None and np.isnan(r.miss.value) for r in rows)
    assert rows[0].held_negative.value == 0.5 and rows[-1].held_negative.value <= 0.01


@pytest.mark.adversary("c")
def test_misses_per_million_are_an_interval_or_nothing_is_shipped():
    groups = groups_of(np.linspace(0, 1, 40), np.full(24, 2.0))
    point = operating_point(groups, recall=0.8)
    point = dataclasses.replace(point, threshold=0.5, reject_threshold=0.5)
    found = misses_per_million(groups, point, 0.005)
    miss, false_alarm = clopper_pearson(0, 24)[1], clopper_pearson(20, 40)[1]
    worst = 0.005 * miss / (0.005 * miss + 0.995 * (1 - false_alarm))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(1e6 * worst) and found.high > 1000
    assert "one-sided" in found.method
    some = misses_per_million(groups, dataclasses.replace(point, threshold=2.5,
                              reject_threshold=2.5), 0.005)  # fmt: skip
    assert 0 < some.low < some.value == pytest.approx(5000) and "two-sided" in some.method
    everything = dataclasses.replace(point, threshold=-1.0, reject_threshold=-1.0)
    nothing = misses_per_million(groups, everything, 0.005)
    assert nothing.high is None and nothing.reason == "nothing is shipped"
    assert np.isnan(at_prevalence(decision_rates(groups, everything), 0.005).misses_per_million)


def test_the_interval_of_misses_per_million_covers():
    """300 draws: units of known rates, 5 % misses and 30 % false alarms."""
    rng = np.random.default_rng(0)
    truth = 1e6 * 0.01 * 0.05 / (0.01 * 0.05 + 0.99 * 0.7)
    point = dataclasses.replace(operating_point(normal_groups(9, 9), recall=0.8), threshold=0.5,
                                reject_threshold=0.5)  # fmt: skip
    covered = 0
    for _ in range(300):
        drawn = groups_of((rng.random(60) < 0.3) * 1.0, (rng.random(40) >= 0.05) * 1.0)
        found = misses_per_million(drawn, point, 0.01)
        covered += found.low <= truth <= found.high
    assert covered >= 0.95 * 300


def test_policies_by_hand():
    groups = groups_of([0.1, 0.4, 0.6, 0.9], [0.2, 0.5, 0.7, 0.8, 0.95])
    point = operating_point(groups, recall=0.9)
    point = dataclasses.replace(point, threshold=0.4, reject_threshold=0.7)
    found = policies(groups, point, Prices(prevalence=0.01, miss=100, review=0.2))
    cost = {name: policy.cost for name, policy in found.items()}
    assert cost["as decided"] == pytest.approx(
        0.01 * (0.2 * 100 + 0.2 * 0.2) + 0.99 * (0.25 + 0.5 * 0.2)
    )
    assert cost["review what is held back"] == pytest.approx(
        0.01 * (0.2 * 100 + 0.8 * 0.2) + 0.99 * 0.75 * 0.2
    )
    assert (cost["review all"], cost["accept all"]) == (0.2, 1.0)
    assert all(policy.high >= policy.cost for policy in found.values())


def test_the_bound_of_a_cost_holds_where_no_miss_was_seen():
    """200 draws of 20 faulty units of which 8 % are missed: a bootstrap would say 0 too often."""
    rng = np.random.default_rng(1)
    prices = Prices(prevalence=0.05, miss=100, review=0.2)
    truth = 0.05 * (0.08 * 100 + 0.92 * 0.2) + 0.95 * 0.3 * 0.2
    point = dataclasses.replace(operating_point(normal_groups(9, 9), recall=0.8), threshold=0.5,
                                reject_threshold=0.5)  # fmt: skip
    holds = 0
    for _ in range(200):
        drawn = groups_of((rng.random(50) < 0.3) * 1.0, (rng.random(20) >= 0.08) * 1.0)
        holds += policies(drawn, point, prices)["review what is held back"].high >= truth
    assert holds >= 0.95 * 200


def test_production_rates_by_hand():
    rates = DecisionRates(miss=0.1, false_alarm=0.05, review_positive=0.2, review_negative=0.15)
    made = at_prevalence(rates, 0.01)
    shipped = 0.01 * 0.1 + 0.99 * 0.95
    assert made.misses_per_million == pytest.approx(1e6 * 0.001 / shipped)
    assert made.precision == pytest.approx(0.009 / (0.009 + 0.99 * 0.2))
    assert made.first_pass_yield == pytest.approx(0.001 + 0.99 * 0.8)
    assert made.review_share == pytest.approx(0.002 + 0.1485)
    assert made.review_share + made.first_pass_yield < 1


def test_cost_curve_by_hand():
    groups = groups_of([0.1, 0.4, 0.6, 0.9], [0.2, 0.5, 0.7, 0.8, 0.95])
    point = operating_point(groups, recall=0.9)
    point = dataclasses.replace(point, threshold=0.4, reject_threshold=0.7)
    curve = cost_curve(
        groups, point, cost_ratio=100, review_cost=0.5, prevalences=[0.01, 0.2],
    )  # fmt: skip
    for i, pi in enumerate((0.01, 0.2)):
        review = pi * 0.2 + (1 - pi) * 0.5
        cost = pi * 0.2 * 100 + (1 - pi) * 0.25 + review * 0.5
        scale = pi * 100 + 1 - pi
        assert curve.cost[i] == pytest.approx(cost / scale)
        assert curve.review_all[i] == pytest.approx(0.5 / scale)
        assert curve.accept_all[i] + curve.reject_all[i] == pytest.approx(1)
        assert curve.low[i] <= curve.cost[i] <= curve.high[i]
    assert curve.break_even_prevalence is None  # people are cheaper everywhere
    pi = cost_curve(groups, point, cost_ratio=100, review_cost=0.8).break_even_prevalence
    at = cost_curve(groups, point, cost_ratio=100, review_cost=0.8, prevalences=[pi])
    assert at.cost[0] == pytest.approx(at.review_all[0])


def test_precision_of_what_is_held_back_has_an_interval_or_a_reason():
    groups = groups_of([0.1, 0.4, 0.6, 0.9], [0.2, 0.5, 0.7, 0.8, 0.95])
    point = dataclasses.replace(
        operating_point(groups, recall=0.9), threshold=0.5, reject_threshold=0.7
    )
    found = precision_at_prevalence(groups, point, 0.1)
    assert found.value == pytest.approx(0.1 * 0.8 / (0.1 * 0.8 + 0.9 * 0.5))
    assert 0 < found.low < found.value < found.high < 1
    assert (found.n, found.positives) == (9, 5)
    nothing = dataclasses.replace(point, threshold=2.0, reject_threshold=2.0)
    assert precision_at_prevalence(groups, nothing, 0.1).reason == "nothing is held back"


def test_the_band_of_costs_holds_where_no_miss_was_seen():
    """A bootstrap of 12 positives without a miss says that none will ever be missed."""
    groups = groups_of(np.linspace(0, 1, 40), np.linspace(2, 3, 12))
    point = dataclasses.replace(
        operating_point(groups, recall=0.9), threshold=1.5, reject_threshold=1.5
    )
    curve = cost_curve(groups, point, cost_ratio=50, review_cost=0.2, prevalences=[0.1])
    assert curve.cost[0] == 0
    # the upper end of 0 of n is 1 - 0.025^(1 / n)
    positive, negative = (share * (1 - 0.025 ** (1 / n)) for share, n in ((0.1, 12), (0.9, 40)))
    reach = [50 * positive, negative, 0.2 * positive, 0.2 * negative]  # misses ... reviews
    assert curve.high[0] == pytest.approx(np.linalg.norm(reach) / (0.1 * 50 + 0.9))
    single = groups_of([0.0, 1.0], [2.0])
    assert cost_curve(single, point, cost_ratio=50, review_cost=0.2).low is None


def test_counts_in_words():
    upper = 1 - stats.binomtest(20, 20, alternative="greater").proportion_ci().low
    assert count_text(0, 20) == f"0 of 20 (at most {100 * upper:.1f} %, one-sided 95 %)"
    assert count_text(20, 20).startswith(f"20 of 20 (at least {100 * (1 - upper):.1f} %, one-sided")
    ends = stats.binomtest(3, 20).proportion_ci()
    low, high = (f"{100 * end:.1f} %" for end in (ends.low, ends.high))
    assert count_text(3, 20) == f"3 of 20 (15.0 %; {low} to {high}, two-sided 95 %)"
    assert count_text(0, 0) == "0 of 0"


@pytest.mark.adversary("g")
def test_a_check_states_the_promise_that_was_made_and_what_was_counted():
    fresh = groups_of([0.1, 0.2, 0.6, 0.9], [0.4, 0.7, 0.8])
    none = operating_point(groups_of(np.arange(50) / 100, []), recall=0.9, words=PARTS)
    few = operating_point(normal_groups(30, 5), recall=0.9, words=PARTS)
    lots = operating_point(normal_groups(50, 40), recall=0.9, words=PARTS).suspend("lots differ")
    for point in (none, few, lots):
        moved = dataclasses.replace(point, threshold=0.5, reject_threshold=0.7)
        check = check_guarantee(moved, fresh)
        assert check.kept, "nothing was promised with a confidence"
        assert check.text.startswith("No promise")
        assert "Promise:" not in check.text and "compatible" not in check.text
        assert "1 of 3 (33.3 %; 0.8 % to 90.6 %, two-sided 95 %) of the faulty parts" in check.text
        assert "2 of 4 (50.0 %; 6.8 % to 93.2 %, two-sided 95 %) of the good parts" in check.text
        assert "1 were rejected" in check.text
    assert "at most 1.96 % of good parts" in check_guarantee(none, fresh).text
    assert "needs 29" in check_guarantee(few, fresh).text
    assert "lots differ" in check_guarantee(lots, fresh).text
    certified = operating_point(normal_groups(50, 40), recall=0.9, words=PARTS)
    assert check_guarantee(certified, fresh).text.startswith("Promise: At least 90 %")


def test_a_refuted_guarantee():
    point = operating_point(normal_groups(50, 60), recall=0.9, words=PARTS)
    fine = check_guarantee(point, normal_groups(10, 50, seed=1))
    assert fine.kept
    assert "compatible" in fine.text
    broken = check_guarantee(point, normal_groups(10, 50, seed=1, shift=0.5))
    assert not broken.kept
    assert "calibrate again" in broken.text
    assert "not tested" in check_guarantee(point, groups_of([0.1], [])).text


def test_kinds():
    kinds = ["crack"] * 5 + ["hole"] * 30 + ["dent"] * 13
    groups = groups_of([0.0] * 5, np.arange(48.0), kinds)
    alone = certify_kinds(groups, recall=0.9)
    assert list(alone) == ["crack", "dent", "hole"]
    assert alone["hole"].threshold == 5.0
    assert alone["crack"].threshold is None
    assert (alone["crack"].n, alone["crack"].needed) == (5, 29)
    assert alone["crack"].best_recall == pytest.approx(0.549, abs=5e-4)
    assert alone["dent"].best_recall == pytest.approx(0.794, abs=5e-4)


def certificate_data(spread, groups=68, each=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for g in range(groups):
        level = rng.normal(0, 1)
        rows += [row(f"{g}", level + rng.normal(0, spread), 1, item=str(i)) for i in range(each)]
    return [*rows, row("good", 0.0, 0)]


def test_simulation_keeps_the_guarantee_by_group_and_breaks_it_by_item():
    found = simulate_certificates(
        certificate_data(0.3), np.random.default_rng(0), repetitions=1500, rule="every"
    )
    right, wrong, control = found["by group"], found["by item"], found["independent items"]
    assert (right.n_calibration, right.n_test, wrong.n_test) == (34, 34, 204)
    assert right.expected == pytest.approx(0.0569, abs=1e-4)
    assert abs(right.excess_sigma) < 3.5
    assert abs(control.excess_sigma) < 3.5
    assert wrong.violation > 0.2
    assert wrong.excess_sigma > 10
    assert wrong.expected == control.expected
    counted = found["by group, counted by item"]
    assert counted.violation < right.violation
    assert math.isnan(counted.expected)
    assert counted.mean_recall > right.mean_recall > 0.9
    assert wrong.worst_recall < control.worst_recall


def test_simulation_of_independent_items_has_no_excess():
    data = [row(f"{g}", s, 1) for g, s in enumerate(np.random.default_rng(1).random(60))]
    found = simulate_certificates(data, np.random.default_rng(0), repetitions=1000)
    assert all(abs(s.excess_sigma) < 3.5 for n, s in found.items() if "counted" not in n)
    with pytest.raises(UserError, match="calibrate"):
        simulate_certificates(data, np.random.default_rng(0), n_calibration=60)
    few = simulate_certificates(data, np.random.default_rng(0), n_calibration=20, repetitions=5)
    assert few == {}  # 20 prove nothing at 0.9
