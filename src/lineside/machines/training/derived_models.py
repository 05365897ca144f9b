"""Children of a model: written beside it with what they used, never over it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineside.core.errors import UserError
from lineside.core.run.files import read_json
from lineside.core.run.model_store import load_model, model_folder, save_model
from lineside.core.run.tables import (
    USED_ROLES,
    UsedItem,
    read_split,
    read_used,
    used_text,
)
from lineside.machines.application import APPLICATION
from lineside.machines.config import Config
from lineside.machines.model import MachinesModel
from lineside.machines.training.learning_record import ledger_lines


def model_of(path: Path) -> MachinesModel:
    """Return the model of a run or a model folder.

    Raises:
        UserError: if there is none, or it is of another application.
    """
    model: MachinesModel = load_model(path, APPLICATION)
    return model


def parent_of(model: Path, out: Path) -> tuple[Path, MachinesModel]:
    """Return the folder and the content of the model that a child is made from.

    Raises:
        UserError: if the child's folder exists, or the model is of another application.
    """
    if out.exists():
        raise UserError(f"{out} exists already", "a model is never overwritten: choose another")
    folder = model_folder(model)
    return folder, model_of(folder)


def settings_of(folder: Path) -> Config:
    """Return the settings of a model's run; a child keeps them beside it."""
    places = [folder / "config.json", folder.parent.parent / "config.json"]
    found: dict[str, Any] = next((read_json(place) for place in places if place.exists()), {})
    known = {field.name for field in dataclasses.fields(Config)}
    kept: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in found.get("config", {}).items()
        if key in known
    }
    return Config(**kept)


def save_child(
    folder: Path,
    parent: MachinesModel,
    child: MachinesModel,
    machine: str,
    out: Path,
    used: Sequence[UsedItem] = (),
) -> list[str]:
    """Write a child as a whole or not at all, and return lines that say what it is.

    Args:
        folder: Of the parent.
        parent: The parent.
        child: The child.
        machine: The machine that changed.
        out: The child's folder.
        used: Rows of what it used beyond its parent.
    """
    told = [line for line in ledger_lines(child) if line.startswith(f"{machine}: ")]
    rows = [*_run_rows(folder), *read_used(folder), *used]
    settings = json.dumps({"config": dataclasses.asdict(settings_of(folder))}, indent=1)
    identity = save_model(
        out, "machines", child, parent=parent.identity, card=_card(parent, child),
        beside={"used.csv": used_text(rows), "config.json": settings},
    )  # fmt: skip
    return [told[-1], f"child model {identity} of {parent.identity} in {out}"]


def _run_rows(folder: Path) -> list[UsedItem]:
    """What the model's run used: the child may lie where the run's table is not found."""
    path = folder.parent.parent / "split.csv"
    if not path.exists():
        return []
    return [row for row in read_split(path) if row.role in USED_ROLES]


def _card(parent: MachinesModel, child: MachinesModel) -> str:
    lines = "\n".join(f"* {line}" for line in ledger_lines(child))
    return (
        f"# machines: {parent.method}, a machine learned on request\n\nMade from model "
        f"{parent.identity}; its id is in model.json. What was learned as normal:\n\n{lines}\n"
    )
