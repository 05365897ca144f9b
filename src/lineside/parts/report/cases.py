"""The chapters of a report that are about pictures: misses, false alarms, labelling guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lineside.core.contract import Explanation, Figure, Outcome, Section
from lineside.core.statistics.estimates import worst_cases
from lineside.core.study import Study
from lineside.parts.data.images import decode, mask_of
from lineside.parts.data.items import PartImage
from lineside.parts.explain.explanation import explain
from lineside.parts.explain.overlays import colour_bar, encode_png, overlay, sheet_figure
from lineside.parts.model import PartsModel

WORST = 6
EXPLAINED = 2
TYPICAL = 8
NAMED_SHOWN = 12


def cases(study: Study) -> Section:
    """Show worst misses and worst false alarms as pictures, the first ones explained."""
    model: PartsModel = study.best.model
    outcomes = study.best.outcomes["test"]
    items = {item.id: item for item in study.split.test}
    blocks: list[str | Figure | Explanation] = [_scale(model)]
    for faulty, title, description in (
        (True, "Worst misses", "faulty parts with the lowest scores"),
        (False, "Worst false alarms", "good parts with the highest scores"),
    ):
        chosen = _worst(outcomes, faulty=faulty)
        if chosen:
            blocks.append(_sheet(model, items, title, description, chosen))
    cnn = next((m.model.detector for m in study.methods if m.name == "patch_cnn"), None)
    explained = [o for faulty in (True, False) for o in _worst(outcomes, faulty=faulty)[:EXPLAINED]]
    blocks += [explain(model, items[o.item], cnn) for o in explained]
    return Section(
        title="Cases",
        lead=(
            "The pictures with the largest errors, in both directions. Check for each whether "
            "the model is wrong, or the label."
        ),
        blocks=tuple(blocks),
    )


def _scale(model: PartsModel) -> Figure:
    """Return the legend of all anomaly maps."""
    scale = model.scale
    return Figure(
        title="Scale of all anomaly maps",
        image=encode_png(colour_bar(scale)),
        caption=f"From {scale.low:.2f} (half of a good picture) to {scale.high:.2f}; contours are "
        f"drawn at {scale.threshold:.2f}, which 95 % of the good calibration pictures stay below. "
        "A blue line is the labelled mask.",
    )


def _worst(outcomes: Sequence[Outcome], *, faulty: bool) -> list[Outcome]:
    """Return the outcomes of one label with the largest ranking errors, one per part."""
    ranked = worst_cases(outcomes)
    return [o for o in ranked if bool(o.value["label"]) == faulty][:WORST]


def _sheet(
    model: PartsModel,
    items: Mapping[str, PartImage],
    title: str,
    description: str,
    outcomes: Sequence[Outcome],
) -> Figure:
    tiles = []
    for item in (items[outcome.item] for outcome in outcomes):
        image = decode(item.path)
        mask = mask_of(item, (image.shape[0], image.shape[1])) if item.faulty else None
        tiles.append(overlay(image, model.predict_image(image).map, model.scale, mask))
    names = "; ".join(
        f"{Path(o.item).name} ({o.slices.get('kind', '')}, {o.value['score']:.2f})"
        for o in outcomes
    )
    caption = (
        f"Anomaly maps of {description} (label, score), on the scale of all pictures: {names}."
    )
    return sheet_figure(title, caption, tiles, columns=3, cell_px=300, wide=True)


def audit_cases(study: Study) -> Section:
    """Show the pictures that the audit lists: label noise, rater disagreement, copies, outliers."""
    items = {item.id: item for _, item in study.split.rows()}
    blocks = []
    for check in study.checks:
        named = [items[name] for name in check.items if name in items][:NAMED_SHOWN]
        if named and check.status in ("warn", "fail", "info"):
            pictures, labels = [decode(i.path) for i in named], [i.label for i in named]
            names = "; ".join(Path(item.id).name for item in named)
            caption = f"{check.evidence.rstrip('.')}. Shown with their labels: {names}"
            blocks.append(
                sheet_figure(check.name, caption, pictures, labels, columns=6, cell_px=120)
            )
    return Section(
        title="Pictures that the audit lists",
        lead="Review these first: a wrong label or a bad picture affects every number above.",
        blocks=tuple(blocks),
    )


def guide(study: Study) -> Section:
    """Show typical and borderline pictures per label, for the people who label."""
    model: PartsModel = study.best.model
    outcomes = [*study.best.outcomes["calibration"], *study.best.outcomes["test"]]
    items = {item.id: item for role, item in study.split.rows()}
    threshold = model.threshold
    blocks = []
    for label in sorted({o.slices["kind"] for o in outcomes}, key=lambda k: (k != "good", k)):
        labelled = [o for o in outcomes if o.slices["kind"] == label]
        middle = float(np.median([o.value["score"] for o in labelled]))
        typical = _one_per_part(sorted(labelled, key=lambda o: abs(o.value["score"] - middle)))
        border = _one_per_part(sorted(labelled, key=lambda o: abs(o.value["score"] - threshold)))
        for word, chosen in (("typical", typical), ("borderline", border)):
            pictures = [decode(items[o.item].path) for o in chosen]
            names = "; ".join(Path(o.item).name for o in chosen)
            blocks.append(sheet_figure(f"{label}: {word}", names, pictures, columns=4, cell_px=150))
    return Section(
        title="Labelling guide",
        lead=(
            "For the people who label: typical pictures of each label, and those closest to "
            "the threshold, which a second person should check. Agree on the borderline ones "
            "before labelling more."
        ),
        blocks=tuple(blocks),
    )


def _one_per_part(outcomes: Sequence[Outcome]) -> list[Outcome]:
    chosen: dict[str, Outcome] = {}
    for outcome in outcomes:
        chosen.setdefault(outcome.unit, outcome)
    return list(chosen.values())[:TYPICAL]
