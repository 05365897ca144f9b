"""The tables of a run: which item had which role (``split.csv``), what was said of it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Outcome, Split, UserError
from lineside.core.files import finite, sha256_of_file, write_bytes

SPLIT_COLUMNS = ("item", "sha256", "group", "label", "role")
OUTCOME_COLUMNS = ("method", "role", "item", "group", "slices", "value")
USED_ROLES = ("train", "validation", "calibration")


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


def refuse_known(items: Sequence[Any], model_folder: Path) -> None:
    """Refuse items that a model was fitted or calibrated on.

    Raises:
        UserError: if there is one; with their number and the first id.
    """
    path = model_folder.parent.parent / "split.csv"
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as stream:
        used = {row["sha256"] for row in csv.DictReader(stream) if row["role"] in USED_ROLES}
    known = [item.id for item in items if sha256_of_file(item.path) in used]
    if known:
        raise UserError(
            f"{len(known)} of {len(items)} items were used to make this model (first: {known[0]})",
            "give items that it has never seen",
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
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
