"""The chapters that every application's report has: leaderboard, training, audit, reproduction."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lineside.core.contract import ROLES, Check, Estimate, Figure, Section, Table
from lineside.core.report import plots
from lineside.core.report.figures import EVENT, SUSPICIOUS, Shown, load_figures
from lineside.core.training.warnings import named_losses

if TYPE_CHECKING:
    from lineside.core.study import MethodStudy, Study

VALIDATION = "validation_"
MOST_HEADS = 4
MOST_LABELS = 8
"""Labels of a role that the table of the split names, the most frequent ones."""
ORDER = {"fail": 0, "warn": 1, "unknown": 2, "info": 3, "ok": 4}


def leaderboard(study: Study) -> Section:
    """Rank every method on the same test groups, with intervals and paired differences."""
    primary = study.application.metrics[0]
    ranked = rank(study)
    metrics = [
        metric
        for metric in study.application.metrics
        if metric is primary or not all(math.isnan(m.estimates[metric.name].value) for m in ranked)
    ]
    columns = ("method", "kind", *(titled(m.name) for m in metrics))
    rows = tuple(
        (
            method.name + (" (predicts)" if method.name == study.chosen else ""),
            method.kind,
            *(_short(method.estimates[m.name]) for m in metrics),
            _short(method.differences[primary.name]) if method.differences else "-",
            f"{method.fit_seconds:.1f}",
            *latencies(method),
        )
        for method in ranked
    )
    rest = ("-",) * (len(metrics) + 3)  # further metrics, difference, fit, p50, p95
    rows += tuple((f.name, f.kind, f"failed: {f.reason}", *rest) for f in study.failures)
    title = titled(primary.name)
    counts = study.best.estimates[primary.name].counts()
    return Section(
        title="Leaderboard",
        lead=verdict(study),
        folded=True,
        blocks=(
            Table(
                title="All methods on the same test groups",
                columns=(*columns, "difference to predicting", "fit [s]", "p50 [ms]", "p95 [ms]"),
                rows=rows,
                caption=(
                    f"Ordered by {title}, on n = {counts} groups. Brackets hold two-sided 95 % "
                    "intervals; groups are independent, their items are not. The difference is "
                    "paired, a bracket without zero is a clear one. Times per item on this "
                    "machine, decoding included. Metrics that are undefined for every method are "
                    "left out."
                ),
            ),
            plots.forest(
                f"{title}, 95 % interval",
                "In colour: the method that predicts. Long lines mean that the test set is too "
                "small to tell the methods apart.",
                {method.name: method.estimates[primary.name] for method in ranked},
                x_label=title,
                marked=study.chosen,
            ),
        ),
    )


def rank(study: Study) -> list[MethodStudy]:
    """Return the methods by the primary metric, best first; undefined ones last."""
    primary = study.application.metrics[0]
    sign = 1.0 if primary.better == "lower" else -1.0

    def key(method: MethodStudy) -> float:
        value = method.estimates[primary.name].value
        return float("inf") if np.isnan(value) else sign * value

    return sorted(study.methods, key=key)


def best_baseline(study: Study) -> MethodStudy | None:
    """Return the best classical or trivial method beside the one that predicts."""
    baselines = [m for m in rank(study) if m.kind != "deep" and m.name != study.chosen]
    return baselines[0] if baselines else None


def verdict(study: Study) -> str:
    """Return one sentence: whether the predicting method beats the best baseline."""
    primary = study.application.metrics[0]
    title = titled(primary.name)
    baseline = best_baseline(study)
    if baseline is None:
        return "No baseline was run."
    difference = baseline.differences[primary.name]
    value, other = (m.estimates[primary.name].value for m in (study.best, baseline))
    if not math.isfinite(value) or not math.isfinite(other):
        return (
            f"{study.chosen} and {baseline.name} cannot be compared: {title} is not defined here."
        )
    numbers = f"{title} {value:.3f} against {other:.3f}"
    if difference.low is None or difference.high is None:
        return f"{study.chosen} and the best baseline ({baseline.name}): {numbers}."
    ahead = difference.high < 0 if primary.better == "higher" else difference.low > 0
    behind = difference.low > 0 if primary.better == "higher" else difference.high < 0
    if ahead:
        return f"{study.chosen} beats the best baseline ({baseline.name}): {numbers}."
    if behind:
        return f"The baseline {baseline.name} WINS over {study.chosen}: {numbers}. Use it."
    return (
        f"{study.chosen} and the best baseline ({baseline.name}) cannot be told apart on these "
        f"test groups: {numbers}."
    )


def latencies(method: MethodStudy) -> tuple[str, str]:
    """Return the median and 95th percentile of milliseconds per item, as text."""
    outcomes = [*method.outcomes["calibration"], *method.outcomes["test"]]
    times = [outcome.value["ms"] for outcome in outcomes if "ms" in outcome.value]
    if not times:
        return "-", "-"
    half, most = np.percentile(times, [50, 95])
    return f"{half:.0f}", f"{most:.0f}"


def training(study: Study) -> list[Section]:
    """Show curves and health of every method that logged training steps."""
    rows = study.run.rows()
    blocks: list[str | Table | Figure | Check] = []
    for method in study.methods:
        steps = [row for row in rows if row.get("method") == method.name and "step" in row]
        for phase in sorted({str(row.get("phase", "")) for row in steps}):
            of_phase = [row for row in steps if str(row.get("phase", "")) == phase]
            blocks += training_blocks(f"{method.name} {phase}".strip(), of_phase)
    if not blocks:
        return []
    lead = "Learning curves, gradients and layers of the networks, with the recorder's warnings."
    return [Section(title="Training", lead=lead, blocks=tuple(blocks), folded=True)]


def features(study: Study) -> list[Section]:
    """Show what each method learned: what was drawn right after its fit, and what that took.

    What a figure itself calls suspicious stands before it in a chapter that is open.
    """
    seconds = {r["method"]: r["seconds"] for r in study.run.rows() if r.get("event") == EVENT}
    blocks: list[Shown] = []
    for method in study.methods:
        for block in load_figures(study.run.folder, method.name):
            title = f"{method.name}: "
            if isinstance(block, str):
                blocks.append(title + block)
            else:
                blocks.append(dataclasses.replace(block, title=title + block.title))
        if method.name in seconds:
            took, fit = seconds[method.name], method.fit_seconds
            blocks.append(
                f"{method.name}: looking at the fit and drawing this took {took:.1f} s, "
                f"{took / max(fit, 1e-9):.0%} of the fit's {fit:.1f} s."
            )
    if not blocks:
        return []
    lead = (
        "What the methods learned, and how: is it the part, or something beside it? Such pictures "
        "are easily over-interpreted; each caption says what to look for and what is suspicious."
    )
    chapter = Section(title="What was learned", lead=lead, blocks=tuple(blocks), folded=True)
    found = suspicions(study)
    if not found:
        return [chapter]
    lead = (
        "It may have learned something else than it should. The figures are in the chapter What "
        "was learned, below, under the same names."
    )
    opened = Section(title="Suspicious in what was learned", lead=lead, blocks=tuple(found))
    return [opened, chapter]


def suspicions(study: Study) -> list[Check]:
    """Return what the figures of what was learned call suspicious, by method and figure."""
    found = []
    for method in study.methods:
        for block in load_figures(study.run.folder, method.name):
            title, text = ("", block) if isinstance(block, str) else (block.title, block.caption)
            name = f"{method.name}: {title}" if title else method.name
            found += [
                Check(name=name, status="warn", evidence=evidence)
                for evidence in SUSPICIOUS.findall(text)
            ]
    return found


def training_blocks(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return warnings and plots of one training; later rows of a step replace earlier ones."""
    steps = {row["step"]: row for row in rows if _losses(row)}
    checks = {row["step"]: row for row in rows if any(k.startswith(VALIDATION) for k in row)}
    if not steps:
        return []
    blocks: list[Any] = _warnings(name, [row for row in rows if "warning" in row])
    blocks.append(
        plots.lines(
            f"{name}: learning curve",
            "Loss over steps; a validation curve that turns up while training falls is "
            "overfitting.",
            _curves(steps, checks),
            x_label="step",
            y_label="loss",
        )
    )
    # With several networks or accumulated gradients, a row holds what its step called and updated.
    sampled = {step: row for step, row in sorted(steps.items()) if "memory_mb" in row}
    if len(sampled) > 1:
        blocks += _health_plots(name, sampled)
    return blocks


