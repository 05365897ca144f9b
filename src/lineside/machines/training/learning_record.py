"""What a model learned as normal, told to people: the ledger, and what still needs a consent."""

from __future__ import annotations

from collections.abc import Sequence

from lineside.core.contract import Section, Table
from lineside.machines.alarms import Learned
from lineside.machines.alarms.verdict import date
from lineside.machines.explain.evidence import describe_feature
from lineside.machines.model import MachinesModel
from lineside.machines.models.machine import Machine

COLUMNS = (
    "machine", "learned from (UTC)", "to", "snapshots", "run-in left out", "drift while learned",
    "moved the normal by", "consent", "decided",
)  # fmt: skip


def rows_of(machine: Machine) -> Sequence[Learned]:
    """Return the ledger of a machine; of one that is older than ledgers, what can be known."""
    if machine.ledger or not machine.reference_times:
        return machine.ledger
    times = machine.reference_times
    why = "learned before ledgers were kept: whether it drifted is not known"
    return (Learned(first=times[0], last=times[-1], rows=len(times), why=why),)


def learned_table(model: MachinesModel) -> Table:
    """Return the ledger of every machine as a table for the report."""
    rows = [
        _cells(machine, row)
        for _, machine in sorted(model.machines.items())
        for row in rows_of(machine)
    ]
    return Table(
        title="What was learned as normal",
        columns=COLUMNS,
        rows=tuple(rows),
        caption="Nothing is learned by itself afterwards. Drift and moves are the largest of all "
        "features, in robust spreads; up to the number in brackets a drift passes as steady.",
    )


def learned_section(model: MachinesModel) -> Section:
    """Return the chapter of the report on what was learned, with what needs a consent first."""
    return Section(
        title="What was learned as normal",
        lead="A fault that was there while a machine was learned would never be found.",
        blocks=(*notes(model), learned_table(model)),
    )


def ledger_lines(model: MachinesModel) -> list[str]:
    """Return the ledger as lines for a terminal, oldest first within each machine."""
    lines = []
    for name, machine in sorted(model.machines.items()):
        for row in rows_of(machine):
            lines.append(f"{name}: {_sentence(machine, row)}")
    return lines


def notes(model: MachinesModel) -> list[str]:
    """Return one line for each machine whose normal drifted and has nobody's consent."""
    return [
        f"{name}: {needs_words(machine)}"
        for name, machine in sorted(model.machines.items())
        if machine.ledger and machine.ledger[-1].needs_consent
    ]


def needs_words(machine: Machine) -> str:
    """Say what moved while a machine was learned, and what a person can do."""
    row = machine.ledger[-1]
    return (
        f"the {describe_feature(machine, row.drifting)} moved by {row.drift:.1f} robust spreads "
        f"while normal was learned ({row.steady:.1f} pass as steady): a fault, a run-in or a "
        "warm-up may have been learned as normal; look at the machine, then "
        "`lineside machines consent`, "
        "or learn a steadier time with `lineside machines learn`"
    )


def _cells(machine: Machine, row: Learned) -> tuple[str, ...]:
    moved = f"{row.shift:.1f}: {describe_feature(machine, row.shifting)}" if row.shifting else "-"
    drift = f"{row.drift:.1f} ({row.steady:.1f}): {describe_feature(machine, row.drifting)}"
    return (
        machine.name, date(row.first), date(row.last), str(row.rows), str(row.run_in),
        drift if row.drifting else "not known", moved, _consent(row),
        "-" if row.decided is None else date(row.decided),
    )  # fmt: skip


def _sentence(machine: Machine, row: Learned) -> str:
    text = f"learned {date(row.first)} to {date(row.last)} from {row.rows} snapshots"
    if row.run_in:
        text += f" after a run-in of {row.run_in}"
    if row.drifting:
        kept = "drifted" if row.drift > row.steady else "steady"
        text += f", {kept} ({row.drift:.1f}: {describe_feature(machine, row.drifting)})"
    if row.shifting:
        text += f", moved normal by {row.shift:.1f} ({describe_feature(machine, row.shifting)})"
    when = "" if row.decided is None else f", decided {date(row.decided)}"
    return f"{text}; {_consent(row)}{when}"


def _consent(row: Learned) -> str:
    if row.needs_consent:
        return "NOBODY HAS CONSENTED"
    over = ", while an alarm was running" if row.over_alarm else ""
    told = f"{row.by}: {row.why}" if row.by else row.why or "first learning"
    return told + over
