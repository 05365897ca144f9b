from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate

from lineside.core.errors import UserError
from lineside.parts.monitoring.drift import (
    BETS,
    DriftMonitor,
    bets_of,
    psi,
    uninvested,
)


def run(monitor: DriftMonitor, scores) -> DriftMonitor:
    for score in scores:
        monitor.push(float(score))
    return monitor


def test_no_bet_gains_on_average():
    for index in range(BETS):
        # Split at 1/2 and substitute p = u^10: the powers are unbounded at both ends.
        u = np.linspace(0, 0.5**0.1, 4001)
        slope = 10 * u**9
        low = [bets_of(value)[index] for value in u**10] * slope
        high = [bets_of(1 - value)[index] for value in u**10] * slope
        # Clipping p at 1e-12 gives a little away, never more than 0.4 %.
        assert 0.996 < integrate.trapezoid(low + high, u) < 1 + 1e-4


def test_the_initial_capital_is_one_and_is_set_slowly():
    monitor = DriftMonitor(np.arange(20.0))
    assert uninvested(monitor.seen) + monitor.capital.sum() == 1
    assert uninvested(0) == 1
    assert 0.05 < uninvested(10**6) < 0.1


def test_p_values_follow_the_definition():
    monitor = DriftMonitor(np.arange(40.0))
    counts = monitor.counts
    assert counts.sum() == 20
    for index in (0, 5, len(counts) - 1):
        chance = np.random.default_rng([0, 1]).random()
        by_hand = (counts[index + 1 :].sum() + chance * (counts[index] + 1)) / 21
        assert monitor._p_value(index) == pytest.approx(by_hand)


def test_p_values_of_unchanged_scores_are_uniform():
    rng = np.random.default_rng(0)
    monitor = DriftMonitor(rng.normal(size=60))
    values = []
    for score in rng.normal(size=1500):
        index = int(np.searchsorted(monitor.edges, score, side="right"))
        values.append(monitor._p_value(index))
        monitor.push(score)
    shares = np.bincount((np.array(values) * 10).astype(int), minlength=10) / 1500
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.1 * 0.9 / 1500)


def test_false_alarms_stay_below_alpha_over_a_whole_run():
    """At alpha 0.2, 80 runs of 200 scores from small references: at most 16 alarms are expected."""
    alarms = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        draw = rng.normal if seed % 2 else rng.exponential
        monitor = DriftMonitor(draw(size=20), alpha=0.2, seed=seed)
        alarms += run(monitor, draw(size=200)).alarm
    assert alarms <= 16


@pytest.mark.parametrize(("shift", "within"), [(1.0, 120), (2.0, 45), (-1.0, 120)])
def test_a_shift_after_a_long_healthy_run_is_found(shift, within):
    rng = np.random.default_rng(7)
    monitor = run(DriftMonitor(rng.normal(size=200)), rng.normal(size=1000))
    assert not monitor.alarm
    run(monitor, rng.normal(shift, size=within))
    assert monitor.alarm


def test_a_wider_spread_is_found():
    rng = np.random.default_rng(8)
    monitor = run(DriftMonitor(rng.normal(size=200)), 3 * rng.normal(size=200))
    assert monitor.alarm


def test_the_alarm_stays():
    rng = np.random.default_rng(1)
    monitor = run(DriftMonitor(rng.normal(size=100)), rng.normal(4, size=60))
    assert monitor.alarm
    run(monitor, rng.normal(size=300))
    assert monitor.alarm


def test_a_score_that_is_no_number_counts_as_the_highest():
    monitor = DriftMonitor(np.random.default_rng(3).normal(size=80))
    run(monitor, [np.nan, np.inf])
    assert (monitor.seen, monitor.counts[-1]) == (2, 2)
    assert np.isfinite(monitor.window).all()
    assert run(monitor, [np.nan] * 40).alarm


def test_psi_by_hand_and_summary():
    reference = np.arange(100.0)
    assert psi(reference, reference) == pytest.approx(0, abs=1e-12)
    top = np.full(20, 95.0)
    before = np.full(10, 10.5 / 105)
    after = np.array([0.5] * 9 + [20.5]) / 25
    assert psi(reference, top) == pytest.approx(((after - before) * np.log(after / before)).sum())
    monitor = run(DriftMonitor(reference), top)
    summary = monitor.summary()
    assert summary["ks"] == pytest.approx(0.95)
    assert summary["n"] == 20
    assert np.isnan(DriftMonitor(reference).summary()["psi"])


def test_bad_references_are_refused():
    with pytest.raises(UserError, match="reference"):
        DriftMonitor([1.0, 2.0])
    with pytest.raises(UserError, match="reference"):
        DriftMonitor([np.nan] * 20)
