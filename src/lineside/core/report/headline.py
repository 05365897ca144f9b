"""The headline of a report: four facts at a glance, each with a link to its chapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lineside.core.report.chapters import best_baseline, titled

if TYPE_CHECKING:
    from lineside.core.study import MethodStudy, Study


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number or word with what it is about.

    Attributes:
        label: A few words.
        value: The number or word, in large type.
        note: A line below it.
        anchor: The chapter with the details.
        status: ``ok``, ``warn``, ``fail`` or ``info``; it colours the value.
    """

    label: str
    value: str
    note: str
    anchor: str
    status: str = "info"


def headline(study: Study) -> list[Fact]:
    """Return the predicting method, the best baseline, the audit and training health."""
    primary = study.application.metrics[0]
    facts = [_measured(titled(primary.name), study.best, primary.name)]
    if (baseline := best_baseline(study)) is not None:
        facts.append(_measured("best baseline", baseline, primary.name))
    return [*facts, _audit(study), *_health(study)]


def _measured(label: str, method: MethodStudy, metric: str) -> Fact:
    estimate = method.estimates[metric]
    interval = (
        "no interval"
        if estimate.low is None or estimate.high is None
        else f"{estimate.low:.3f} to {estimate.high:.3f}"
    )
    return Fact(
        label=label,
        value="-" if estimate.value != estimate.value else f"{estimate.value:.3f}",
        note=f"{method.name}, {interval}",
        anchor="leaderboard",
    )


def _audit(study: Study) -> Fact:
    counts = {s: sum(c.status == s for c in study.checks) for s in ("fail", "warn", "ok")}
    status = "fail" if counts["fail"] else "warn" if counts["warn"] else "ok"
    value = {"fail": "problems", "warn": "needs review", "ok": "clean"}[status]
    note = f"{counts['fail']} failed, {counts['warn']} warnings, {counts['ok']} fine"
    return Fact(label="data audit", value=value, note=note, anchor="data-audit", status=status)


def _health(study: Study) -> list[Fact]:
    rows = study.run.rows()
    names = {row["method"] for row in rows if "loss" in row and "method" in row}
    warned = {row["method"] for row in rows if "warning" in row and "method" in row}
    if not names:
        return []
    warnings = f"warnings in {', '.join(sorted(warned))}" if warned else "no warning"
    note = f"{len(names)} network{'s' if len(names) > 1 else ''} recorded, {warnings}"
    status = "warn" if warned else "ok"
    value = "needs review" if warned else "healthy"
    return [Fact(label="training", value=value, note=note, anchor="training", status=status)]
