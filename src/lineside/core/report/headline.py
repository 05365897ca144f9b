"""The headline of a report: a few facts at a glance, each with a link to its chapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lineside.core.contract import Fact
from lineside.core.report.chapters import best_baseline, suspicions, titled

if TYPE_CHECKING:
    from lineside.core.study import MethodStudy, Study


def headline(study: Study) -> list[Fact]:
    """Return facts at a glance: the application's own, how it ranks, the audit, training health.

    Beside facts of its own the best baseline and a healthy training are left to their chapters.
    """
    primary = study.application.metrics[0]
    own = [*study.application.facts(study)]
    facts = [*own, _measured(titled(primary.name), study.best, primary.name)]
    if (baseline := best_baseline(study)) is not None and not own:
        facts.append(_measured("best baseline", baseline, primary.name))
    health = [fact for fact in _health(study) if fact.status != "ok" or not own]
    return [*facts, _audit(study), *health, *_learned(study)]


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


def _learned(study: Study) -> list[Fact]:
    """Return that something in what was learned is suspicious; nothing where nothing is."""
    found = suspicions(study)
    if not found:
        return []
    note = f"{len(found)} warning{'s' if len(found) > 1 else ''}: {found[0].name}"
    anchor = "suspicious-in-what-was-learned"
    return [Fact(label="what was learned", value="look", note=note, anchor=anchor, status="warn")]


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
