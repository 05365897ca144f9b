"""The robustness chapter: detector performance while speed, load or sensors get worse."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lineside.core.contract import Figure, Refusal, Section, Table
from lineside.core.errors import UserError
from lineside.core.report import plots
from lineside.core.run.seal import read_sealed, write_sealed
from lineside.core.study import MethodStudy, Study
from lineside.machines.alarms.verdict import Verdict
from lineside.machines.data import load_measurement
from lineside.machines.data.dataset import by_machine
from lineside.machines.data.items import FAULTY, HEALTHY, Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.models.machine import Machine
from lineside.machines.monitoring.session import Session
from lineside.machines.simulation.degradations import GRADES, SUITE, degrade

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUDGET_SECONDS = 20.0
DEGRADING_SECONDS = 0.002
MIN_SNAPSHOTS, MAX_SNAPSHOTS = 12, 40
"""Healthy snapshots of a machine, and as many faulty ones."""
MAX_MACHINES = 4
NAME = "robustness.json"
FORMAT = 2
CAPTION = (
    "False exceedances: share of the judged healthy snapshots beyond the limit. Flagged: share of "
    "all snapshots with a sensor fault or an unknown speed or load. There are few snapshots: "
    "compare the grades, not single numbers."
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts over a series of judged snapshots.

    Attributes:
        healthy: Healthy snapshots that were judged.
        exceedances: Those of them beyond the limit.
        false_alarms: Alarm episodes that began before the fault.
        faults: 1 if there is a fault in the series, 0 if not.
        detected: 1 if an alarm began after the onset; one that was running before does not count.
        flagged: Snapshots with a sensor fault or an unknown state, or whose speed or load is
            outside of the learned ones.
        snapshots: Snapshots that arrived and were not refused.
    """

    healthy: int = 0
    exceedances: int = 0
    false_alarms: int = 0
    faults: int = 0
    detected: int = 0
    flagged: int = 0
    snapshots: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return Counts(**{key: value + theirs[key] for key, value in mine.items()})


@dataclass(frozen=True, kw_only=True)
class Series:
    """Healthy and then faulty test snapshots of one machine, at even distances of time."""

    measurements: list[Measurement]
    onset: float | None


def robustness_section(study: Study) -> Section:
    """Degrade test snapshots by grade 1 to 4 and judge them with up to four detectors.

    The number of snapshots is chosen so that the suite takes about 20 s.
    """
    results = numbers(study)
    if not results["methods"]:
        return Section(title="Robustness")
    counts = {
        method: {name: [Counts(**row) for row in rows] for name, rows in by_degradation.items()}
        for method, by_degradation in results["methods"].items()
    }
    first = next(iter(counts))
    return Section(
        title="Robustness",
        lead=(
            f"The same {results['snapshots']} test snapshots of {', '.join(results['machines'])}, "
            "degraded in four grades. A snapshot flagged with a faulty sensor or an unknown speed "
            "is better than a false alarm."
        ),
        blocks=(
            _summary(first, counts[first]),
            _figure(counts),
            *(
                _table(name, rows, CAPTION if name == first else "")
                for name, rows in counts.items()
            ),
            Table(
                title="Degradations and their grades",
                columns=("degradation", "description"),
                rows=tuple((each.name, each.help) for each in SUITE),
            ),
            "Limits of this simulation: a waveform played faster shifts the structural resonances "
            "too, which stay where they are on a real machine, and it does not get louder as a "
            "faster machine does. It shows whether an unlearned speed is noticed, not how the "
            "machine would behave at it. A larger amplitude simulates load only as far as load "
            "changes the amplitude.",
        ),
    )


def numbers(study: Study) -> dict[str, Any]:
    """Return the results as plain JSON; computed once, then read from the run folder."""
    path = study.run.folder / NAME
    methods = _choose_methods(study)
    identities = {method.name: method.model.identity for method in methods}
    if path.exists():
        stored = read_sealed(path, "remove it and run the same command again")
        if stored["models"] == identities and stored.get("format") == FORMAT:
            return stored
    series = _choose_series(study, len(methods))
    results = {
        "format": FORMAT,
        "models": identities,
        "machines": list(series),
        "snapshots": sum(len(one.measurements) for one in series.values()),
        "grades": list(GRADES),
        "suite": {each.name: each.help for each in SUITE},
        "methods": _run_suite(study, methods, series) if series else {},
    }
    write_sealed(path, results)
    return results


