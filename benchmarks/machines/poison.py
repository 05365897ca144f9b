"""A slow fault: is it caught, or learned away? Beside a baseline that updates itself every week.

Simulated machines with a bearing fault that grows over half a year, and the same machines without
one under a harmless drift. Ours is the product: learned once, judged by its session. The rival is
the same detector with the same calibration, refitted every week on the last 200 snapshots
unless an alarm is running.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate
from lineside.core.errors import UserError
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.run.model_store import save_model
from lineside.core.statistics.proportions import proportion
from lineside.machines.alarms.calibration import Calibration, calibrate
from lineside.machines.alarms.logic import Alarm
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots, load_measurement
from lineside.machines.data.dataset import split
from lineside.machines.data.items import Snapshot
from lineside.machines.methods import DETECTORS
from lineside.machines.model import MachinesModel
from lineside.machines.models.detector import Detector
from lineside.machines.models.machine import Machine
from lineside.machines.outcomes import calibrate as calibrate_model
from lineside.machines.outcomes import outcomes
from lineside.machines.signals.engine import Engine
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import Rig
from lineside.machines.simulation.scenarios import Scenario, simulate_history
from lineside.machines.training.fitting import fit_machine
from lineside.machines.training.relearning import Consent, relearn

STORE = checkpoint_folder("machines/poison", __file__)
SEEDS = tuple(range(10))
METHOD = "pca"
LEARNED, FITTED = 200, 133
WEEK_ROWS = 42
ONSET_DAY, DAYS = 45.0, 210.0
FAULTY = Scenario(
    name="slow", rig=Rig(seconds=0.25), days=DAYS, interval_hours=4.0, onset_day=ONSET_DAY,
    growth_days=300.0, run_in=0.0,
)  # fmt: skip
"""Severity grows by 8.5 % a week, from 0.3 at its onset to 2 of 10 at the end of the watch."""
HEALTHY = dataclasses.replace(FAULTY, name="drifting", onset_day=None, drift=0.1)
"""The noise grows by a tenth over the whole time: seasons, grease, nothing that breaks."""
STRONG = dataclasses.replace(HEALTHY, name="drifting-strongly", drift=0.3)
"""It grows by 30 %: no detector that remembers can tell this from wear, one that forgets can."""


@dataclass(frozen=True)
class Record:
    """Days of the first snapshots of alarm episodes, of ours and of the rival."""

    ours: list[float]
    rival: list[float]
    refused: bool


def slow_fault(say: Say) -> None:
    """Catch a fault that grows over half a year, beside a self-updating baseline; 5 min."""
    faulty, healthy, strong = (
        [record(scenario, seed) for seed in SEEDS] for scenario in (FAULTY, HEALTHY, STRONG)
    )
    for name, who in (("", "ours"), ("_self_updating", "rival")):
        caught = [any(day >= ONSET_DAY for day in getattr(r, who)) for r in faulty]
        say(f"slow_fault_caught{name}", proportion(sum(caught), len(caught)))
        for drift, records in (("", healthy), ("_strong_drift", strong)):
            false = sum(len(getattr(r, who)) for r in records)
            say(f"slow_fault_false_month{drift}{name}", _rate(false, len(records)))
        early = float(sum(day < ONSET_DAY for r in faulty for day in getattr(r, who)))
        say(f"slow_fault_false_before{name}", plain(early, "episodes", len(faulty), "lower"))
    days = [min((d for d in r.ours if d >= ONSET_DAY), default=np.nan) for r in faulty]
    say("slow_fault_delay_days", _middle(np.array(days) - ONSET_DAY))
    say("relearn_without_consent_refused", proportion(sum(r.refused for r in faulty), len(faulty)))


def record(scenario: Scenario, seed: int) -> Record:
    """Return what both baselines made of a machine; kept on disk."""
    path = STORE / f"poison_{scenario.name}_{seed}.json"
    key = repr(scenario)
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["scenario"] == key:
            return Record(known["ours"], known["rival"], known["refused"])
    found = compare(scenario, seed)
    STORE.mkdir(parents=True, exist_ok=True)
    write_json(path, {"scenario": key, **dataclasses.asdict(found)})
    return found


def compare(scenario: Scenario, seed: int) -> Record:
    """Return what ours, the rival and a relearning without a consent make of a machine."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "data" / scenario.name
        save_history(simulate_history(scenario, rng_of(seed, scenario.name)), home)
        _forget_labels(home)
        items = [s for s in find_snapshots(home.parent) if isinstance(s, Snapshot)]
        model = _learned(items, seed)
        verdicts = model.predict(items[LEARNED:])
        ours = [v.time for v in verdicts if isinstance(v, Verdict) and _alerts(v)]
        machine = model.machines[scenario.name]
        rows = Engine(machine.layout).features_of([load_measurement(s) for s in items])
        times = np.array([s.time for s in items])
        rival = self_updating(machine, rows, times)
        refused = _refused(model, scenario.name, items[-LEARNED].time, Path(folder))
    return Record(_days(ours, times[0]), _days(rival, times[0]), refused)


