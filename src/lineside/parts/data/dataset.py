"""Read labelled pictures from a folder or a table."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.parts.audit.same_part import propose_parts
from lineside.parts.audit.survey import survey
from lineside.parts.config import Config
from lineside.parts.data.folders import read_folder
from lineside.parts.data.grouping import has_parts, named_parts
from lineside.parts.data.images import SUFFIXES, digest, ignore_file
from lineside.parts.data.items import PartImage
from lineside.parts.data.table import read_table

TABLES = ("parts.csv", "labels.csv")


def read_items(data: Path, config: Config) -> Sequence[PartImage | Refusal]:
    """Read a data set for training: items that can be used, refusals for those that cannot.

    Every picture is decoded once. Where the data name no parts, they are found from the pictures.
    A mask or boxes that cannot be used are refused too; their picture is an item by its label.

    Raises:
        UserError: if nothing usable is there.
    """
    listed_items = read(data, config)
    surveyed = survey(listed_items)
    refusals = surveyed.refusals
    refused = {refusal.item for refusal in refusals}
    items: Sequence[PartImage] = [item for item in listed_items if item.id not in refused]
    if not any(not item.faulty for item in items):
        first = f" (first: {refusals[0].message})" if refusals else ""
        raise UserError(f"{data} holds no readable good part{first}", "check the files")
    if not has_parts(items):
        items = propose_parts(items)
    return [*items, *refusals, *surveyed.unplaced]


def read(data: Path, config: Any) -> tuple[PartImage, ...]:
    """Return the items of a folder or table, in order of id.

    Args:
        data: A CSV, a folder with ``parts.csv`` or ``labels.csv``, or a folder as `read_folder`
            understands it.
        config: Its ``part_pattern`` finds the part in a file name; without it the part is what
            the table says, else every picture is a part of its own. Its ``ignore`` is the mask
            of what does not count.

    Raises:
        UserError: if nothing usable is there; one line that says what and where.
    """
    data = Path(data)
    try:
        items = named_parts(_read(data), getattr(config, "part_pattern", ""))
    except PermissionError as error:
        raise UserError(f"{error.filename or data} cannot be read", "check permissions") from error
    items = _once(items)
    if ignore := getattr(config, "ignore", ""):
        file = ignore_file(Path(ignore))
        items = [dataclasses.replace(item, ignore=file) for item in items]
    if len(items) == 1:
        raise UserError(f"{data} holds only one picture", "give at least two good parts")
    if all(item.faulty for item in items):
        raise UserError(
            f"{data} holds {len(items)} pictures of defects and no good parts",
            "good parts show what is normal: put them into good/, or label them good",
        )
    return tuple(sorted(items, key=lambda item: item.id))


def _read(data: Path) -> list[PartImage]:
    if data.is_dir():
        if not os.access(data, os.R_OK | os.X_OK):
            raise UserError(f"{data} cannot be read", "check its permissions")
        tables = [data / name for name in TABLES if (data / name).is_file()]
        return read_table(tables[0]) if tables else read_folder(data)
    if not data.exists():
        raise UserError(f"{data} does not exist", "give a folder of pictures, or a table (CSV)")
    if data.suffix.lower() in SUFFIXES:
        raise UserError(f"{data} is one picture", "give its folder, or a table (CSV)")
    if data.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UserError(f"{data} is neither a folder nor a CSV", "give one of them")
    return read_table(data)


def _once(items: Sequence[PartImage]) -> list[PartImage]:
    """Make one item of a path that is listed twice, or in two Unicode forms or cases.

    Raises:
        UserError: if the two are labelled differently, or are different pictures.
    """
    kept: dict[str, PartImage] = {}
    for item in items:
        key = unicodedata.normalize("NFC", item.id).casefold()
        first = kept.setdefault(key, item)
        if first is item:
            continue
        if first.label != item.label:
            raise UserError(
                f"{item.id} is listed as {first.label!r} and as {item.label!r}", "keep one row"
            )
        if first.path != item.path and digest(first.path) != digest(item.path):
            raise UserError(
                f"{first.id} and {item.id} are different pictures, but differ only in case or "
                "Unicode form",
                "rename one of them",
            )
    return list(kept.values())
