"""What ``predict`` and ``explain`` do on the command line: find files, judge, draw."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineside.core.contract import Explanation, Refusal
from lineside.core.errors import UserError
from lineside.core.run.files import write_bytes
from lineside.core.run.model_store import load_model, model_folder
from lineside.core.run.progress import Progress
from lineside.core.run.table_reader import read_named_rows
from lineside.parts.application import APPLICATION
from lineside.parts.data.images import SUFFIXES
from lineside.parts.data.items import PartImage
from lineside.parts.explain.explanation import explain_with_cnn, overlay_of
from lineside.parts.explain.overlays import encode_png
from lineside.parts.explain.zoom import ZoomPath, evidence_of_map
from lineside.parts.explain.zoom import zoom as zoom_in
from lineside.parts.explain.zoom_figures import (
    centre_on_response,
    evidence_of_tiles,
    refine_peak,
    zoom_sheet,
)
from lineside.parts.model import ImagePrediction, PartResult, PartsModel, Source, part_of
from lineside.parts.models.feature_head.feature_head import FeatureHead
from lineside.parts.models.patch_cnn.patch_cnn import PatchCNN

ZOOM_PX = 64
"""Side of the final windows where no patch network says what it was trained on."""
NEAR_PEAK = 0.75
"""Where nothing stands out in a rejected picture, places this near to its peak are shown."""


def judge(
    files: Sequence[Path],
    model: Path,
    part_pattern: str,
    progress: Progress,
    *,
    overlay: Path | None = None,
    zoom: Path | None = None,
) -> tuple[PartsModel, list[PartResult | Zoomed | Refusal]]:
    """Load a model once and judge files, folders or the rows of a CSV table.

    Each picture is decoded once and passes through the detector once, whatever is drawn from it.
    With a folder for drawings, the pictures of one part are held in memory at a time.

    Args:
        files: Images, folders, tables.
        model: A run or a model folder.
        part_pattern: Finds the part in a file name; "" takes the model's own.
        progress: Shows how far it is.
        overlay: Folder for one PNG per image with map and contours, or None.
        zoom: Folder for one PNG per image with the crops on the way to its strongest places, or
            None; a patch CNN in the run explains every crop.

    Raises:
        UserError: if there is nothing to judge, or no model.
    """
    sources = find_sources(files)
    loaded: PartsModel = load_model(model, APPLICATION)
    fitted = loaded.with_pattern(part_pattern)
    if overlay is None and zoom is None:
        return fitted, [*fitted.predict(progress.track(sources, "judging"))]
    cnn = _network_for(fitted, model) if zoom is not None else None
    results: dict[int, PartResult | Zoomed | Refusal] = {}
    for indices in progress.track(_views_by_part(fitted, sources), "judging"):
        views = [fitted.predict_source(sources[index], keep_image=True) for index in indices]
        for index, view, result in zip(indices, views, fitted.decide_parts(views), strict=True):
            results[index] = result
            if isinstance(view, Refusal) or isinstance(result, Refusal):
                continue
            name = f"{index:04d}_{result.verdict}_{_path(sources[index]).stem}.png"
            if overlay is not None:
                write_overlay(fitted, view, overlay / name)
            if zoom is not None:
                results[index] = write_zoom(fitted, cnn, view, result, zoom / name)
    return fitted, [results[index] for index in range(len(sources))]


def _views_by_part(model: PartsModel, sources: Sequence[Source]) -> list[list[int]]:
    """Return the indices of the pictures of each part, parts in order of appearance."""
    parts: dict[str, list[int]] = {}
    for index, source in enumerate(sources):
        parts.setdefault(part_of(source, model.settings.part_pattern), []).append(index)
    return list(parts.values())


def _path(source: Source) -> Path:
    return source.path if isinstance(source, PartImage) else Path(source)


def find_sources(files: Sequence[Path]) -> list[Source]:
    """Return images: given ones as they are, those of folders sorted, those of CSV rows.

    Raises:
        UserError: if nothing is given or a folder holds no image.
    """
    if not files:
        raise UserError("no files are given", "e.g. lineside parts predict new/*.png --model RUN")
    sources: list[Source] = []
    for path in files:
        table = path.suffix.lower() == ".csv" and not path.is_dir()
        sources += sources_of_table(path) if table else find_files([path])
    return sources


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are given, and the pictures of folders, sorted.

    Raises:
        UserError: if a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        below = sorted(pictures_in(path)) if path.is_dir() else [path]
        if not below:
            raise UserError(f"{path} holds no images", f"images end in {', '.join(SUFFIXES)}")
        found += below
    return found


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures of a folder and its subfolders; hidden ones are left out."""
    found = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and name.lower().endswith(SUFFIXES)
        ]
    return found


