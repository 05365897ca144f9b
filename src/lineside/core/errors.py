"""The one exception that a user sees: one line that says what happened and how to fix it."""

from __future__ import annotations

import difflib
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that change a line or a terminal: control, format, surrogates, separators."""
BYTES = range(0xDC80, 0xDD00)
"""How Python writes the bytes of a file name that are not UTF-8 (PEP 383)."""


def printable(text: str) -> str:
    r"""Return a text on one line, what controls a terminal escaped: ``a\x1b[2J\n.png``.

    Names of files may hold line breaks, escape sequences and bytes that are not UTF-8; printed as
    they are they would forge lines, and no file could be written with them.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in CONTROL else c for c in text)


def _escaped(character: str) -> str:
    if ord(character) in BYTES:
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


class Note(UserWarning):
    """Something a user should know that stops nothing; the command line prints one line."""


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """Give a list that holds the notes of a block once it ends; they are told all the same."""
    notes: list[str] = []
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", Note)
            yield notes
    finally:
        notes += [str(told.message) for told in caught if issubclass(told.category, Note)]
        for told in caught:
            warnings.warn_explicit(told.message, told.category, told.filename, told.lineno)


class UserError(Exception):
    """Something a user can fix: one line that says what happened, and a hint how to fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = printable(message)
        self.hint = printable(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message} - {self.hint}" if self.hint else self.message


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the most similar known word, or ``""``."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def unknown_key(where: object, key: str, known: Sequence[str]) -> UserError:
    """Return the error for a key that a file or message must not have."""
    hint = did_you_mean(key, known).removeprefix(", ") or f"known keys: {', '.join(known)}"
    return UserError(f"{where} has the unknown key {key!r}", hint)
