"""Checks of histories before training: gaps, duplicates, labelled faults, drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Check, Refusal
from lineside.machines.audit.stationarity import describe_drift
from lineside.machines.config import Config
from lineside.machines.data.dataset import by_machine, split
from lineside.machines.data.items import FAULTY, Snapshot

FEWEST = 90
"""Fewest snapshots of a machine that are enough for both fitting and calibration."""
GAP = 5.0
"""A step longer than this multiple of the median step is a gap."""
MOST_NAMED = 12

History = Sequence[Snapshot]


def audit(items: Sequence[Snapshot | Refusal], config: Config) -> list[Check]:
    """Check times, labels, amount and drift; waveforms are checked by the training."""
    snapshots = [item for item in items if isinstance(item, Snapshot)]
    refused = [item for item in items if isinstance(item, Refusal)]
    machines = by_machine(snapshots)
    roles = split(snapshots, config)
    training = [*roles.train, *roles.calibration]
    few_snapshots = partial(_few_snapshots, config)
    return [
        _check_refused(refused),
        _check_each("amount", machines, few_snapshots, "record longer, or lower --learn"),
        _check_each(
            "gaps", machines, _gaps,
            "after a gap a machine counts as restarted: find out what was done to it",
        ),
        _check_each("interval", machines, _uneven_interval, "record at a constant interval"),
        _check_training_labels(training),
        _check_drift(by_machine(training)),
        _check_known_faults(machines),
    ]  # fmt: skip


def _check_refused(refused: Sequence[Refusal]) -> Check:
    example = ""
    if refused:
        item, message = refused[0].item, refused[0].message
        example = f", e.g. {message}" if item in message else f", e.g. {item}: {message}"
    return Check(
        name="unreadable or duplicate snapshots",
        status="warn" if refused else "ok",
        count=len(refused),
        evidence=f"{len(refused)} snapshots cannot be used{example}",
        hint="fix or remove them" if refused else "",
        items=tuple(r.item for r in refused[:MOST_NAMED]),
    )


def _check_each(
    name: str, machines: Mapping[str, History], find: Callable[[History], str], hint: str
) -> Check:
    """Run a test on every machine; it returns a finding, or an empty text."""
    findings = {machine: find(history) for machine, history in machines.items()}
    findings = {machine: text for machine, text in findings.items() if text}
    return Check(
        name=name,
        status="warn" if findings else "ok" if machines else "unknown",
        count=len(findings),
        evidence=_listed(findings)
        or (f"{len(machines)} machines are fine" if machines else "there is no machine"),
        hint=hint if findings else "",
    )


def _listed(findings: Mapping[str, str]) -> str:
    return "; ".join(f"{machine}: {text}" for machine, text in list(findings.items())[:MOST_NAMED])


def _few_snapshots(config: Config, history: History) -> str:
    if len(history) >= min(FEWEST, config.learn + 10):
        return ""
    return f"{len(history)} snapshots, at least {FEWEST} are needed"


def _steps(history: History) -> NDArray[np.float64]:
    """Seconds between successive snapshots, shape (snapshot - 1,)."""
    return np.diff([s.time for s in history])


def _gaps(history: History) -> str:
    steps = _steps(history)
    if not len(steps):
        return ""
    gaps = steps[steps > GAP * np.median(steps)]
    count = "1 gap of" if len(gaps) == 1 else f"{len(gaps)} gaps, the longest of"
    return f"{count} {gaps.max() / 3600:.1f} h" if len(gaps) else ""


def _uneven_interval(history: History) -> str:
    steps = _steps(history)
    if len(steps) < 10:
        return ""
    median = float(np.median(steps))
    share = float((np.abs(steps - median) > 0.2 * median).mean())
    return f"{share:.0%} of the steps differ from {median:.0f} s" if share > 0.05 else ""


def _check_training_labels(training: History) -> Check:
    faulty = [s for s in training if s.label == FAULTY]
    return Check(
        name="faults in the training period",
        status="fail" if faulty else "ok",
        count=len(faulty),
        evidence=f"{len(faulty)} snapshots to learn normal from are labelled faulty",
        hint="learn from fewer snapshots, or from an earlier period" if faulty else "",
        items=tuple(s.id for s in faulty[:MOST_NAMED]),
    )


def _check_drift(training: Mapping[str, History]) -> Check:
    """A fault or a run-in in the training period would be learned as normal."""
    drifts = {machine: describe_drift(history) for machine, history in training.items()}
    findings = {machine: text for machine, text in drifts.items() if text}
    unknown = sum(text is None for text in drifts.values())
    stationary = (
        f"{len(drifts) - unknown} of {len(drifts)} machines were checked and are stationary"
    )
    return Check(
        name="drift in the training period",
        status="warn" if findings else "unknown" if unknown else "ok",
        count=len(findings),
        evidence=_listed(findings) or stationary,
        hint="a fault, a run-in or a warm-up may be learned as normal: inspect the machine, set "
        "--run-in-hours, or learn from a stationary period" if findings else "",
    )  # fmt: skip


def _check_known_faults(machines: Mapping[str, History]) -> Check:
    count = sum(any(s.label == FAULTY for s in history) for history in machines.values())
    return Check(
        name="known faults",
        status="info" if count else "unknown",
        count=count,
        evidence=f"{count} of {len(machines)} machines have a known fault"
        + ("" if count else ": the share of faults that would be found is not known"),
    )