def sources_of_table(table: Path) -> list[Source]:
    """Return the pictures that a table names: column ``path``, and ``part`` if it is there.

    Paths are relative to the table. A file that is missing is judged like any unreadable one.

    Raises:
        UserError: if the table cannot be read, or has no column ``path`` or no rows.
    """
    columns, rows = read_named_rows(table, lambda name: name.strip().casefold())
    if "path" not in columns:
        raise UserError(f"{table} has no column 'path'", "columns: path, and part if known")
    if not rows:
        raise UserError(f"{table} holds no rows", "one row per picture")
    return [_source(table.parent, row) for row in rows]


def _source(root: Path, row: Mapping[str, str]) -> Source:
    path, part = root / row["path"], row.get("part", "")
    return PartImage(id=str(path), path=path, label="", part=part) if part else path


def write_overlay(model: PartsModel, view: ImagePrediction, path: Path) -> None:
    """Write the picture with its anomaly map and contours."""
    assert view.image is not None
    write_bytes(path, overlay_of(model, view.image, view.prediction.map))


@dataclass(frozen=True, kw_only=True)
class Zoomed:
    """A result with the paths of its zoom; its line of the table is that of the result.

    Attributes:
        result: What the model says.
        zoom_paths: Strongest first.
    """

    result: PartResult
    zoom_paths: tuple[ZoomPath, ...]

    @property
    def item(self) -> str:
        """Path or id of the image."""
        return self.result.item

    @property
    def part(self) -> str:
        """The part that the image is a view of."""
        return self.result.part

    @property
    def finding(self) -> bool:
        """True unless the part is accepted."""
        return self.result.finding

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        return {
            **self.result.as_json(),
            "zoom": [path.as_json() for path in self.zoom_paths],
        }

    def as_line(self) -> str:
        """Return the line of the table."""
        return self.result.as_line()


def write_zoom(
    model: PartsModel, cnn: PatchCNN | None, view: ImagePrediction, result: PartResult, path: Path
) -> Zoomed:
    """Write the crops on the way to the strongest places of a picture.

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
    return Zoomed(result=result, zoom_paths=tuple(zoom_paths))


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


def _network_for(model: PartsModel, path: Path) -> PatchCNN | None:
    """Return the patch CNN that explains crops: the model's own, or that of the same run."""
    if isinstance(model.detector, PatchCNN):
        return model.detector
    beside = _cnn_beside(path)
    return beside.detector if beside and isinstance(beside.detector, PatchCNN) else None


def notes(model: PartsModel, results: Sequence[PartResult | Zoomed | Refusal]) -> list[str]:
    """Return what a user must know beside the verdicts: a suspended or inapplicable promise."""
    found = []
    if model.suspended:
        found.append(f"the certificate is suspended: {model.suspended}")
    parts = [result.part for result in results if not isinstance(result, Refusal)]
    promised = model.operating.views_per_part if model.operating else 1.0
    if parts and promised > 1.5 and len(set(parts)) == len(parts):
        found.append(
            f"every picture was judged as a part of its own, but the promise was made for parts "
            f"of {promised:.1f} views; give --part-pattern or a CSV with the column part"
        )
    return found


def explain_to_page(file: Path, model: Path, out: Path) -> str:
    """Write a page that explains one verdict, and return its sentence.

    Raises:
        UserError: if the file or the model cannot be read.
    """
    from lineside.core.report import write_explanation

    fitted: PartsModel = load_model(model, APPLICATION)
    told: Explanation = explain_with_cnn(fitted, file, _cnn_beside(model))
    return write_explanation(
        out,
        f"{file.name}: what the model saw",
        f"model {fitted.identity}",
        told,
        "Scores have no unit; higher is more faulty.",
    )


def _cnn_beside(model: Path) -> PartsModel | None:
    """Return the patch CNN of the same run, which has guided backprop and Grad-CAM."""
    folder = model_folder(model).parent / "patch_cnn"
    if not (folder / "model.json").is_file():
        return None
    found: PartsModel = load_model(folder, APPLICATION)
    return found
