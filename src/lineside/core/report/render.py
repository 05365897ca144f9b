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
from lineside.core.contract import Check, Explanation, Figure, Section, Table
from lineside.core.run.files import write_bytes, write_json

if TYPE_CHECKING:
    from lineside.core.report.headline import Fact
    from lineside.core.study import Study

Block = str | Table | Figure | Check | Explanation


def write_report(study: Study) -> None:
    """Write ``report.html`` and ``report.json`` into the run folder."""
    from lineside.core.report import chapters
    from lineside.core.report.headline import headline

    sections = [
        chapters.leaderboard(study),
        *study.application.sections(study),
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
        footer=FOOTER,
    )
    write_bytes(study.run.folder / "report.html", page.encode())
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
        "checks": [dataclasses.asdict(check) for check in study.checks],
        "refusals": [refusal.as_json() for refusal in study.refusals],
    }


FOOTER = "Made on this machine by lineside; nothing in this file is loaded from elsewhere."


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
        footer=FOOTER,
    )
    write_bytes(out, page.encode())
    return explanation.text


def render(
    *,
    title: str,
    kicker: str,
    summary: Sequence[str],
    sections: Sequence[Section],
    footer: str,
    facts: Sequence[Fact] = (),
) -> str:
    """Return the HTML text of a report.

    Args:
        title: Heading of the page.
        kicker: Small line above it.
        summary: Plain-language paragraphs shown first.
        sections: Chapters in reading order; anchors are made from the titles where missing.
        footer: Last line.
        facts: What is shown at a glance, below the summary.
    """
    template = files("lineside.core.report").joinpath("template.html").read_text(encoding="utf-8")
    anchored = [
        dataclasses.replace(section, anchor=section.anchor or _anchor(section.title), blocks=())
        for section in sections
    ]
    chapters = [
        {"title": a.title, "lead": a.lead, "anchor": a.anchor, "blocks": _grouped(section.blocks)}
        for a, section in zip(anchored, sections, strict=True)
    ]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        title=title, kicker=kicker, summary=summary, facts=facts, sections=chapters, footer=footer,
        draw=_draw,
    )  # fmt: skip


def _grouped(blocks: Iterable[Block]) -> list[Block | list[Figure]]:
    """Put figures that follow each other into one grid."""
    grouped: list[Block | list[Figure]] = []
    for is_figure, run in itertools.groupby(blocks, key=lambda block: isinstance(block, Figure)):
        if is_figure:
            grouped.append([block for block in run if isinstance(block, Figure)])
        else:
            grouped.extend(run)
    return grouped


def _draw(block: Block | list[Figure]) -> Markup:
    if isinstance(block, list):
        return Markup('<div class="figures">{}</div>').format(Markup("").join(map(_figure, block)))
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Check):
        return _check(block)
    if isinstance(block, Explanation):
        return _case(block)
    if isinstance(block, Figure):
        return _figure(block)
    if block.startswith("$ "):
        return Markup("<pre tabindex=0>{}</pre>").format(block[2:])
    return Markup("<p>{}</p>").format(block)


def _figure(figure: Figure) -> Markup:
    alt = figure.alt or figure.caption or figure.title
    if figure.mime == "image/svg+xml":
        picture = Markup('<div role="img" aria-label="{}">{}</div>').format(
            alt, Markup(figure.image.decode())
        )
    else:
        data = base64.b64encode(figure.image).decode()
        picture = Markup('<img src="data:{};base64,{}" alt="{}">').format(figure.mime, data, alt)
    heading = Markup("<h3>{}</h3>").format(figure.title) if figure.title else Markup("")
    caption = Markup("<figcaption>{}</figcaption>").format(figure.caption)
    return Markup('<figure class="{}">{}{}{}</figure>').format(
        "wide" if figure.wide else "", heading, picture, caption if figure.caption else ""
    )


def _table(table: Table) -> Markup:
    head = Markup("").join(Markup("<th scope=col>{}</th>").format(c) for c in table.columns)
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row)
        )
        for row in table.rows
    )
    caption = Markup('<p class="soft">{}</p>').format(table.caption) if table.caption else ""
    return Markup(
        '<h3>{}</h3>{}<div class="scroll" tabindex=0 role=region aria-label="{}"><table>'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(table.title, caption, table.title, head, rows)


def _check(check: Check) -> Markup:
    hint = Markup('<br><span class="soft">{}</span>').format(check.hint) if check.hint else ""
    return Markup(
        '<div class="check {}"><b>{}</b><div><strong>{}</strong>: {}{}</div></div>'
    ).format(check.status, check.status, check.name, check.evidence, hint)


def _case(case: Explanation) -> Markup:
    facts = " · ".join(f"{escape(key)} {escape(value)}" for key, value in case.facts.items())
    figures = Markup("").join(map(_figure, case.figures))
    return Markup(
        '<div class="case"><h3>{}</h3><p>{}</p><p class="soft">{}</p>'
        '<div class="figures">{}</div></div>'
    ).format(case.item, case.text, Markup(facts), figures)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
