"""One image of a physical part as an item of a data set, and the words that label it.

Paths and labels, never pixels. Folder names, table cells and categories go through `label_of` and
`role_of`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lineside.core.contract import ROLES, Source
from lineside.core.errors import UserError, did_you_mean, printable

GOOD = "good"
DEFECT = "defect"
GOOD_WORDS = frozenset(
    (
        "good", "ok", "okay", "normal", "free", "fine", "pass", "passed", "intact", "healthy",
        "undamaged", "gut", "io", "i_o", "accepted", "accept", "defect_free", "no_defect",
        "no_defects", "non_defective", "nondefective", "no_fault",
    )
)  # fmt: skip
DEFECT_WORDS = frozenset(
    (
        "defect", "defects", "defective", "bad", "nok", "not_ok", "n_ok", "nio", "n_i_o", "ng",
        "not_good", "no_good", "fault", "faulty", "fail", "failed", "anomaly", "anomalies",
        "anomalous", "abnormal", "reject", "rejected", "schlecht", "fehler",
    )
)  # fmt: skip
ROLE_WORDS = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "cal": "calibration", "calib": "calibration", "calibration": "calibration",
    "test": "test", "testing": "test", "holdout": "test",
}  # fmt: skip
ASPECT_TOLERANCE = 0.02
"""Pictures whose ratios of width to height differ by less are alike but for their scale."""
AMBIGUOUS = frozenset({"0", "1", "true", "false", "yes", "no", "positive", "negative", "none"})
NO_LABEL = frozenset(
    (
        "", "nan", "na", "n_a", "null", "unlabelled", "unlabeled", "not_labelled", "not_labeled",
        "unannotated", "unsorted", "todo",
    )
)  # fmt: skip
"""What programs and people write where there is no label; never a kind of defect."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A labelled rectangle in pixels of the decoded image; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float
    kind: str = DEFECT

    @property
    def usable(self) -> bool:
        """False if a coordinate is not a number: then only its kind is known."""
        return all(map(math.isfinite, (self.left, self.top, self.right, self.bottom)))


@dataclass(frozen=True, kw_only=True)
class IgnoreFile:
    """The mask of an ignored region, see `ignored`; its hash makes it part of a run's data."""

    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PartImage:
    """One image of one part.

    Attributes:
        id: Stable name, the path relative to the data folder in POSIX form, fit to be printed.
        path: Where the picture lies.
        label: ``"good"``, or the kind of defect (``"crack"``), or ``""`` if unknown (prediction).
        part: The physical piece; several views or exposures share it.
        mask: PNG mask of the defect, values over 127 are defect; None if there is none.
        boxes: Labelled rectangles where no mask exists.
        role: A split role the data prescribe (``train`` ... ``test``), or ``""``.
        lot: Coarser unit (lot, shift, tool) that is never split between roles, or ``""``.
        raters: Further people's labels by rater name.
        slices: Further columns, reported apart (e.g. ``{"exposure": "3"}``).
        ignore: Mask of what does not count in a training; later the model has it.
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
    ignore: IgnoreFile | None = None

    def __post_init__(self) -> None:
        """Make its names fit for one line, a table and a page; `path` stays as it is."""
        for name in ("id", "label", "part", "lot"):
            object.__setattr__(self, name, printable(getattr(self, name)))
        for name in ("raters", "slices"):
            pairs = getattr(self, name).items()
            object.__setattr__(self, name, {printable(k): printable(v) for k, v in pairs})

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


def plain(text: str) -> str:
    """Return a word in one spelling: Unicode composed, lower case, underscores between words."""
    words = unicodedata.normalize("NFC", text).casefold()
    return "_".join("".join(c if c.isalnum() else " " for c in words).split())


def label_of(text: str) -> str:
    """Return ``"good"``, ``"defect"`` or the kind of defect that a word names.

    Raises:
        UserError: for words like 0, 1, yes, positive, whose meaning differs from plant to plant,
            and for those that say that there is no label.
    """
    word = plain(text)
    if word in NO_LABEL:
        raise UserError(f"{text!r} is no label", "write 'good', or the kind of defect")
    if word in GOOD_WORDS:
        return GOOD
    if word in DEFECT_WORDS:
        return DEFECT
    if word in AMBIGUOUS:
        raise UserError(
            f"label {text!r} may mean good or defective", "write 'good', or the kind of defect"
        )
    return word


def role_of(text: str) -> str:
    """Return the split role that a word names, ``""`` for an empty one.

    Raises:
        UserError: for another word, with the nearest role.
    """
    word = plain(text)
    if not word or word in ROLE_WORDS:
        return ROLE_WORDS.get(word, "")
    raise UserError(
        f"{text!r} is no split role{did_you_mean(word, ROLE_WORDS)}",
        f"roles are {', '.join(ROLES)}",
    )


def listed(names: Iterable[object], most: int = 5) -> str:
    """Return the first names and how many more there are, for one line of an error."""
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
