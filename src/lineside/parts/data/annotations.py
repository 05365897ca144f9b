"""Boxes that lie beside the pictures: COCO (json), Pascal VOC (xml) and YOLO (txt + classes).

Conventions. COCO (Lin et al. 2014): ``bbox`` is left, top, width, height, 0-based; a polygon
without ``bbox`` counts by its bounding box. VOC (Everingham et al. 2010): corners are 1-based and
inclusive. YOLO (Redmon et al. 2016, in the form that Ultralytics documents): one text file per
picture, of the same stem, beside it or in ``labels/`` where the picture lies in ``images/``; a line
is class, centre x, centre y, width, height as shares of the picture, or a class and a polygon. A
picture without a text file has no defect, unless other pictures say so by an empty one: then it is
not labelled. The class names stand in ``classes.txt``, ``obj.names`` or ``data.yaml``. Boxes refer
to the size that the annotation declares: a picture rescaled since then gets rescaled boxes, one of
another shape is an error. A coordinate that is not a number leaves the kind without a place.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lineside.core.errors import UserError
from lineside.core.run.files import check_file, parse_json
from lineside.parts.data.images import size_of
from lineside.parts.data.items import ASPECT_TOLERANCE, DEFECT, GOOD, Box, label_of, listed, plain

EDGE_TOLERANCE_PX = 2.0
LARGEST_BYTES = 512 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Marks:
    """The boxes of one picture as its annotation gives them.

    Attributes:
        source: The annotation file, named in errors.
        boxes: In pixels of the declared size, or in shares of the picture if that is (1, 1).
        width: Declared width, pixels; 0 if the annotation does not say.
        height: Declared height, pixels.
    """

    source: Path
    boxes: tuple[Box, ...]
    width: float = 0
    height: float = 0


def kind_of(boxes: Sequence[Box]) -> str:
    """Return the kind with most boxes (then the largest area, then the first name), or good."""
    if not boxes:
        return GOOD
    counts = Counter(box.kind for box in boxes)
    area: Counter[str] = Counter()
    for box in (box for box in boxes if box.usable):
        area[box.kind] += (box.right - box.left) * (box.bottom - box.top)  # type: ignore[assignment]
    return min(counts, key=lambda kind: (-counts[kind], -area[kind], kind))


def fitted(path: Path, marks: Marks) -> tuple[Box, ...]:
    """Scale boxes from the declared size to the picture's, and check that they lie inside.

    Raises:
        UserError: if the two sizes differ in shape, or a box lies outside.
    """
    try:
        height, width = size_of(path)
    except UserError:
        return marks.boxes  # the audit names the unreadable picture, the label is kept
    across, down = 1.0, 1.0
    if marks.width and marks.height:
        across, down = width / marks.width, height / marks.height
        relative = marks.width == marks.height == 1
        if not relative and abs(across / down - 1) > ASPECT_TOLERANCE:
            raise UserError(
                f"{marks.source} was made for {path.name} at {marks.width:g}x{marks.height:g}, "
                f"the picture is {width}x{height}: another shape",
                "annotate the picture as it is, or restore it (cropped? rotated by EXIF?)",
            )
    scaled = [
        replace(
            box, left=box.left * across, right=box.right * across,
            top=box.top * down, bottom=box.bottom * down,
        )
        for box in marks.boxes
    ]  # fmt: skip
    return tuple(_inside(box, width, height, path, marks) if box.usable else box for box in scaled)


def _inside(box: Box, width: int, height: int, path: Path, marks: Marks) -> Box:
    beyond = max(-box.left, -box.top, box.right - width, box.bottom - height)
    if beyond > EDGE_TOLERANCE_PX or box.right <= box.left or box.bottom <= box.top:
        corners = f"({box.left:g}, {box.top:g}, {box.right:g}, {box.bottom:g})"
        raise UserError(
            f"{marks.source}: box {corners} is empty or outside {path.name} ({width}x{height})",
            "correct the annotation",
        )
    return replace(
        box, left=max(box.left, 0.0), top=max(box.top, 0.0),
        right=min(box.right, float(width)), bottom=min(box.bottom, float(height)),
    )  # fmt: skip


def box_of(left: float, top: float, right: float, bottom: float, kind: str) -> Iterator[Box]:
    """Yield the box, or nothing if its category says that this place is good.

    Raises:
        UserError: for a category that may mean good or defective.
    """
    label = label_of(kind) if plain(kind) else DEFECT
    if label != GOOD:
        yield Box(left=left, top=top, right=right, bottom=bottom, kind=label)


def text_of(path: Path) -> str:
    """Return the content of an annotation file.

    Raises:
        UserError: if it cannot be read as text.
    """
    try:
        check_file(path, LARGEST_BYTES, "annotation")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}", "save it as UTF-8") from error


def broken(path: Path, error: object) -> UserError:
    """Return the error for an annotation file that does not keep to its format."""
    return UserError(f"{path} is not a valid annotation: {error}", "export it again")


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
            content = parse_json(text_of(source))
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
            for key, known in (("image_id", boxes), ("category_id", kinds)):
                if entry[key] not in known:
                    which = f"annotation {entry.get('id', '')}".strip()
                    raise ValueError(f"{which} has the unknown {key} {entry[key]!r}")
            boxes[entry["image_id"]] += _coco_box(entry, kinds)
        names = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        sizes = {
            entry["id"]: (float(entry.get("width") or 0), float(entry.get("height") or 0))
            for entry in content["images"]
        }
    except (ValueError, OverflowError) as error:
        raise broken(source, error) from error
    except (KeyError, TypeError, AttributeError) as error:
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
        left, top, right, bottom = _around(points[::2], points[1::2])
    return box_of(left, top, right, bottom, kinds[entry["category_id"]])


def _around(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a polygon; NaN where a corner is not a number."""
    if not all(map(math.isfinite, (*xs, *ys))):
        return math.nan, math.nan, math.nan, math.nan
    return min(xs), min(ys), max(xs), max(ys)


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
        text = element.findtext(name)
        if not text:
            raise ValueError(f"a box with a missing corner ({name})")
        return float(text)

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
    if any(b.usable and not (b.left < b.right and b.top < b.bottom) for b in boxes):
        raise broken(source, "a box without area")
    return Marks(source=source, boxes=tuple(boxes), width=width, height=height)