def count_verdicts(machine: Machine, series: Sequence[Measurement], onset: float | None) -> Counts:
    """Judge a series that starts healthy, snapshot by snapshot, as a stream would.

    Args:
        machine: Learned and calibrated.
        series: In order of time.
        onset: Second at which the fault begins, None for a series without one.
    """
    session = Session(machine)
    total = Counts(faults=int(onset is not None))
    for measurement in series:
        verdict = session.push(measurement)
        if not isinstance(verdict, Refusal):
            total += _count(verdict, onset is None or measurement.time < onset)
    return dataclasses.replace(total, detected=min(total.detected, 1))


def _count(verdict: Verdict, healthy: bool) -> Counts:
    judged = verdict.novelty is not None
    exceeds = judged and (verdict.novelty or 0.0) >= (verdict.limit or np.inf)
    begins = any(event.evidence.get("first") for event in verdict.events)
    unsure = (
        verdict.state in ("sensor fault", "unknown state")
        or "outside of the trained range" in verdict.note
    )
    return Counts(
        healthy=int(healthy and judged),
        exceedances=int(healthy and exceeds),
        false_alarms=int(healthy and begins),
        detected=int(not healthy and begins),
        flagged=int(unsure),
        snapshots=1,
    )


def _choose_methods(study: Study) -> list[MethodStudy]:
    """Return the method that predicts, the simple ones, and the first deep one."""
    deep = [method.name for method in study.methods if method.kind == "deep"][:1]
    names = dict.fromkeys([study.chosen, "pca", "trend", *deep])
    by_name = {method.name: method for method in study.methods}
    return [by_name[name] for name in names if name in by_name]


def _choose_series(study: Study, methods: int) -> dict[str, Series]:
    """Return a series of each machine, those with a fault first."""
    machines = {
        name: items for name, items in by_machine(study.split.test).items()
        if sum(item.label == HEALTHY for item in items) >= MIN_SNAPSHOTS
    }  # fmt: skip
    order = sorted(machines, key=lambda name: all(i.label != FAULTY for i in machines[name]))
    chosen = order[:MAX_MACHINES]
    times = [o.value["ms"] for o in study.best.outcomes["test"] if "ms" in o.value]
    seconds = methods * (float(np.median(times)) / 1000 if times else 0.01) + DEGRADING_SECONDS
    runs = 2 * max(1, len(chosen)) * (1 + len(SUITE) * len(GRADES))
    count = int(np.clip(BUDGET_SECONDS / seconds / runs, MIN_SNAPSHOTS, MAX_SNAPSHOTS))
    series = {name: _make_series(machines[name], count) for name in chosen}
    return {name: one for name, one in series.items() if one.measurements}


def _make_series(items: Sequence[Snapshot], count: int) -> Series:
    """Return the last healthy snapshots and as many spread over the whole fault."""
    faulty = [item for item in items if item.label == FAULTY]
    healthy = [
        item for item in items
        if item.label == HEALTHY and (not faulty or item.time < faulty[0].time)
    ]  # fmt: skip
    spread = np.linspace(0, len(faulty) - 1, min(count, len(faulty))).round().astype(int)
    chosen = [*healthy[-count:], *(faulty[i] for i in spread)]
    step = float(np.median(np.diff([item.time for item in items])))
    measurements = []
    for i, item in enumerate(chosen):
        try:
            measurement = load_measurement(item)
        except UserError:
            continue
        measurements.append(dataclasses.replace(measurement, time=healthy[0].time + i * step))
    onset = healthy[0].time + min(count, len(healthy)) * step
    return Series(measurements=measurements, onset=onset if faulty else None)


def _run_suite(
    study: Study, methods: Sequence[MethodStudy], series: Mapping[str, Series]
) -> dict[str, dict[str, list[dict[str, int]]]]:
    """Return counts by method, degradation and grade, grade 0 being the snapshots as they are."""
    results: dict[str, dict[str, list[dict[str, int]]]] = {m.name: {} for m in methods}

    def judge(degraded: Mapping[str, list[Measurement]]) -> dict[str, dict[str, int]]:
        study.run.check_stop()
        study.run.beat(step="robustness")
        return {
            m.name: dataclasses.asdict(
                sum(
                    (count_verdicts(m.model.machines[name], measurements, series[name].onset)
                     for name, measurements in degraded.items()),
                    Counts(),
                )
            )
            for m in methods
        }  # fmt: skip

    clean = judge({name: one.measurements for name, one in series.items()})
    slow_only = any(not one.measurements[0].channels for one in series.values())
    for degradation in SUITE:
        if degradation.waves_only and slow_only:
            continue
        grades = [clean]
        for grade in GRADES:
            degraded = {
                name: degrade(one.measurements, degradation, grade, study.config.seed)
                for name, one in series.items()
            }
            grades.append(judge(degraded))
        for method in results:
            results[method][degradation.name] = [each[method] for each in grades]
    return results


