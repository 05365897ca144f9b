"""What ``predict`` and ``explain`` do on the command line: find files, judge, draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lineside.core.artefact import load_model, model_folder
from lineside.core.contract import Explanation, Refusal, UserError
from lineside.core.files import write_bytes
from lineside.parts.explaining import explain_with_cnn, overlay_of
from lineside.parts.images import SUFFIXES, decode
from lineside.parts.items import PartImage
from lineside.parts.model import PartResult, PartsModel, Source


def judge(
    files: Sequence[Path], model: Path, part_pattern: str
) -> tuple[PartsModel, list[Source], list[PartResult | Refusal]]:
    """Load a model and judge files, folders or the rows of a CSV table.

    Raises:
        UserError: if there is nothing to judge, or no model.
    """
    fitted: PartsModel = load_model(model)
    if part_pattern:
        settings = dataclasses.replace(fitted.settings, part_pattern=part_pattern)
        fitted = dataclasses.replace(fitted, settings=settings)
    sources = find_sources(files)
    return fitted, sources, fitted.predict(sources)


def find_sources(files: Sequence[Path]) -> list[Source]:
    """Return images: given ones as they are, those of folders sorted, those of CSV rows.

    Raises:
        UserError: if nothing is given or a folder holds no image.
    """
    if not files:
        raise UserError("no files are given", "e.g. lineside parts predict new/*.png --model RUN")
    sources: list[Source] = []
    for path in files:
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise UserError(f"{path} holds no images", f"images end in {', '.join(SUFFIXES)}")
            sources += found
        elif path.suffix.lower() == ".csv":
            sources += _rows(path)
        else:
            sources.append(path)
    return sources


def _rows(table: Path) -> list[PartImage]:
    from lineside.parts.table import read_unlabelled

    return list(read_unlabelled(table))


def write_overlays(
    model: PartsModel,
    sources: Sequence[Source],
    results: Sequence[PartResult | Refusal],
    folder: Path,
) -> int:
    """Write one PNG per judged image with map and contours; return their number."""
    written = 0
    for place, (source, result) in enumerate(zip(sources, results, strict=True)):
        if isinstance(result, Refusal):
            continue
        path = source.path if isinstance(source, PartImage) else Path(source)
        image = decode(path)
        picture = overlay_of(model, image, model.read(image).map)
        write_bytes(folder / f"{place:04d}_{result.verdict}_{path.stem}.png", picture)
        written += 1
    return written


def explain_to_page(file: Path, model: Path, out: Path) -> str:
    """Write a page that explains one verdict, and return its sentence.

    Raises:
        UserError: if the file or the model cannot be read.
    """
    from lineside.core.contract import Section
    from lineside.core.report import render

    fitted: PartsModel = load_model(model)
    explanation: Explanation = explain_with_cnn(fitted, file, _cnn_beside(model))
    page = render(
        title=f"{file.name}: what the model saw",
        kicker=f"model {fitted.identity}",
        summary=[explanation.text],
        sections=[Section(title="Evidence", blocks=explanation.figures)],
        footer="Made by lineside on this machine.",
    )
    write_bytes(out, page.encode())
    return explanation.text


def _cnn_beside(model: Path) -> PartsModel | None:
    """Return the patch CNN of the same run, which has guided backprop and Grad-CAM."""
    folder = model_folder(model).parent / "patch_cnn"
    found: PartsModel | None = load_model(folder) if folder.exists() else None
    return found
