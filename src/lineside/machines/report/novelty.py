"""Novelty over time: what every detector made of the same machine, with the onset marked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lineside.core.contract import Figure, Outcome, Section
from lineside.core.report import plots
from lineside.core.study import Study
from lineside.machines.metrics import column
from lineside.machines.report.method_choice import records

SHOWN_METHODS = 4
DAY, HOUR = 86400.0, 3600.0
SHORT_DAYS = 2.0
TICKS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)
LEAST_TOP = 2.0


def timelines(study: Study) -> Section:
    """Show novelty over time of the method that predicts, beside other detectors."""
    test = study.best.outcomes["test"]
    machines = {o.unit: [e for e in test if e.unit == o.unit] for o in test}
    order = sorted(machines, key=lambda name: (_marks(machines[name])[0] is None, name))
    return Section(
        title="Novelty over time",
        lead=(
            "How unusual each snapshot is, in units of each detector's own limit: below 1 is "
            "normal. Triangles: an alarm begins. Shown are the detector that predicts, the trend, "
            "and the deep ones with the best record on the machine."
        ),
        blocks=tuple(_timeline(study, machine, _shown(study, machine)) for machine in order),
    )


def _shown(study: Study, machine: str) -> list[str]:
    """The method that predicts, the trend, and the deep ones with the best record there."""
    found = records(study.methods, machine)
    names = [study.chosen, "trend", *(r.method for r in found if r.kind == "deep")]
    names += [r.method for r in found]
    known = {m.name for m in study.methods}
    return [n for n in dict.fromkeys(names) if n in known][:SHOWN_METHODS]


def _timeline(study: Study, machine: str, methods: Sequence[str]) -> Figure:
    series = {}
    for method in sorted(study.methods, key=lambda m: [*methods, m.name].index(m.name)):
        if method.name in methods:
            own = [o for o in method.outcomes["test"] if o.unit == machine]
            calibration = method.model.machines[machine].main.calibration
            series[method.name] = (
                column(own, "time"), column(own, "score") / calibration.limit,
                column(own, "episode") == 1,
            )  # fmt: skip
    own = [o for o in study.best.outcomes["test"] if o.unit == machine]
    start = float(column(own, "time")[0])
    begins, ends = _marks(own)
    short = float(column(own, "time")[-1]) - start < SHORT_DAYS * DAY
    unit, seconds = ("hours", HOUR) if short else ("days", DAY)

    def paint(axes: Axes) -> None:
        for place, (name, (times, levels, alarms)) in enumerate(series.items()):
            since, shown = (times - start) / seconds, np.clip(levels, 0.0, None)
            color = plots.SERIES[place]
            axes.plot(since, shown, plots.STYLES[place], color=color, label=name, linewidth=1.2)
            axes.plot(since[alarms], shown[alarms], "v", color=color, markersize=7)
        axes.axhline(1.0, color=plots.MARKER, linewidth=0.8)
        marks = ((begins, "--", "fault begins", 0.93), (ends, ":", "failure", 0.03))
        for moment, style, word, height in marks:
            if moment is not None:
                at = (moment - start) / seconds
                axes.axvline(at, color=plots.MARKER, linestyle=style, linewidth=1.2)
                axes.annotate(
                    word, (at, height), xycoords=axes.get_xaxis_transform(), xytext=(-4, 0),
                    textcoords="offset points", ha="right", fontsize=8,
                )  # fmt: skip
        top = max([LEAST_TOP, *(float(np.nanmax(y, initial=0.0)) for _, y, _ in series.values())])
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_ylim(0, 1.15 * top)
        axes.yaxis.set_major_locator(FixedLocator([t for t in TICKS if t <= 1.15 * top]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=f"{unit} since the end of learning", ylabel="novelty / limit [-]")
        axes.legend(fontsize=8, loc="upper left")

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
