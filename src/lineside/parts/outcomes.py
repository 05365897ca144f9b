"""From a model to outcomes, and from calibration outcomes to an operating point by part."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lineside.core.contract import GuaranteeCheck, Outcome
from lineside.core.errors import UserError
from lineside.core.run.files import sha256
from lineside.core.statistics import guarantees
from lineside.core.statistics.operating_points import operating_point
from lineside.core.statistics.ranking import roc_curve
from lineside.core.statistics.units import unit_scores
from lineside.parts.calibration import MapScale, Operating
from lineside.parts.config import Config
from lineside.parts.data.images import mask_of, read_picture
from lineside.parts.data.items import GOOD, PartImage
from lineside.parts.metrics import WORDS, map_details
from lineside.parts.model import PartsModel
from lineside.parts.models.detector import (
    KNOWN_TERM,
    NORMAL_TERM,
    Image,
    Mask,
    Prediction,
)

LOTS = (
    "several parts come from one lot: parts of a lot are alike, so what is counted by part is not "
    "proven"
)
USUAL_QUANTILE = 0.95
"""Share of good calibration images that peak below the upper end of what is usual."""
GOOD_ONLY = "good_only"
"""Value of an outcome: the score that the same fit gives without what labelled defects added."""


def outcomes(model: PartsModel, items: Sequence[PartImage]) -> Iterator[Outcome]:
    """Judge labelled images.

    Yields:
        One outcome per item with ``score``, ``label`` (1 faulty), ``peak`` and ``middle`` of the
        anomaly map, and ``ms``, the time it took including decoding; ``good_only`` where labelled
        defects added to the score. ``usual`` is 0 where the picture itself is unlike those of the
        training, so that prediction does not accept its part unseen. Once the model is calibrated,
        details count map pixels by score, for AUPRO.

    Raises:
        UserError: if an image cannot be read, or a score is not a number.
    """
    for item in items:
        picture = read_picture(item.path)
        image = picture.image
        start = time.perf_counter()
        prediction = model.predict_image(image)
        milliseconds = 1000 * (picture.seconds + time.perf_counter() - start)
        if not math.isfinite(prediction.score):
            raise UserError(
                f"{model.method} has no score for {item.id} ({prediction.score})",
                "leave this method or this picture out",
            )
        lot = {"lot": item.lot} if item.lot else {}
        yield Outcome(
            item=item.id,
            groups=item.groups,
            unit=item.part,
            slices={**item.slices, **lot, "kind": item.label if item.faulty else GOOD},
            value={
                "score": prediction.score,
                "label": float(item.faulty),
                "peak": float(prediction.map.max()),
                "middle": float(np.median(prediction.map)),
                "ms": milliseconds,
                "usual": float(not (model.health and model.health.check(image))),
                **_good_only(prediction),
            },
            details=_map_details(model, item, image, prediction),
        )


def _good_only(prediction: Prediction) -> dict[str, float]:
    """Return the term of the normal model where labelled defects added another one."""
    terms = prediction.contributions
    return {GOOD_ONLY: terms[NORMAL_TERM]} if KNOWN_TERM in terms else {}


def _map_details(
    model: PartsModel, item: PartImage, image: Image, prediction: Prediction
) -> tuple[dict[str, Any], ...]:
    """Count map pixels by score where it is known which ones are faulty, once bins are fixed."""
    if model.operating is None:
        return ()
    shape = (image.shape[0], image.shape[1])
    mask: Mask | None = np.zeros(shape, dtype=bool)
    if item.faulty:
        mask = mask_of(dataclasses.replace(item, boxes=()), shape)  # boxes are no outlines
    if mask is None:
        return ()
    hidden = model.ignored.at(shape) if model.ignored else None
    scale = model.scale
    return map_details(
        prediction.map, mask, usual=scale.low, threshold=scale.threshold, ignored=hidden
    )


def calibrate(model: PartsModel, outcomes: Sequence[Outcome], config: Config) -> PartsModel:
    """Return the model with thresholds for the guarantee of the config, by part.

    Raises:
        UserError: if there is nothing to calibrate on.
    """
    point = operating_point(
        unit_scores(outcomes, config.view_rule),
        recall=1.0 - config.max_escape,
        confidence=config.confidence,
        review_budget=config.review_budget,
        prevalence=config.prevalence,
        words=WORDS,
        model=model.identity,
    )
    if share_lots(outcomes):
        point = point.suspend(LOTS)
    faulty = {outcome.unit for outcome in outcomes if outcome.value["label"]}
    good = [outcome for outcome in outcomes if outcome.unit not in faulty]
    operating = Operating(
        point=point,
        views_per_part=len(outcomes) / len({outcome.unit for outcome in outcomes}),
        scale=map_scale(good, outcomes, point.threshold),
        good_scores=tuple(part_scores(good, config.view_rule)),
        good_view_scores=tuple(one_view(good)),
    )
    return dataclasses.replace(model, operating=operating)


def share_lots(outcomes: Sequence[Outcome]) -> bool:
    """Return whether two parts come from one lot: then parts are no independent units.

    Where every lot gives one part, lots are counted, and bounds of shares of parts hold. With more
    there is none: a bound on the share of lots with a miss says nothing about the share of parts,
    as most faulty parts may lie in one lot.
    """
    parts: dict[str, set[str]] = {}
    for outcome in outcomes:
        if "lot" in outcome.slices:
            parts.setdefault(outcome.slices["lot"], set()).add(outcome.unit)
    return any(len(units) > 1 for units in parts.values())


def check_guarantee(model: PartsModel, outcomes: Sequence[Outcome]) -> GuaranteeCheck:
    """Hold the escapes among fresh parts against the guarantee of the operating point."""
    assert model.operating is not None
    point = model.operating.point
    return guarantees.check_guarantee(point, unit_scores(outcomes, point.rule))


def part_scores(good: Sequence[Outcome], rule: str) -> list[float]:
    """Return the score of each part as prediction joins its views: highest, or lowest."""
    views: dict[str, list[float]] = {}
    for outcome in good:
        views.setdefault(outcome.unit, []).append(outcome.value["score"])
    join = max if rule == "any" else min
    return [join(scores) for scores in views.values()]


def one_view(good: Sequence[Outcome]) -> list[float]:
    """Return the score of one image of each part: which one depends on its name only, by hash."""
    chosen: dict[str, Outcome] = {}
    for outcome in sorted(good, key=lambda o: (o.unit, sha256(o.item.encode()))):
        chosen.setdefault(outcome.unit, outcome)
    return [outcome.value["score"] for outcome in chosen.values()]


def map_scale(good: Sequence[Outcome], everything: Sequence[Outcome], threshold: float) -> MapScale:
    """Return the one scale of all maps: from what good images show to what defects show.

    A score is more than the peak of its map, so the threshold of the verdict is no value of the
    map. Contours are drawn where they agree best with it: at the peak that parts the calibration
    images whose score reaches the threshold from the others (largest Youden index).

    Args:
        good: Outcomes of good parts.
        everything: All calibration outcomes.
        threshold: Of the verdict, on scores.
    """
    if not good:
        return MapScale()
    low = float(np.median([o.value["middle"] for o in good]))
    usual = float(np.quantile([o.value["peak"] for o in good], USUAL_QUANTILE))
    contour = _contour([o.value["peak"] for o in everything],
                       [o.value["score"] >= threshold for o in everything])  # fmt: skip
    contour = max(contour, low + 0.1 * (usual - low))
    high = float(np.quantile([o.value["peak"] for o in everything], 0.98))
    least = contour + max(abs(contour - low), 1e-6)
    return MapScale(low=low, threshold=contour, high=max(high, least))


def _contour(peaks: Sequence[float], held: Sequence[bool]) -> float:
    """Return the peak from which on images are held back, as far as peaks can tell."""
    if not any(held):
        return float(np.nextafter(max(peaks), np.inf))
    if all(held):
        return min(peaks)
    false, true, thresholds = roc_curve(peaks, held)
    return float(thresholds[1:][np.argmax((true - false)[1:])])
