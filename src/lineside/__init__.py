"""lineside: deep learning at the side of the line.

Applications turn sensor input into decisions that a business can trust: `parts` (visual quality
control) and `machines` (condition monitoring). Nothing heavy is imported here, so that
``import lineside`` stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lineside.core.predictor import Predictor

__version__ = "0.2.0"


def load(path: str | Path) -> Predictor:
    """Load a model from a run folder, or from one model folder inside it.

    Args:
        path: ``RUN`` (its chosen model is taken) or ``RUN/models/NAME``.

    Returns:
        A `Predictor` with ``predict(files)``, ``explain(file)`` and ``session()``, whatever the
        application.

    Raises:
        UserError: if there is no model, or if a file is missing, altered or of another format.

    Example:
        >>> predictor = lineside.load("run")           # doctest: +SKIP
        >>> predictor.predict(["new/part_17.png"])     # doctest: +SKIP
    """
    from lineside.applications import application
    from lineside.core.predictor import load_predictor
    from lineside.core.run.model_store import application_of

    return load_predictor(path, application(application_of(path)))
