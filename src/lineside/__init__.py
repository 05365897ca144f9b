"""lineside: deep learning at the side of the line.

Applications turn sensor input into decisions that a business can trust; this release holds one,
``parts``, industrial visual quality control. Nothing heavy is imported here, so that
``import lineside`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lineside.core.contract import Model

__version__ = "0.1.0"


def load(path: str | Path) -> Model:
    """Load a model from a run folder, or from one model folder inside it.

    Args:
        path: ``RUN`` (its chosen model is taken) or ``RUN/models/NAME``.

    Returns:
        A model with ``predict(files)`` and ``explain(file)``.

    Raises:
        UserError: if there is no model, or if a file is missing, altered or of a newer format.

    Example:
        >>> model = lineside.load("run")           # doctest: +SKIP
        >>> model.predict(["new/part_17.png"])     # doctest: +SKIP
    """
    from lineside.applications import load_model

    return load_model(path)
