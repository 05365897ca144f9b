"""Unlabelled pictures to predict: files, folders, and the rows of a CSV table."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lineside.core.errors import UserError
from lineside.core.run.table_reader import read_named_rows
from lineside.parts.config import Config
from lineside.parts.data.images import SUFFIXES, tell_unread, unread
from lineside.parts.data.items import PartImage


def sources(files: Sequence[Path], config: Config) -> list[PartImage]:
    """Return pictures: given ones as they are, those of folders sorted, those of CSV rows.

    A file that is missing or unreadable is an item too: it is refused when it is decoded.

    Raises:
        UserError: if a folder holds no picture, a table has no column ``path``, or the pattern
            of the config is not a regular expression with a group.
    """
    check_pattern(config.part_pattern)
    items: list[PartImage] = []
    for path in files:
        if path.suffix.lower() == ".csv" and not os.path.isdir(path):
            items += sources_of_table(path, config.part_pattern)
        else:
            items += [unlabelled(file, config.part_pattern) for file in find_files([path])]
    return items


def unlabelled(path: Path, pattern: str) -> PartImage:
    """Return a picture as an item; its part is found in the file name, else it is its own."""
    return PartImage(id=str(path), path=path, label="", part=part_of(path, pattern))


def part_of(path: Path, pattern: str) -> str:
    """Return what a pattern finds in a file name, the path where it finds nothing.

    Args:
        path: The picture.
        pattern: Regular expression; its group ``part``, or else its first group, is the part.
    """
    match = re.search(pattern, path.name, re.DOTALL) if pattern else None
    if match is None:
        return str(path)
    group = "part" if "part" in match.groupdict() else 1
    return match[group] or str(path)


def check_pattern(pattern: str) -> None:
    """Refuse a pattern that cannot name a part.

    Raises:
        UserError: if it is no regular expression, or has no group.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        what = f"--part-pattern {pattern!r} is not valid: {error}"
        raise UserError(what, "e.g. '(.*)_view'") from error
    if pattern and not groups:
        raise UserError(f"--part-pattern {pattern!r} has no group", "bracket the part")


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Return files as they are given, and the pictures of folders, sorted.

    Raises:
        UserError: if a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        skipped: Counter[str] = Counter()
        # Path.is_dir raises for a name that is too long, which is refused with its item
        below = sorted(pictures_in(path, skipped)) if os.path.isdir(path) else [path]
        tell_unread(path, skipped)
        if not below:
            raise UserError(f"{path} holds no images", f"images end in {', '.join(SUFFIXES)}")
        found += below
    return found


def pictures_in(folder: Path, skipped: Counter[str] | None = None) -> list[Path]:
    """Return the pictures of a folder and its subfolders; hidden ones are left out.

    Args:
        folder: The folder.
        skipped: Gets the numbers of files with other endings, see `unread`.
    """
    found = []
    for place, below, names in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        shown = [name for name in names if not name.startswith(".")]
        found += [Path(place, name) for name in shown if name.lower().endswith(SUFFIXES)]
        if skipped is not None:
            skipped.update(unread(shown))
    return found


def sources_of_table(table: Path, pattern: str) -> list[PartImage]:
    """Return the pictures that a table names: column ``path``, and ``part`` if it is there.

    Paths are relative to the table.

    Raises:
        UserError: if the table cannot be read, or has no column ``path`` or no rows.
    """
    columns, rows = read_named_rows(table, lambda name: name.strip().casefold())
    if "path" not in columns:
        raise UserError(f"{table} has no column 'path'", "columns: path, and part if known")
    if not rows:
        raise UserError(f"{table} holds no rows", "one row per picture")
    items = []
    for row in rows:
        path = table.parent / row["path"]
        part = row.get("part", "") or part_of(path, pattern)
        items.append(PartImage(id=str(path), path=path, label="", part=part))
    return items
