"""Boxes that lie beside the pictures: COCO (json), Pascal VOC (xml) and YOLO (txt + classes).

Conventions. COCO (Lin et al. 2014): ``bbox`` is left, top, width, height, 0-based; a polygon
without ``bbox`` counts by its bounding box. VOC (Everingham et al. 2010): corners are 1-based and
inclusive. YOLO: see `yolo`. Boxes refer to the size that the annotation declares: a picture
rescaled since then gets rescaled boxes, one of another shape is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lineside.core.errors import UserError
from lineside.parts.data.boxes import Marks, box_of, broken, fitted, text_of
from lineside.parts.data.items import DEFECT, Box, listed
from lineside.parts.data.yolo import yolo_marks

_Named = Mapping[str, Sequence[Path]]
"""Pictures by the stem of their name."""


def find_boxes(pictures: Sequence[Path], others: Sequence[Path]) -> dict[Path, tuple[Box, ...]]:
    """Return the boxes of every annotated picture, in pixels of the decoded picture.

    Args:
        pictures: The picture files.
        others: All other files of the data folder (json, xml, txt, yaml).

    Raises:
        UserError: for annotations that cannot be read, name missing pictures, or do not fit them.
    """
    named: dict[str, list[Path]] = {}
    for path in pictures:
        named.setdefault(path.stem, []).append(path)
    marks = {**yolo_marks(pictures, others), **_voc(named, others), **_coco(named, others)}
    return {path: fitted(path, found) for path, found in marks.items()}


# ---- COCO


def _coco(named: _Named, others: Sequence[Path]) -> dict[Path, Marks]:
    """Return the boxes of all COCO files; other JSON files are passed over."""
    found: dict[Path, Marks] = {}
    for source in others:
        if source.suffix.lower() != ".json":
            continue
        try:
            content = json.loads(text_of(source))
        except ValueError as error:
            raise broken(source, error) from error
        if isinstance(content, dict) and {"images", "annotations"} <= content.keys():
            found.update(_coco_marks(source, content, named))
    return found


def _coco_marks(source: Path, content: Mapping[str, Any], named: _Named) -> dict[Path, Marks]:
    try:
        kinds = {entry["id"]: str(entry["name"]) for entry in content.get("categories", ())}
        boxes: dict[Any, list[Box]] = {entry["id"]: [] for entry in content["images"]}
        for entry in content["annotations"]:
            boxes[entry["image_id"]] += _coco_box(entry, kinds)
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        sizes = {e["id"]: (e.get("width") or 0, e.get("height") or 0) for e in content["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise broken(source, f"{type(error).__name__} {error}") from error
    places = {key: _named(name, source, named) for key, name in names.items()}
    missing = [names[key] for key, path in places.items() if path is None]
    if missing:
        raise UserError(f"{source} names pictures that are not there: {listed(missing)}")
    return {
        path: Marks(
            source=source, boxes=tuple(boxes[key]), width=sizes[key][0], height=sizes[key][1]
        )
        for key, path in places.items()
        if path is not None
    }


def _coco_box(entry: Mapping[str, Any], kinds: Mapping[Any, str]) -> Iterator[Box]:
    if entry.get("bbox"):
        left, top, width, height = (float(value) for value in entry["bbox"])
        right, bottom = left + width, top + height
    else:
        points = [float(value) for polygon in entry["segmentation"] for value in polygon]
        left, right = min(points[::2]), max(points[::2])
        top, bottom = min(points[1::2]), max(points[1::2])
    return box_of(left, top, right, bottom, kinds[entry["category_id"]])


def _named(name: str, source: Path, named: _Named) -> Path | None:
    """Return the picture of that name: beside the annotation, or the only one that ends so."""
    parts = tuple(part for part in re.split(r"[\\/]", name) if part not in ("", "."))
    beside = source.parent.joinpath(*parts)
    same = named.get(Path(parts[-1]).stem, []) if parts else []
    ending = [p for p in same if p == beside] or [
        p for p in same if p.parts[-len(parts) :] == parts
    ]
    return ending[0] if len(ending) == 1 else None


# ---- Pascal VOC


def _voc(named: _Named, others: Sequence[Path]) -> dict[Path, Marks]:
    found: dict[Path, Marks] = {}
    for source in others:
        if source.suffix.lower() != ".xml":
            continue
        try:
            root = ElementTree.fromstring(text_of(source))
        except ElementTree.ParseError as error:
            raise broken(source, error) from error
        if root.tag != "annotation":
            continue
        name = root.findtext("filename") or source.stem
        path = _same_stem(source, named) or _named(name, source, named)
        if path is None:
            raise UserError(f"{source} belongs to no picture", "give both the same name")
        found[path] = _voc_marks(source, root)
    return found


def _same_stem(source: Path, named: _Named) -> Path | None:
    same = named.get(source.stem, [])
    anywhere = [p for p in same if p.parent == source.parent] or same
    return anywhere[0] if len(anywhere) == 1 else None


def _voc_marks(source: Path, root: ElementTree.Element) -> Marks:
    def number(element: ElementTree.Element, name: str) -> float:
        return float(element.findtext(name) or "nan")

    try:
        boxes = [
            box
            for entry in root.iter("object")
            for corners in entry.findall("bndbox")
            for box in box_of(
                number(corners, "xmin") - 1, number(corners, "ymin") - 1,
                number(corners, "xmax"), number(corners, "ymax"), entry.findtext("name") or DEFECT,
            )
        ]  # fmt: skip
        size = root.find("size")
        width = float(size.findtext("width") or 0) if size is not None else 0.0
        height = float(size.findtext("height") or 0) if size is not None else 0.0
    except ValueError as error:
        raise broken(source, error) from error
    if any(not box.left < box.right or not box.top < box.bottom for box in boxes):
        raise broken(source, "a box without area or with a missing corner")
    return Marks(source=source, boxes=tuple(boxes), width=width, height=height)
