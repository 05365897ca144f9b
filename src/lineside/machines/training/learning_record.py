"""The learning record of a model in words: what was learned when, and what still needs consent."""

from __future__ import annotations

from lineside.core.contract import Section, Table
from lineside.machines.alarms.verdict import format_time
from lineside.machines.explain.evidence import describe_feature
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine
from lineside.machines.training.baseline import LearningEntry

COLUMNS = (
    "machine", "training from (UTC)", "to", "snapshots", "run-in left out", "drift (limit)",
    "baseline moved by", "consent", "decided",
)  # fmt: skip


def learning_record_section(model: MachinesModel) -> Section:
    """Return the chapter of the report on the learned baselines, with missing consents first."""
    table = Table(
        title="What was learned as normal",
        columns=COLUMNS,
        rows=tuple(
            _cells(machine, entry)
            for _, machine in sorted(model.machines.items())
            for entry in machine.learning_record
        ),
        caption="A baseline never adapts by itself. Drift and move are the largest of all "
        "features, in robust spreads; a drift up to the limit in brackets counts as stationary.",
    )
    return Section(
        title="What was learned as normal",
        lead="A fault that was present during the training of a machine would never be found.",
        blocks=(*consent_notes(model), table),
    )


def learning_record_lines(model: MachinesModel) -> list[str]:
    """Return the learning record as lines for a terminal, oldest first for each machine."""
    return [
        f"{name}: {_sentence(machine, entry)}"
        for name, machine in sorted(model.machines.items())
        for entry in machine.learning_record
    ]


def consent_notes(model: MachinesModel) -> list[str]:
    """Return one line for each machine whose baseline drifted and has no consent."""
    return [
        f"{name}: {consent_note(machine)}"
        for name, machine in sorted(model.machines.items())
        if machine.learning_record and machine.learning_record[-1].needs_consent
    ]


def consent_note(machine: Machine) -> str:
    """Say what drifted during the training of a machine, and what a person can do."""
    return (
        f"{drift_sentence(machine)}: a fault, a run-in or a warm-up may have been learned as "
        "normal. Inspect the machine, then run `lineside machines consent`, or learn a stationary "
        "period with `lineside machines learn`"
    )


def drift_sentence(machine: Machine) -> str:
    """Say what drifted during the training of a machine, and by how much."""
    entry = machine.learning_record[-1]
    return (
        f"the {describe_feature(machine, entry.drift_feature)} drifted by {entry.drift:.1f} robust "
        f"spreads during training (stationary: up to {entry.drift_limit:.1f})"
    )


def _cells(machine: Machine, entry: LearningEntry) -> tuple[str, ...]:
    drift_feature = describe_feature(machine, entry.drift_feature)
    drift = f"{entry.drift:.1f} ({entry.drift_limit:.1f}): {drift_feature}"
    shift = f"{entry.shift:.1f}: {describe_feature(machine, entry.shift_feature)}"
    return (
        machine.name, format_time(entry.first), format_time(entry.last), str(entry.rows),
        str(entry.run_in),
        drift if entry.drift_feature else "not known", shift if entry.shift_feature else "-",
        _consent(entry), "-" if entry.decided_at is None else format_time(entry.decided_at),
    )  # fmt: skip


def _sentence(machine: Machine, entry: LearningEntry) -> str:
    period = f"{format_time(entry.first)} to {format_time(entry.last)}"
    text = f"learned from {entry.rows} snapshots, {period}"
    if entry.run_in:
        text += f", after a run-in of {entry.run_in}"
    if entry.drift_feature:
        result = "drifted" if entry.drift > entry.drift_limit else "stationary"
        text += f", {result} ({entry.drift:.1f}: {describe_feature(machine, entry.drift_feature)})"
    if entry.shift_feature:
        shift_feature = describe_feature(machine, entry.shift_feature)
        text += f", moved the baseline by {entry.shift:.1f} ({shift_feature})"
    when = "" if entry.decided_at is None else f", {format_time(entry.decided_at)}"
    return f"{text}; {_consent(entry)}{when}"


def _consent(entry: LearningEntry) -> str:
    if entry.needs_consent:
        return "CONSENT IS MISSING"
    alarm = ", while an alarm was active" if entry.over_alarm else ""
    return (f"{entry.by}: {entry.why}" if entry.by else "first training") + alarm
