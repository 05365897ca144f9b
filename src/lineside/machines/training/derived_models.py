"""Derived models: a copy of a model with one machine changed, saved beside it, never over it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError
from lineside.core.run.files import read_json
from lineside.core.run.model_store import file_beside, load_model, model_folder, save_model
from lineside.core.run.status import run_file
from lineside.core.run.tables import USED_ROLES, UsedItem, read_split, read_used, used_text
from lineside.machines.application import APPLICATION
from lineside.machines.config import Config
from lineside.machines.model import MachinesModel
from lineside.machines.training.learning_record import learning_record_lines


def load_parent(model: Path, out: Path) -> tuple[Path, MachinesModel]:
    """Return the folder and the content of the model to derive from.

    Raises:
        UserError: if the output folder exists, or the model is of another application.
    """
    if out.exists():
        raise UserError(
            f"{out} exists already", "a model is never overwritten: choose another --out"
        )
    folder = model_folder(model)
    return folder, load_model(folder, APPLICATION)


def load_settings(folder: Path) -> Config:
    """Return the settings of a model's run; a derived model has a copy of them in its folder."""
    path = file_beside(folder, "config.json") or run_file(folder.parent.parent, "config.json")
    content: dict[str, Any] = read_json(path) if path is not None else {}
    names = {field.name for field in dataclasses.fields(Config)}
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in content.get("config", {}).items()
        if key in names
    }
    return Config(**settings)


def save_derived_model(
    folder: Path,
    parent: MachinesModel,
    model: MachinesModel,
    machine: str,
    out: Path,
    used: Sequence[UsedItem] = (),
) -> list[str]:
    """Save a derived model completely or not at all, and return lines that describe it.

    Args:
        folder: Folder of the parent.
        parent: The parent.
        model: The derived model.
        machine: The machine that changed.
        out: Folder of the derived model.
        used: Rows of the snapshots that it used in addition to those of its parent.
    """
    entries = [line for line in learning_record_lines(model) if line.startswith(f"{machine}: ")]
    rows = [*_run_rows(folder), *read_used(folder), *used]
    settings = json.dumps({"config": dataclasses.asdict(load_settings(folder))}, indent=1)
    identity = save_model(
        out, "machines", model, parent=parent.identity, card=_card(parent, model),
        beside={"used.csv": used_text(rows), "config.json": settings},
    )  # fmt: skip
    return [entries[-1], f"derived model {identity} of {parent.identity} in {out}"]


def _run_rows(folder: Path) -> list[UsedItem]:
    """Snapshots that the model's run used: a derived model may lie away from the run's table."""
    path = run_file(folder.parent.parent, "split.csv")
    if path is None:
        return []
    return [row for row in read_split(path) if row.role in USED_ROLES]


def _card(parent: MachinesModel, model: MachinesModel) -> str:
    lines = "\n".join(f"* {line}" for line in learning_record_lines(model))
    return (
        f"# machines: {parent.method}, derived model\n\nDerived from model {parent.identity}; its "
        f"own id is in model.json. What was learned as normal:\n\n{lines}\n"
    )