def _losses(row: Mapping[str, Any]) -> dict[str, float]:
    """The training losses of a row by head; none in rows of warnings and validations."""
    if "warning" in row:
        return {}
    numbers = {
        key: value
        for key, value in row.items()
        if isinstance(value, int | float) and not key.startswith(VALIDATION)
    }
    return named_losses(numbers)


def _curves(
    steps: Mapping[int, Mapping[str, Any]], checks: Mapping[int, Mapping[str, Any]]
) -> dict[str, tuple[plots.Array, plots.Array]]:
    """Training and validation curve of every head, the loss that is minimised first."""
    heads = sorted(_losses(next(iter(steps.values()))), key=lambda head: (head != "loss", head))
    curves = {}
    for head in heads[:MOST_HEADS]:
        title = "train" if head == "loss" else f"train {head}"
        curves[title] = _series(steps, head, smooth=True)
        if any(VALIDATION + head in row for row in checks.values()):
            curves[title.replace("train", "validation")] = _series(checks, VALIDATION + head)
    return curves


def _warnings(name: str, rows: Sequence[Mapping[str, Any]]) -> list[Check]:
    """One line per kind of warning: of several layers the first, and how many follow it."""
    if not rows:
        evidence = (
            "the loss has not diverged, no layer is dead or saturated, gradients reach the first "
            "layer, the output is not constant, validation has not turned, labels agree with their "
            "neighbours where that can be judged"
        )
        return [Check(name=f"{name}: training health", status="ok", evidence=evidence)]
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(str(row["warning"]), row)
    warnings = []
    for kind, row in first.items():
        more = len({r.get("layer", "") for r in rows if r["warning"] == kind}) - 1
        text = row["text"] + (f" So are {more} further layers." if more else "")
        warnings.append(Check(name=f"{name}: {kind}", status="warn", evidence=text))
    return warnings


