"""A promise that no public data set can test: the false-alarm budget of a fleet over years.

Simulated machines (`lineside.machines.simulation`) are learned, calibrated and judged as the
product does it, with its defaults. Defaults were chosen on seeds from 1000 on; the seeds here were
not looked at. A simulator shows what it was made to show: these numbers test the logic from
learning to alarm, not the detectors on real machines.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import Say
from lineside.core.contract import Better, Estimate, Refusal
from lineside.core.run.files import write_json
from lineside.core.run.folder import rng_of
from lineside.core.statistics.intervals import rate_interval
from lineside.core.statistics.proportions import proportion
from lineside.machines import outcomes as judging
from lineside.machines.alarms.calibration import MONTH_SECONDS
from lineside.machines.alarms.logic import Alarm, Rules
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.config import Config
from lineside.machines.data import find_snapshots
from lineside.machines.data.dataset import FITTED_SHARE
from lineside.machines.data.items import Snapshot
from lineside.machines.data.measurement import Channel, Measurement
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session
from lineside.machines.simulation.demo import save_history
from lineside.machines.simulation.rig import STEP_G, Rig, Sensor
from lineside.machines.simulation.scenarios import (
    History,
    Scenario,
    SensorEpisode,
    simulate_history,
)
from lineside.machines.training.fitting import fit_machine

STORE = checkpoint_folder("machines/simulated", __file__)
YEARS_SEEDS = tuple(range(80))
FAULTS = ("outer race", "inner race", "ball", "gear", "imbalance")
METHODS = ("pca", "trend")
CONFIG = Config()
Floats = NDArray[np.float64]
Report = dict[str, Any]


def machine_rig(rng: np.random.Generator, seconds: float) -> Rig:
    """Return a machine drawn at random: speed, gear, bearing, structure, noise."""
    return Rig(
        speed_hz=rng.uniform(12, 45), teeth=int(rng.integers(15, 38)),
        balls=int(rng.integers(7, 14)), resonance_hz=rng.uniform(2000, 4800),
        damping=rng.uniform(0.02, 0.05), noise_g=rng.uniform(0.03, 0.08),
        gains=(1.0, float(rng.uniform(0.4, 1.0))), seconds=seconds,
    )  # fmt: skip


def measurements(
    history: History, first: int = 0, *, speeds: bool = True
) -> Iterator[tuple[Measurement, float]]:
    """Yield the snapshots of a history from one on as a stream gives them, and their severity."""
    rig = history.scenario.rig
    for i in range(first, len(history.times)):
        waves = history.counts[i].astype(np.float32) * np.float32(STEP_G)
        channels = {
            name: Channel(samples=wave, rate_hz=rig.rate_hz)
            for name, wave in zip(rig.channels, waves, strict=True)
        }
        yield Measurement(
            machine=history.scenario.name, time=float(history.times[i]), channels=channels,
            values={"temperature": float(history.temperature[i])},
            speed_hz=float(history.speed_hz[i]) if speeds else None,
            load=float(history.load[i]) if speeds else None,
        ), float(history.severity[i])  # fmt: skip


def beginning(history: History, count: int) -> History:
    """Return the first snapshots of a history."""
    cut = {
        f.name: getattr(history, f.name)[:count]
        for f in dataclasses.fields(history)
        if f.name != "scenario"
    }
    return dataclasses.replace(history, **cut)


def learned(history: History, methods: Sequence[str], seed: int) -> dict[str, Machine]:
    """Learn and calibrate a machine from the beginning of its history, as a training does."""
    with tempfile.TemporaryDirectory() as folder:
        save_history(beginning(history, CONFIG.learn), Path(folder) / history.scenario.name)
        found = find_snapshots(Path(folder))
        return calibrated([s for s in found if isinstance(s, Snapshot)], methods, seed)


def calibrated(
    snapshots: Sequence[Snapshot], methods: Sequence[str], seed: int
) -> dict[str, Machine]:
    """Fit the first two thirds of the snapshots of a machine, calibrate on the rest."""
    fitted = round(len(snapshots) * FITTED_SHARE)
    found = {}
    for method in methods:
        machine = fit_machine(
            snapshots[:fitted], method, rng=rng_of(seed, method), log=lambda row: None,
            stop=lambda: False, held_out=snapshots[fitted:],
        )  # fmt: skip
        model = MachinesModel(method=method, machines={machine.name: machine})
        raw = list(judging.outcomes(model, snapshots[fitted:]))
        found[method] = judging.calibrate(model, raw, CONFIG).machines[machine.name]
    return found


def judged(machine: Machine, stream: Iterator[tuple[Measurement, float]]) -> list[Verdict]:
    """Return the verdicts of a fresh session."""
    session = Session(machine)
    said = [session.push(measurement) for measurement, _ in stream]
    return [verdict for verdict in said if not isinstance(verdict, Refusal)]


def raises(verdict: Verdict) -> bool:
    """Whether people are told here of an alarm, or that it has become dangerous."""
    return any(e.kind in ("alert", "danger") for e in verdict.events)


def begins(verdict: Verdict) -> bool:
    """Whether an alarm episode begins with this snapshot."""
    return any(e.kind in ("alert", "danger") and e.evidence.get("first") for e in verdict.events)


def kept(name: str, make: Callable[[], Report]) -> Report:
    """Return a piece of work from the disk, made if it is not there."""
    path = STORE / f"{name}.json"
    if not path.exists():
        write_json(path, make())
    found: Report = json.loads(path.read_text(encoding="utf-8"))
    return found


def fleet_scenario(seed: int) -> Scenario:
    """Return the scenario of one machine of the fleet: half of them break at the end."""
    rng = rng_of(seed, "fleet")
    rig = machine_rig(rng, 0.25)
    days = float(rng.uniform(120, 150))
    growth = float(rng.uniform(8, 30))
    breaks = rng.random() < 0.5
    gaps = [
        (float(rng.uniform(0.1, 0.95) * days), float(rng.uniform(0.5, 5)))
        for _ in range(rng.integers(0, 7))
    ]
    episodes = []
    for _ in range(rng.integers(0, 3)):
        begin = float(rng.uniform(0.15, 0.75) * days)
        kind = ("dead", "stuck", "clipped", "offset")[rng.integers(4)]
        sensor = Sensor(kind=kind, size=0.1 if kind == "clipped" else 1.0)  # type: ignore[arg-type]
        until = begin + float(rng.uniform(0.2, 2))
        episodes.append(
            SensorEpisode(
                channel=int(rng.integers(2)), from_day=begin, until_day=until, sensor=sensor
            )
        )
    relative_speeds = ((1.0,), (1.0,), (0.8, 1.0), (0.7, 0.85, 1.0, 1.15))[rng.integers(4)]
    loads = ((1.0,), (1.0,), (0.5, 1.0), (0.3, 0.6, 1.0))[rng.integers(4)]
    return Scenario(
        name=f"machine {seed}", rig=rig, days=days, interval_hours=(2.0, 3.0, 4.0)[seed % 3],
        fault=FAULTS[rng.integers(len(FAULTS))],  # type: ignore[arg-type]
        onset_day=days - growth if breaks else None, growth_days=growth,
        run_in_days=float(rng.uniform(0.3, 2)), run_in=float(rng.uniform(0.1, 0.6)),
        swing=float(rng.uniform(0, 0.1)), relative_speeds=relative_speeds, loads=loads,
        idle_share=(0.0, 0.0, 0.05, 0.15)[rng.integers(4)], gaps=tuple(gaps),
        episodes=tuple(episodes), drift=(0.0, 0.05, 0.1, 0.2)[rng.integers(4)],
    )  # fmt: skip


def _years_piece(seed: int) -> Report:
    """One machine under every method: false episodes, healthy months, and its fault."""
    scenario = fleet_scenario(seed)
    history = simulate_history(scenario, rng_of(seed, "history"))
    onset, end = history.fault_from or np.inf, history.failed_at or np.inf
    found: Report = {"fault": scenario.fault if history.fault_from else ""}
    for method, machine in learned(history, METHODS, seed).items():
        said = judged(machine, measurements(history, CONFIG.learn))
        times = np.array([v.time for v in said])
        steps = np.diff(times, prepend=times[0])
        seconds = np.minimum(steps, 3 * float(np.median(steps[1:])))
        alarms = [v.time for v in said if begins(v)]
        # An alarm that stands already finds the fault only when it becomes one of danger.
        in_time = [v.time for v in said if onset <= v.time < end and raises(v)]
        healthy = [v for v in said if v.time < onset]
        novelty = np.array([v.novelty for v in healthy if v.novelty is not None])
        assert machine.main.calibration is not None
        found[method] = {
            "false": [(t - history.times[0]) / 86400 for t in alarms if t < onset],
            "months": float(seconds[times < onset].sum()) / MONTH_SECONDS,
            "judged": len(novelty) / len(healthy),
            "limit": machine.main.calibration.limit,
            "above_2": float((novelty > 2.0).mean()),
            "lead": (end - in_time[0]) / 3600 if in_time else None,
            "new": any(onset <= time < end for time in alarms),
            "danger": sum(e.kind == "danger" and v.time < onset for v in said for e in v.events),
            "gap": machine.gap_seconds,
            "series": [[v.time, round(v.novelty, 3)] for v in said if v.novelty is not None],
        }
    found.update(onset=history.fault_from, end=history.failed_at)
    return found


def years(say: Say) -> None:
    """False alarms and faults found over machine-months of a varied fleet, with the defaults.

    80 machines of four to five months: run-in, restarts, several speeds and loads, standstill,
    daily swing, harmless drift of up to 20 %, sensor faults; half of them break at the end. A fault
    is found by an alarm, or by a standing one that becomes dangerous, between onset and failure.
    About 3 s a machine, kept on the disk: 5 minutes in all.
    """
    pieces = []
    for seed in YEARS_SEEDS:
        pieces.append(kept(f"years-{seed}", partial(_years_piece, seed)))
        for method in METHODS:
            if pieces[-1][method]["false"]:
                days = [round(day, 1) for day in pieces[-1][method]["false"]]
                print(f"machine {seed}, {method}: false episodes begin on days {days}")
    for method in METHODS:
        _say_years(say, method, "" if method == "pca" else f"_{method}", pieces)


def _say_years(say: Say, method: str, suffix: str, pieces: Sequence[Mapping[str, Any]]) -> None:
    """Print and publish the record of one method."""
    own = [p[method] for p in pieces]
    counts, months = [len(o["false"]) for o in own], [o["months"] for o in own]
    rate = rate_per_month(counts, months)
    say(f"false_episodes_month{suffix}", rate)
    upper = dataclasses.replace(
        rate, value=rate.high or 0.0, low=None, high=None, method="", reason=rate.method
    )
    say(f"false_episodes_month{suffix}_upper", upper)
    broken = [(p["fault"], p[method]["lead"]) for p in pieces if p["fault"]]
    leads = [lead for _, lead in broken if lead is not None]
    say(f"sim_faults_found{suffix}", proportion(len(leads), len(broken)))
    new = sum(p[method]["new"] for p in pieces if p["fault"])
    say(f"sim_faults_found_new_episode{suffix}", proportion(new, len(broken)))
    say(f"sim_lead_hours{suffix}", over_machines(leads, "h", "higher", np.median))
    above = float(np.average([o["above_2"] for o in own], weights=months))
    _print_limits(method, pieces)
    _print_drifts(counts, months)
    print(
        f"{method}: {sum(counts)} false episodes on {np.count_nonzero(counts)} of {len(own)} "
        f"machines in {sum(months):.0f} healthy machine-months, budget "
        f"{CONFIG.budget:g}, observed {rate.value:.3f}; {sum(o['danger'] for o in own)} false "
        f"dangers; {np.mean([o['judged'] for o in own]):.3f} of healthy snapshots judged; novelty "
        f"above 2 in {above:.4f} of them (normal distribution: 0.0228); limits raised on "
        f"{sum(o['limit'] > 6 for o in own)} of {len(own)} machines"
    )
    for fault in FAULTS:
        hours = [lead for name, lead in broken if name == fault]
        known = [lead for lead in hours if lead is not None]
        middle = f"{np.median(known):.0f} h" if known else "-"
        print(f"  {fault}: {len(known)} of {len(hours)} found, median lead {middle}")


def _print_drifts(counts: Sequence[int], months: Sequence[float]) -> None:
    """Print what slow harmless change does: the limit does not follow it, nobody consented."""
    drifts = np.array([fleet_scenario(seed).drift for seed in YEARS_SEEDS])
    for drift in np.unique(drifts):
        own = drifts == drift
        rate = np.array(counts)[own].sum() / np.array(months)[own].sum()
        print(f"  noise up by {drift:.0%} in all: {rate:.3f} false episodes a month")


def _print_limits(method: str, pieces: Sequence[Mapping[str, Any]]) -> None:
    """Print what other limits would have done with the same novelty; the danger tier left out."""
    months = sum(p[method]["months"] for p in pieces)
    for limit in (3.0, 4.0, 5.0, 6.0, 8.0, 10.0):
        false, leads = 0, []
        for piece in pieces:
            own = piece[method]
            begun = _begun(own["series"], limit / 6.0 * own["limit"], own["gap"])
            onset = piece["onset"] or np.inf
            false += sum(time < onset for time in begun)
            late = [time for time in begun if onset <= time < (piece["end"] or np.inf)]
            leads += [(piece["end"] - late[0]) / 3600] if late else []
        broken = sum(bool(piece["fault"]) for piece in pieces)
        print(
            f"  limit {limit:g}: {false / months:.3f} false episodes a month, {len(leads)} of "
            f"{broken} faults found, median lead {np.median(leads) if leads else 0:.0f} h"
        )


def _begun(series: Sequence[Sequence[float]], limit: float, gap: float) -> list[float]:
    """Return when episodes begin at a limit."""
    alarm, begun, last = Alarm(Rules(), limit=limit), [], np.inf
    for time, novelty in series:
        if time - last > gap:
            alarm.forget()
        last = time
        event = alarm.push(novelty, time)[1]
        begun += [time] if event is not None and event.evidence.get("first") else []
    return begun


def rate_per_month(counts: Sequence[int], months: Sequence[float]) -> Estimate:
    """Return a rate with bounds of 95 % on either side.

    The wider of two, since a machine that is misunderstood alarms again and again: exact for
    independent episodes, and over machines; see `rate_interval`.
    """
    count, time = sum(counts), sum(months)
    found = rate_interval(np.array(counts, float), np.array(months, float), confidence=0.9)
    low, high = (None, None) if isinstance(found, str) else found
    text = f"wider of Garwood and jackknife over machines, 95 % on either side, {time:.0f} months"
    return Estimate(
        value=count / time, low=low, high=high, unit="per machine-month", n=len(counts),
        better="lower", reason=found if isinstance(found, str) else "",
        method="" if isinstance(found, str) else text,
    )  # fmt: skip


def over_machines(
    values: Sequence[float], unit: str, better: Better, middle: Callable[[Any], Any]
) -> Estimate:
    """Return a mean or median with its bootstrap interval over machines."""
    # core has no interval for a mean of hours over machines
    rng = rng_of(0, "bootstrap")
    own = np.array(values, dtype=np.float64)
    drawn = [float(middle(rng.choice(own, len(own)))) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(
        value=float(middle(own)), low=float(low), high=float(high), unit=unit, n=len(own),
        better=better, method="bootstrap over machines, 95 %",
    )  # fmt: skip