def _summary(method: str, counts: Mapping[str, Sequence[Counts]]) -> str:
    """Return one sentence on the method that predicts."""
    alarms = _first_grades(counts, lambda now, clean: now.false_alarms > clean.false_alarms)
    flagged = _first_grades(counts, lambda now, clean: _misses(now, clean) and _is_flagged(now))
    silent = _first_grades(counts, lambda now, clean: _misses(now, clean) and not _is_flagged(now))
    parts = [
        f"raises false alarms under {alarms}" if alarms else "raises no false alarm",
        f"misses a fault but flags the snapshots under {flagged}" if flagged else "",
        f"misses a fault without a flag under {silent}" if silent else "",
    ]
    return f"{method} {'; '.join(part for part in parts if part)}."


def _misses(now: Counts, clean: Counts) -> bool:
    return now.detected < clean.detected


def _is_flagged(counts: Counts) -> bool:
    return counts.flagged > counts.snapshots / 2


def _first_grades(
    counts: Mapping[str, Sequence[Counts]], is_worse: Callable[[Counts, Counts], bool]
) -> str:
    """Return the degradations under which something gets worse, with the first such grade."""
    names = []
    for name, rows in counts.items():
        grades = [grade for grade in GRADES if is_worse(rows[grade], rows[0])]
        names += [f"{name} from grade {grades[0]}"] if grades else []
    return ", ".join(names)


def _cell(counts: Counts) -> str:
    exceedances = f"{counts.exceedances / counts.healthy:.0%}" if counts.healthy else "-"
    flagged = counts.flagged / counts.snapshots if counts.snapshots else 0.0
    detected = f"{counts.detected}/{counts.faults}"
    return f"{exceedances} | {counts.false_alarms} | {detected} | {flagged:.0%}"


def _table(method: str, counts: Mapping[str, Sequence[Counts]], caption: str) -> Table:
    return Table(
        title=f"{method}: false exceedances | false alarms | faults found | flagged",
        columns=("degradation", "as is", *(f"grade {g}" for g in GRADES)),
        rows=tuple((name, *(_cell(row) for row in rows)) for name, rows in counts.items()),
        caption=caption,
    )


def _figure(counts: Mapping[str, Mapping[str, Sequence[Counts]]]) -> Figure:
    """One panel per method with the false exceedances, and one with the flagged share."""
    first = next(iter(counts))
    panels = [
        (f"{method}: exceedances", _curves(rows, "exceedances", "healthy"))
        for method, rows in counts.items()
    ]
    panels.append((f"{first}: flagged", _curves(counts[first], "flagged", "snapshots")))
    return plots.panels(
        "Robustness",
        "Share of healthy snapshots beyond each detector's limit by grade, 0 being the snapshots "
        "as they are; right: share of all snapshots flagged with a sensor fault or an unknown "
        "speed or load.",
        [
            partial(_draw_panel, title=title, curves=curves, legend=i == len(panels) - 1)
            for i, (title, curves) in enumerate(panels)
        ],
        size_inches=(2.1 * len(panels) + 1.6, 2.7),
    )


def _draw_panel(
    axes: Axes, *, title: str, curves: Mapping[str, Sequence[float]], legend: bool
) -> None:
    for i, (name, values) in enumerate(curves.items()):
        axes.plot(
            range(len(values)), values, plots.STYLES[i], color=plots.SERIES[i], label=name,
            alpha=0.9,
        )  # fmt: skip
    axes.set(title=title, xlabel="grade", ylim=(-0.03, 1.03))
    axes.set_xticks(range(1 + len(GRADES)))
    axes.title.set_fontsize(9)
    if legend:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))


def _curves(
    counts: Mapping[str, Sequence[Counts]], part: str, whole: str
) -> dict[str, list[float]]:
    """Return the share of one count in another by degradation and grade, NaN of none."""
    return {
        name: [getattr(r, part) / (getattr(r, whole) or np.nan) for r in rows]
        for name, rows in counts.items()
    }
