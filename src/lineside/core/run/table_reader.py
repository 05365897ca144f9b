"""Tables that users write: CSV and other text, whatever program saved it.

`read_named_rows` reads named columns of text, `read_columns` columns of numbers with decimal points
or commas, with or without a header. The tables of a run itself are in `tables`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.core.run.files import check_file

SEPARATORS = (";", "\t", ",", " ")
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
"""First bytes by which an encoding tells itself."""
DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+([eE][-+]?\d+)?")
SAVE_AS = "save it as CSV in UTF-8"
LARGEST_BYTES = 200_000_000
"""Text takes some ten times its size in memory."""
LARGEST_FILE = 2**62
"""Of a file of which only the first lines are read."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """A text file as columns.

    Attributes:
        names: Header, or ``column_0`` ... without one; a name that comes again gets a number.
        cells: Every cell, shape (row, column): text, or numbers where all of them are.
        header: Whether the file has a header.
    """

    names: tuple[str, ...]
    cells: NDArray[Any]
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
        UserError: if it is empty, too large, is no text, or its rows differ in length.
    """
    lines = [line for line in read_lines(path) if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty", "remove it, or copy it again")
    separator = _separator(lines[-1])
    quick = _numbers_only(lines, separator)
    if quick is not None:
        return quick
    rows = _split(lines, separator)
    header = _is_header(rows[0])
    names = [cell.strip() for cell in rows[0]] if header else []
    body = rows[1:] if header else rows
    if not body:
        raise UserError(f"{path} has a header and no rows", "remove it, or copy it again")
    _check_widths(path, body, names)
    cells = np.array(body, dtype=np.str_)
    if any(('"' if separator == "," else ",") in line for line in lines):
        cells = np.char.replace(cells, ",", ".")  # within a cell it is a decimal sign
    width = cells.shape[1]
    return Columns(names=distinct(names or _numbered(width)), cells=cells, header=header)


def read_named_rows(
    path: Path, column: Callable[[str], str] = str.strip
) -> tuple[list[str], list[dict[str, str]]]:
    """Read a table of text with a header.

    Args:
        path: CSV in UTF-8 or UTF-16, separated by commas, semicolons or tabs.
        column: Brings a name of the header to its one spelling.

    Returns:
        The names of the columns, and each row as stripped cells by name; empty rows are left out.

    Raises:
        UserError: if it cannot be read, is empty, or its rows differ in length.
    """
    text = read_text(path, guess=False)
    first = text.lstrip("\r\n").partition("\n")[0]
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(first))
        table = [row for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"{path} is not a table: {error}", SAVE_AS) from error
    if not table:
        raise UserError(f"{path} is empty", "its first row names the columns")
    names = [column(cell) for cell in table[0]]
    for number, row in enumerate(table[1:], start=2):
        if len(row) != len(names):
            raise UserError(
                f"{path} row {number} has {len(row)} cells, the header has {len(names)}",
                "quote cells that hold the separator",
            )
    return names, [dict(zip(names, map(str.strip, row), strict=True)) for row in table[1:]]


def separator_of(header: str) -> str:
    """Return the separator of a table, the most frequent one of its header."""
    return max(";\t,", key=header.count)


def read_lines(path: Path, most: int | None = None) -> list[str]:
    """Return the lines of a text file, see `read_text`."""
    return read_text(path, most).splitlines()


def read_text(path: Path, most: int | None = None, *, guess: bool = True) -> str:
    """Return a text file in UTF-8, UTF-16 with its mark, or Windows-1252 (Latin-1 and more).

    Args:
        path: The file.
        most: Stop reading after about this many bytes.
        guess: Whether what is neither UTF-8 nor UTF-16 is read as Windows-1252; numbers are the
            same in every code page, names of files are not. These may hold control characters.

    Raises:
        UserError: if it cannot be read, is too large, or no text.
    """
    try:
        size = check_file(path, LARGEST_FILE, "text file")
        if most is None and size > LARGEST_BYTES:
            raise UserError(
                f"{path} holds {size / 1e9:.1f} GB of text",
                "split it, or save it as NPZ",
            )
        with path.open("rb") as stream:
            content = stream.read(-1 if most is None else most)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "check the path") from error
    coding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8")
    if coding != "utf-16" and b"\0" in content:
        _refuse_zeros(path, content)
    try:
        text = content.decode(coding, errors="strict" if most is None else "ignore")
    except UnicodeDecodeError as error:
        if not guess:
            raise UserError(f"{path} cannot be read: {error}", SAVE_AS) from error
        text = content.decode("cp1252", errors="replace")
    # names may hold control characters, numbers may not
    if guess and any(ord(sign) < 32 and sign not in "\t\r\n\f\v" for sign in text[:4096]):
        raise UserError(f"{path} is no text file", SAVE_AS)
    return text


