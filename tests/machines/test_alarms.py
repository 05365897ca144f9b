"""Calibration, alarm logic and the guard of the baseline."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from lineside.core.contract import UserError
from lineside.machines import detectors
from lineside.machines.alarms import (
    Alarm,
    Calibration,
    Learning,
    LearningGuard,
    Rules,
    calibrate,
    drift_along,
    limit_for_budget,
    start_of_normal,
)

MINUTE = 60.0
MONTH = 365.25 * 86400 / 12


def run(alarm: Alarm, series: list[float], start: int = 0, growth: float = 1.0) -> list[Any]:
    told = []
    for i, z in enumerate(series, start):
        level, event = alarm.push(z, MINUTE * i, growth)
        told.append((i, level, None if event is None else (event.kind, event.episode)))
    return told


def events(told: list[Any]) -> list[Any]:
    return [(i, event) for i, _, event in told if event is not None]


def test_z_by_hand() -> None:
    logs = np.linspace(-1.0, 1.0, 41)
    calibration = calibrate(np.exp(logs), MINUTE * np.arange(41), rules=Rules(), factor=1.0)
    assert calibration.center == pytest.approx(0.0)
    assert calibration.spread == pytest.approx(1.4826 * 0.5)
    z, growth = calibration.series(np.exp([0.0, 2.0]))
    assert z == pytest.approx([0.0, 2.0 / (1.4826 * 0.5)])
    assert growth == pytest.approx([1.0, math.e**2])


def test_ewma_by_hand_and_stream_is_batch() -> None:
    calibration = Calibration(factor=0.25, center=0.0, spread=1.0, limit=6.0)
    assert calibration.series(np.exp([4.0, 0.0, 8.0]))[0] == pytest.approx([4.0, 3.0, 4.25])
    scores = np.exp(np.random.default_rng(0).normal(size=50))
    whole, smoothed = calibration.series(scores)[0], None
    for score, expected in zip(scores, whole, strict=True):
        smoothed = calibration.smooth(float(score), smoothed)
        assert calibration.z(smoothed) == expected
    again = Calibration(**json.loads(json.dumps(calibration.spec())))
    assert again == calibration


def test_a_budget_is_only_promised_where_the_data_support_it() -> None:
    rng = np.random.default_rng(1)
    short = limit_for_budget(rng.normal(size=66), 600 * np.arange(66.0), Rules(), 0.1)
    assert short[0] == 6.0
    assert "cannot prove" in short[1]
    assert "30 quiet months" in short[1]
    n = 20_000
    long = limit_for_budget(rng.normal(size=n), np.linspace(0, 40 * MONTH, n), Rules(), 0.1)
    assert long[0] == 4.0
    assert "within the budget" in long[1]


def test_the_default_limit_is_raised_where_healthy_rows_pass_it() -> None:
    z = np.zeros(100)
    z[40:60] = 9.0
    limit, promise = limit_for_budget(z, 600 * np.arange(100.0), Rules(limit=6.0), 0.1)
    assert limit == 9.0
    assert "raised from 6" in promise


def test_a_saturating_score_still_alarms() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    detector = detectors.fit_ocsvm(rows[:130])
    calibration = calibrate(
        detector.score(rows[130:]),
        600 * np.arange(70.0),
        rules=Rules(limit=30.0),
        ceiling=detector.ceiling,
    )
    assert calibration.kind == "rank"
    assert "saturates" in calibration.promise
    healthy = detector.score(rng.normal(size=(300, 6)).astype(np.float32))
    faulty = detector.score(rng.normal(size=(40, 6)).astype(np.float32) + 20.0)
    z = calibration.series(np.concatenate([healthy, faulty]))[0]
    told = events(run(Alarm(Rules(limit=30.0)), [float(v) for v in z]))
    assert [event for _, event in told] == [("alert", 1)]
    assert 300 <= told[0][0] < 325
    # Median above which nothing is known as unusual would never have passed the limit.
    top = (math.log(detector.ceiling) - calibration.center) / calibration.spread
    assert top < 30.0


def test_k_of_n_and_hysteresis() -> None:
    alarm = Alarm(Rules(limit=6.0, k=3, n=4, hysteresis=0.5, quiet=2))
    series = [7, 0, 7, 0, 7, 7, 7, 4, 4, 4, 2, 2, 0]
    told = run(alarm, [float(v) for v in series])
    # 7 0 7 0 never has three of four; rows 2..5 hold 7 0 7 7; 4 is neither loud nor quiet.
    assert events(told) == [(5, ("alert", 1)), (11, ("cleared", 1))]


def test_danger_by_growth_and_escalation() -> None:
    alarm = Alarm(Rules(limit=6.0, k=2, n=4, growth=3.0, danger_k=3))
    assert events(run(alarm, [7.0] * 4)) == [(1, ("alert", 1))]
    told = run(alarm, [7.0] * 4, start=4, growth=3.5)
    assert events(told) == [(6, ("danger", 1))]
    assert alarm.level == "danger"


def test_two_tiers_alert_by_z_and_danger_by_relative_magnitude() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(0.0, 0.02, size=(300, 2)).astype(np.float32)
    rows[200:] += np.linspace(0.0, np.log(6.0), 100)[:, None].astype(np.float32)
    detector = detectors.fit_trend(rows[:134], relative=True, fusion="mean")
    rules = Rules(k=3, n=4, growth=3.0)
    held = detector.score(rows[134:200])
    calibration = calibrate(held, 10.0 * np.arange(66), rules=rules, factor=0.4, reference=0.0)
    alarm, told = Alarm(rules), []
    for i, (z, growth) in enumerate(
        zip(*calibration.series(detector.score(rows[200:])), strict=True)
    ):
        event = alarm.push(float(z), 10.0 * i, float(growth))[1]
        told += [] if event is None else [(event.kind, float(np.exp(rows[200 + i].mean())))]
    assert [kind for kind, _ in told] == ["alert", "danger"]
    assert told[0][1] < 1.4
    assert 3.0 < told[1][1] < 3.5


def test_delays_to_enter_and_leave() -> None:
    rules = Rules(k=2, n=2, quiet=1, enter_seconds=3 * MINUTE, leave_seconds=5 * MINUTE)
    told = run(Alarm(rules), [9.0] * 6 + [0.0] * 8)
    assert events(told) == [(4, ("alert", 1)), (11, ("cleared", 1))]


def test_mute_holds_back_and_tells_a_lasting_alarm_later() -> None:
    alarm = Alarm(Rules(k=2, n=2))
    alarm.mute(5 * MINUTE, "Kim")
    told = run(alarm, [9.0] * 8)
    assert events(told) == [(5, ("alert", 1))]
    assert told[2][1] == "alert"
    short = Alarm(Rules(k=2, n=2, quiet=2))
    short.mute(20 * MINUTE, "Kim")
    assert events(run(short, [9.0] * 4 + [0.0] * 30)) == []


def test_acknowledge_needs_an_alarm_and_ends_with_it() -> None:
    alarm = Alarm(Rules(k=1, n=1, quiet=1))
    with pytest.raises(UserError, match="no alarm"):
        alarm.acknowledge(0.0, "Kim")
    run(alarm, [9.0])
    alarm.acknowledge(1.0, "Kim")
    assert alarm.state()["acknowledged"] == {"time": 1.0, "by": "Kim"}
    run(alarm, [0.0], start=1)
    assert alarm.state()["acknowledged"] is None


def test_rows_that_were_not_judged_change_nothing() -> None:
    alarm = Alarm(Rules(k=2, n=2))
    run(alarm, [9.0])
    before = alarm.state()
    run(alarm, [math.nan] * 5, start=1)
    assert alarm.state() == before


def test_resumed_anywhere_gives_identical_events() -> None:
    rng = np.random.default_rng(3)
    series = [float(v) for v in rng.normal(4.0, 3.0, size=120)]
    rules = Rules(limit=5.0, k=3, n=5, danger=7.0, quiet=3, enter_seconds=60, leave_seconds=60)
    alarm = Alarm(rules)
    alarm.mute(20 * MINUTE, "Kim")
    fresh = alarm.state()
    whole = run(alarm, series)
    assert len(events(whole)) > 3
    rules = Rules.from_spec(json.loads(json.dumps(rules.spec())))
    for cut in range(len(series)):
        first = Alarm(rules, fresh)
        told = run(first, series[:cut])
        second = Alarm(rules, json.loads(json.dumps(first.state())))
        assert told + run(second, series[cut:], start=cut) == whole


def slow_fault(days: int, rise: float) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(4)
    rows = rng.normal(0.0, 0.1, size=(days * 24, 3))
    rows[:, 0] += rise * np.arange(len(rows)) / len(rows)
    return rows.astype(np.float32)


def test_a_planted_slow_fault_is_caught_and_not_absorbed() -> None:
    rows, hour = slow_fault(60, 2.0), 3600.0
    times = hour * np.arange(len(rows))
    baseline = LearningGuard(Learning(rows=96))
    baseline.learn(rows[:96], times[:96].tolist(), now=times[96])

    def alarmed_at(relearn: bool) -> list[int]:
        """Days of alarms where normal is the week before, or the first days for good."""
        found: list[int] = []
        for day in range(8, 60):
            since = (day - 8) * 24 if relearn else 0
            fit, held = rows[since : since + 96], rows[since + 96 : since + 168]
            detector = detectors.fit_trend(fit, relative=True)
            calibration = calibrate(
                detector.score(held), hour * np.arange(72), rules=Rules(limit=8.0)
            )
            z = calibration.series(detector.score(rows[day * 24 - 48 : day * 24]))[0]
            if events(run(Alarm(Rules(limit=8.0)), [float(v) for v in z])):
                found.append(day)
        return found

    absorbed, kept = alarmed_at(relearn=True), alarmed_at(relearn=False)
    assert len(absorbed) <= 2
    assert kept[-1] == 59
    assert len(kept) > 20
    week = rows[600:768]
    with pytest.raises(UserError, match="move the normal"):
        baseline.learn(week, times[600:768].tolist(), now=times[768])
    assert len(baseline.ledger) == 1
    row = baseline.learn(
        week, times[600:768].tolist(), now=times[768], by="Kim", why="bearing replaced"
    )
    assert row.feature == 0
    assert row.shift > 3.0
    again = LearningGuard(Learning(rows=96), json.loads(json.dumps(baseline.state())))
    assert [r.by for r in again.ledger] == ["", "Kim"]


def test_a_fault_during_learning_is_reported() -> None:
    rows = slow_fault(8, 2.0)
    assert drift_along(rows)[0] > 3.0
    assert drift_along(slow_fault(8, 0.0)).max() < 3.0
    with pytest.raises(UserError, match="drifts while the first normal is learned"):
        LearningGuard(Learning()).learn(rows, list(range(len(rows))), now=1.0)


def test_run_in_restarts_and_gaps() -> None:
    baseline = LearningGuard(Learning(run_in_seconds=200, rows=3, gap_seconds=500, settle=2))
    times = [0, 100, 200, 300, 1000, 1100, 1200, 1300, 1400]
    told = [baseline.push(float(t)) for t in times]
    assert told == [
        "run-in", "run-in", "learning", "learning", "settling", "settling",
        "learning", "learning", "learning",
    ]  # fmt: skip
    assert baseline.ready
    rows = np.zeros((10, 2), dtype=np.float32)
    baseline.learn(rows, [1400.0] * 10, now=1400)
    assert [baseline.push(float(t)) for t in (1500, 5000, 5100, 5200)] == [
        "monitoring", "settling", "settling", "monitoring",
    ]  # fmt: skip


def test_the_start_is_delayed_until_the_run_in_has_levelled() -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(0.0, 0.1, size=(400, 2))
    rows[:, 1] += 3.0 * np.exp(-np.arange(400) / 30.0)
    start = start_of_normal(rows)
    assert 60 <= start <= 160
    assert start_of_normal(rng.normal(size=(400, 2))) == 0


def test_settings_that_cannot_count_are_refused() -> None:
    with pytest.raises(UserError, match="7 of 6"):
        Rules(k=7, n=6)
    with pytest.raises(UserError, match="hysteresis"):
        Rules(hysteresis=0.0)
    with pytest.raises(UserError, match="cannot calibrate"):
        calibrate(np.ones(5), np.arange(5.0), rules=Rules())