CLASS_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")


def yolo_marks(pictures: Sequence[Path], others: Sequence[Path]) -> dict[Path, Marks]:
    """Return the boxes of every picture, nothing if there are no classes or no text files.

    Where some pictures without a defect have an empty text file, one without any is left out.

    Raises:
        UserError: for a text file that does not keep to the format.
    """
    texts = {path for path in others if path.suffix.lower() == ".txt"}
    classes = _yolo_classes(others)
    places = {picture: _yolo_text(picture, texts) for picture in pictures}
    if classes is None or not any(places.values()):
        return {}
    content = {source: text_of(source) for source in places.values() if source is not None}
    empty_says_good = any(not text.strip() for text in content.values())
    return {
        picture: Marks(
            source=source or picture,
            boxes=tuple(_yolo_boxes(source, content[source], classes)) if source else (),
            width=1,
            height=1,
        )
        for picture, source in places.items()
        if source is not None or not empty_says_good
    }


def _yolo_classes(others: Iterable[Path]) -> list[str] | None:
    """Return the class names in order, or None if no file lists them."""
    for source in sorted(others, key=lambda path: (len(path.parts), path)):
        if source.name.lower() in CLASS_FILES or source.suffix.lower() == ".names":
            yaml = source.suffix.lower() == ".yaml"
            names = _yaml_names(text_of(source)) if yaml else text_of(source).split("\n")
            found = [name.strip().strip("'\"") for name in names]
            return [name for name in found if name]
    return None


def _yaml_names(text: str) -> list[str]:
    """Return the ``names`` of a data.yaml: ``[a, b]``, a list of ``- a`` or a map of ``0: a``."""
    inline = re.search(r"^names\s*:\s*\[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    if inline:
        return inline.group(1).split(",")
    block = re.search(r"^names\s*:\s*\n((?:[ \t]*(?:-|\d+\s*:)[^\n]*\n?)+)", text, re.MULTILINE)
    lines = block.group(1).splitlines() if block else []
    return [re.sub(r"^\s*(?:-|\d+\s*:)\s*", "", line) for line in lines]


def _yolo_text(picture: Path, texts: set[Path]) -> Path | None:
    """Return the text file beside a picture, or in ``labels/`` where it lies in ``images/``."""
    beside = picture.with_suffix(".txt")
    parts = list(picture.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() == "images":
            parts[at] = "labels"
            break
    swapped = Path(*parts).with_suffix(".txt")
    return next((path for path in (beside, swapped) if path in texts), None)


def _yolo_boxes(source: Path, text: str, classes: Sequence[str]) -> Iterator[Box]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield from _yolo_box(source, number, line.split(), classes)


def _yolo_box(
    source: Path, number: int, words: Sequence[str], classes: Sequence[str]
) -> Iterator[Box]:
    try:
        index = int(words[0])
        if not 0 <= index < len(classes):
            raise ValueError(f"class {index}, but the {len(classes)} classes are {listed(classes)}")
        values = [float(word) for word in words[1:]]
        if len(values) == 4:
            x, y, width, height = values
            xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
        else:
            raise ValueError("expected a class and 4 numbers, or a class and a polygon")
        left, top, right, bottom = _around(xs, ys)
        if max(right, bottom) > 1.01 or min(left, top) < -0.01:  # false for NaN
            raise ValueError("coordinates must be shares between 0 and 1")
    except ValueError as error:
        raise broken(source, f"line {number}: {error}") from error
    return box_of(left, top, right, bottom, classes[index])
