"""What a report shows before all else: four facts at a glance, each with a link to its chapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lineside.core.contract import Estimate
from lineside.core.report.chapters import rank, titled

if TYPE_CHECKING:
    from lineside.core.study import Study


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One number or word with what it is about.

    Attributes:
        label: What it is, a few words.
        value: Set large.
        note: A line below it.
        anchor: The chapter that tells more.
        status: ``ok``, ``warn``, ``fail`` or ``info``; it colours the value.
    """

    label: str
    value: str
    note: str
    anchor: str
    status: str = "info"


def headline(study: Study) -> list[Fact]:
    """Return the method that predicts, its best simple rival, the audit and training health."""
    primary = study.application.metrics[0]
    facts = [
        _measured(titled(primary.name), study.chosen, study.best.estimates[primary.name], "info")
    ]
    rivals = [m for m in rank(study) if m.kind != "deep" and m.name != study.chosen]
    if rivals:
        rival = rivals[0]
        facts.append(
            _measured("best simple rival", rival.name, rival.estimates[primary.name], "info")
        )
    return [*facts, _audit(study), *_health(study)]


def _measured(label: str, name: str, estimate: Estimate, status: str) -> Fact:
    interval = (
        "no interval"
        if estimate.low is None or estimate.high is None
        else f"{estimate.low:.3f} to {estimate.high:.3f}"
    )
    return Fact(
        label=label,
        value="-" if estimate.value != estimate.value else f"{estimate.value:.3f}",
        note=f"{name}, {interval}",
        anchor="leaderboard",
        status=status,
    )


def _audit(study: Study) -> Fact:
    counts = {s: sum(c.status == s for c in study.checks) for s in ("fail", "warn", "ok")}
    status = "fail" if counts["fail"] else "warn" if counts["warn"] else "ok"
    value = {"fail": "problems", "warn": "look twice", "ok": "clean"}[status]
    note = f"{counts['fail']} failed, {counts['warn']} warnings, {counts['ok']} fine"
    return Fact(label="data audit", value=value, note=note, anchor="data-audit", status=status)


def _health(study: Study) -> list[Fact]:
    rows = study.run.rows()
    names = {row["method"] for row in rows if "loss" in row and "method" in row}
    warned = {row["method"] for row in rows if "warning" in row and "method" in row}
    if not names:
        return []
    told = f"{len(names)} network{'s' if len(names) > 1 else ''} recorded"
    note = f"{told}, warnings in {', '.join(sorted(warned))}" if warned else f"{told}, no warning"
    status = "warn" if warned else "ok"
    value = "look twice" if warned else "healthy"
    return [Fact(label="training", value=value, note=note, anchor="training", status=status)]
