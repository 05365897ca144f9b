"""Novelty over time: every detector on the same machine, with the onset of the fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lineside.core.contract import Figure, Outcome, Section
from lineside.core.report import plots
from lineside.core.study import Study
from lineside.machines.metrics import column
from lineside.machines.report.method_choice import detector_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_METHODS = 4
DAY, HOUR = 86400.0, 3600.0
SHORT_DAYS = 2.0
TICKS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
MIN_TOP = 2.0


def novelty_section(study: Study) -> Section:
    """Show novelty over time of the detector that predicts and of others, a figure per machine."""
    test = study.best.outcomes["test"]
    machines = {o.unit: [e for e in test if e.unit == o.unit] for o in test}
    order = sorted(machines, key=lambda name: (_fault_times(machines[name])[0] is None, name))
    return Section(
        title="Novelty over time",
        lead=(
            "Novelty of each snapshot in units of each detector's own limit: below 1 is normal. "
            "Triangles: an alarm begins. Shown are the detector that predicts, the trend, and "
            "the deep ones with the best results on the machine."
        ),
        blocks=tuple(
            _draw_machine(study, machine, _choose_methods(study, machine)) for machine in order
        ),
    )


def _choose_methods(study: Study, machine: str) -> list[str]:
    """Return the detector that predicts, the trend, and the deep ones with the best results."""
    records = detector_records(study.methods, machine)
    names = [study.chosen, "trend", *(r.method for r in records if r.kind == "deep")]
    names += [r.method for r in records]
    run = {m.name for m in study.methods}
    return [n for n in dict.fromkeys(names) if n in run][:MAX_METHODS]


def _draw_machine(study: Study, machine: str, methods: Sequence[str]) -> Figure:
    series = {}
    for method in sorted(study.methods, key=lambda m: [*methods, m.name].index(m.name)):
        if method.name in methods:
            outcomes = [o for o in method.outcomes["test"] if o.unit == machine]
            calibration = method.model.machines[machine].main.calibration
            series[method.name] = (
                column(outcomes, "time"), column(outcomes, "score") / calibration.limit,
                column(outcomes, "episode") == 1,
            )  # fmt: skip
    outcomes = [o for o in study.best.outcomes["test"] if o.unit == machine]
    start = float(column(outcomes, "time")[0])
    onset, failure = _fault_times(outcomes)
    short = float(column(outcomes, "time")[-1]) - start < SHORT_DAYS * DAY
    unit, seconds = ("hours", HOUR) if short else ("days", DAY)

    def paint(axes: Axes) -> None:
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        for i, (name, (times, novelty, alarms)) in enumerate(series.items()):
            x, y = (times - start) / seconds, np.clip(novelty, 0.0, None)
            color = plots.SERIES[i]
            axes.plot(x, y, plots.STYLES[i], color=color, label=name, linewidth=1.2)
            axes.plot(x[alarms], y[alarms], "v", color=color, markersize=7)
        axes.axhline(1.0, color=plots.MARKER, linewidth=0.8)
        marks = ((onset, "--", "fault begins", 0.93), (failure, ":", "failure", 0.03))
        for time, style, label, height in marks:
            if time is not None:
                position = (time - start) / seconds
                axes.axvline(position, color=plots.MARKER, linestyle=style, linewidth=1.2)
                axes.annotate(
                    label, (position, height), xycoords=axes.get_xaxis_transform(), xytext=(-4, 0),
                    textcoords="offset points", ha="right", fontsize=8,
                )  # fmt: skip
        top = max([MIN_TOP, *(float(np.nanmax(y, initial=0.0)) for _, y, _ in series.values())])
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(0, 1.15 * top)
        axes.yaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= 1.15 * top]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=f"{unit} since the end of learning", ylabel="novelty / limit [-]")
        # above the axes: inside it would cover the curves or the limit
        axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=MAX_METHODS)

    return plots.draw(
        machine,
        "Novelty over the limit, logarithmic above 1, the limit. Gaps: sensor faults, standstill, "
        "restarts.",
        paint,
        size_inches=(8.6, 3.2),
        wide=True,
    )


def _fault_times(outcomes: Sequence[Outcome]) -> tuple[float | None, float | None]:
    """Return the times of onset and failure, None where unknown."""
    onset = np.flatnonzero(column(outcomes, "onset") == 1)
    if not len(onset):
        return None, None
    first = outcomes[int(onset[0])].value
    end = None
    if "lead_hours" in first and "delay_hours" in first:
        end = first["time"] + 3600 * (first["delay_hours"] + first["lead_hours"])
    return float(first["time"]), end
