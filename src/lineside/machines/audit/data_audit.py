"""What spoils a history before anything is learned: gaps, copies, faults in the beginning."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lineside.core.contract import Check, Refusal
from lineside.machines.audit.stationarity import drift_of
from lineside.machines.config import Config
from lineside.machines.data.dataset import by_machine, split
from lineside.machines.data.items import FAULTY, Snapshot

FEWEST = 90
"""Snapshots of a machine below which learning and calibrating leave too little of each."""
GAP = 5.0
"""A step this many times as long as usual is a gap."""
MOST_NAMED = 12

History = dict[str, list[Snapshot]]


def audit(items: Sequence[Snapshot | Refusal], config: Config) -> list[Check]:
    """Return the findings on times, labels and amount; waveforms are judged while learning."""
    snapshots = [item for item in items if isinstance(item, Snapshot)]
    refused = [item for item in items if isinstance(item, Refusal)]
    machines = by_machine(snapshots)
    return [
        _unreadable(refused),
        _each("amount", machines, _amount(config), "record longer, or learn from fewer snapshots"),
        _each("gaps", machines, _gaps, "a machine is started anew after a gap: look what was done"),
        _each("interval", machines, _interval, "record at one interval"),
        _learned_faults(snapshots, config),
        _drift(snapshots, config),
        _known_faults(machines),
    ]


def _unreadable(refused: Sequence[Refusal]) -> Check:
    first = refused[0] if refused else None
    named = "" if first is None or first.item in first.message else f"{first.item}: "
    return Check(
        name="unreadable or doubled snapshots",
        status="warn" if refused else "ok",
        count=len(refused),
        evidence=f"{len(refused)} snapshots cannot be used"
        + (f", e.g. {named}{first.message}" if first else ""),
        hint="mend or remove them" if refused else "",
        items=tuple(r.item for r in refused[:MOST_NAMED]),
    )


def _each(name: str, machines: History, find: Callable[[list[Snapshot]], str], hint: str) -> Check:
    """Ask a question of every machine; an answer of no words is fine."""
    found = {machine: find(own) for machine, own in machines.items()}
    told = {machine: text for machine, text in found.items() if text}
    evidence = "; ".join(f"{machine}: {text}" for machine, text in list(told.items())[:MOST_NAMED])
    return Check(
        name=name,
        status="warn" if told else "ok" if machines else "unknown",
        count=len(told),
        evidence=evidence
        or (f"{len(machines)} machines are fine" if machines else "there is no machine"),
        hint=hint if told else "",
    )


def _amount(config: Config) -> Callable[[list[Snapshot]], str]:
    def find(own: list[Snapshot]) -> str:
        if len(own) >= min(FEWEST, config.learn + 10):
            return ""
        return f"{len(own)} snapshots, at least {FEWEST} are needed"

    return find


def _steps(own: list[Snapshot]) -> np.ndarray:
    return np.diff([s.time for s in own])


def _gaps(own: list[Snapshot]) -> str:
    steps = _steps(own)
    if not len(steps):
        return ""
    long = steps[steps > GAP * np.median(steps)]
    gaps = "1 gap of" if len(long) == 1 else f"{len(long)} gaps, the longest of"
    return f"{gaps} {long.max() / 3600:.1f} h" if len(long) else ""


def _interval(own: list[Snapshot]) -> str:
    steps = _steps(own)
    if len(steps) < 10:
        return ""
    usual = float(np.median(steps))
    odd = float((np.abs(steps - usual) > 0.2 * usual).mean())
    return f"{odd:.0%} of the steps differ from {usual:.0f} s" if odd > 0.05 else ""


def _learned_faults(snapshots: Sequence[Snapshot], config: Config) -> Check:
    roles = split(snapshots, config)
    learned = [s for s in (*roles.train, *roles.calibration) if s.label == FAULTY]
    return Check(
        name="faults in the learning time",
        status="fail" if learned else "ok",
        count=len(learned),
        evidence=f"{len(learned)} snapshots that are learned as normal are labelled faulty",
        hint="learn from fewer snapshots, or from an earlier time" if learned else "",
        items=tuple(s.id for s in learned[:MOST_NAMED]),
    )


def _drift(snapshots: Sequence[Snapshot], config: Config) -> Check:
    """A fault or a run-in in the learning time, before it is learned as normal."""
    roles = split(snapshots, config)
    learned = by_machine([*roles.train, *roles.calibration])
    found = {machine: drift_of(own) for machine, own in learned.items()}
    told = {machine: text for machine, text in found.items() if text}
    unknown = sum(text is None for text in found.values())
    seen = f"{len(found) - unknown} of {len(found)} machines were looked at and are steady"
    return Check(
        name="drift in the learning time",
        status="warn" if told else "unknown" if unknown else "ok",
        count=len(told),
        evidence="; ".join(f"{m}: {text}" for m, text in list(told.items())[:MOST_NAMED]) or seen,
        hint="a fault, a run-in or a warm-up may be learned as normal: look at the machine, set "
        "--run-in-hours, or learn from a steadier time" if told else "",
    )  # fmt: skip


def _known_faults(machines: History) -> Check:
    with_fault = sum(any(s.label == FAULTY for s in own) for own in machines.values())
    return Check(
        name="known faults",
        status="info" if with_fault else "unknown",
        count=with_fault,
        evidence=f"{with_fault} of {len(machines)} machines have a known fault"
        + ("" if with_fault else ": how many faults would be found is not known"),
    )
