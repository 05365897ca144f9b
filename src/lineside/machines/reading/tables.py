"""Tables of values: one row per snapshot, a first column of dates or seconds, named columns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import UserError
from lineside.machines.reading.sidecar import seconds_of
from lineside.machines.reading.text import Columns, read_columns

LABELS = ("anomaly", "fault", "label")
"""Columns of 0 and 1 that say what people know; they are no features."""
IGNORED = ("changepoint",)


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
    """Return True for a text file with a header and a first column of dates or seconds."""
    if path.suffix.lower() not in (".csv", ".txt"):
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = [line for _, line in zip(range(4), stream, strict=False)]
    if len(lines) < 2:
        return False
    cells = [line.replace(";", ",").replace("\t", ",").split(",") for line in lines]
    first = cells[1][0].strip()
    named = cells[0][0].strip().lower() in ("", "time", "timestamp", "datetime", "date", "seconds")
    return named and len(cells[0]) > 1 and (_is_date(first) or _is_number(first))


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


def _times(table: Columns, path: Path) -> NDArray[np.float64]:
    numbers = table.numbers(0)
    if np.isfinite(numbers).all():
        return numbers
    return np.array([seconds_of(cell.strip(), str(path)) for cell in table.cells[:, 0].tolist()])


def _is_date(cell: str) -> bool:
    try:
        seconds_of(cell, "")
    except UserError:
        return False
    return True


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
