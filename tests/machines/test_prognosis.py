"""Forecasts of made-up trends: covered as often as promised, and refused where there is none."""

import numpy as np
import pytest
from scipy import stats

from lineside.machines.prognosis import HOUR, forecast


def grown(hours=100, rate=0.03, noise=0.05, seed=0, rho=0.0):
    rng = np.random.default_rng(seed)
    shake = rng.standard_normal(hours)
    for i in range(1, hours):
        shake[i] = rho * shake[i - 1] + np.sqrt(1 - rho**2) * shake[i]
    t = np.arange(hours) * HOUR
    return t, np.exp(rate * np.arange(hours) + noise * shake)


def test_a_straight_trend_is_carried_on():
    t, y = grown(noise=1e-6)
    found = forecast(t, y, danger=float(np.exp(0.03 * 199)))
    assert found.hours == pytest.approx(100, rel=0.01)
    assert found.earliest_hours <= found.hours <= found.latest_hours
    assert "about 4 days" in found.text and "Plan maintenance" in found.text


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_holds_the_truth_as_often_as_it_says(rho):
    hits = 0
    for seed in range(150):
        t, y = grown(60, rate=0.02, noise=0.2, seed=seed, rho=rho)
        found = forecast(t, y, danger=float(np.exp(0.02 * 159)))
        if found.hours is not None:
            hits += found.earliest_hours <= 100 <= found.latest_hours
    assert hits / 150 > 0.8


def test_sens_interval_is_that_of_scipy_where_snapshots_are_independent():
    from lineside.machines.prognosis import _interval

    t, y = grown(40, noise=0.3, seed=3)
    slope, intercept, low, high = stats.theilslopes(y := np.log(y), t, alpha=0.9)
    alternating = np.where(np.arange(40) % 2, 1.0, -1.0)  # no positive autocorrelation
    assert _interval(t, y, alternating, 0.9) == pytest.approx((low, high), rel=0.05)
    assert low < slope < high and np.isfinite(intercept)


def test_one_burst_does_not_tilt_it():
    t, y = grown(noise=0.01)
    burst = y.copy()
    burst[30:33] *= 50
    danger = float(np.exp(0.03 * 150))
    assert forecast(t, burst, danger).hours == pytest.approx(forecast(t, y, danger).hours, rel=0.1)


def test_no_trend_and_too_little_are_said():
    t = np.arange(50) * HOUR
    told = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = forecast(t, np.exp(0.1 * rng.standard_normal(50)), 100.0)
        told += found.hours is not None
        assert found.hours is not None or "cannot be said" in found.text
    assert told <= 12, "one in twenty by the confidence of 90 %, two sided"
    assert "too few" in forecast(t[:5], np.ones(5), 10.0).text
    assert forecast(*grown(), danger=1.0).hours == 0.0
