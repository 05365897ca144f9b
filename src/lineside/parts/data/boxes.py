"""Labelled rectangles: from what an annotation declares to pixels of the decoded picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lineside.core.errors import UserError
from lineside.parts.data.images import size_of
from lineside.parts.data.items import DEFECT, GOOD, Box, label_of

ASPECT_TOLERANCE = 0.02
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
    for box in boxes:
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
    return tuple(_inside(box, width, height, path, marks) for box in scaled)


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
    label = label_of(kind) or DEFECT
    if label != GOOD:
        yield Box(left=left, top=top, right=right, bottom=bottom, kind=label)


def text_of(path: Path) -> str:
    """Return the content of an annotation file.

    Raises:
        UserError: if it cannot be read as text.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise UserError(f"{path} is too large for an annotation", "split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}", "save it as UTF-8") from error


def broken(path: Path, error: object) -> UserError:
    """Return the error for an annotation file that does not keep to its format."""
    return UserError(f"{path} is not a valid annotation: {error}", "export it again")
