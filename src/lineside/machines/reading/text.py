"""Numbers in text files: any separator, decimal commas, with or without a header."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import UserError

SEPARATORS = (";", "\t", ",", " ")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A text file as columns.

    Attributes:
        names: Header, or ``column_0`` ... without one.
        cells: Text of every cell, shape (row, column).
        header: Whether the file has a header.
    """

    names: tuple[str, ...]
    cells: NDArray[np.str_]
    header: bool

    def numbers(self, place: int) -> NDArray[np.float64]:
        """Return a column as numbers; what is none becomes NaN."""
        column = self.cells[:, place]
        try:
            return column.astype(np.float64)
        except ValueError:
            return np.array([number_of(cell) for cell in column.tolist()])


def read_columns(path: Path) -> Columns:
    """Read a text file of one table.

    Raises:
        UserError: if it is empty, is no text, or its rows differ in length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is no text file", "give CSV, WAV, MAT, NPZ, TDMS or UFF"
        ) from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty", "remove it, or copy it anew")
    separator = _separator(lines[-1])
    if separator == ",":  # the quick way; quotes are rare
        rows = list(csv.reader(io.StringIO("\n".join(lines))))
    else:
        rows = [line.strip().split(None if separator == " " else separator) for line in lines]
    comma = separator != ","
    header = not any(_is_number(cell, comma) for cell in rows[0])
    names = tuple(cell.strip() for cell in rows[0]) if header else ()
    body = rows[1:] if header else rows
    widths = {len(row) for row in body}
    if not body:
        raise UserError(f"{path} has a header and no rows", "remove it, or copy it anew")
    if len(widths) > 1 or (header and widths != {len(names)}):
        raise UserError(
            f"{path}: rows have {sorted(widths)} columns, the header {len(names)}"
            if header
            else f"{path}: rows have {sorted(widths)} columns",
            "every row needs the same columns",
        )
    cells = np.array(body, dtype=np.str_)
    if comma:
        cells = np.char.replace(cells, ",", ".")
    width = cells.shape[1]
    return Columns(
        names=names or tuple(f"column_{i}" for i in range(width)), cells=cells, header=header
    )


def number_of(cell: str) -> float:
    """Return the number of a cell, NaN for anything else."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _separator(line: str) -> str:
    found = [s for s in SEPARATORS if s in line.strip()]
    return found[0] if found else ","


def _is_number(cell: str, comma: bool) -> bool:
    return not np.isnan(number_of(cell.strip().replace(",", ".") if comma else cell.strip()))
