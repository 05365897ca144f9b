"""The chapters of a `scores` report: symbols by class, thresholds, pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lineside.core.contract import Explanation, Figure, Section, Table
from lineside.core.errors import UserError
from lineside.core.report.chapters import verdict as leaderboard_verdict
from lineside.core.study import Study
from lineside.scores.metrics import METRICS, precisions
from lineside.scores.outcomes import FEWEST

SHOWN_PAGES = 2
STRICT = 5
"""Which of `metrics.IOUS` is the strict column: IoU 0.75."""


def summary(study: Study) -> list[str]:
    """Return the first paragraphs: how much is found, what is not, which method to use."""
    test = study.best.outcomes["test"]
    recall, precision = METRICS[3].of(test), METRICS[4].of(test)
    found = precisions(test)
    weak = sorted((name for name, (ap, n) in found.items() if ap < 0.5 and n >= FEWEST))
    right = (
        f"{precision:.1%} of what it finds is right" if precision == precision else "nothing else"
    )
    lines = [
        f"At its thresholds {study.chosen} finds {recall:.1%} of the symbols on unseen songs; "
        f"{right}.",
        leaderboard_verdict(study),
    ]
    if weak:
        lines.append(f"It cannot be relied on for {', '.join(weak)}: average precision below 0.5.")
    lines.append(
        "The pages are engraved, not scanned: on real scans expect less, and look at the overlay "
        "of a page before its symbols are used."
    )
    return lines


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order."""
    return [_classes(study), _pages(study)]


def numbers(study: Study) -> Mapping[str, Any]:
    """Return average precision and number of symbols by class."""
    found = precisions(study.best.outcomes["test"])
    return {"classes": {name: {"ap50": ap, "symbols": n} for name, (ap, n) in found.items()}}


def _classes(study: Study) -> Section:
    test = study.best.outcomes["test"]
    loose, strict = precisions(test), precisions(test, STRICT)
    thresholds = study.best.model.thresholds
    rows = []
    for name, (ap, count) in sorted(loose.items(), key=lambda row: (-row[1][1], row[0])):
        limit = f"{thresholds.of(name):.3f}" if thresholds else "-"
        missed = thresholds.missed.get(name) if thresholds else None
        told = f"{missed:.3f}" if missed is not None else "too few"
        rows.append((name, str(count), f"{ap:.3f}", f"{strict[name][0]:.3f}", limit, told))
    table = Table(
        title="Average precision by class",
        columns=("class", "symbols", "AP at IoU .5", "AP at IoU .75", "threshold", "missed"),
        rows=tuple(rows),
        caption=(
            "Test pages. Threshold: confidence from which a symbol is believed, chosen on "
            f"calibration pages; missed: share of the symbols there below it (classes of {FEWEST} "
            "symbols or more; the others share one threshold)."
        ),
    )
    return Section(
        title="Symbols", lead="What is found, class by class, and what is not.",
        blocks=(table,), anchor="symbols",
    )  # fmt: skip


def _pages(study: Study) -> Section:
    """Show the pages on which most is missed."""
    test = study.best.outcomes["test"]
    items = {item.id: item for item in study.split.test}
    worst = sorted(test, key=lambda o: o.value["hits"] / max(o.value["symbols"], 1.0))
    blocks: list[str | Explanation | Figure] = []
    for outcome in worst[:SHOWN_PAGES]:
        try:
            blocks.append(study.best.model.explain(items[outcome.item]))
        except UserError as error:
            blocks.append(f"{outcome.item}: {error}")
    return Section(
        title="Pages", lead="The test pages on which the smallest share of the symbols was found.",
        blocks=tuple(blocks), anchor="pages",
    )  # fmt: skip
