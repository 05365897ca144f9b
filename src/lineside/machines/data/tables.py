"""Tables of values: one row per snapshot, a first column of dates or seconds, named columns."""

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
"""Columns of 0 and 1 that say what people know; they are no features."""
IGNORED = ("changepoint",)
TIME_NAMES = (
    "", "time", "timestamp", "datetime", "date", "seconds", "zeit", "zeitstempel", "datum",
)  # fmt: skip
DIGITS = re.compile(r"\d{1,4}[-./]")
SHORTEST_STEP = 0.02
HEAD_BYTES, HEAD_LINES = 65536, 8


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Slow values of one machine.

    Attributes:
        times: Seconds, shape (row,), as they stand in the file: order and copies included.
        values: Shape (row, column); NaN where nothing was measured.
        names: Name of each column.
        faulty: 1 faulty, 0 healthy, NaN unknown, shape (row,).
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]
    names: tuple[str, ...]
    faulty: NDArray[np.float64]


def is_table(path: Path) -> bool:
    """Return True for a text file with a header and a first column of dates or seconds.

    Steps of less than a fiftieth of a second belong to the samples of a waveform.
    """
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
    numbers = {name: table.numbers(place) for place, name in enumerate(table.names) if place > 0}
    known = [name for name in numbers if name.strip().lower() in LABELS]
    kept = [n for n in numbers if n not in known and n.strip().lower() not in IGNORED]
    kept = [n for n in kept if not np.isnan(numbers[n]).all()]
    if not kept:
        raise UserError(f"{path} has no column of numbers beside its times", "check the separator")
    return ValueTable(
        times=times,
        values=np.stack([numbers[name] for name in kept], axis=1),
        names=tuple(name.strip() for name in kept),
        faulty=numbers[known[0]] if known else np.full(len(times), np.nan),
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
    """Seconds of every row, NaN where there is no time; some time there must be."""
    numbers = table.numbers(0)
    if np.isfinite(numbers).any():
        return seconds_since_1970(np.where(np.isfinite(numbers), numbers, np.nan))
    found = np.full(len(numbers), np.nan)
    fault: UserError | None = None
    for row, cell in enumerate(table.cells[:, 0].tolist()):
        try:
            found[row] = seconds_of(cell.strip(), str(path))
        except UserError as error:
            fault = fault or error
    if fault is not None and np.isnan(found).all():
        raise fault
    return found
