"""Changing speed and load on simulated machines: learned at one of each, judged at others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.machines.simulated import (
    CONFIG,
    FAULTS,
    Floats,
    Report,
    beginning,
    begins,
    judged,
    kept,
    learned,
    machine_rig,
    measurements,
    over_machines,
)
from benchmarks.results import Say
from lineside.core.run.folder import rng_of
from lineside.core.statistics.proportions import proportion
from lineside.machines.alarms.calibration import calibrate
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.methods import choose_columns
from lineside.machines.models.detector import Detector, Rows
from lineside.machines.models.machine import Machine
from lineside.machines.models.pca import fit_pca
from lineside.machines.models.trend import fit_trend
from lineside.machines.signals.engine import Engine
from lineside.machines.simulation.scenarios import History, Scenario, simulate_history

SPEED_SEEDS = tuple(range(12))
CASES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "0.6": ((0.6,), (1.0,)),
    "0.8": ((0.8,), (1.0,)),
    "1.25": ((1.25,), (1.0,)),
    "1.5": ((1.5,), (1.0,)),
    "load": ((1.0,), (0.4, 0.7, 1.2)),
    "both": ((0.6, 0.8, 1.25, 1.5), (0.4, 0.7, 1.2)),
}
"""Speeds and loads after learning at speed 1 and load 1."""
HEALTHY_DAYS, GROWTH_DAYS = 12.0, 10.0
LATER = 100 * 86400.0
"""Seconds between learning and judging: what a machine was learned from is not judged."""


def _bands(history: History, machine: Machine) -> dict[str, Callable[[Rows], Floats]]:
    """Fixed bands and plain RMS that know nothing of speed, calibrated as usual: counting rows."""
    engine = Engine(machine.layout)
    rows = engine.features_of([m for m, _ in measurements(beginning(history, CONFIG.learn))])
    half = round(CONFIG.learn * 2 / 3)
    names = machine.layout.names
    bands = choose_columns("bands", names)
    levels = [i for i, name in enumerate(names) if name.endswith(".rms")]
    fits: dict[str, tuple[list[int], Detector]] = {
        "fixed_bands": (bands, fit_pca(np.ascontiguousarray(rows[:half, bands]))),
        "fixed_rms": (levels, fit_trend(np.ascontiguousarray(rows[:half, levels]))),
    }
    found: dict[str, Callable[[Rows], Floats]] = {}
    for name, (columns, detector) in fits.items():
        held = detector.score(np.ascontiguousarray(rows[half:, columns]))
        limits = calibrate(held, np.arange(len(held), dtype=np.float64) * 7200, rules=machine.rules)

        def counting(
            later: Rows, columns: list[int] = columns, detector: Detector = detector,
            limits: Any = limits,
        ) -> Floats:  # fmt: skip
            z = limits.series(detector.score(np.ascontiguousarray(later[:, columns])))
            return np.asarray(z > limits.limit, dtype=np.float64)

        found[name] = counting
    return found


def _speed_piece(seed: int) -> Report:
    """One machine: shares of healthy snapshots that count, and faults found, by case."""
    rng = rng_of(seed, "speed")
    rig = machine_rig(rng, 0.5)
    scenario = Scenario(name="rig", rig=rig, days=17.0, onset_day=None, run_in=0.2, run_in_days=1.0)
    history = simulate_history(scenario, rng)
    machine = learned(history, ["pca"], seed)["pca"]
    blind = learned(_without_speed(history), ["pca"], seed)["pca"]
    plain = _bands(history, machine)
    found: Report = {"healthy": {}, "lead": {}}
    for case, (relative_speeds, loads) in CASES.items():
        run = partial(
            dataclasses.replace, scenario, relative_speeds=relative_speeds, loads=loads, run_in=0.0
        )
        healthy = _later(simulate_history(run(days=HEALTHY_DAYS), rng))
        said = judged(machine, measurements(healthy))
        unknowing = judged(blind, measurements(healthy, speeds=False))
        rows = Engine(machine.layout).features_of([m for m, _ in measurements(healthy)])
        found["healthy"][case] = {
            "far": float(np.mean([_speaks(v) for v in said])),
            "judged": float(np.mean([v.novelty is not None for v in said])),
            "unknown_speed": float(np.mean([_speaks(v) for v in unknowing])),
            **{name: float(counting(rows).mean()) for name, counting in plain.items()},
        }
        for fault in FAULTS:
            broken = _later(
                simulate_history(run(days=GROWTH_DAYS, onset_day=0.0, fault=fault), rng)
            )
            failed = LATER + float(broken.failed_at or 0.0)
            alarms = [v.time for v in judged(machine, measurements(broken)) if begins(v)]
            lead = (failed - alarms[0]) / 3600 if alarms else None
            found["lead"][f"{case}/{fault}"] = lead
    return found


def _later(history: History) -> History:
    return dataclasses.replace(history, times=history.times + LATER)


def _without_speed(history: History) -> History:
    """The same history from a machine whose speed and load nobody knows."""
    nothing = np.full(len(history.times), np.nan)
    return dataclasses.replace(history, speed_hz=nothing, load=nothing)


def _speaks(verdict: Verdict) -> bool:
    """Whether a snapshot counts towards an alarm, or stands in one."""
    counts = verdict.novelty is not None and verdict.novelty > (verdict.limit or np.inf)
    return counts or verdict.state in ("alert", "danger")


def speed(say: Say) -> None:
    """Learned at one speed and load, judged at six others; 12 machines, 5 faults at each.

    About 20 s a machine, kept on the disk: 4 minutes in all.
    """
    pieces = [kept(f"speed-{seed}", partial(_speed_piece, seed)) for seed in SPEED_SEEDS]
    print(
        f"{'case':<6}{'counts':>8}{'judged':>8}{'bands':>8}{'rms':>8}{'no speed':>9}  missed, lead"
    )
    for case in CASES:
        row = [
            float(np.mean([p["healthy"][case][key] for p in pieces]))
            for key in ("far", "judged", "fixed_bands", "fixed_rms", "unknown_speed")
        ]
        told = []
        for fault in FAULTS:
            leads = [p["lead"][f"{case}/{fault}"] for p in pieces]
            hours = [lead for lead in leads if lead is not None]
            told.append(f"{fault} {leads.count(None)} ({np.median(hours) if hours else 0:.0f} h)")
        print(f"{case:<6}" + "".join(f"{value:8.3f}" for value in row) + "   " + ", ".join(told))
    for name, key, better in (
        ("sim_speed_change_far", "far", "lower"),
        ("sim_speed_change_judged", "judged", "higher"),
        ("sim_speed_change_far_fixed_bands", "fixed_bands", "lower"),
        ("sim_speed_change_far_fixed_rms", "fixed_rms", "lower"),
        ("sim_speed_change_far_unknown_speed", "unknown_speed", "lower"),
    ):
        shares = [float(np.mean([h[key] for h in p["healthy"].values()])) for p in pieces]
        say(name, over_machines(shares, "fraction", better, np.mean))  # type: ignore[arg-type]
    leads = [lead for p in pieces for lead in p["lead"].values()]
    say("sim_speed_change_missed", proportion(leads.count(None), len(leads), better="lower"))