def _refuse_zeros(path: Path, content: bytes) -> None:
    cut = content.rstrip(b"\0")
    if b"\0" not in cut and cut:
        raise UserError(
            f"{path} ends in {len(content) - len(cut)} zero bytes",
            "it was cut off while it was written: copy it again",
        )
    raise UserError(f"{path} is no text file", SAVE_AS)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names with a number where one comes again, so that no column is lost."""
    seen: Counter[str] = Counter()
    found: list[str] = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(found)


def number_of(cell: str) -> float:
    """Return the number of a cell, NaN for anything else."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _numbers_only(lines: Sequence[str], separator: str) -> Columns | None:
    """Read a table that holds nothing but numbers, which most do, some times faster."""
    first = _split(lines[:1], separator)[0]
    header = _is_header(first)
    body = lines[1:] if header else lines
    if not body:
        return None
    if separator != "," and any("," in line for line in body[-1:]):
        body = [line.replace(",", ".") for line in body]
    delimiter = None if separator == " " else separator
    try:
        cells = np.loadtxt(body, np.float64, delimiter=delimiter, comments=None, ndmin=2)
    except (ValueError, UserWarning):
        return None
    if not cells.size or (header and cells.shape[1] != len(first)):
        return None
    names = [cell.strip() for cell in first] if header else _numbered(cells.shape[1])
    return Columns(names=distinct(names), cells=cells, header=header)


def _numbered(width: int) -> list[str]:
    return [f"column_{place}" for place in range(width)]


def _split(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Return the cells of every line; a separator at the end of all lines is no column."""
    if separator == "," or any('"' in line for line in lines):
        reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
        rows = [[cell for cell in row if cell or separator != " "] for row in reader]
    elif separator == " ":
        rows = [line.split() for line in lines]
    else:
        rows = [line.split(separator) for line in lines]
    if all(len(row) > 1 and not row[-1].strip() for row in rows):
        return [row[:-1] for row in rows]
    return rows


def _is_header(row: Sequence[str]) -> bool:
    """Whether a first row holds names: no numbers, and not nothing but missing numbers."""
    missing = all(cell.strip().lower() in ("", "nan", "na", "null", "none") for cell in row)
    return not missing and not any(_is_number(cell) for cell in row)


def _check_widths(path: Path, body: Sequence[Sequence[str]], names: Sequence[str]) -> None:
    """Refuse rows of different lengths, and say where the first odd one is."""
    counts = Counter(len(row) for row in body)
    usual = len(names) or counts.most_common(1)[0][0]
    odd = next((place for place, row in enumerate(body) if len(row) != usual), None)
    if odd is None:
        return
    number = odd + 1 + bool(names)
    whole = "the header" if names else "most rows"
    raise UserError(
        f"{path}: line {number} has {len(body[odd])} columns, {whole} {usual}",
        "every row needs the same columns; a short last line means that it was cut off"
        if odd == len(body) - 1
        else "every row needs the same columns",
    )


def _separator(line: str) -> str:
    if all(DECIMAL_COMMA.fullmatch(cell) for cell in line.split()) and len(line.split()) > 1:
        return "\t" if "\t" in line.strip() else " "
    found = [s for s in SEPARATORS if s in line.strip(" ")]
    return found[0] if found else ","


def _is_number(cell: str) -> bool:
    return not np.isnan(number_of(cell.strip().replace(",", ".")))
