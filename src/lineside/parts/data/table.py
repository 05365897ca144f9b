"""Read a table of pictures: a CSV with the columns path and label, and more where known.

Columns: ``path`` and ``mask`` (relative to the table), ``label``, ``part``, ``split``, ``lot``,
and any number of ``rater``, ``rater_1``, ``rater:ANNA``. Every other column becomes a slice that
the report shows apart.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from lineside.core.errors import UserError, did_you_mean
from lineside.core.run.table_reader import read_named_rows
from lineside.parts.data.items import NO_LABEL, PartImage, label_of, listed, plain, role_of

REQUIRED = ("path", "label")
KNOWN = ("path", "label", "part", "split", "mask", "lot")
CHECKED_FOR_TYPOS = ("path", "label", "part", "split", "mask")
OTHER_NAMES = {
    "file": "path", "filename": "path", "file_name": "path", "image": "path", "picture": "path",
    "class": "label", "kind": "label", "category": "label", "defect": "label",
}  # fmt: skip
TYPO_CUTOFF = 0.8

Row = Mapping[str, str]


def read_table(source: Path) -> list[PartImage]:
    """Return one item per row, in the order of the table.

    Raises:
        UserError: for a table that cannot be read, a missing or misspelt column, a missing file,
            a row without a label; files that are missing are listed.
    """
    columns, rows = read_named_rows(source, _column)
    slices = _check_columns(source, columns)
    if not rows:
        raise UserError(f"{source} holds no rows", "one row per picture: path,label")
    folder = _Folder(source.parent)
    _check_files(source, rows, folder)
    return [_item(source, number, row, slices, folder) for number, row in enumerate(rows, start=2)]


def _column(cell: str) -> str:
    """Return a known column in its one spelling, a rater with its name, others as written."""
    name = cell.strip()
    if name.casefold().startswith("rater"):
        return "rater:" + (name[5:].lstrip(" :_-") or "rater")
    return plain(name) if plain(name) in KNOWN else name


def _check_columns(source: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that become slices.

    Raises:
        UserError: for a missing, doubled or misspelt column.
    """
    doubled = {name for name in columns if columns.count(name) > 1 or not name}
    if doubled:
        raise UserError(f"{source} has column {min(doubled)!r} twice or without a name")
    others = [c for c in columns if c not in KNOWN and not c.startswith("rater:")]
    for name in REQUIRED:
        if name not in columns:
            synonyms = [c for c in others if OTHER_NAMES.get(plain(c)) == name]
            meant = f", did you mean {synonyms[0]!r}?" if synonyms else did_you_mean(name, others)
            hint = f"its columns are {', '.join(columns)}"
            raise UserError(f"{source} has no column {name!r}{meant}", hint)
    for column in others:
        close = difflib.get_close_matches(plain(column), CHECKED_FOR_TYPOS, n=1, cutoff=TYPO_CUTOFF)
        if close and close[0] not in columns:
            raise UserError(
                f"{source} has an unknown column {column!r}, did you mean {close[0]!r}?",
                f"known are {', '.join(KNOWN)}, rater:NAME; rename it if it is a slice",
            )
    return tuple(others)


class _Folder:
    """Finds files below a folder, also in another Unicode form or case; each folder read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[Path, dict[str, str]] = {}

    def find(self, cell: str) -> Path | None:
        """Return the file that a cell names, or None."""
        for spelling in (cell, cell.replace("\\", "/")):
            path = self.root / spelling
            try:
                found = path if path.is_file() else self._alike(path)
            except OSError:  # a name that is too long, a folder that may not be read
                found = None
            if found is not None:
                return found
        return None

    def _alike(self, path: Path) -> Path | None:
        folder = path.parent
        if folder not in self.names:
            entries = folder.iterdir() if folder.is_dir() else ()
            self.names[folder] = {_folded(entry.name): entry.name for entry in entries}
        name = self.names[folder].get(_folded(path.name))
        return folder / name if name is not None and (folder / name).is_file() else None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _check_files(source: Path, rows: Sequence[Row], folder: _Folder) -> None:
    for column in ("path", "mask"):
        cells = [row[column] for row in rows if row.get(column)]
        missing = [cell for cell in cells if folder.find(cell) is None]
        if missing:
            raise UserError(
                f"{source}: {len(missing)} of {len(cells)} files in column {column!r} do not "
                f"exist: {listed(missing)}",
                f"paths are relative to {folder.root}",
            )


def _item(source: Path, number: int, row: Row, slices: Sequence[str], folder: _Folder) -> PartImage:
    path = folder.find(row["path"]) if row["path"] else None
    if path is None or not row["label"]:
        raise UserError(f"{source} row {number} has no path or no label", "fill in both")
    ratings = {c[6:]: cell for c, cell in row.items() if c.startswith("rater:")}
    inside = path.is_relative_to(folder.root)
    name = (path.relative_to(folder.root) if inside else path).as_posix()
    try:
        return PartImage(
            id=name,
            path=path,
            label=label_of(row["label"]),
            part=row.get("part") or name,
            mask=folder.find(row["mask"]) if row.get("mask") else None,
            role=role_of(row.get("split", "")),
            lot=row.get("lot", ""),
            raters={
                r: label_of(cell) for r, cell in ratings.items() if plain(cell) not in NO_LABEL
            },
            slices={column: row[column] for column in slices},
        )
    except UserError as error:
        raise UserError(f"{source} row {number}: {error.message}", error.hint) from error
