"""YOLO text files: class, centre x, centre y, width, height as shares of the picture.

One text file per picture, of the same stem (Redmon et al. 2016, in the form that Ultralytics
documents): beside it, or in ``labels/`` where the picture lies in ``images/``. A line may hold a
polygon instead of a box. A picture without a text file has no defect. The class names stand in
``classes.txt``, ``obj.names`` or ``data.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lineside.parts.data.boxes import Marks, box_of, broken, text_of
from lineside.parts.data.items import Box

CLASS_FILES = ("classes.txt", "obj.names", "data.yaml", "dataset.yaml")


def yolo_marks(pictures: Sequence[Path], others: Sequence[Path]) -> dict[Path, Marks]:
    """Return the boxes of every picture, nothing if there are no classes or no text files.

    Raises:
        UserError: for a text file that does not keep to the format.
    """
    texts = {path for path in others if path.suffix.lower() == ".txt"}
    classes = _yolo_classes(others)
    places = {picture: _yolo_text(picture, texts) for picture in pictures}
    if classes is None or not any(places.values()):
        return {}
    return {
        picture: Marks(
            source=source or picture,
            boxes=tuple(_yolo_boxes(source, classes)) if source else (),
            width=1,
            height=1,
        )
        for picture, source in places.items()
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


def _yolo_boxes(source: Path, classes: Sequence[str]) -> Iterator[Box]:
    for number, line in enumerate(text_of(source).splitlines(), start=1):
        if line.strip():
            yield from _yolo_box(source, number, line.split(), classes)


def _yolo_box(
    source: Path, number: int, words: Sequence[str], classes: Sequence[str]
) -> Iterator[Box]:
    try:
        kind = classes[int(words[0])]
        values = [float(word) for word in words[1:]]
        if len(values) == 4:
            x, y, width, height = values
            xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[::2], values[1::2]
        else:
            raise ValueError("expected a class and 4 numbers, or a class and a polygon")
        if max(*xs, *ys) > 1.01 or min(*xs, *ys) < -0.01:
            raise ValueError("coordinates must be shares between 0 and 1")
    except (ValueError, IndexError) as error:
        raise broken(source, f"line {number}: {error}") from error
    return box_of(min(xs), min(ys), max(xs), max(ys), kind)
