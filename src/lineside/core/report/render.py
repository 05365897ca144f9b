"""Rendering of a finished study as ``report.html`` and ``report.json``."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup, escape

from lineside import __version__
from lineside.core.contract import Check, Explanation, Fact, Figure, Section, Table
from lineside.core.run.files import write_json
from lineside.core.run.tables import write_text

if TYPE_CHECKING:
    from lineside.core.study import Study

Block = str | Table | Figure | Check | Explanation


def write_report(study: Study) -> None:
    """Write ``report.html`` and ``report.json`` into the run folder."""
    from lineside.core.report import chapters
    from lineside.core.report.headline import headline

    # readers who only decide stop after the application's own chapters
    sections = [
        *study.application.sections(study),
        chapters.leaderboard(study),
        *chapters.training(study),
        *chapters.features(study),
        chapters.audit(study),
        chapters.reproduction(study),
    ]
    summary = study.application.summary(study)
    folder = study.data.parent if study.data.is_file() else study.data
    page = render(
        title=f"{folder.name}: {study.application.name}",
        kicker=f"lineside {__version__} · {study.application.name} · run {study.run.folder.name}",
        summary=summary,
        facts=headline(study),
        sections=sections,
    )
    write_text(study.run.folder / "report.html", page)
    write_json(study.run.folder / "report.json", numbers(study, summary))


def numbers(study: Study, summary: Sequence[str]) -> dict[str, Any]:
    """Return every number of the report as plain JSON, an application's own ones included."""
    return {
        **study.application.numbers(study),
        "application": study.application.name,
        "lineside": __version__,
        "chosen": study.chosen,
        "summary": list(summary),
        "methods": {
            method.name: {
                "kind": method.kind,
                "fit_seconds": method.fit_seconds,
                "model": method.model.identity,
                "calibration": method.model.calibration_block(),
                "estimates": {k: v.as_json() for k, v in method.estimates.items()},
                "difference_to_chosen": {k: v.as_json() for k, v in method.differences.items()},
            }
            for method in study.methods
        },
        "failures": [dataclasses.asdict(failure) for failure in study.failures],
        "checks": [dataclasses.asdict(check) for check in study.checks],
        "refusals": [refusal.as_json() for refusal in study.refusals],
    }


def write_explanation(
    out: Path, title: str, kicker: str, explanation: Explanation, caption: str
) -> str:
    """Write a page that explains one result, and return its sentence.

    Args:
        out: The file.
        title: Heading of the page.
        kicker: Small line above it.
        explanation: Sentence, figures and facts.
        caption: Explains the table of facts.
    """
    facts = Table(
        title="Facts",
        columns=("what", "value"),
        rows=tuple((key, str(value)) for key, value in explanation.facts.items()),
        caption=caption,
    )
    page = render(
        title=title,
        kicker=kicker,
        summary=[explanation.text],
        sections=[Section(title="Evidence", blocks=(*explanation.figures, facts))],
    )
    write_text(out, page)
    return explanation.text


def render(
    *,
    title: str,
    kicker: str,
    summary: Sequence[str],
    sections: Sequence[Section],
    facts: Sequence[Fact] = (),
) -> str:
    """Return the HTML text of a report.

    Args:
        title: Heading of the page.
        kicker: Small line above it.
        summary: Plain-language paragraphs shown first.
        sections: Chapters in reading order, folded ones last; anchors are made from the titles
            where missing.
        facts: What is shown at a glance, below the summary.
    """
    template = files("lineside.core.report").joinpath("template.html").read_text(encoding="utf-8")
    chapters = [
        {"title": section.title, "lead": section.lead, "blocks": _grouped(section.blocks),
         "anchor": section.anchor or _anchor(section.title), "folded": section.folded}
        for section in sorted(sections, key=lambda section: section.folded)
    ]  # fmt: skip
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["whole_flags"] = _whole_flags
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    return environment.from_string(template).render(
        title=title, kicker=kicker, summary=summary, facts=facts, sections=chapters
    )


def _grouped(blocks: Iterable[Block]) -> list[Any]:
    """Put figures that follow each other into one grid."""
    grouped: list[Any] = []
    for is_figure, run in itertools.groupby(blocks, key=lambda block: isinstance(block, Figure)):
        together = list(run)
        grouped += [together] if is_figure else together
    return grouped


def _whole_flags(text: str) -> Markup:
    """Return an escaped text whose flags (``--model``) are not broken over two lines."""
    whole = r'<span class="flag">\1</span>'
    return Markup(re.sub(r"(?<![\w-])(--[a-z-]+)", whole, str(escape(text))))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
