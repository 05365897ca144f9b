"""The model card ``MODEL_CARD.md``: purpose, data, measures and limits of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lineside import __version__

if TYPE_CHECKING:
    from lineside.core.study import MethodStudy, Study


def model_card(study: Study, method: MethodStudy) -> str:
    """Return the Markdown text of ``MODEL_CARD.md`` for one method of a study."""
    block: Mapping[str, Any] = method.model.calibration_block()
    point: Mapping[str, Any] = block.get("point", block)
    counts = [
        f"* {role}: {len(study.split.role(role))} items in "
        f"{len({g for item in study.split.role(role) for g in item.groups})} groups"
        for role in ("train", "validation", "calibration", "test")
    ]
    primary = study.application.metrics[0].name
    numbers = [
        f"* {name}: {e.text()}"
        for name, e in method.estimates.items()
        if name == primary or not math.isnan(e.value)
    ]
    baselines = [
        f"* {other.name} ({other.kind}): {primary} {other.estimates[primary].text()}"
        for other in study.methods
        if other.name != method.name
    ]
    warnings = [
        f"* {check.status}: {check.name} - {check.evidence}"
        for check in study.checks
        if check.status in ("warn", "fail", "unknown")
    ]
    return "\n".join(
        [
            "---",
            f"library_name: lineside {__version__}",
            f"tags: [{study.application.name}, {method.kind}]",
            f"model_id: {method.model.identity}",
            "---",
            f"# {study.application.name}: {method.name}",
            "",
            f"{method.help}. Made from `{study.data}`, run `{study.run.folder.name}`.",
            *_block("Operating point", [point.get("message", "none was set")]),
            *_block("Data", counts),
            *_block("Measured on test groups, with 95 % intervals", numbers),
            *_block("Baselines on the same split", baselines or ["* none was run"]),
            *_block("Findings of the data audit", warnings or ["* none"]),
            *_block(
                "Limits",
                [
                    "Valid for data like those it was calibrated on. Recalibrate after any change "
                    "of what is measured, or of how."
                ],
            ),
        ]
    )


def _block(title: str, lines: list[str]) -> list[str]:
    return ["", f"## {title}", "", *lines]
