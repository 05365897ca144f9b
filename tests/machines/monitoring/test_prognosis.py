"""Forecasts of states-up trends: covered as often as promised, and refused where there is none."""

import json

import numpy as np
import pytest
from scipy import stats

from lineside.machines.monitoring.prognosis import (
    BEFORE,
    EVERY,
    HOUR,
    INITIAL,
    MOST,
    forecast,
    is_news,
    update,
)


def grown(hours=100, rate=0.3, noise=0.5, seed=0, rho=0.0):
    rng = np.random.default_rng(seed)
    shake = rng.standard_normal(hours)
    for i in range(1, hours):
        shake[i] = rho * shake[i - 1] + np.sqrt(1 - rho**2) * shake[i]
    t = np.arange(hours) * HOUR
    return t, rate * np.arange(hours) + noise * shake


def test_a_straight_trend_is_carried_on():
    t, y = grown(noise=1e-6)
    found = forecast(t, y, danger=0.3 * 199)
    assert found.hours == pytest.approx(100, rel=0.01)
    assert found.earliest_hours <= found.hours <= found.latest_hours
    assert "about 4 days" in found.text and "Plan maintenance" in found.text


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_holds_the_truth_as_often_as_it_says(rho):
    hits, count = 0, 0
    for seed in range(150):
        t, y = grown(60, rate=0.2, noise=2.0, seed=seed, rho=rho)
        found = forecast(t, y, danger=0.2 * 159)
        if found.hours is not None:
            count += 1
            latest = np.inf if found.latest_hours is None else found.latest_hours
            hits += found.earliest_hours <= 100 <= latest
    assert count > 100 and hits / count > 0.85


def test_a_trend_that_bends_has_a_wider_interval():
    t, y = grown(60, noise=0.3)
    bent = np.where(np.arange(60) < 40, y, y[40] + 0.25 * (y - y[40]))
    widths = []
    for series in (y, bent):
        found = forecast(t, series, danger=float(series[-1]) + 6.0)
        latest = np.inf if found.latest_hours is None else found.latest_hours
        widths.append((latest - found.earliest_hours) / found.hours)
    assert widths[1] > 2 * widths[0]


def test_sens_interval_is_that_of_scipy_for_independent_snapshots():
    from lineside.machines.monitoring.prognosis import _pair_slopes, _slope_interval

    t, y = grown(40, noise=3.0, seed=3)
    slope, intercept, low, high = stats.theilslopes(y, t, alpha=0.9)
    alternating = np.where(np.arange(40) % 2, 1.0, -1.0)  # no positive autocorrelation
    assert _slope_interval(_pair_slopes(t, y), alternating) == pytest.approx((low, high), rel=0.05)
    assert low < slope < high and np.isfinite(intercept)
    assert np.median(_pair_slopes(t, y)) == pytest.approx(slope)


def test_one_burst_does_not_tilt_it():
    t, y = grown(noise=0.1)
    burst = y.copy()
    burst[30:33] += 40
    assert forecast(t, burst, 45.0).hours == pytest.approx(forecast(t, y, 45.0).hours, rel=0.1)


def test_without_a_trend_there_is_no_forecast():
    t = np.arange(50) * HOUR
    count = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found = forecast(t, rng.standard_normal(50), 100.0)
        count += found.hours is not None
        assert found.hours is not None or "cannot be said" in found.text
    assert count <= 12, "one in twenty by the confidence of 90 %, two sided"
    assert "too few" in forecast(t[:5], np.ones(5), 10.0).text
    assert forecast(*grown(), danger=1.0).hours == 0.0


def fold(series, alarm_from, danger=20.0, cut=False):
    state, states, reported = INITIAL, [], []
    for hour, value in enumerate(series):
        if cut:
            state = json.loads(json.dumps(state))
        state = update(state, hour * HOUR, float(value), hour >= alarm_from, danger)
        if is_news(state):
            reported.append(state["forecast"])
            state = {**state, "reported": state["forecast"]}
        states.append(state)
    return states, reported


def test_a_trend_begins_at_ordinary_novelty_and_stays_bounded():
    series = np.concatenate([np.full(30, -0.5), 0.2 * np.arange(1, 300)])
    states, _ = fold(series, alarm_from=60, danger=1e6)
    assert states[29]["trend"] == [[29 * HOUR, -0.5]]
    assert states[58]["forecast"] is None and len(states[58]["trend"]) == BEFORE
    assert max(len(m["trend"]) for m in states) <= MOST
    times = [t for t, _ in states[-1]["trend"]]
    assert times == sorted(times) and times[-1] == (len(series) - 1) * HOUR
    assert times[0] == (59 - BEFORE + 1) * HOUR, "the beginning is kept"
    assert fold(series, alarm_from=60, danger=1e6, cut=True)[0] == states


def test_a_forecast_is_updated_seldom_and_reported_when_it_matters():
    steady = np.concatenate([np.zeros(10), 0.2 * np.arange(1, 140)])
    states, reported = fold(steady, alarm_from=40)
    moments = {m["forecast"]["made"] for m in states if m["forecast"]}
    assert len(moments) <= (len(steady) - 40) // EVERY + 1 + (np.array(steady) >= 19).sum()
    assert len(reported) <= 4 and reported[-1]["hours"] == 0.0
    assert "danger (novelty 20)" in reported[0]["text"]
    over = fold(np.concatenate([steady[:60], np.zeros(5)]), alarm_from=40)[0][-1]
    assert update(over, 1e9, 0.0, False, 20.0)["forecast"] is None, "no alarm, no forecast"


def test_scores_that_saturate_below_danger_have_no_forecast():
    _, reported = fold(np.linspace(0, 12, 40), alarm_from=20, danger=None)
    assert len(reported) == 1 and "cannot be said" in reported[0]["text"]
