"""The chapters of a `machines` report: summary, detectors, limits, alarms, cases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from lineside.core.contract import Refusal, Section, Table
from lineside.core.report.chapters import verdict as leaderboard_verdict
from lineside.core.study import Study
from lineside.machines.alarms.calibration import poisson_upper_bound
from lineside.machines.alarms.verdict import Verdict, format_time, join_texts
from lineside.machines.data.dataset import by_machine
from lineside.machines.metrics import MEASURES, column, healthy_months
from lineside.machines.model import MachinesModel
from lineside.machines.report.baselines import baseline_records
from lineside.machines.report.method_choice import (
    DetectorRecord,
    choose_detector,
    detector_records,
    explain_choice,
    state_choice,
)
from lineside.machines.report.novelty import novelty_section
from lineside.machines.report.robustness import numbers as robustness_numbers
from lineside.machines.report.robustness import robustness_section
from lineside.machines.signals.layout import feature_label
from lineside.machines.training.learning_record import consent_notes, learning_record_section

MAX_EVENTS = 60
MAX_MACHINES = 6
"""With more machines the summary compares the detectors over all of them."""
HYPHEN = "\u2011"
"""Non-breaking, so that dates in narrow columns stay whole."""
RECORD_COLUMNS = (
    "detector", "kind", "false alarms", "faults found", "delay [h]", "lead [h]", "fit [s]",
    "snapshot [ms]",
)  # fmt: skip


def summary(study: Study) -> list[str]:
    """Return the first paragraphs: rely on it or not, faults, false alarms, the detector to use."""
    test = study.best.outcomes["test"]
    months = healthy_months(test)
    false = int(np.nansum(column(test, "episode")[column(test, "label") == 0]))
    onset = column(test, "onset") == 1
    found = int(np.nansum(column(test, "found")[onset]))
    lines = decision(found, int(onset.sum()), false, months, study.config.budget)
    if onset.any():
        lead = MEASURES["lead_time"](test)
        early = "" if np.isnan(lead) else f", in the median {lead:.0f} h before the failure"
        lines.append(f"{study.chosen} found {found} of {int(onset.sum())} faults in time{early}.")
    else:
        lines.append("No fault is known in these data, so missed faults cannot be counted.")
    if months > 0:
        upper = poisson_upper_bound(false, months)
        lines.append(
            f"It raised {false} false alarms in {months:.2f} healthy machine-months after "
            f"learning: at most {upper:.2g} per month (one-sided 95 %); the budget is "
            f"{study.config.budget:g}."
        )
    deep = any(method.kind == "deep" for method in study.methods)
    if np.isnan(MEASURES["risk"](test)):
        lines.append(
            "Nothing is labelled as healthy or faulty, so the detectors cannot be compared: "
            "give fault_from and failed_at in machine.json."
        )
    elif deep and len(_machines(study)) <= MAX_MACHINES:
        lines += detector_answers(study)
    else:
        lines.append(leaderboard_verdict(study))
    return lines + consent_notes(study.best.model)


def decision(found: int, faults: int, false: int, months: float, budget: float) -> list[str]:
    """Return whether to rely on the alarms, and what to do next.

    Args:
        found: Faults found in time.
        faults: Known faults of the test.
        false: False alarms.
        months: Healthy machine-months in which they were counted.
        budget: Acceptable false alarms per machine-month.
    """
    reasons = []
    if not faults:
        reasons.append("nothing is known about missed faults")
    elif found < faults:
        reasons.append(f"it missed {faults - found} of {faults} faults")
    needed = poisson_upper_bound(false, 1.0) / budget
    if months < needed:
        reasons.append("the budget of false alarms is not proven")
    if not reasons:
        return [f"Use it, because it found all {faults} faults and the budget of false alarms is "
                "proven."]  # fmt: skip
    lines = [f"Do not rely on it alone yet, because {' and '.join(reasons)}."]
    if months < needed:
        lines.append(
            "What to do next: let it watch beside your present checks; "
            f"{needed - months:.0f} more healthy machine-months without a further false alarm "
            "would prove the budget."
        )
    return lines


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order; what does not decide is folded."""
    chapters = [novelty_section(study), detectors_section(study), events_section(study)]
    folded = [cases_section(study), limits_section(study)]
    folded.append(learning_record_section(study.best.model))
    if study.config.robustness:
        folded.append(robustness_section(study))
    chapters += [dataclasses.replace(chapter, folded=True) for chapter in folded]
    return [chapter for chapter in chapters if chapter.blocks]


def numbers(study: Study) -> dict[str, Any]:
    """Return the numbers of these chapters as plain JSON, for ``report.json``."""
    return {"robustness": robustness_numbers(study)} if study.config.robustness else {}


def detector_answers(study: Study) -> list[str]:
    """Return a sentence or two per machine: the detector to use, and whether a deep one pays."""
    lines = []
    for machine in _machines(study):
        records = detector_records(study.methods, machine)
        chosen = choose_detector(records, baseline_records(study, machine, records))
        lines.append(f"{machine}: {state_choice(chosen)}")
    return lines