def _days(moments: Sequence[float], start: float) -> list[float]:
    return [float(moment - start) / 86400 for moment in moments]


def self_updating(machine: Machine, rows: NDArray[np.float32], times: Any) -> list[float]:
    """Return times of the alarms of a baseline that is refitted every week.

    Args:
        machine: Tells the features and the rules.
        rows: Features of all snapshots, shape (snapshot, feature).
        times: Their times in seconds.
    """
    detector, calibration = _fitted_anew(machine, rows, times, LEARNED)
    alarm, starts = Alarm(machine.rules, limit=calibration.limit), list[float]()
    smoothed: float | None = None
    for place in range(LEARNED, len(rows)):
        if place > LEARNED and (place - LEARNED) % WEEK_ROWS == 0 and alarm.level == "normal":
            detector, calibration = _fitted_anew(machine, rows, times, place)
            alarm = Alarm(machine.rules, alarm.state(), limit=calibration.limit)
            smoothed = None
        score = float(detector.score(machine.main.select(rows[place : place + 1]))[-1])
        smoothed = calibration.smooth(score, smoothed)
        event = alarm.push(calibration.z(smoothed), float(times[place]))[1]
        if event is not None and event.evidence.get("first"):
            starts.append(float(times[place]))
    return starts


def _fitted_anew(
    machine: Machine, rows: NDArray[np.float32], times: Any, place: int
) -> tuple[Detector, Calibration]:
    """The detector and its calibration on the snapshots before a place."""
    own = machine.main.select(rows[place - LEARNED : place])
    held = times[place - LEARNED + FITTED : place]
    detector = DETECTORS[METHOD].fit(own[:FITTED], rng=rng_of(0, METHOD), log=lambda row: None)
    return detector, calibrate(detector.score(own[FITTED:]), held, rules=machine.rules)


def _learned(items: Sequence[Snapshot], seed: int) -> MachinesModel:
    roles = split(items, Config(learn=LEARNED))
    machine = fit_machine(
        roles.train, METHOD, rng=rng_of(seed, METHOD), log=lambda row: None, stop=lambda: False,
        held_out=roles.calibration,
    )  # fmt: skip
    model = MachinesModel(method=METHOD, machines={machine.name: machine})
    return calibrate_model(model, list(outcomes(model, roles.calibration)), Config())


def _forget_labels(home: Path) -> None:
    """Take away what a user does not know: a labelled fault would be refused anyway."""
    facts = json.loads((home / "machine.json").read_text(encoding="utf-8"))
    write_json(home / "machine.json", {k: facts[k] for k in ("unit", "bearing")})


def _alerts(verdict: Verdict) -> bool:
    return any(e.evidence.get("first") for e in verdict.events)


def _refused(model: MachinesModel, name: str, since: float, folder: Path) -> bool:
    """Whether learning the last weeks as normal is refused without a consent."""
    save_model(folder / "model", "machines", model)
    try:
        relearn(
            folder / "data", folder / "model", folder / "child", machine=name, since=str(since),
            consent=Consent(),
        )  # fmt: skip
    except UserError as error:
        return "consent" in error.message and not (folder / "child").exists()
    return False


def _rate(count: int, machines: int) -> Estimate:
    """Episodes per machine-month with the interval of a Poisson rate (Garwood 1936)."""
    learned = LEARNED * FAULTY.interval_hours / 24
    months = machines * (DAYS - learned) / (365.25 / 12)
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return Estimate(
        value=count / months, low=float(low) / months,
        high=float(chi2.ppf(0.975, 2 * count + 2)) / 2 / months, n=machines,
        unit="episodes / machine-month", better="lower",
        method="Garwood, 95 %",
    )  # fmt: skip


def _middle(days: NDArray[np.float64]) -> Estimate:
    known = days[np.isfinite(days)]
    if not len(known):
        return plain(float("nan"), "days", 0, "lower", "none was caught")
    return Estimate(
        value=float(np.median(known)), low=float(known.min()), high=float(known.max()),
        n=len(known), unit="days", better="lower", method="median and range of the seeds",
    )  # fmt: skip
