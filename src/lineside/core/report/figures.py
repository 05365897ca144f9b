"""Report figures that a method draws right after its fit, stored until the report is written.

A model holds no training data, and a resumed run does not fit again: figures of the training
itself are drawn once, when the fit ends, and stored as ``figures/METHOD.json``.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lineside.core.contract import Figure
from lineside.core.run.files import sha256_of_file
from lineside.core.run.seal import read_sealed, write_sealed


def save_figures(run_folder: Path, method: str, figures: Sequence[Figure]) -> None:
    """Store the figures of one method, in the order of reading; earlier ones are replaced."""
    rows = [
        {**dataclasses.asdict(figure), "image": base64.b64encode(figure.image).decode()}
        for figure in figures
    ]
    write_sealed(_path(run_folder, method), {"figures": rows})


def load_figures(run_folder: Path, method: str) -> list[Figure]:
    """Return what `save_figures` stored, or an empty list.

    Raises:
        UserError: if it was altered.
    """
    path = _path(run_folder, method)
    hint = f"remove it and models/{method} to fit the method again"
    rows = read_sealed(path, hint)["figures"] if path.exists() else []
    return [Figure(**{**row, "image": base64.b64decode(row["image"])}) for row in rows]


def figures_hash(run_folder: Path, method: str) -> str:
    """Return the SHA-256 of what `save_figures` stored, ``""`` if there is nothing."""
    path = _path(run_folder, method)
    return sha256_of_file(path) if path.is_file() else ""


def _path(run_folder: Path, method: str) -> Path:
    return run_folder / "figures" / f"{method}.json"
