"""The one exception that a user sees: one line that says what happened and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Something a user can fix: one line that says what happened, and a hint how to fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

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
