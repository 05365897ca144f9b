"""The chapters of a `machines` report: novelty over time, alarms, promises, which detector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import chi2

from lineside.core.contract import Figure, Outcome, Refusal, Section, Table
from lineside.core.report import plots
from lineside.core.report.chapters import verdict as leaderboard_verdict
from lineside.core.workflow import Study
from lineside.machines import worth
from lineside.machines.data import by_machine
from lineside.machines.evidence import date
from lineside.machines.metrics import column, healthy_months
from lineside.machines.model import MachinesModel

SHOWN_METHODS = 4
HOURS_PER_DAY = 24.0
MOST_EVENTS = 60


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
        upper = float(chi2.ppf(0.95, 2 * false + 2)) / 2 / months
        lines.append(
            f"It raised {false} false alarms in {months:.2f} healthy machine-months after "
            f"learning: at most {upper:.2g} a month with 95 % confidence; the budget is "
            f"{study.config.budget:g}."
        )
    names = sorted({o.group for o in test})
    deep = any(method.kind == "deep" for method in study.methods)
    if deep and len(names) <= 6:
        lines += [f"{n}: {worth.verdict(worth.records(study.methods, n))}" for n in names]
    else:
        lines.append(leaderboard_verdict(study))
    return lines


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order."""
    chapters = [timelines(study), detectors(study), promises(study), events(study), cases(study)]
    return [chapter for chapter in chapters if chapter.blocks]


def timelines(study: Study) -> Section:
    """Show novelty over time of the method that predicts, beside other detectors."""
    shown = _shown(study)
    figures = [
        _timeline(study, machine, shown)
        for machine in sorted({o.group for o in study.best.outcomes["test"]})
    ]
    return Section(
        title="Novelty over time",
        lead=(
            "How unusual each snapshot is, in units of each detector's own limit: below 1 is "
            "normal. Dashed: the fault begins; dotted: the machine fails."
        ),
        blocks=tuple(figures),
    )


def detectors(study: Study) -> Section:
    """Show the record of every detector on every machine, with a verdict."""
    blocks: list[str | Table] = []
    for machine in sorted({o.group for o in study.best.outcomes["test"]}):
        found = worth.records(study.methods, machine)
        rows = tuple(
            (
                r.method, r.kind, f"{r.false:.0f}", f"{r.found} of {r.faults}",
                _hours(r.delay_hours), _hours(r.lead_hours),
            )
            for r in found
        )  # fmt: skip
        blocks += [
            f"{machine}: {worth.verdict(found)}",
            Table(
                title=machine,
                columns=(
                    "detector", "kind", "false alarms", "faults found", "delay [h]", "lead [h]",
                ),
                rows=rows,
                caption=f"Best first, over {found[0].months:.2f} healthy machine-months. Delay: "
                "from the beginning of the fault to the alarm; lead: from there to the failure.",
            ),
        ]  # fmt: skip
    return Section(
        title="Which detector for which machine",
        lead="One history per machine decides little: read this as a record, not as a law.",
        blocks=tuple(blocks),
    )


def promises(study: Study) -> Section:
    """Show what the held-out healthy snapshots of each machine can support."""
    model: MachinesModel = study.best.model
    rows = []
    for name, machine in sorted(model.machines.items()):
        for branch, what in ((machine.main, "learned"), (machine.free, "other speeds")):
            if branch is not None and branch.calibration is not None:
                point = branch.calibration
                rows.append((name, what, f"{point.limit:g}", f"{point.rows}", point.promise))
    return Section(
        title="Limits and what they promise",
        lead=(
            "Limits are set on healthy snapshots that no detector was fitted on. A false-alarm "
            "budget needs months of healthy time to be proven."
        ),
        blocks=(
            Table(
                title="Limits by machine",
                columns=("machine", "operation", "limit [robust spreads]", "snapshots", "promise"),
                rows=tuple(rows),
            ),
        ),
    )


