"""Outcomes and calibration: raw scores of held-out healthy snapshots, then verdicts over time."""

from __future__ import annotations

import dataclasses
import time as clock
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Outcome, Refusal
from lineside.core.errors import UserError
from lineside.machines.alarms.calibration import calibrate as calibrate_scores
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.config import Config
from lineside.machines.data import load_measurements, read_sidecar
from lineside.machines.data.dataset import by_machine
from lineside.machines.data.items import FAULTY, HEALTHY, Snapshot
from lineside.machines.metrics import timeline
from lineside.machines.model import FleetSession, MachinesModel
from lineside.machines.models.machine import Branch, Machine
from lineside.machines.monitoring.session import NO_SCORE
from lineside.machines.signals.engine import Engine
from lineside.machines.training.fitting import compensated_rows

LABELS = {HEALTHY: 0.0, FAULTY: 1.0}


def outcomes(model: MachinesModel, items: Sequence[Snapshot]) -> Iterator[Outcome]:
    """Yield one outcome per snapshot, machine by machine, each in order of time.

    Before calibration they hold raw scores (``raw``, ``raw_free``), after it novelty and alarms.
    """
    for name, snapshots in by_machine(items).items():
        machine = model.machines.get(name)
        if machine is None:
            yield from (_outcome(item, {"score": np.nan}) for item in snapshots)
        elif machine.main.calibration is None:
            yield from _raw_outcomes(machine, snapshots)
        else:
            yield from _judged_outcomes(model, machine, snapshots)


def _outcome(
    item: Snapshot, value: Mapping[str, float], slices: Mapping[str, str] | None = None
) -> Outcome:
    return Outcome(
        item=item.id, groups=item.groups, unit=item.machine, slices=slices or {}, value=value
    )


def calibrate(model: MachinesModel, outcomes: Sequence[Outcome], config: Config) -> MachinesModel:
    """Return the model with calibrations from outcomes that hold raw scores.

    Raises:
        UserError: if a machine has too few held-out healthy snapshots.
    """
    machines = {}
    for name, machine in model.machines.items():
        own = [o for o in outcomes if o.unit == name]
        main = _calibrated(machine, machine.main, own, "raw", config)
        fallback = machine.fallback
        if fallback is not None:
            fallback = _calibrated(machine, fallback, own, "raw_fallback", config)
        machines[name] = dataclasses.replace(machine, main=main, fallback=fallback)
    return dataclasses.replace(model, machines=machines)


def _calibrated(
    machine: Machine, branch: Branch, own: Sequence[Outcome], key: str, config: Config
) -> Branch:
    scores = np.array([o.value.get(key, np.nan) for o in own])
    times = np.array([o.value["time"] for o in own])
    known = np.isfinite(scores)
    try:
        calibration = calibrate_scores(
            scores[known], times[known], rules=machine.rules, budget=config.budget,
            ceiling=branch.ceiling,
        )  # fmt: skip
    except UserError as error:
        raise UserError(f"{machine.name}: {error.message}", error.hint) from error
    return dataclasses.replace(branch, calibration=calibration)


def _raw_outcomes(machine: Machine, ordered: Sequence[Snapshot]) -> list[Outcome]:
    """Scores of healthy snapshots: those at rest or with a faulty sensor have none."""
    measurements, _ = load_measurements(ordered)
    rows, times = compensated_rows(
        measurements, Engine(machine.layout), machine.norms, machine.operating_model
    )
    found = {"raw": _scores(machine.main, rows)}
    if machine.fallback is not None:
        found["raw_fallback"] = _scores(machine.fallback, rows)
    values = {
        time: {key: float(score[row]) for key, score in found.items()}
        for row, time in enumerate(times)
    }
    return [
        _outcome(item, {"score": np.nan, "time": item.time, **values.get(item.time, {})})
        for item in ordered
    ]  # fmt: skip


def _scores(branch: Branch, rows: np.ndarray) -> NDArray[np.float64]:
    """Scores of successive rows, NaN for those without enough history."""
    history = branch.detector.history
    found = np.full(len(rows), np.nan)
    if len(rows) > history:
        found[history:] = branch.detector.score(branch.select(rows))
        if not np.isfinite(found[history:]).all():
            raise UserError(f"{branch.method}: {NO_SCORE}", "leave this method out")
    return found


def _judged_outcomes(
    model: MachinesModel, machine: Machine, ordered: Sequence[Snapshot]
) -> list[Outcome]:
    session = FleetSession(model)
    verdicts: list[Verdict | Refusal] = []
    took = []
    for item in ordered:
        start = clock.perf_counter()
        verdicts.append(session.push(item))
        took.append(1000 * (clock.perf_counter() - start))
    if any(getattr(verdict, "note", "") == NO_SCORE for verdict in verdicts):
        raise UserError(f"{model.method}: {NO_SCORE} ({machine.name})", "leave this method out")
    # a refusal has neither novelty nor state
    novelty = np.array([getattr(v, "novelty", None) for v in verdicts], dtype=np.float64)
    states = [getattr(v, "state", "refused") for v in verdicts]
    rows = timeline(
        np.array([item.time for item in ordered]),
        novelty,
        np.full(len(ordered), machine.main.calibration.limit if machine.main.calibration else 0.0),
        np.array([LABELS.get(item.label, np.nan) for item in ordered]),
        np.array([_raises(v, first=True) for v in verdicts]),
        read_sidecar(ordered[0].path.parent).failed_at,
        np.array([_raises(v) for v in verdicts]),
    )
    return [
        _outcome(item, {**row, "time": item.time, "ms": ms}, {"state": state})
        for item, state, row, ms in zip(ordered, states, rows, took, strict=True)
    ]  # fmt: skip


def _raises(verdict: Verdict | Refusal, *, first: bool = False) -> bool:
    """Whether an alarm is raised here, or raised to danger; with `first` only a new episode."""
    return not isinstance(verdict, Refusal) and any(
        event.kind in ("alert", "danger") and (event.evidence.get("first") or not first)
        for event in verdict.events
    )
