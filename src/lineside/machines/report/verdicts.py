"""The verdict page: which detector to use on each machine, why, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lineside.core.contract import Section, Table
from lineside.core.study import Study
from lineside.machines.report.baselines import baseline_records
from lineside.machines.report.method_choice import Record, answer, decide, records, verdict

COLUMNS = (
    "detector", "kind", "false alarms", "faults found", "delay [h]", "lead [h]", "learning [s]",
    "snapshot [ms]",
)  # fmt: skip


def answers(study: Study) -> list[str]:
    """Return a sentence or two per machine: which detector, and is deep learning worth it?"""
    found = ((name, records(study.methods, name)) for name in _machines(study))
    return [
        f"{name}: {answer(decide(own, baseline_records(study, name, own)))}" for name, own in found
    ]


def detectors(study: Study) -> Section:
    """Show the record of every detector on every machine, with a verdict."""
    blocks: list[str | Table] = []
    for machine in _machines(study):
        told, found, rivals = _answer(study, machine)
        blocks += [
            f"{machine}: {told}",
            Table(
                title=machine,
                columns=COLUMNS,
                rows=tuple(_row(record) for record in (*found, *rivals)),
                caption=f"Best first, over {found[0].months:.2f} healthy machine-months. Delay: "
                "from the beginning of the fault to the alarm; lead: from there to the failure. "
                "Learning: all machines of the run."
                + (" Last: simple detectors with the inputs of the deep winner." if rivals else ""),
            ),
        ]
    return Section(
        title="Which detector for which machine",
        lead="One history per machine decides little: read this as a record, not as a law. It was "
        "made after the faults were seen, so the next history may name another detector.",
        blocks=tuple(blocks),
    )


def _answer(study: Study, machine: str) -> tuple[str, list[Record], list[Record]]:
    """The verdict on one machine, and the records that it rests on."""
    found = records(study.methods, machine)
    rivals = baseline_records(study, machine, found)
    return verdict(found, rivals), found, rivals


def _machines(study: Study) -> Sequence[str]:
    return sorted({outcome.unit for outcome in study.best.outcomes["test"]})


def _row(record: Record) -> tuple[str, ...]:
    found = f"{record.found} of {record.faults}" if record.faults else "-"
    return (
        record.method, record.kind, f"{record.false:.0f}", found, _number(record.delay_hours, 0),
        _number(record.lead_hours, 0), _number(record.fit_seconds, 1), _number(record.ms, 1),
    )  # fmt: skip


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"
