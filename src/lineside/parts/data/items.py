"""What `parts` judges: one image of a physical part. Paths and labels, never pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lineside.core.contract import Source

GOOD = "good"
DEFECT = "defect"


@dataclass(frozen=True, kw_only=True)
class Box:
    """A labelled rectangle in pixels of the decoded image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float
    kind: str = DEFECT


@dataclass(frozen=True, kw_only=True)
class PartImage:
    """One image of one part.

    Attributes:
        id: Stable name, the path relative to the data folder in POSIX form.
        path: Where the picture lies.
        label: ``"good"``, or the kind of defect (``"crack"``), or ``""`` if unknown (prediction).
        part: The physical piece; several views or exposures share it.
        mask: PNG mask of the defect, values over 127 are defect; None if there is none.
        boxes: Labelled rectangles where no mask exists.
        role: A split role the data prescribe (``train`` ... ``test``), or ``""``.
        lot: Coarser unit (lot, shift, tool) that is never split between roles, or ``""``.
        raters: Further people's labels by rater name.
        slices: Further columns, reported apart (e.g. ``{"exposure": "3"}``).
    """

    id: str
    path: Path
    label: str
    part: str
    mask: Path | None = None
    boxes: tuple[Box, ...] = ()
    role: str = ""
    lot: str = ""
    raters: Mapping[str, str] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """The picture's file."""
        return Source(self.path)

    @property
    def groups(self) -> tuple[str]:
        """The independent group: the lot where given (its parts are alike), else the part."""
        return (self.lot or self.part,)

    @property
    def faulty(self) -> bool:
        """True if the image is labelled with any kind of defect."""
        return self.label not in ("", GOOD)
