"""Drawings of ``predict`` and ``explain``: overlays, zooms and the page of one verdict."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Refusal
from lineside.core.errors import printable
from lineside.core.predictor import Predictor, load_predictor
from lineside.core.report import write_explanation
from lineside.core.run.files import write_bytes
from lineside.core.run.model_store import load_model, model_folder
from lineside.core.run.progress import Progress
from lineside.core.stored_model import batches_of
from lineside.parts.application import APPLICATION
from lineside.parts.data.items import PartImage
from lineside.parts.explain.explanation import explain
from lineside.parts.explain.overlays import encode_png
from lineside.parts.explain.overlays import overlay as draw_overlay
from lineside.parts.explain.zoom import (
    ZoomPath,
    centre_on_response,
    evidence_of_map,
    evidence_of_tiles,
    refine_peak,
    zoom_sheet,
)
from lineside.parts.explain.zoom import zoom as zoom_in
from lineside.parts.model import ImagePrediction, PartResult, PartsModel
from lineside.parts.models.feature_head.feature_head import FeatureHead
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN

MOST_BYTES = 120
"""Of a picture's name in the names of its drawings."""
ZOOM_PX = 64
"""Side of the final windows where no patch network says what it was trained on."""
NEAR_PEAK = 0.75
"""Where nothing stands out in a rejected picture, places this near to its peak are shown."""


def predict_and_draw(
    predictor: Predictor,
    items: Sequence[PartImage],
    progress: Progress,
    *,
    overlay: Path | None,
    zoom: Path | None,
) -> list[PartResult | Refusal]:
    """Predict pictures and draw each; it is decoded once and passes the detector once.

    The pictures of one part are held in memory at a time.

    Args:
        predictor: The model, and where it lies: a patch CNN of its run explains every crop.
        items: The pictures.
        progress: Shows how far it is.
        overlay: Folder for one PNG per picture with map and contours, or None.
        zoom: Folder for one PNG per picture with the crops on the way to its strongest places,
            or None.
    """
    model: PartsModel = predictor.model
    own = model.detector if isinstance(model.detector, PatchCNN) else None
    cnn = own or _cnn_beside(predictor.folder) if zoom is not None else None
    results: dict[int, PartResult | Refusal] = {}
    for indices in progress.track(list(batches_of(items)), "predicting"):
        views = [model.predict_view(items[index], keep_image=True) for index in indices]
        for index, view, result in zip(indices, views, model.decide_parts(views), strict=True):
            results[index] = result
            if isinstance(view, Refusal) or isinstance(result, Refusal):
                continue
            assert view.image is not None
            name = f"{index:04d}_{result.verdict}_{_short(items[index].path.stem)}.png"
            if overlay is not None:
                pixels = draw_overlay(view.image, view.prediction.map, model.scale)
                write_bytes(overlay / name, encode_png(pixels))
            if zoom is not None:
                results[index] = write_zoom(model, cnn, view, result, zoom / name)
    drawn = sum(not isinstance(result, Refusal) for result in results.values())
    for folder, what in ((zoom, "zooms"), (overlay, "overlays")):
        if folder is not None:
            print(f"{drawn} {what} in {folder}", file=sys.stderr)
    return [results[index] for index in range(len(items))]


def _short(stem: str) -> str:
    """Return a name that any file system takes: printable, and of at most `MOST_BYTES` bytes."""
    return printable(stem).replace("\\", "_").encode()[:MOST_BYTES].decode(errors="ignore")


def write_zoom(
    model: PartsModel, cnn: PatchCNN | None, view: ImagePrediction, result: PartResult, path: Path
) -> PartResult:
    """Write the crops on the way to the strongest places of a picture; return the result with them.

    Args:
        model: Judged the picture.
        cnn: Explains every crop, or None.
        view: The picture with its pixels.
        result: The verdict.
        path: The PNG file.
    """
    assert view.image is not None
    zoom_paths, nothing_stands_out = _zoom_paths(model, cnn, view, result)
    text = _describe_paths(zoom_paths, nothing_stands_out)
    heading = f"{Path(view.item).name}: {result.verdict}. {text}"
    sheet = zoom_sheet(
        view.image, view.prediction.map, zoom_paths, scale=model.scale, heading=heading, cnn=cnn
    )
    write_bytes(path, encode_png(sheet))
    return dataclasses.replace(result, zoom_paths=tuple(zoom_paths))


def _zoom_paths(
    model: PartsModel, cnn: PatchCNN | None, view: ImagePrediction, result: PartResult
) -> tuple[list[ZoomPath], bool]:
    """Return the zoom paths, and whether none of their ends stands out from good pictures.

    A patch CNN's tiles are measured against the threshold of its score, which they make up;
    cells of a map against the threshold of the map.
    """
    image = view.image
    assert image is not None
    if isinstance(model.detector, PatchCNN):
        evidence = evidence_of_tiles(model.detector, image, view.prediction)
        background = result.threshold
    else:
        evidence, background = evidence_of_map(view.prediction.map, image), model.scale.threshold
    # A rejected picture where nothing stands out still has its strongest places.
    low, peak = model.scale.low, float(evidence.values.max())
    nothing_stands_out = result.score >= result.threshold and peak < background
    if nothing_stands_out:
        background = min(low + NEAR_PEAK * (peak - low), peak)
    zoom_paths = zoom_in(evidence, least_px=cnn.crop_px if cnn else ZOOM_PX, background=background)
    if isinstance(model.detector, PatchCNN):
        zoom_paths = [centre_on_response(model.detector, image, path) for path in zoom_paths]
    elif isinstance(model.detector, FeatureHead):
        zoom_paths = [refine_peak(model.detector, image, path) for path in zoom_paths]
    return zoom_paths, nothing_stands_out


def _describe_paths(paths: Sequence[ZoomPath], nothing_stands_out: bool) -> str:
    if nothing_stands_out:
        verb = "this is the strongest" if len(paths) == 1 else "these are the strongest"
        return f"No place stands out on its own; {verb}."
    if not paths:
        return "Nothing stands out from what good pictures show: no zoom."
    return "1 place stands out." if len(paths) == 1 else f"The {len(paths)} strongest places."


def explain_to_page(file: Path, model: Path, out: Path) -> str:
    """Write the page that explains one verdict, and return its sentence.

    Raises:
        UserError: if the file or the model cannot be read.
    """
    predictor = load_predictor(model, APPLICATION)
    item = predictor.items(file)[-1]
    explanation = explain(predictor.model, item, _cnn_beside(predictor.folder))
    return write_explanation(
        out,
        f"{explanation.item}: what the model saw",
        f"model {predictor.model.identity}",
        explanation,
        "Scores have no unit; higher is more faulty.",
    )


def _cnn_beside(model: Path) -> PatchCNN | None:
    """Return the patch CNN of the same run, which has guided backprop and Grad-CAM."""
    folder = model_folder(model).parent / "patch_cnn"
    if not (folder / "model.json").is_file():
        return None
    beside: PartsModel = load_model(folder, APPLICATION)
    return beside.detector if isinstance(beside.detector, PatchCNN) else None
