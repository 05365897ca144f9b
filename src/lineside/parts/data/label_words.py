"""Which words mean good, defective, or a role: in folder names, table cells and categories."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from lineside.core.contract import ROLES
from lineside.core.errors import UserError, did_you_mean
from lineside.parts.data.items import DEFECT, GOOD

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
AMBIGUOUS = frozenset({"0", "1", "true", "false", "yes", "no", "positive", "negative"})


def plain(text: str) -> str:
    """Return a word in one spelling: Unicode composed, lower case, underscores between words."""
    words = unicodedata.normalize("NFC", text).casefold()
    return "_".join("".join(c if c.isalnum() else " " for c in words).split())


def label_of(text: str) -> str:
    """Return ``"good"``, ``"defect"`` or the kind of defect that a word names.

    Raises:
        UserError: for words like 0, 1, yes, positive, whose meaning differs from plant to plant.
    """
    word = plain(text)
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
