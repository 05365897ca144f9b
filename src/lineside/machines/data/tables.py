"""Tables of slow values: one row per snapshot, dates or seconds in the first column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.core.run.table_reader import (
    Columns,
    number_of,
    read_columns,
    read_lines,
    separator_of,
)
from lineside.machines.data.recording import seconds_since_1970
from lineside.machines.data.sidecar import seconds_of

LABELS = ("anomaly", "fault", "label")
"""Names of columns with known labels (0 healthy, 1 faulty); they are not features."""
IGNORED = ("changepoint",)
"""Other columns of published data sets that are not features."""
TIME_NAMES = (
    "", "time", "timestamp", "datetime", "date", "seconds", "zeit", "zeitstempel", "datum",
)  # fmt: skip
DIGITS = re.compile(r"\d{1,4}[-./]")
SHORTEST_STEP = 0.02
"""Seconds; shorter steps belong to the samples of a waveform."""
HEAD_BYTES, HEAD_LINES = 65536, 8


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Slow values of one machine.

    Attributes:
        times: Seconds in the order of the file, duplicates included, shape (row,).
        values: NaN where nothing was measured, shape (row, column).
        names: Name of each column.
        faulty: 1 faulty, 0 healthy, NaN unknown, shape (row,).
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    faulty: NDArray[np.float64]


def is_table(path: Path) -> bool:
    """Return True for a text file with a header and dates or seconds in its first column."""
    if path.suffix.lower() not in (".csv", ".txt"):
        return False
    try:
        lines = [line for line in read_lines(path, most=HEAD_BYTES) if line.strip()][:HEAD_LINES]
    except UserError:
        return False
    if len(lines) < 2:
        return False
    rows = [line.split(separator_of(lines[0])) for line in lines]
    first = [row[0].strip().strip('"') for row in rows]
    if first[0].lower() not in TIME_NAMES or len(rows[0]) < 2:
        return False
    times = np.array([_seconds(cell) for cell in first[1:]])
    steps = np.diff(times[np.isfinite(times)])
    if len(steps):
        return not 0 < float(np.median(steps)) < SHORTEST_STEP
    return bool(np.isfinite(times).any()) or any(DIGITS.match(cell) for cell in first[1:])


@lru_cache(maxsize=8)
def read_table(path: Path) -> ValueTable:
    """Read a table.

    Raises:
        UserError: if it is empty, ragged, or its first column is neither dates nor seconds.
    """
    table = read_columns(path)
    times = _times(table, path)
    columns = {name: table.numbers(index) for index, name in enumerate(table.names) if index > 0}
    labels = [name for name in columns if name.strip().lower() in LABELS]
    names = [n for n in columns if n not in labels and n.strip().lower() not in IGNORED]
    names = [n for n in names if not np.isnan(columns[n]).all()]
    if not names:
        raise UserError(f"{path} has no column of numbers beside its times", "check the separator")
    return ValueTable(
        times=times,
        values=np.stack([columns[name] for name in names], axis=1),
        names=tuple(name.strip() for name in names),
        faulty=columns[labels[0]] if labels else np.full(len(times), np.nan),
    )


def _seconds(cell: str) -> float:
    """Seconds of a number or a date, NaN for anything else."""
    number = number_of(cell.replace(",", "."))
    if not np.isnan(number):
        return number
    try:
        return seconds_of(cell, "")
    except UserError:
        return np.nan


def _times(table: Columns, path: Path) -> NDArray[np.float64]:
    """Return the seconds of every row, shape (row,), NaN for rows without a time.

    Raises:
        UserError: if no row has one.
    """
    numbers = table.numbers(0)
    if np.isfinite(numbers).any():
        return seconds_since_1970(np.where(np.isfinite(numbers), numbers, np.nan))
    times = np.full(len(numbers), np.nan)
    first_error: UserError | None = None
    for row, cell in enumerate(table.cells[:, 0].tolist()):
        try:
            times[row] = seconds_of(cell.strip(), str(path))
        except UserError as error:
            first_error = first_error or error
    if first_error is not None and np.isnan(times).all():
        raise first_error
    return times
