"""The one list of applications; their packages are imported only when they are asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from lineside.core.errors import UserError

if TYPE_CHECKING:
    from lineside.core.contract import Application

APPLICATIONS = {
    "parts": "Is this part faulty, and where? Industrial quality control from images.",
    "scores": "What music is on this page? Music scanning.",
    "machines": "Is this machine still healthy? Condition monitoring from vibration.",
}
"""Help by name. ``lineside.NAME.application.APPLICATION`` is the record."""


def application(name: str) -> Application:
    """Return the record of an application.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in APPLICATIONS:
        raise UserError(
            f"there is no application {name!r}", f"this version knows {', '.join(APPLICATIONS)}"
        )
    found: Application = importlib.import_module(f"lineside.{name}.application").APPLICATION
    return found
