"""The one exception that a user sees: one line that says what happened and how to fix it."""

from __future__ import annotations


class UserError(Exception):
    """Something a user can fix: one line that says what happened, and a hint how to fix it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} - {self.hint}" if self.hint else self.message
