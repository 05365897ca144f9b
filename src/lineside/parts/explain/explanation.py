"""Explanation of one verdict: a sentence, the map, network responses, similar known patches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lineside.core.contract import Explanation, Figure
from lineside.parts.data.frames import image_of
from lineside.parts.data.items import PartImage
from lineside.parts.explain.exemplars import Library, crop_at
from lineside.parts.explain.findings import Finding
from lineside.parts.explain.overlays import (
    DISPLAY_PX,
    Rgb,
    encode_jpeg,
    overlay,
    sheet_figure,
    side_by_side,
    signed_map,
    thumbnail,
)
from lineside.parts.explain.zoom import Window, agreement_with_random, window_response
from lineside.parts.models.detector import Image, Prediction
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN

if TYPE_CHECKING:
    from lineside.parts.model import PartsModel


def explain(model: PartsModel, item: PartImage, cnn: PatchCNN | None = None) -> Explanation:
    """Explain one image: sentence, map, findings, similar known patches.

    Args:
        model: Predicts the image.
        item: The image.
        cnn: A patch CNN of the same run, which adds its responses, or None.

    Raises:
        UserError: if the file cannot be read.
    """
    name = Path(item.id).name
    image = model.visible(image_of(item))
    prediction = model.predict_image(image)
    regions = model.find_regions(image, prediction)
    unusual = model.health.check(image) if model.health else ()
    score, verdict = model.decide([prediction.score], usual=not unusual)
    drawn = [thumbnail(image, DISPLAY_PX), overlay(image, prediction.map, model.scale)]
    figures = [
        Figure(
            title="Where",
            image=encode_jpeg(side_by_side(drawn)),
            mime="image/jpeg",
            caption="Left the picture, right the anomaly map on the scale of all pictures; "
            "contours are drawn where the evidence would hold a part back.",
            wide=True,
        ),
        *neighbours(model, image, prediction),
    ]
    if cnn is not None:
        figures.append(responses(cnn, image))
    return Explanation(
        item=name,
        text=sentence(name, verdict, score, model.threshold, regions),
        figures=tuple(figures),
        facts={
            "part": item.part,
            "score": f"{prediction.score:.3f}",
            "threshold": f"{model.threshold:.3f}",
            **{share: f"{value:.3f}" for share, value in prediction.contributions.items()},
            **({"picture": "; ".join(unusual)} if unusual else {}),
        },
    )


def sentence(
    name: str, verdict: str, score: float, threshold: float, findings: list[Finding]
) -> str:
    """Return the verdict in words."""
    where = "no region stands out on its own"
    if findings:
        first = findings[0]
        size = f"in a region of about {first.region_px:.0f} px"
        if first.area_px is not None:
            size = f"of {first.area_px:.0f} px"
        if first.area_mm2 is not None:
            size = f"of {first.area_mm2:.2f} mm²"
        column, row = first.centroid
        many = "1 region stands" if len(findings) == 1 else f"{len(findings)} regions stand"
        where = f"{many} out, the strongest {size} at row {row:.0f}, column {column:.0f}"
    side = "not below" if score >= threshold else "below"
    return (
        f"{name}: {verdict}. Its score {score:.3f} is {side} the threshold {threshold:.3f}; "
        f"{where}."
    )


def neighbours(model: PartsModel, image: Image, prediction: Prediction) -> list[Figure]:
    """Return the strongest patch beside the known good and bad patches that are most similar."""
    rows, columns = prediction.map.shape
    row, column = np.unravel_index(int(prediction.map.argmax()), prediction.map.shape)
    height, width = image.shape[:2]
    patch = crop_at(image, (row + 0.5) * height / rows, (column + 0.5) * width / columns)
    figures = []
    for faulty, word in ((False, "good"), (True, "faulty")):
        nearest = model.library.nearest(patch, faulty=faulty)
        if nearest:
            figures.append(_sheet(model.library, patch, nearest, word))
    return figures


def _sheet(library: Library, patch: Image, nearest: list[tuple[int, float]], word: str) -> Figure:
    tiles: list[Image | Rgb] = [patch, *(library.patches[i].numpy() for i, _ in nearest)]
    names = [
        f"{Path(library.sources[i]).name} ({library.labels[i]}, {similarity:.2f})"
        for i, similarity in nearest
    ]
    caption = (
        f"First this picture's strongest patch, then {', '.join(names)}; "
        "the number is the cosine of their features."
    )
    title = f"Most similar known {word} patches"
    return sheet_figure(title, caption, tiles, columns=len(tiles), cell_px=96, jpeg=False)


def responses(cnn: PatchCNN, image: Image) -> Figure:
    """Return guided backprop and Grad-CAM of the patch CNN's strongest crop."""
    (top, left), (height, width) = cnn.strongest_tile(image), image.shape[:2]
    bottom, right = min(top + cnn.crop_px, height), min(left + cnn.crop_px, width)
    window = Window(left=max(left, 0), top=max(top, 0), right=right, bottom=bottom, score=0.0)
    response = window_response(cnn, image, window)
    guided, cam = agreement_with_random(cnn, image, window)
    maps = (signed_map(response.guided), signed_map(response.cam))
    tiles: list[Image | Rgb] = [window.of(image), *maps]
    caption = (
        f"The strongest crop, network output {response.probability:.3f}; guided backprop; "
        f"Grad-CAM. Their rank correlation with maps of random weights is {guided:.2f} and "
        f"{cam:.2f}: the nearer to 1, the less a map says about what was learned."
    )
    title = "Patch CNN: guided backprop and Grad-CAM"
    return sheet_figure(title, caption, tiles, columns=3, cell_px=128, jpeg=False)
