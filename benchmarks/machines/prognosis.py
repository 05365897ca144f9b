"""How good is a forecast of danger, and how long before the failure does danger come?

Simulated machines drawn at random, each with one fault that grows exponentially until the machine
fails, are learned, calibrated and judged by the product with its defaults. At a quarter, half and
three quarters of the way from the alert to the truth, the forecast that a user would have read then
is compared with it. Two truths: the moment at which novelty reaches the danger tier, which is what
the product forecasts, and the failure, for which the danger level is set to the novelty at which
the *other* machines with the same fault failed: what somebody could know who has seen some fail.
The forecast was built on other seeds than these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.machines.simulated import FAULTS, learned, machine_rig, measurements
from benchmarks.results import Say
from lineside.core.contract import Better, Estimate, Refusal
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.intervals import median_interval
from lineside.core.statistics.proportions import proportion
from lineside.machines.monitoring import prognosis
from lineside.machines.monitoring.session import Session
from lineside.machines.simulation.rig import Fault
from lineside.machines.simulation.scenarios import Scenario, simulate_history

STORE = checkpoint_folder("machines/prognosis", __file__)
SEEDS = tuple(range(60))
METHOD = "pca"
PLACES = (0.25, 0.5, 0.75)
ONSET_DAY = 22.0
SNAPSHOT_SECONDS = 0.3
HOUR = prognosis.HOUR
LAST = 5
"""Snapshots before the failure whose median is the novelty at which a machine fails."""
Floats = NDArray[np.float64]
Told = dict[str, Any]


def forecasts(say: Say) -> None:
    """Forecast of danger and of failure on 60 simulated faults: error, coverage, lead (3 min).

    A tenth took 15 s.
    """
    histories = [history(seed) for seed in SEEDS]
    alerted = [each for each in histories if each["alert"] is not None]
    reached = [each for each in alerted if each["danger"] is not None]
    say("prognosis_alerted", proportion(len(alerted), len(histories)))
    say("prognosis_danger_reached", proportion(len(reached), len(alerted)))
    _hours(say, "prognosis_alert_lead", [_apart(e, "alert", "failed") for e in alerted])
    _hours(say, "prognosis_danger_lead", [_apart(e, "danger", "failed") for e in reached])
    _hours(say, "prognosis_alert_to_danger", [_apart(e, "alert", "danger") for e in reached])
    at_danger = [(each, each["level"], each["danger"]) for each in reached]
    _compare(say, "prognosis_danger", at_danger)
    ends = {each["seed"]: float(np.median(each["novelty"][-LAST:])) for each in alerted}
    at_failure = []
    for each in alerted:
        others = [ends[e["seed"]] for e in alerted if e["fault"] == each["fault"] and e is not each]
        if others:
            at_failure.append((each, float(np.median(others)), each["failed"]))
    _compare(say, "prognosis_failure", at_failure)


def history(seed: int) -> Told:
    """Learn and judge one machine until it fails; taken from the store if it is there."""
    path = STORE / f"{seed}.json"
    if path.exists():
        found: Told = json.loads(path.read_text(encoding="utf-8"))
        return found
    rng = rng_of(seed, "prognosis")
    fault = cast(Fault, FAULTS[seed % len(FAULTS)])
    growth_days = float(rng.uniform(6.0, 25.0))
    scenario = Scenario(
        name="machine", rig=machine_rig(rng, SNAPSHOT_SECONDS), fault=fault, onset_day=ONSET_DAY,
        growth_days=growth_days, days=ONSET_DAY + growth_days + 1.0,
    )  # fmt: skip
    told = simulate_history(scenario, rng)
    machine = learned(told, (METHOD,), seed)[METHOD]
    session = Session(machine)
    found = {
        "seed": seed, "fault": fault, "failed": told.failed_at, "alert": None, "danger": None,
        "level": machine.rules.danger, "times": [], "novelty": [], "alarmed": [], "made": [],
    }  # fmt: skip
    for measurement, severity in measurements(told, first=200):
        verdict = session.push(measurement)
        if isinstance(verdict, Refusal) or verdict.novelty is None:
            continue
        for event in verdict.events:
            if event.kind in ("alert", "danger") and severity > 0 and found[event.kind] is None:
                found[event.kind] = verdict.time
        found["times"].append(verdict.time)
        found["novelty"].append(verdict.novelty)
        found["alarmed"].append(verdict.state in ("alert", "danger"))
        found["made"].append(verdict.forecast)
        if verdict.forecast and verdict.forecast["danger"] is not None:
            found["level"] = verdict.forecast["danger"]
    if found["alert"] is None and found["danger"] is not None:
        found["alert"] = found["danger"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def read_at(told: Told, moment: float, danger: float) -> tuple[Any, float]:
    """Return the forecast that was valid at a moment for a danger level, and that of a line.

    Both are the hours from `moment` on; the line is the least-squares one through the same points.
    """
    memory: dict[str, Any] = dict(prognosis.INITIAL)
    for time, novelty, alarmed in zip(told["times"], told["novelty"], told["alarmed"], strict=True):
        if time > moment:
            break
        memory = prognosis.update(memory, time, novelty, alarmed, danger)
    made = memory["forecast"]
    t, y = np.array(memory["trend"]).T
    slope, offset = np.polyfit(t - moment, y, 1) if len(t) > 1 else (0.0, 0.0)
    line = max((danger - offset) / slope / HOUR, 0.0) if slope > 0 else np.nan
    if made is None or made["hours"] is None:
        return None, line
    since = (moment - made["made"]) / HOUR
    latest = np.inf if made["latest_hours"] is None else made["latest_hours"]
    return (made["hours"] - since, made["earliest_hours"] - since, latest - since), line


def _compare(say: Say, name: str, cases: Sequence[tuple[Told, float, float]]) -> None:
    """Publish how often something was forecast, its error and coverage at each place.

    The line's error is published on the cases that were forecast, and on all of them.
    """
    for place in PLACES:
        errors, lines, same, covered, widths = [], [], [], [], []
        for told, danger, truth in cases:
            way = (truth - told["alert"]) / HOUR
            if way <= 0:
                continue
            moment = told["alert"] + place * way * HOUR
            found, line = read_at(told, moment, danger)
            left = (truth - moment) / HOUR
            lines.append(abs(line - left) / way)
            if found is not None:
                errors.append(abs(found[0] - left) / way)
                same.append(lines[-1])
                covered.append(found[1] <= left <= found[2])
                if np.isfinite(found[2]):  # an open end is a forecast too, without a width
                    widths.append((found[2] - max(found[1], 0.0)) / way)
        at = f"{name}_{{}}_{round(100 * place)}"
        say(at.format("told"), proportion(len(errors), len(lines)))
        say(at.format("cover"), proportion(sum(covered), len(covered)))
        _median(say, at.format("error"), errors, "share of the way", "lower")
        _median(say, at.format("line_error"), same, "share of the way", "lower")
        _median(say, at.format("line_error_all"), lines, "share of the way", "lower")
        _median(say, at.format("width"), widths, "share of the way", "lower")


def _apart(told: Told, first: str, second: str) -> float:
    return float(told[second] - told[first]) / HOUR


def _hours(say: Say, name: str, values: Sequence[float]) -> None:
    _median(say, f"{name}_hours", values, "h", "higher")


def _median(say: Say, name: str, values: Sequence[float], unit: str, better: Better) -> None:
    known = np.array([v for v in values if not np.isnan(v)])
    if not len(known):
        say(name, Estimate(value=float("nan"), unit=unit, better=better, reason="nothing to tell"))
        return
    found = median_interval(known)
    low, high = (None, None) if isinstance(found, str) else found
    say(
        name,
        Estimate(
            value=float(np.median(known)), low=low, high=high, unit=unit, n=len(known),
            better=better, reason=found if isinstance(found, str) else "",
            method="" if isinstance(found, str) else "median over machines; order statistics, 95 %",
        ),
    )  # fmt: skip
