"""The chapters of a report that are about pictures: verdicts, explained cases, labelling guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lineside.core.contract import Figure, Outcome, Section
from lineside.core.statistics.decisions import decisions
from lineside.core.statistics.units import unit_scores
from lineside.core.study import Study
from lineside.parts.data.images import decode, mask_of
from lineside.parts.data.items import PartImage
from lineside.parts.explain.explanation import explain
from lineside.parts.explain.overlays import colour_bar, encode_png, overlay, sheet_figure
from lineside.parts.model import PartsModel

SHOWN = 6
"""Parts of a kind of case on the verdict sheet."""
EXPLAINED = 2
TYPICAL = 8
NAMED_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Test parts that were decided alike, the ones that matter most first.

    Attributes:
        title: What happened to how many of them.
        none: The sentence where there is none.
        caption: The order.
        views: The view that decides each part, with its outcome.
        verdicts: Verdict of each part.
    """

    title: str
    none: str
    caption: str
    views: Sequence[Outcome]
    verdicts: Sequence[str]


def sorted_cases(study: Study) -> list[Cases]:
    """Return missed faulty, held back good, found faulty and passed good test parts.

    Misses begin with the lowest score and false rejects with the highest, i.e. the worst; found
    and passed parts with those nearest to the other side.
    """
    point = study.best.model.operating.point
    outcomes = study.best.outcomes["test"]
    parts = unit_scores(outcomes, point.rule)
    accepted, rejected = decisions(parts, point)
    verdicts = np.where(accepted, "accept", np.where(rejected, "reject", "review"))
    deciding: dict[tuple[str, float], Outcome] = {}
    for outcome in outcomes:
        deciding.setdefault((outcome.unit or outcome.item, outcome.value["score"]), outcome)
    found = []
    for faulty, among, done, undone, order in (
        (True, accepted, "missed", "missed", "the most normal-looking first"),
        (False, ~accepted, "held back", "held back", "the highest score first"),
        (True, ~accepted, "found", "found", "the lowest score first"),
        (False, accepted, "passed", "passed", "the highest score first"),
    ):
        of_label = parts.labels == int(faulty)
        chosen = np.flatnonzero(among & of_label)
        scores = parts.scores[chosen]
        chosen = chosen[np.argsort(scores if faulty else -scores, kind="stable")]
        adjective, n = "faulty" if faulty else "good", int(of_label.sum())
        found.append(
            Cases(
                title=f"{done.capitalize()}: {len(chosen)} of {n} {adjective} parts",
                none=f"None of the {n} {adjective} test parts was {undone}." if n else "",
                caption=order,
                views=[deciding[parts.units[i], parts.scores[i]] for i in chosen],
                verdicts=[str(verdicts[i]) for i in chosen],
            )
        )
    return found


def verdict_sheet(study: Study) -> Section:
    """Show faulty and good test parts with their verdicts, misses and false rejects first."""
    model: PartsModel = study.best.model
    items = {item.id: item for item in study.split.test}
    found = sorted_cases(study)
    none = " ".join(cases.none for cases in found if not cases.views and cases.none)
    return Section(
        title="Verdicts",
        lead=f"{none} Below each picture: verdict, score of the part (limit "
        f"{model.threshold:.2f}) and label. A white contour: evidence that would hold a part back; "
        "without one no place stands out by itself. Blue: the labelled mask. Check for each error "
        "whether the model is wrong, or the label.".strip(),
        blocks=tuple(_sheet(model, items, cases) for cases in found if cases.views),
    )


def _sheet(model: PartsModel, items: Mapping[str, PartImage], cases: Cases) -> Figure:
    tiles, captions = [], []
    shown = list(zip(cases.views, cases.verdicts, strict=True))[:SHOWN]
    for outcome, verdict in shown:
        item = items[outcome.item]
        image = decode(item.path)
        mask = mask_of(item, (image.shape[0], image.shape[1])) if item.faulty else None
        tiles.append(overlay(image, model.predict_image(image).map, model.scale, mask))
        unusual = "" if outcome.value.get("usual", 1.0) else ", unusual picture"
        captions.append(f"{verdict} {outcome.value['score']:.2f} {item.label}{unusual}")
    more = f", {SHOWN} of them" if len(cases.views) > SHOWN else ""
    names = "; ".join(Path(outcome.item).name for outcome, _ in shown)
    caption = f"{cases.caption.capitalize()}{more}: {names}."
    return sheet_figure(cases.title, caption, tiles, captions, columns=3, cell_px=160)


def cases(study: Study) -> Section:
    """Explain the worst misses and false rejects; where nothing was missed, the nearest to it."""
    model: PartsModel = study.best.model
    items = {item.id: item for item in study.split.test}
    missed, held, found, _ = sorted_cases(study)
    cnn = next((m.model.detector for m in study.methods if m.name == "patch_cnn"), None)
    chosen = [*(missed.views or found.views)[:EXPLAINED], *held.views[:EXPLAINED]]
    return Section(
        title="Cases",
        lead="The worst misses (or the faulty parts nearest to one) and false rejects, explained.",
        blocks=(_scale(model), *(explain(model, items[o.item], cnn) for o in chosen))
        if chosen
        else (),
    )


def _scale(model: PartsModel) -> Figure:
    """Return the legend of all anomaly maps."""
    scale = model.scale
    return Figure(
        title="Scale of all anomaly maps",
        image=encode_png(colour_bar(scale)),
        caption=f"From {scale.low:.2f} (half of a good picture) to {scale.high:.2f}; contours are "
        f"drawn at {scale.threshold:.2f}, where the calibration pictures whose score reaches the "
        "threshold of the verdict part from the others. A blue line is the labelled mask.",
    )


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