def _health_plots(name: str, sampled: Mapping[int, Mapping[str, Any]]) -> list[Figure]:
    figures = [
        plots.lines(
            f"{name}: gradients and updates",
            "Gradient norm, and size of an update relative to the weights (about 0.001 is usual).",
            {
                "gradient norm": _series(sampled, "gradient_norm"),
                "update / weight": _series(sampled, "update_to_weight"),
            },
            x_label="step", y_label="norm, ratio [-]", log_y=True,
        )
    ]  # fmt: skip
    if reached := _by_layer(sampled, "layer_gradients", lambda value: value):
        figures.append(
            plots.lines(
                f"{name}: gradients by layer",
                "Gradient norm of each layer's weights; where the first layers' lie far below the "
                "last ones', gradients vanish.",
                reached, x_label="step", y_label="gradient norm [-]", log_y=True,
            )
        )  # fmt: skip
    if silent := _by_layer(sampled, "layers", lambda value: value["zero_share"]):
        figures.append(
            plots.lines(
                f"{name}: silent units",
                "Share of zeros after a layer; above 0.95 the layer is dead.",
                silent, x_label="step", y_label="share of zeros [-]", y_range=(0, 1),
            )
        )  # fmt: skip
    return figures


def _by_layer(
    sampled: Mapping[int, Mapping[str, Any]], key: str, of: Callable[[Any], float]
) -> dict[str, tuple[plots.Array, plots.Array]]:
    """Five layers from the first to the last, each with a number over steps; empty without any."""
    series: dict[str, dict[int, float]] = {}
    for step, row in sampled.items():
        for name, value in row.get(key, {}).items():
            series.setdefault(name, {})[step] = of(value)
    if not series:
        return {}
    names = list(series)
    shown = [names[i] for i in np.unique(np.linspace(0, len(names) - 1, 5).astype(int))]
    return {n: (np.array([*series[n]], float), np.array([*series[n].values()])) for n in shown}


def _series(
    rows: Mapping[int, Mapping[str, Any]], key: str, *, smooth: bool = False
) -> tuple[plots.Array, plots.Array]:
    values = {step: row[key] for step, row in sorted(rows.items()) if row.get(key) is not None}
    x, y = np.array(list(values), float), np.array(list(values.values()), float)
    if smooth and len(y) > 60:  # (steps,) -> (about 60 windows,): means of equal windows
        window = len(y) // 60
        count = len(y) // window * window
        return x[:count].reshape(-1, window).mean(1), y[:count].reshape(-1, window).mean(1)
    return x, y


SPLIT_CAPTION = {
    "group": "No group is in two roles.",
    "time within group": "Every group is split by time: its earliest items train, its latest test. "
    "The numbers say how well the later time of known groups is judged, not a new group.",
}


def audit(study: Study) -> Section:
    """List every check, worst first."""
    checks = sorted(study.checks, key=lambda check: ORDER[check.status])
    refused = tuple(f"{r.item}: {r.message}" for r in study.refusals)
    return Section(
        title="Data audit",
        folded=True,
        lead="Checks before training. 'Unknown' means that the data do not allow an answer.",
        blocks=(
            *checks,
            Table(
                title="Split",
                columns=("role", "items", "groups", "labels"),
                rows=tuple(_role(study, role) for role in ROLES),
                caption=SPLIT_CAPTION[study.split.unit],
            ),
            *refused,
        ),
    )  # fmt: skip


def _role(study: Study, role: str) -> tuple[str, str, str, str]:
    items = study.split.role(role)
    labels = [item.label for item in items]
    ranked = Counter(label or "not labelled" for label in labels).most_common()
    counts = ", ".join(f"{label} {count}" for label, count in sorted(ranked[:MOST_LABELS]))
    if len(ranked) > MOST_LABELS:
        counts += f" and {len(ranked) - MOST_LABELS} other labels"
    return (
        role,
        str(len(items)),
        str(len({group for item in items for group in item.groups})),
        counts,
    )


def reproduction(study: Study) -> Section:
    """Give the command, the settings and the versions."""
    settings = json.dumps(dataclasses.asdict(study.config), indent=1)
    environment = (study.run.folder / "environment.json").read_text(encoding="utf-8")
    command = (
        f"lineside {study.application.name} train {shlex.quote(str(study.data))} --out NEW "
        f"--config {shlex.quote(str(study.run.folder / 'config.json'))}"
    )
    return Section(
        title="Reproduction",
        folded=True,
        lead="The same command with the same data, settings and versions gives the same model.",
        blocks=(
            f"$ {command}",
            f"$ {settings}",
            f"$ {environment}",
            "Methods, estimates, thresholds and checks as JSON: report.json in the run folder; "
            "every single outcome: outcomes.csv.",
        ),
    )


def titled(name: str) -> str:
    """Return a metric's name for people."""
    return name.replace("_", " ").replace("auroc", "AUROC")


def _short(estimate: Estimate) -> str:
    return estimate.text().split(" (")[0]
