"""What ``predict`` and ``explain`` do on the command line: find files, judge, draw."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from lineside.core.artefact import load_model, model_folder
from lineside.core.contract import Explanation, Refusal, Section, Table, UserError
from lineside.core.files import write_bytes
from lineside.core.progress import Progress
from lineside.parts.explaining import explain_with_cnn, overlay_of
from lineside.parts.images import SUFFIXES, decode
from lineside.parts.items import PartImage
from lineside.parts.model import PartResult, PartsModel, Source


def judge(
    files: Sequence[Path], model: Path, part_pattern: str, progress: Progress
) -> tuple[PartsModel, list[Source], list[PartResult | Refusal]]:
    """Load a model once and judge files, folders or the rows of a CSV table.

    Raises:
        UserError: if there is nothing to judge, or no model.
    """
    sources = find_sources(files)
    loaded: PartsModel = load_model(model)
    fitted = loaded.with_pattern(part_pattern)
    return fitted, sources, fitted.predict(progress.track(sources, "judging"))


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
        sources += read_rows(path) if table else find_files([path])
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


def read_rows(table: Path) -> list[Source]:
    """Return the pictures that a table names: column ``path``, and ``part`` if it is there.

    Paths are relative to the table. A file that is missing is judged like any unreadable one.

    Raises:
        UserError: if the table cannot be read, or has no column ``path`` or no rows.
    """
    try:
        text = table.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.partition("\n")[0].count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        columns = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
        rows = [row for row in reader if any(row.values())]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{table} cannot be read: {error}", "save it as CSV in UTF-8") from error
    if "path" not in columns:
        raise UserError(f"{table} has no column 'path'", "columns: path, and part if known")
    if not rows:
        raise UserError(f"{table} holds no rows", "one row per picture")
    return [_source(table.parent, row, columns) for row in rows]


def _source(root: Path, row: dict[str, str], columns: dict[str, str]) -> Source:
    name = (row[columns["path"]] or "").strip()
    part = (row.get(columns.get("part", ""), "") or "").strip()
    path = root / name
    return PartImage(id=str(path), path=path, label="", part=part) if part else path


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


def notes(model: PartsModel, results: Sequence[PartResult | Refusal]) -> list[str]:
    """Return what a user must know beside the verdicts: a suspended or inapplicable promise."""
    found = []
    if model.suspended:
        found.append(f"the certificate is suspended: {model.suspended}")
    parts = [result.part for result in results if isinstance(result, PartResult)]
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
    from lineside.core.report import render

    fitted: PartsModel = load_model(model)
    explanation: Explanation = explain_with_cnn(fitted, file, _cnn_beside(model))
    facts = Table(
        title="Numbers",
        columns=("quantity", "value"),
        rows=tuple(explanation.facts.items()),
        caption="Scores have no unit; higher is more faulty.",
    )
    page = render(
        title=f"{file.name}: what the model saw",
        kicker=f"model {fitted.identity}",
        summary=[explanation.text],
        sections=[Section(title="Evidence", blocks=(*explanation.figures, facts))],
        footer="Made by lineside on this machine; nothing in this file is loaded from elsewhere.",
    )
    write_bytes(out, page.encode())
    return explanation.text


def _cnn_beside(model: Path) -> PartsModel | None:
    """Return the patch CNN of the same run, which has guided backprop and Grad-CAM."""
    folder = model_folder(model).parent / "patch_cnn"
    found: PartsModel | None = load_model(folder) if (folder / "model.json").is_file() else None
    return found
