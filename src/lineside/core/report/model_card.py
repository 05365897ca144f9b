"""The model card ``MODEL_CARD.md``: purpose, data, measures and limits of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment

from lineside import __version__
from lineside.core.contract import ROLES

if TYPE_CHECKING:
    from lineside.core.study import MethodStudy, Study


def model_card(study: Study, method: MethodStudy) -> str:
    """Return the Markdown text of ``MODEL_CARD.md`` for one method of a study."""
    template = files("lineside.core.report").joinpath("model_card.md").read_text(encoding="utf-8")
    block: Mapping[str, Any] = method.model.calibration_block()
    primary = study.application.metrics[0].name
    measured = {
        name: estimate
        for name, estimate in method.estimates.items()
        if name == primary or not math.isnan(estimate.value)
    }
    return (
        Environment(trim_blocks=True)
        .from_string(template)
        .render(
            version=__version__, study=study, method=method, point=block.get("point", block),
            split={role: study.split.role(role) for role in ROLES}, primary=primary,
            measured=measured, groups_of=lambda items: {g for item in items for g in item.groups},
        )
    )  # fmt: skip