def events(study: Study) -> Section:
    """List what the method that predicts told on the test snapshots, in order of time."""
    model: MachinesModel = study.best.model
    rows = []
    for own in by_machine(study.split.test).values():
        for verdict in model.predict(own):
            if isinstance(verdict, Refusal):
                rows.append((verdict.item, "refused", "", verdict.message))
                continue
            for event in verdict.events:
                features = event.evidence.get("features", {})
                speaks = ", ".join(f"{k} {v:.0%}" for k, v in list(features.items())[:3])
                told = f"{event.text}; {speaks}" if speaks else event.text
                rows.append((verdict.machine, date(verdict.time), event.kind, told))
    left_out = len(rows) - MOST_EVENTS
    caption = f"{left_out} further events are not shown." if left_out > 0 else ""
    table = Table(
        title="Events on the test snapshots",
        columns=("machine", "time", "what", "evidence"),
        rows=tuple(rows[:MOST_EVENTS]),
        caption=caption,
    )
    return Section(
        title="Alarms and sensor events",
        lead="Sensor faults are told apart from the machine's: they raise no alarm.",
        blocks=(table,) if rows else (),
    )


def cases(study: Study) -> Section:
    """Explain the first alarm of every machine, or its most unusual snapshot."""
    model: MachinesModel = study.best.model
    items = {item.id: item for item in study.split.test}
    chosen = []
    for machine in sorted({o.group for o in study.best.outcomes["test"]}):
        own = [o for o in study.best.outcomes["test"] if o.group == machine]
        scores = np.nan_to_num(column(own, "score"), nan=-np.inf)
        alarms = np.flatnonzero(column(own, "episode") == 1)
        if np.isfinite(scores).any():
            chosen.append(own[int(alarms[0]) if len(alarms) else int(scores.argmax())])
    return Section(
        title="Cases",
        lead="The first alarm of each machine, or its most unusual snapshot, explained.",
        blocks=tuple(model.explain(items[o.item]) for o in chosen),
    )


def _shown(study: Study) -> list[str]:
    """The method that predicts, the trend, and the deep ones, as far as there is room."""
    names = [study.chosen, "trend", *(m.name for m in study.methods if m.kind == "deep")]
    names += [m.name for m in study.methods]
    known = {m.name for m in study.methods}
    return [n for n in dict.fromkeys(names) if n in known][:SHOWN_METHODS]


def _timeline(study: Study, machine: str, methods: Sequence[str]) -> Figure:
    series = {}
    for method in study.methods:
        if method.name in methods:
            own = [o for o in method.outcomes["test"] if o.group == machine]
            calibration = method.model.machines[machine].main.calibration
            series[method.name] = (column(own, "time"), column(own, "score") / calibration.limit)
    own = [o for o in study.best.outcomes["test"] if o.group == machine]
    start = float(column(own, "time")[0])
    begins, ends = _marks(own)

    def paint(axes: Axes) -> None:
        for place, (name, (times, levels)) in enumerate(series.items()):
            days = (times - start) / 86400
            style = plots.STYLES[place % len(plots.STYLES)]
            axes.plot(
                days, np.clip(levels, 0.02, None), style, color=plots.SERIES[place], label=name,
                linewidth=1.2,
            )  # fmt: skip
        axes.axhline(1.0, color=plots.MARKER, linewidth=0.8)
        for moment, style in ((begins, "--"), (ends, ":")):
            if moment is not None:
                axes.axvline((moment - start) / 86400, color=plots.MARKER, linestyle=style)
        axes.set(xlabel="days since the end of learning", ylabel="novelty / limit [-]")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.legend(fontsize=8)

    return plots.draw(
        machine,
        "Novelty of each detector over its own limit, logarithmic above it; the line at 1 is the "
        "limit. Gaps: sensor faults, standstill, restarts.",
        paint,
        size_inches=(8.6, 3.2),
        wide=True,
    )


def _marks(own: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """When the fault begins, and when the machine fails, as far as known."""
    onset = np.flatnonzero(column(own, "onset") == 1)
    if not len(onset):
        return None, None
    first = own[int(onset[0])].value
    end = None
    if "lead_hours" in first and "delay_hours" in first:
        end = first["time"] + 3600 * (first["delay_hours"] + first["lead_hours"])
    return float(first["time"]), end


def _hours(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.0f}"
