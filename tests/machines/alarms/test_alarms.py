"""Calibration and alarm logic."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from lineside.core.errors import UserError
from lineside.core.run.codec import decode, encode
from lineside.machines.alarms.calibration import Calibration, calibrate, limit_for_budget
from lineside.machines.alarms.logic import Alarm, Rules
from lineside.machines.models.ocsvm import fit_ocsvm
from lineside.machines.models.trend import fit_trend

MINUTE = 60.0
MONTH = 365.25 * 86400 / 12


def run(alarm: Alarm, series: list[float], start: int = 0, growth: float = 1.0) -> list[Any]:
    steps = []
    for i, z in enumerate(series, start):
        level, event = alarm.push(z, MINUTE * i, growth)
        steps.append((i, level, None if event is None else (event.kind, event.episode)))
    return steps


def events(steps: list[Any]) -> list[Any]:
    return [(i, event) for i, _, event in steps if event is not None]


def test_z_by_hand() -> None:
    logs = np.linspace(-1.0, 1.0, 41)
    calibration = calibrate(np.exp(logs), MINUTE * np.arange(41), rules=Rules(), factor=1.0)
    assert calibration.center == pytest.approx(0.0)
    assert calibration.spread == pytest.approx(1.4826 * 0.5)
    z = calibration.series(np.exp([0.0, 2.0]))
    assert z == pytest.approx([0.0, 2.0 / (1.4826 * 0.5)])


def test_ewma_by_hand_and_stream_is_batch() -> None:
    calibration = Calibration(factor=0.25, center=0.0, spread=1.0, limit=6.0)
    assert calibration.series(np.exp([4.0, 0.0, 8.0])) == pytest.approx([4.0, 3.0, 4.25])
    scores = np.exp(np.random.default_rng(0).normal(size=50))
    whole, smoothed = calibration.series(scores), None
    for score, expected in zip(scores, whole, strict=True):
        smoothed = calibration.smooth(float(score), smoothed)
        assert calibration.z(smoothed) == expected
    again = decode(Calibration, json.loads(json.dumps(encode(calibration)[0])), {})
    assert again == calibration


def test_a_budget_is_only_guaranteed_with_enough_data() -> None:
    rng = np.random.default_rng(1)
    short = limit_for_budget(rng.normal(size=66), 600 * np.arange(66.0), Rules(), 0.1)
    assert short[0] == 6.0
    assert "too few to prove" in short[1]
    assert "30 months without an episode" in short[1]
    n = 20_000
    long = limit_for_budget(rng.normal(size=n), np.linspace(0, 40 * MONTH, n), Rules(), 0.1)
    assert long[0] == 4.0
    assert "within the budget" in long[1]


def test_a_smaller_budget_begins_with_a_higher_limit() -> None:
    z, times = np.zeros(66), 600 * np.arange(66.0)
    limits = [limit_for_budget(z, times, Rules(), b)[0] for b in (10.0, 1.0, 0.1, 0.01)]
    assert limits == [4.0, 4.0, 6.0, 9.0]
    assert limit_for_budget(z, times, Rules(limit=3.0), 0.1)[0] == 3.0


def test_a_limit_is_proven_from_the_highest_down() -> None:
    """Five episodes at z of 5 are too many for 40 months, none beyond them is proof."""
    n = 4000
    z = np.zeros(n)
    for start in range(500, 3000, 500):
        z[start : start + 10] = 5.2
    limit, guarantee = limit_for_budget(z, np.linspace(0, 40 * MONTH, n), Rules(), 0.1)
    assert limit == 5.5 and guarantee.startswith("0 episodes")


def test_the_default_limit_is_raised_where_healthy_rows_pass_it() -> None:
    z = np.zeros(100)
    z[40:60] = 9.0
    limit, guarantee = limit_for_budget(z, 600 * np.arange(100.0), Rules(limit=6.0), 0.1)
    assert limit == 9.0
    assert "raised from 6" in guarantee


def test_a_saturating_score_still_alarms() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    detector = fit_ocsvm(rows[:130])
    calibration = calibrate(
        detector.score(rows[130:]),
        600 * np.arange(70.0),
        rules=Rules(limit=30.0),
        ceiling=detector.ceiling,
    )
    assert calibration.kind == "rank"
    assert "saturates" in calibration.guarantee
    healthy = detector.score(rng.normal(size=(300, 6)).astype(np.float32))
    faulty = detector.score(rng.normal(size=(40, 6)).astype(np.float32) + 20.0)
    z = calibration.series(np.concatenate([healthy, faulty]))
    steps = events(run(Alarm(Rules(limit=30.0)), [float(v) for v in z]))
    assert [event for _, event in steps] == [("alert", 1)]
    assert 300 <= steps[0][0] < 325
    # Median above which nothing is known as unusual would never have passed the limit.
    top = (math.log(detector.ceiling) - calibration.center) / calibration.spread
    assert top < 30.0


def test_k_of_n_and_hysteresis() -> None:
    alarm = Alarm(Rules(limit=6.0, k=3, n=4, hysteresis=0.5, quiet=2))
    series = [7, 0, 7, 0, 7, 7, 7, 4, 4, 4, 2, 2, 0]
    steps = run(alarm, [float(v) for v in series])
    # 7 0 7 0 never has three of four; rows 2..5 hold 7 0 7 7; 4 is neither loud nor quiet.
    assert events(steps) == [(5, ("alert", 1)), (11, ("cleared", 1))]


def test_danger_by_growth_and_escalation() -> None:
    alarm = Alarm(Rules(limit=6.0, k=2, n=4, growth=3.0, danger_k=3))
    assert events(run(alarm, [7.0] * 4)) == [(1, ("alert", 1))]
    steps = run(alarm, [7.0] * 4, start=4, growth=3.5)
    assert events(steps) == [(6, ("danger", 1))]
    assert alarm.level == "danger"


def test_two_tiers_alert_by_z_and_danger_by_relative_magnitude() -> None:
    rng = np.random.default_rng(6)
    rows = rng.normal(0.0, 0.02, size=(300, 2)).astype(np.float32)
    rows[200:] += np.linspace(0.0, np.log(6.0), 100)[:, None].astype(np.float32)
    detector = fit_trend(rows[:134], relative=True, fusion="mean")
    rules = Rules(k=3, n=4, growth=3.0)
    held = detector.score(rows[134:200])
    calibration = calibrate(held, 10.0 * np.arange(66), rules=rules, factor=0.4)
    alarm, steps, smoothed = Alarm(rules), [], None
    for i, score in enumerate(detector.score(rows[200:])):
        smoothed = calibration.smooth(float(score), smoothed)
        event = alarm.push(calibration.z(smoothed), 10.0 * i, math.exp(smoothed))[1]
        steps += [] if event is None else [(event.kind, float(np.exp(rows[200 + i].mean())))]
    assert [kind for kind, _ in steps] == ["alert", "danger"]
    assert steps[0][1] < 1.4
    assert 3.0 < steps[1][1] < 3.5


def test_mute_holds_back_events_and_reports_a_lasting_alarm_later() -> None:
    alarm = Alarm(Rules(k=2, n=2))
    alarm.mute(5 * MINUTE, "Kim")
    steps = run(alarm, [9.0] * 8)
    assert events(steps) == [(5, ("alert", 1))]
    assert steps[2][1] == "alert"
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
    rules = Rules(limit=5.0, k=3, n=5, danger=7.0, quiet=3)
    alarm = Alarm(rules)
    alarm.mute(20 * MINUTE, "Kim")
    fresh = alarm.state()
    whole = run(alarm, series)
    assert len(events(whole)) > 3
    rules = decode(Rules, json.loads(json.dumps(encode(rules)[0])), {})
    for cut in range(len(series)):
        first = Alarm(rules, fresh)
        steps = run(first, series[:cut])
        second = Alarm(rules, json.loads(json.dumps(first.state())))
        assert steps + run(second, series[cut:], start=cut) == whole


def test_too_few_scores_are_refused() -> None:
    with pytest.raises(UserError, match="cannot calibrate"):
        calibrate(np.ones(5), np.arange(5.0), rules=Rules())
