"""The robustness chapter: what becomes of alarms when speed, load or sensors get worse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lineside.core.contract import Figure, Section, Table
from lineside.core.errors import UserError
from lineside.core.report import plots
from lineside.core.run.files import write_json
from lineside.core.study import MethodStudy, Study
from lineside.machines.data import load_measurement
from lineside.machines.data.dataset import by_machine
from lineside.machines.data.items import FAULTY, HEALTHY, Snapshot
from lineside.machines.data.measurement import Measurement
from lineside.machines.simulation.degradations import GRADES, SUITE, Answer, answer, degrade

BUDGET_SECONDS = 20.0
DEGRADING_SECONDS = 0.002
FEWEST, MOST = 12, 40
"""Healthy snapshots of a machine, and as many faulty ones."""
MOST_MACHINES = 4
NAME = "robustness.json"
READ = (
    "Fooled: share of the judged healthy snapshots beyond the limit. Told: share of all snapshots "
    "answered with a sensor fault or an unknown speed or load. Few snapshots: read the trend."
)

Series = tuple[list[Measurement], float | None]


def robustness(study: Study) -> Section:
    """Degrade test snapshots by grade 1 to 4 and judge them anew with up to four detectors.

    The number of snapshots is chosen so that the suite takes about 20 s.
    """
    found = numbers(study)
    if not found["methods"]:
        return Section(title="Robustness")
    answers = {
        method: {name: [Answer(**row) for row in rows] for name, rows in own.items()}
        for method, own in found["methods"].items()
    }
    first = next(iter(answers))
    return Section(
        title="Robustness",
        lead=(
            f"The same {found['snapshots']} test snapshots of {', '.join(found['machines'])}, made "
            "worse in four grades. Being told of a faulty sensor or an unknown speed is better "
            "than being fooled."
        ),
        blocks=(
            _sentence(first, answers[first]),
            _figure(answers),
            *(_table(name, own, READ if name == first else "") for name, own in answers.items()),
            _helps(),
            "What this cannot show: a waveform played faster takes the resonances of the structure "
            "along, which stay where they are on a real machine, and does not get louder as a "
            "faster machine does. It shows whether an unlearned speed is noticed, not what the "
            "machine would do at it. A louder waveform imitates load only as far as load is "
            "loudness.",
        ),
    )


def numbers(study: Study) -> dict[str, Any]:
    """Return what the suite found as plain JSON: judged once, then taken from the run folder."""
    path = study.run.folder / NAME
    methods = _methods(study)
    models = {method.name: method.model.identity for method in methods}
    if path.exists():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if known["models"] == models:
            return known
    series = _series(study, len(methods))
    found = {
        "models": models,
        "machines": list(series),
        "snapshots": sum(len(own) for own, _ in series.values()),
        "grades": list(GRADES),
        "suite": {each.name: each.help for each in SUITE},
        "methods": _judged(study, methods, series) if series else {},
    }
    write_json(path, found)
    return found


def _methods(study: Study) -> list[MethodStudy]:
    """The method that predicts, the simple ones, and the first deep one."""
    deep = [method.name for method in study.methods if method.kind == "deep"][:1]
    wanted = list(dict.fromkeys([study.chosen, "pca", "trend", *deep]))
    known = {method.name: method for method in study.methods}
    return [known[name] for name in wanted if name in known]


def _series(study: Study, methods: int) -> dict[str, Series]:
    """A series of each machine, those with a fault first."""
    machines = {
        name: own for name, own in by_machine(study.split.test).items()
        if sum(item.label == HEALTHY for item in own) >= FEWEST
    }  # fmt: skip
    order = sorted(machines, key=lambda name: all(i.label != FAULTY for i in machines[name]))
    chosen = order[:MOST_MACHINES]
    times = [o.value["ms"] for o in study.best.outcomes["test"] if "ms" in o.value]
    seconds = methods * (float(np.median(times)) / 1000 if times else 0.01) + DEGRADING_SECONDS
    judged = 2 * max(1, len(chosen)) * (1 + len(SUITE) * len(GRADES))
    count = int(np.clip(BUDGET_SECONDS / seconds / judged, FEWEST, MOST))
    found = {name: _chosen(machines[name], count) for name in chosen}
    return {name: series for name, series in found.items() if series[0]}


def _chosen(items: Sequence[Snapshot], count: int) -> Series:
    """The last healthy snapshots and as many of the whole fault, at even distances of time."""
    faulty = [item for item in items if item.label == FAULTY]
    healthy = [
        item for item in items
        if item.label == HEALTHY and (not faulty or item.time < faulty[0].time)
    ]  # fmt: skip
    places = np.linspace(0, len(faulty) - 1, min(count, len(faulty))).round().astype(int)
    shown = [*healthy[-count:], *(faulty[i] for i in places)]
    step = float(np.median(np.diff([item.time for item in items])))
    series = []
    for place, item in enumerate(shown):
        try:
            measurement = load_measurement(item)
        except UserError:
            continue
        series.append(dataclasses.replace(measurement, time=healthy[0].time + place * step))
    begins = healthy[0].time + min(count, len(healthy)) * step
    return series, begins if faulty else None


def _judged(
    study: Study, methods: Sequence[MethodStudy], series: Mapping[str, Series]
) -> dict[str, dict[str, list[dict[str, int]]]]:
    """Answers by method, degradation and grade, grade 0 being the snapshots as they are."""
    found: dict[str, dict[str, list[dict[str, int]]]] = {m.name: {} for m in methods}

    def judge(worse: Mapping[str, list[Measurement]]) -> dict[str, dict[str, int]]:
        study.run.check_stop()
        study.run.beat(step="robustness")
        return {
            m.name: dataclasses.asdict(
                sum(
                    (answer(m.model.machines[name], own, series[name][1])
                     for name, own in worse.items()),
                    Answer(),
                )
            )
            for m in methods
        }  # fmt: skip

    clean = judge({name: own for name, (own, _) in series.items()})
    slow = [name for name, (own, _) in series.items() if not own[0].channels]
    for degradation in SUITE:
        if degradation.waves_only and slow:
            continue
        grades = [clean]
        for grade in GRADES:
            worse = {
                name: degrade(own, degradation, grade, study.config.seed)
                for name, (own, _) in series.items()
            }
            grades.append(judge(worse))
        for method in found:
            found[method][degradation.name] = [each[method] for each in grades]
    return found


def _sentence(method: str, own: Mapping[str, Sequence[Answer]]) -> str:
    """What the method that predicts stands, in words."""
    false = _from_grade(own, lambda now, clean: now.episodes > clean.episodes)
    blind = _from_grade(own, lambda now, clean: now.found < clean.found and _says_so(now))
    missed = _from_grade(own, lambda now, clean: now.found < clean.found and not _says_so(now))
    told = [
        f"raises false alarms under {false}" if false else "raises no false alarm",
        f"cannot find the fault, and says why, under {blind}" if blind else "",
        f"misses a fault without a word under {missed}" if missed else "",
    ]
    return f"{method} {'; '.join(part for part in told if part)}."


def _says_so(found: Answer) -> bool:
    return found.told > found.snapshots / 2


def _from_grade(
    own: Mapping[str, Sequence[Answer]], worse: Callable[[Answer, Answer], bool]
) -> str:
    """Name the degradations under which something gets worse, with the first grade."""
    found = []
    for name, rows in own.items():
        grades = [grade for grade in GRADES if worse(rows[grade], rows[0])]
        found += [f"{name} from grade {grades[0]}"] if grades else []
    return ", ".join(found)


def _cell(found: Answer) -> str:
    fooled = found.fooled / found.healthy if found.healthy else np.nan
    beyond = "-" if np.isnan(fooled) else f"{fooled:.0%}"
    told = found.told / found.snapshots if found.snapshots else 0.0
    return f"{beyond} | {found.episodes} | {found.found}/{found.faults} | {told:.0%}"


def _table(method: str, own: Mapping[str, Sequence[Answer]], caption: str) -> Table:
    return Table(
        title=f"{method}: fooled | false alarms | faults found | told",
        columns=("degradation", "as is", *(f"grade {g}" for g in GRADES)),
        rows=tuple((name, *(_cell(row) for row in rows)) for name, rows in own.items()),
        caption=caption,
    )


def _helps() -> Table:
    return Table(
        title="What was done to the snapshots",
        columns=("degradation", "what it is"),
        rows=tuple((each.name, each.help) for each in SUITE),
    )


def _figure(answers: Mapping[str, Mapping[str, Sequence[Answer]]]) -> Figure:
    """One panel per method with the share that is fooled, and one with the share that is told."""
    first = next(iter(answers))
    shares = [
        (
            f"{method}: fooled",
            {n: [_share(r.fooled, r.healthy) for r in rows] for n, rows in own.items()},
        )
        for method, own in answers.items()
    ]
    told = {n: [_share(r.told, r.snapshots) for r in rows] for n, rows in answers[first].items()}
    shares.append((f"{first}: told", told))
    return plots.panels(
        "Robustness",
        "Share of healthy snapshots beyond each detector's limit by grade, 0 being the snapshots "
        "as they are; right: share of all snapshots that are answered with a sensor fault or an "
        "unknown speed or load.",
        [
            partial(_panel, title=title, curves=curves, legend=place == len(shares) - 1)
            for place, (title, curves) in enumerate(shares)
        ],
        size_inches=(2.1 * len(shares) + 1.6, 2.7),
    )


def _panel(axes: Axes, *, title: str, curves: Mapping[str, Sequence[float]], legend: bool) -> None:
    for place, (name, values) in enumerate(curves.items()):
        axes.plot(
            range(len(values)), values, plots.STYLES[place], color=plots.SERIES[place], label=name,
            alpha=0.9,
        )  # fmt: skip
    axes.set(title=title, xlabel="grade", ylim=(-0.03, 1.03))
    axes.set_xticks(range(1 + len(GRADES)))
    axes.title.set_fontsize(9)
    if legend:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
