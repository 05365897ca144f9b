"""The tables of a run: the role of every item (``split.csv``) and all outcomes (``outcomes.csv``).

A model that was updated or calibrated after its run keeps ``used.csv`` beside it, same columns.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lineside.core.contract import ROLES, Item, Outcome, Split
from lineside.core.errors import UserError
from lineside.core.run.files import check_file, finite, sha256, sha256_of_file, write_bytes
from lineside.core.run.model_store import file_beside
from lineside.core.run.status import run_file

FITTED_ROLES = ("train", "validation", "taught")
USED_ROLES = (*FITTED_ROLES, "calibration")
LARGEST_TABLE = 8 * 2**30


class UsedItem(NamedTuple):
    """One row of ``split.csv`` or ``used.csv``; `groups` are a JSON list in the file."""

    item: str
    sha256: str
    locator: str
    groups: tuple[str, ...]
    label: str
    role: str


OUTCOME_COLUMNS = ("method", "role", "item", "groups", "unit", "slices", "value", "details")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; names that are not UTF-8 are escaped."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def hash_sources(items: Iterable[Item]) -> dict[Path, str]:
    """Return the SHA-256 of every file that items lie in; each file is read once."""
    return {path: sha256_of_file(path) for path in {item.source.path for item in items}}


def used_items(
    items: Sequence[Item], role: str, hashes: Mapping[Path, str] | None = None
) -> list[UsedItem]:
    """Return the rows of items that a model has learned from, or was calibrated on."""
    known = hash_sources(items) if hashes is None else hashes
    return [
        UsedItem(i.id, known[i.source.path], i.source.locator, i.groups, i.label, role)
        for i in items
    ]


def write_split(path: Path, split: Split, hashes: Mapping[Path, str] | None = None) -> None:
    """Write one row per item; `hashes` are those of `hash_sources`, if they are known."""
    rows = [row for role in ROLES for row in used_items(split.role(role), role, hashes)]
    write_text(path, used_text(rows))


def used_text(rows: Sequence[UsedItem]) -> str:
    """Return the text of ``used.csv``."""
    return _text(
        UsedItem._fields,
        [row._replace(groups=json.dumps(row.groups)) for row in rows],  # type: ignore[arg-type]
    )


def read_used(model_folder: Path) -> list[UsedItem]:
    """Return what a model has used since its run; nothing for most models.

    Raises:
        UserError: if the table was altered, or has other columns.
    """
    path = file_beside(model_folder, "used.csv")
    return read_split(path) if path is not None else []


def refuse_known(
    items: Sequence[Item], model_folder: Path, roles: Sequence[str] = USED_ROLES
) -> None:
    """Refuse items that a model was made with, by content, and groups that it was updated with.

    Args:
        items: What is to be judged or calibrated on.
        model_folder: ``RUN/models/NAME``; its run's split and what it used later count.
        roles: What counts as used: for a calibration only what was fitted on.

    Raises:
        UserError: if there is one; with their number and the first id.
    """
    split = run_file(model_folder.parent.parent, "split.csv")
    rows = [*(read_split(split) if split is not None else []), *read_used(model_folder)]
    used = {(row.sha256, row.locator) for row in rows if row.role in roles}
    # Other items of a group that updated the model resemble it; a group named like its item
    # is no real name.
    groups = {g for row in rows if row.role == "taught" for g in row.groups if g != row.item}
    hashes = hash_sources(items)
    known = [
        item.id
        for item in items
        if groups & set(item.groups) or (hashes[item.source.path], item.source.locator) in used
    ]
    if known:
        raise UserError(
            f"{len(known)} of {len(items)} items were used to make this model (first: {known[0]})",
            "give items that it has never seen",
        )


def familiar(items: Sequence[Item], model_folder: Path) -> str:
    """Return a note if items carry names of groups that a model was fitted on, else ``""``.

    Other items of a fitted group make numbers too good, but equal names may also be chance.
    """
    split = run_file(model_folder.parent.parent, "split.csv")
    if split is None:
        return "no split.csv lies beside this model: whether it has seen these items is unknown"
    rows = [row for row in read_split(split) if row.role in FITTED_ROLES]
    groups = {group for row in rows for group in row.groups if group != row.item}
    known = sum(bool(groups & set(item.groups)) for item in items)
    if not known:
        return ""
    return (
        f"{known} of {len(items)} items carry names of groups that the model was fitted on; if "
        "they are the same pieces, these numbers are too good"
    )


def read_split(path: Path) -> list[UsedItem]:
    """Read ``split.csv`` or ``used.csv``.

    Raises:
        UserError: if the table has other columns.
    """
    rows = _rows(
        path, UsedItem._fields, "used items of this version",
        "copy the run again, or train it again with this version",
    )  # fmt: skip
    try:
        return [UsedItem(**{**row, "groups": tuple(json.loads(row["groups"]))}) for row in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}", "copy the run again") from error


def write_outcomes(path: Path, outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]]) -> None:
    """Write the outcomes of all methods: method -> role -> outcomes."""
    rows = [row for method, by_role in outcomes.items() for row in _outcome_rows(method, by_role)]
    write_text(path, _text(OUTCOME_COLUMNS, rows))


def outcomes_hash(method: str, by_role: Mapping[str, Sequence[Outcome]]) -> str:
    """Return the SHA-256 of the rows of one method; it is the same for what was read back."""
    return sha256(
        _text(OUTCOME_COLUMNS, _outcome_rows(method, by_role)).encode(errors="backslashreplace")
    )


def _outcome_rows(
    method: str, by_role: Mapping[str, Sequence[Outcome]]
) -> list[tuple[str, str, str, str, str, str, str, str]]:
    return [
        (
            method,
            role,
            outcome.item,
            json.dumps(outcome.groups),
            outcome.unit,
            json.dumps(dict(outcome.slices), sort_keys=True),
            json.dumps(finite(dict(outcome.value)), sort_keys=True),
            json.dumps(finite(outcome.details)),
        )
        for role in sorted(by_role)
        for outcome in by_role[role]
    ]


def read_outcomes(path: Path) -> dict[str, dict[str, list[Outcome]]]:
    """Read what `write_outcomes` wrote.

    Raises:
        UserError: if the table has other columns, or is damaged.
    """
    try:
        return _read_outcomes(path)
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}", "remove it and run again") from error


def _read_outcomes(path: Path) -> dict[str, dict[str, list[Outcome]]]:
    found: dict[str, dict[str, list[Outcome]]] = {}
    for row in _rows(path, OUTCOME_COLUMNS, "outcomes", "remove it and run again"):
        roles = found.setdefault(row["method"], {"calibration": [], "test": []})
        roles.setdefault(row["role"], []).append(
            Outcome(
                item=row["item"],
                groups=tuple(json.loads(row["groups"])),
                unit=row["unit"],
                slices=json.loads(row["slices"]),
                value={
                    key: float("nan") if value is None else float(value)
                    for key, value in json.loads(row["value"]).items()
                },
                details=tuple(json.loads(row["details"])),
            )
        )
    return found


def _rows(path: Path, columns: Sequence[str], what: str, hint: str) -> list[dict[str, Any]]:
    """Return the rows of a table with exactly these columns."""
    try:
        check_file(path, LARGEST_TABLE, "table")
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != columns:
                raise UserError(f"{path} is not a table of {what}", hint)
            return [{name: row[name] for name in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}", hint) from error


def _text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
