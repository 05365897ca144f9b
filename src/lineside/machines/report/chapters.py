"""The chapters of a `machines` report: novelty over time, alarms, promises, which detector."""

from __future__ import annotations

from typing import Any

import numpy as np

from lineside.core.contract import Refusal, Section, Table
from lineside.core.report.chapters import verdict as leaderboard_verdict
from lineside.core.study import Study
from lineside.machines.alarms.calibration import poisson_upper_bound
from lineside.machines.alarms.verdict import Verdict, date
from lineside.machines.data.dataset import by_machine
from lineside.machines.metrics import column, healthy_months
from lineside.machines.model import MachinesModel
from lineside.machines.report import method_choice as worth
from lineside.machines.report.novelty import timelines
from lineside.machines.report.robustness import numbers as robustness_numbers
from lineside.machines.report.robustness import robustness
from lineside.machines.report.verdicts import answers, detectors
from lineside.machines.training.learning_record import consent_notes, learning_record_section

MOST_EVENTS = 60
HYPHEN = "\u2011"
"""At which no line of a narrow column ends."""


def summary(study: Study) -> list[str]:
    """Return plain-language paragraphs: what was found, how often it cried wolf, the rival."""
    test = study.best.outcomes["test"]
    months = healthy_months(test)
    false = int(np.nansum(column(test, "episode")[column(test, "label") == 0]))
    onset = column(test, "onset") == 1
    lines = []
    if onset.any():
        found = int(np.nansum(column(test, "found")[onset]))
        lead = worth.OF["lead_time"](test)
        early = "" if np.isnan(lead) else f", {lead:.0f} h before the failure in the median"
        lines.append(f"{study.chosen} found {found} of {int(onset.sum())} faults in time{early}.")
    else:
        lines.append("No fault is known in these data, so nothing is known about missed faults.")
    if months > 0:
        upper = poisson_upper_bound(false, months)
        lines.append(
            f"It raised {false} false alarms in {months:.2f} healthy machine-months after "
            f"learning: at most {upper:.2g} a month with 95 % confidence; the budget is "
            f"{study.config.budget:g}."
        )
    names = sorted({o.unit for o in test})
    deep = any(method.kind == "deep" for method in study.methods)
    if np.isnan(worth.OF["risk"](test)):
        lines.append(
            "Nothing is labelled as healthy or faulty, so the detectors cannot be compared: "
            "machine.json takes fault_from and failed_at."
        )
    elif deep and len(names) <= 6:
        lines += answers(study)
    else:
        lines.append(leaderboard_verdict(study))
    return lines + consent_notes(study.best.model)


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order."""
    chapters = [timelines(study), detectors(study), promises(study)]
    chapters += [learning_record_section(study.best.model), events(study)]
    if study.config.robustness:
        chapters.append(robustness(study))
    chapters.append(cases(study))
    return [chapter for chapter in chapters if chapter.blocks]


def numbers(study: Study) -> dict[str, Any]:
    """Return the numbers of these chapters as plain JSON, for ``report.json``."""
    return {"robustness": robustness_numbers(study)} if study.config.robustness else {}


def promises(study: Study) -> Section:
    """Show what the held-out healthy snapshots of each machine can support."""
    model: MachinesModel = study.best.model
    rows = []
    for name, machine in sorted(model.machines.items()):
        for branch, what in ((machine.main, "learned"), (machine.fallback, "other speeds")):
            if branch is not None and branch.calibration is not None:
                point = branch.calibration
                rows.append((name, what, f"{point.limit:g}", f"{point.rows}", point.guarantee))
    return Section(
        title="Limits and what they promise",
        lead=(
            "Limits are set on healthy snapshots that no detector was fitted on. A false-alarm "
            "budget needs months of healthy time to be proven."
        ),
        blocks=(
            Table(
                title="Limits by machine",
                columns=(
                    "machine",
                    "operation",
                    "limit [robust spreads]",
                    "snapshots",
                    "guarantee",
                ),
                rows=tuple(rows),
            ),
        ),
    )


def events(study: Study) -> Section:
    """List what the method that predicts told on the test snapshots, in order of time."""
    model: MachinesModel = study.best.model
    rows: list[tuple[str, ...]] = []
    for own in by_machine(study.split.test).values():
        for verdict in model.predict(own):
            if isinstance(verdict, Refusal):
                rows.append((verdict.item, "", "refused", verdict.message, ""))
            else:
                rows += _told(verdict)
    left_out = len(rows) - MOST_EVENTS
    caption = (
        "Expected: when novelty reaches the danger tier if it goes on rising as it did, with a "
        "90 % interval; told again only when it changed. Danger is not failure: what a machine "
        "bears beyond it is not known."
    )
    caption += f" {left_out} further events are not shown." if left_out > 0 else ""
    table = Table(
        title="Events on the test snapshots",
        columns=("machine", "time (UTC)", "what", "evidence", "expected"),
        rows=tuple(rows[:MOST_EVENTS]),
        caption=caption,
    )
    return Section(
        title="Alarms and sensor events",
        lead="Sensor faults are told apart from the machine's: they raise no alarm.",
        blocks=(table,) if rows else (),
    )


def _told(verdict: Verdict) -> list[tuple[str, ...]]:
    """Rows of one verdict: its events, or a forecast that changed."""
    when = date(verdict.time)[:16].replace("-", HYPHEN)  # to the minute
    rows: list[tuple[str, ...]] = []
    for event in verdict.events:
        features = list(event.evidence.get("features", {}).items())[:3]
        speaks = ", ".join(f"{name} {share:.0%}" for name, share in features)
        told = f"{event.text}; {speaks}" if speaks else event.text
        expected = str(event.evidence.get("forecast", {}).get("text", ""))
        rows.append((verdict.machine, when, event.kind, told, expected))
    text = str((verdict.forecast or {}).get("text", ""))
    if not verdict.events and text and text in verdict.note:
        rows.append((verdict.machine, when, "forecast", f"novelty {verdict.novelty:.1f}", text))
    return rows


def cases(study: Study) -> Section:
    """Explain the first alarm of every machine, or its most unusual snapshot."""
    model: MachinesModel = study.best.model
    items = {item.id: item for item in study.split.test}
    chosen = []
    for machine in sorted({o.unit for o in study.best.outcomes["test"]}):
        own = [o for o in study.best.outcomes["test"] if o.unit == machine]
        scores = np.nan_to_num(column(own, "score"), nan=-np.inf)
        alarms = np.flatnonzero(column(own, "episode") == 1)
        if np.isfinite(scores).any():
            chosen.append(own[int(alarms[0]) if len(alarms) else int(scores.argmax())])
    return Section(
        title="Cases",
        lead="The first alarm of each machine, or its most unusual snapshot, explained.",
        blocks=tuple(model.explain(items[o.item]) for o in chosen),
    )
