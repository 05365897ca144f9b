"""Measures of condition monitoring against values counted by hand."""

import numpy as np
import pytest

from lineside.core.contract import Outcome
from lineside.core.statistics.estimates import estimate
from lineside.machines.metrics import LATE_COST, METRICS, MISSED_COST, MONTH_SECONDS, timeline

HOUR = 3600.0
OF = {metric.name: metric.of for metric in METRICS}


def scenario(episodes, scores=None, labels=None, failed_at=None, times=None, machine="m"):
    count = len(episodes)
    times = np.arange(count) * HOUR if times is None else np.array(times, float)
    rows = timeline(
        times,
        np.zeros(count) if scores is None else np.array(scores, float),
        np.full(count, 3.0),
        np.zeros(count) if labels is None else np.array(labels, float),
        np.array(episodes, bool),
        failed_at,
    )
    return [
        Outcome(item=f"{machine}{i}", groups=(machine,), unit=machine, value=r)
        for i, r in enumerate(rows)
    ]


def test_false_episodes_are_counted_over_healthy_time_only():
    found = scenario([0, 1, 0, 1, 0, 1], labels=[0, 0, 0, 0, 1, 1])
    assert OF["false_episodes"](found) == pytest.approx(2 / (4 * HOUR / MONTH_SECONDS))


def test_false_episodes_have_an_interval_over_machines_even_without_any():
    """A jackknife of machines that all had none would claim that there never will be one."""
    metric = next(metric for metric in METRICS if metric.name == "false_episodes")
    quiet = [o for i in range(6) for o in scenario([0] * 20, machine=f"m{i}")]
    months = 6 * 20 * HOUR / MONTH_SECONDS
    found = estimate(quiet, metric, np.random.default_rng(0))
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(-np.log(0.025) / months)
    one = [*quiet, *scenario([0, 1] * 10, machine="m6")]
    assert estimate(one, metric, np.random.default_rng(0)).high > found.high
    three = [o for i in range(3) for o in scenario([0, 1] * 10, machine=f"m{i}")]
    assert "needs" in estimate(three, metric, np.random.default_rng(0)).reason


def test_a_gap_counts_as_three_intervals_at_most():
    found = scenario([0, 0, 0, 0], times=[0, HOUR, 2 * HOUR, 100 * HOUR])
    assert sum(o.value["seconds"] for o in found) == 6 * HOUR


def test_delay_and_lead_are_counted_from_the_first_episode_after_the_onset():
    found = scenario([0, 1, 0, 0, 1, 1], labels=[0, 0, 1, 1, 1, 1], failed_at=10 * HOUR)
    assert OF["faults_found"](found) == 1.0
    assert OF["delay"](found) == 2.0
    assert OF["lead_time"](found) == 6.0


def test_an_alarm_after_the_failure_or_before_the_onset_finds_nothing():
    late = scenario([0, 1, 0, 0, 1], labels=[0, 0, 1, 1, 1], failed_at=4 * HOUR)
    assert OF["faults_found"](late) == 0.0 and np.isnan(OF["lead_time"](late))


def test_an_alarm_that_becomes_dangerous_after_the_onset_finds_the_fault():
    times, episodes = np.arange(5) * HOUR, np.array([0, 1, 0, 0, 0], bool)
    raised = np.array([0, 1, 0, 1, 0], bool)
    labels = np.array([0.0, 0, 1, 1, 1])
    for told, found in ((None, 0.0), (raised, 1.0)):
        rows = timeline(times, np.zeros(5), np.ones(5), labels, episodes, 5 * HOUR, told)
        assert [r.get("found") for r in rows] == [None, None, found, None, None]
        assert rows[2].get("lead_hours") == (2.0 if found else None)


def test_risk_weighs_a_missed_fault_like_many_false_alarms():
    missed = scenario([0, 1, 0, 0], labels=[0, 0, 1, 1])
    months = 4 * HOUR / MONTH_SECONDS
    assert OF["risk"](missed) == pytest.approx((1 + MISSED_COST) / months)
    assert OF["risk"](scenario([0, 0, 1, 0], labels=[0, 0, 1, 1])) == 0.0


def test_of_two_that_find_the_fault_the_earlier_one_has_less_risk():
    months = 4 * HOUR / MONTH_SECONDS
    late = scenario([0, 0, 0, 1], labels=[0, 0, 1, 1], failed_at=4 * HOUR)
    assert OF["risk"](late) == pytest.approx(0.5 * LATE_COST / months)
    at_onset = scenario([0, 0, 1, 0], labels=[0, 0, 1, 1], failed_at=4 * HOUR)
    assert OF["risk"](at_onset) == 0.0


def test_exceedances_and_auroc_leave_out_what_was_not_judged():
    scores, labels = [1, 4, np.nan, 2, 9, 8], [0, 0, 0, np.nan, 1, 1]
    found = scenario([0] * 6, scores=scores, labels=labels)
    assert OF["false_exceedances"](found) == 0.5
    assert OF["auroc"](found) == 1.0


def test_sums_of_two_machines_are_those_of_both():
    one = scenario([0, 1, 0], machine="a")
    two = scenario([0, 0, 0], machine="b")
    assert OF["false_episodes"]([*one, *two]) == pytest.approx(OF["false_episodes"](one) / 2)


def test_nothing_known_gives_nothing():
    unknown = scenario([0, 1], labels=[np.nan, np.nan])
    assert all(np.isnan(of(unknown)) for of in OF.values())
