"""The tables of a run: which item had which role (``split.csv``), what was said of it.

A model that learned or was calibrated after its run keeps ``used.csv`` beside it, same columns.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Outcome, Split
from lineside.core.errors import UserError
from lineside.core.run.files import finite, sha256_of_file, write_bytes

SPLIT_COLUMNS = ("item", "sha256", "group", "label", "role")
OUTCOME_COLUMNS = ("method", "role", "item", "group", "slices", "value")
FITTED_ROLES = ("train", "validation", "taught")
USED_ROLES = (*FITTED_ROLES, "calibration")

UsedRow = tuple[str, str, str, str, str]
"""A row of ``split.csv`` or ``used.csv``, see `SPLIT_COLUMNS`."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_split(path: Path, split: Split) -> None:
    """Write one row per item: id, file hash, group, label and role."""
    _write(
        path,
        SPLIT_COLUMNS,
        [
            (item.id, sha256_of_file(item.path), item.group, item.label, role)
            for role, item in split.rows()
        ],
    )


def read_split(path: Path) -> list[UsedRow]:
    """Read what `write_split` or `used_text` wrote.

    Raises:
        UserError: if the table has other columns.
    """
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != SPLIT_COLUMNS:
            raise UserError(f"{path} is not a table of used items", "copy the run again")
        return [(r["item"], r["sha256"], r["group"], r["label"], r["role"]) for r in reader]


def used_rows(items: Sequence[Any], role: str) -> list[UsedRow]:
    """Return the rows of items that a model has learned from, or was calibrated on."""
    return [(item.id, sha256_of_file(item.path), item.group, item.label, role) for item in items]


def used_text(rows: Sequence[UsedRow]) -> str:
    """Return the text of ``used.csv``."""
    return _text(SPLIT_COLUMNS, rows)


def read_used(model_folder: Path) -> list[UsedRow]:
    """Return what a model has used since its run; nothing for most models.

    Raises:
        UserError: if the table has other columns.
    """
    path = model_folder / "used.csv"
    return read_split(path) if path.exists() else []


def refuse_known(
    items: Sequence[Any], model_folder: Path, roles: Sequence[str] = USED_ROLES
) -> None:
    """Refuse items that a model was made with, by content, and parts that it was taught.

    Args:
        items: What is to be judged or calibrated on.
        model_folder: ``RUN/models/NAME``; its run's split and what it used later count.
        roles: What counts as used: for a calibration only what was fitted on.

    Raises:
        UserError: if there is one; with their number and the first id.
    """
    split = model_folder.parent.parent / "split.csv"
    rows = [*(read_split(split) if split.exists() else []), *read_used(model_folder)]
    files = {sha for _, sha, _, _, role in rows if role in roles}
    # Other pictures of a taught part resemble it; a group named like its item is no real name.
    groups = {group for item, _, group, _, role in rows if role == "taught" and group != item}
    known = [i.id for i in items if i.group in groups or sha256_of_file(i.path) in files]
    if known:
        raise UserError(
            f"{len(known)} of {len(items)} items were used to make this model (first: {known[0]})",
            "give items that it has never seen",
        )


def familiar(items: Sequence[Any], model_folder: Path) -> str:
    """Return a note if items carry names of groups that a model was fitted on, else ``""``.

    Other pictures of a fitted part make numbers too good, but equal names may also be chance.
    """
    split = model_folder.parent.parent / "split.csv"
    if not split.exists():
        return "no split.csv lies beside this model: whether it has seen these items is unknown"
    rows = read_split(split)
    groups = {group for item, _, group, _, role in rows if role in FITTED_ROLES and group != item}
    known = sum(item.group in groups for item in items)
    if not known:
        return ""
    return (
        f"{known} of {len(items)} items carry names of groups that the model was fitted on; if "
        "they are the same pieces, these numbers are too good"
    )


def write_outcomes(path: Path, outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]]) -> None:
    """Write the outcomes of all methods: method -> role -> outcomes."""
    rows = [
        (
            method,
            role,
            outcome.item,
            outcome.group,
            json.dumps(dict(outcome.slices), sort_keys=True),
            json.dumps(finite(dict(outcome.value)), sort_keys=True),
        )
        for method, by_role in outcomes.items()
        for role, found in by_role.items()
        for outcome in found
    ]
    _write(path, OUTCOME_COLUMNS, rows)


def read_outcomes(path: Path) -> dict[str, dict[str, list[Outcome]]]:
    """Read what `write_outcomes` wrote.

    Raises:
        UserError: if the table has other columns.
    """
    found: dict[str, dict[str, list[Outcome]]] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != OUTCOME_COLUMNS:
            raise UserError(f"{path} is not a table of outcomes", "remove it and run again")
        for row in reader:
            roles = found.setdefault(row["method"], {"calibration": [], "test": []})
            roles.setdefault(row["role"], []).append(
                Outcome(
                    item=row["item"],
                    group=row["group"],
                    slices=json.loads(row["slices"]),
                    value={
                        key: float("nan") if value is None else float(value)
                        for key, value in json.loads(row["value"]).items()
                    },
                )
            )
    return found


def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    write_text(path, _text(columns, rows))


def _text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