def detectors_section(study: Study) -> Section:
    """Show the test results of every detector on every machine, and the detector to use."""
    blocks: list[str | Table] = []
    for machine in _machines(study):
        records = detector_records(study.methods, machine)
        baselines = baseline_records(study, machine, records)
        blocks += [
            f"{machine}: {explain_choice(records, baselines)}",
            Table(
                title=machine,
                columns=RECORD_COLUMNS,
                rows=tuple(_record_row(record) for record in (*records, *baselines)),
                caption=f"Best first, over {records[0].months:.2f} healthy machine-months. Delay: "
                "from the onset of the fault to the alarm; lead: from the alarm to the failure. "
                "Fit: all machines of the run."
                + (
                    " Last rows: simple detectors with the inputs of the best deep one."
                    if baselines
                    else ""
                ),
            ),
        ]
    return Section(
        title="Which detector for which machine",
        lead="One history per machine is weak evidence, and this comparison was made after the "
        "faults were known: the next history may favour another detector.",
        blocks=tuple(blocks),
    )


def _machines(study: Study) -> Sequence[str]:
    return sorted({outcome.unit for outcome in study.best.outcomes["test"]})


def _record_row(record: DetectorRecord) -> tuple[str, ...]:
    found = f"{record.found} of {record.faults}" if record.faults else "-"
    return (
        record.method, record.kind, f"{record.false:.0f}", found, _number(record.delay_hours, 0),
        _number(record.lead_hours, 0), _number(record.fit_seconds, 1), _number(record.ms, 1),
    )  # fmt: skip


def _number(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def limits_section(study: Study) -> Section:
    """Show the alarm limits, and what the held-out healthy snapshots can guarantee."""
    model: MachinesModel = study.best.model
    rows = []
    for name, machine in sorted(model.machines.items()):
        for branch, operation in ((machine.main, "as trained"), (machine.fallback, "other speeds")):
            if branch is not None and branch.calibration is not None:
                point = branch.calibration
                rows.append((name, operation, f"{point.limit:g}", f"{point.rows}", point.guarantee))
    return Section(
        title="Alarm limits and what they guarantee",
        lead=(
            "Limits are calibrated on healthy snapshots that no detector was fitted on. A "
            "false-alarm budget needs months of healthy time to be proven."
        ),
        blocks=(
            Table(
                title="Limits by machine",
                columns=(
                    "machine", "operation", "limit [robust spreads]", "snapshots", "guarantee",
                ),
                rows=tuple(rows),
            ),
        ),
    )  # fmt: skip


def events_section(study: Study) -> Section:
    """List the events of the method that predicts on the test snapshots, in order of time."""
    model: MachinesModel = study.best.model
    rows: list[tuple[str, ...]] = []
    for items in by_machine(study.split.test).values():
        for verdict in model.predict(items):
            if isinstance(verdict, Refusal):
                rows.append((verdict.item, "", "refused", verdict.message, ""))
            else:
                rows += _event_rows(verdict)
    left_out = len(rows) - MAX_EVENTS
    caption = (
        "Expected: time until novelty reaches the danger level if its trend continues, with a "
        "90 % interval; listed again only when it changed. Danger is not failure: how long a "
        "machine runs beyond that level is not known."
    )
    caption += f" {left_out} further events are not shown." if left_out > 0 else ""
    table = Table(
        title="Events on the test snapshots",
        columns=("machine", "time (UTC)", "event", "evidence", "expected"),
        rows=tuple(rows[:MAX_EVENTS]),
        caption=caption,
    )
    return Section(
        title="Alarms and sensor events",
        lead="Sensor faults are events of their own: they raise no machine alarm.",
        blocks=(table,) if rows else (),
    )


def _event_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """Return one row per event of a verdict, or one for a forecast that changed."""
    when = format_time(verdict.time)[:16].replace("-", HYPHEN)  # to the minute
    rows: list[tuple[str, ...]] = []
    for event in verdict.events:
        features = list(event.evidence.get("features", {}).items())[:3]
        shares = ", ".join(f"{feature_label(name)} {share:.0%}" for name, share in features)
        evidence = join_texts([event.text, f"Contributions: {shares}" if shares else ""])
        expected = str(event.evidence.get("forecast", {}).get("text", ""))
        rows.append((verdict.machine, when, event.kind, evidence, expected))
    text = str((verdict.forecast or {}).get("text", ""))
    if not verdict.events and text and text in verdict.note:
        rows.append((verdict.machine, when, "forecast", f"novelty {verdict.novelty:.1f}", text))
    return rows


def cases_section(study: Study) -> Section:
    """Explain the first alarm of every machine, or its most unusual snapshot."""
    model: MachinesModel = study.best.model
    items = {item.id: item for item in study.split.test}
    chosen = []
    for machine in _machines(study):
        outcomes = [o for o in study.best.outcomes["test"] if o.unit == machine]
        scores = np.nan_to_num(column(outcomes, "score"), nan=-np.inf)
        alarms = np.flatnonzero(column(outcomes, "episode") == 1)
        if np.isfinite(scores).any():
            chosen.append(outcomes[int(alarms[0]) if len(alarms) else int(scores.argmax())])
    return Section(
        title="Cases",
        lead="The first alarm of each machine, or its most unusual snapshot, explained.",
        blocks=tuple(model.explain(items[o.item]) for o in chosen),
    )
