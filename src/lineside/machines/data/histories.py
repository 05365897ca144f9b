"""Finding the snapshots of a data folder: which machine, at which time, in which file.

Layouts: ``DATA/MACHINE/files`` (one snapshot per file, or a history as NPZ), ``DATA/MACHINE.npz``,
and ``DATA/MACHINE.csv`` (a table of values). A ``machine.json`` in a folder says that all its files
belong to one machine, named like the folder, and has facts about it (`sidecar`); where it cannot be
used, that machine is refused. Snapshots are sorted by time; duplicates are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Refusal
from lineside.core.errors import UserError
from lineside.machines.data.formats import SUFFIXES, read_recording
from lineside.machines.data.items import FAULTY, HEALTHY, UNKNOWN, Snapshot
from lineside.machines.data.recording import Recording
from lineside.machines.data.sidecar import NAME, Sidecar, read_sidecar
from lineside.machines.data.tables import is_table, read_table

DATE = re.compile(
    r"(\d{4})[-._]?(\d{2})[-._]?(\d{2})[-._T ]?(\d{2})[-._:]?(\d{2})(?:[-._:]?(\d{2}))?"
)
COUNTER = re.compile(r"(\d+)(?!.*\d)")
"""The last number in a file name."""
DAY = 86400.0
NOTES = ("SOURCE", "README", "LICENSE", "LICENCE")
"""Names of files for people, with any suffix."""
UNREAD = (
    ".xlsx", ".xls", ".ods", ".h5", ".hdf5", ".parquet", ".bin", ".mf4", ".zip", ".gz", ".7z",
)  # fmt: skip
"""File types that people export and that are refused with a hint."""


def find_snapshots(data: Path) -> list[Snapshot | Refusal]:
    """Return every snapshot of a folder (or of one file), and a refusal for what cannot be used.

    Raises:
        UserError: if it does not exist, or has nothing that could be a snapshot.
    """
    if not data.exists():
        raise UserError(f"{data} does not exist", "check the path of the data")
    items: list[Snapshot | Refusal] = []
    for machine, files in machines_in(data):
        try:
            sidecar = read_sidecar(files[0].parent)
        except UserError as error:  # of this machine: the others are read
            message = f"machine {machine} is left out: {error.message}"
            refused = files[0].parent / NAME
            items.append(Refusal(item=str(refused), message=message, hint=error.hint))
            continue
        items += _read_history(machine, files, sidecar)
    items += _refuse_unread(data)
    if not items:
        raise UserError(
            f"{data} has no snapshots",
            "one folder per machine with CSV, WAV, MAT, NPZ, TDMS or UFF files, or a table per "
            "machine",
        )
    return items


def snapshots_of(path: Path, machine: str, sidecar: Sidecar) -> list[Snapshot]:
    """Return the snapshots of one file.

    Raises:
        UserError: if it cannot be read, or the times of its snapshots are not known.
    """
    if is_table(path):
        read_table.cache_clear()  # cached by path alone, and this table may have grown
        table = read_table(path)
        return [
            _snapshot(machine, float(time), path, index, sidecar, faulty)
            for index, (time, faulty) in enumerate(zip(table.times, table.faulty, strict=True))
        ]
    times = _times(path, read_recording(path), sidecar)
    return [
        _snapshot(machine, float(time), path, index, sidecar) for index, time in enumerate(times)
    ]


def time_of_name(name: str) -> float | None:
    """Return the seconds of a date and time in a file name, e.g. ``2004.02.12.10.32.39``."""
    match = DATE.search(name)
    if match is None:
        return None
    try:
        date = datetime(*(int(part or 0) for part in match.groups()), tzinfo=UTC)  # type: ignore[misc,arg-type]
    except ValueError:
        return None
    return date.timestamp()


def machines_in(data: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield each machine of a folder (or of one file) with its files, at least one."""
    if data.exists() and not data.is_dir():  # a folder that went away raises below
        has_sidecar = (data.parent / NAME).exists()
        yield data.parent.name if has_sidecar else data.stem, [data]
        return
    files = _files(data)
    if (data / NAME).exists():
        if files:
            yield data.resolve().name, files
        return
    folders = _folders(data)
    for path in files:
        if _is_machine_file(path):
            yield path.stem, [path]
    others = [path for path in files if not _is_machine_file(path)]
    if others and not folders:  # the folder itself is one machine
        yield data.name, others
    for folder in folders:
        files = _files(folder)
        if files:
            yield folder.name, files


def _files(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir())
        if p.exists() and not p.is_dir() and not p.name.startswith(".") and p.name != NAME
        and (p.suffix.lower() in SUFFIXES or DATE.search(p.name)) and p.stem.upper() not in NOTES
    ]  # fmt: skip


def _folders(data: Path) -> list[Path]:
    return [p for p in sorted(data.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _is_machine_file(path: Path) -> bool:
    """Whether a file holds a whole machine: a table of values, or a history."""
    return is_table(path) or path.suffix.lower() == ".npz"


def _read_history(
    machine: str, files: Sequence[Path], sidecar: Sidecar
) -> list[Snapshot | Refusal]:
    """Return the snapshots of a machine in order of time, one per time, and refusals."""
    snapshots: list[Snapshot] = []
    refusals: list[Refusal] = []
    for path in sorted(files, key=_file_order):
        try:
            snapshots += snapshots_of(path, machine, sidecar)
        except UserError as error:
            refusals.append(Refusal(item=str(path), message=error.message, hint=error.hint))
    if sidecar.interval_seconds is None:
        snapshots = _add_days(snapshots, sidecar)
    timed = [s for s in snapshots if math.isfinite(s.time)]
    refusals += [
        _refuse(s, "has no time", "add its time") for s in snapshots if not math.isfinite(s.time)
    ]
    times: set[float] = set()
    history: list[Snapshot | Refusal] = []
    for snapshot in sorted(timed, key=lambda s: (s.time, str(s.path), s.index)):
        if snapshot.time in times:
            hint = "the first one is used; remove the copy, or correct its time"
            refusals.append(_refuse(snapshot, "is a second snapshot of the same time", hint))
            continue
        times.add(snapshot.time)
        history.append(snapshot)
    return [*history, *refusals]


def _refuse(snapshot: Snapshot, problem: str, hint: str) -> Refusal:
    item = f"{snapshot.path}[{snapshot.index}]"
    return Refusal(item=item, message=f"{item} of {snapshot.machine} {problem}", hint=hint)


def _file_order(path: Path) -> tuple[int, str]:
    """Files sort by the number in their name, with or without leading zeros."""
    counter = COUNTER.search(path.stem) if time_of_name(path.name) is None else None
    return (int(counter.group(1)) if counter else 0, str(path))


def _add_days(snapshots: Sequence[Snapshot], sidecar: Sidecar) -> list[Snapshot]:
    """Add a day at each midnight, for files in order that have times of day without a date."""
    is_clock = all(0 <= s.time < DAY and time_of_name(s.path.name) is None for s in snapshots)
    if not is_clock or len({s.path for s in snapshots}) < len(snapshots) or len(snapshots) < 2:
        return list(snapshots)
    times = np.array([s.time for s in snapshots])
    times += DAY * np.cumsum(np.diff(times, prepend=times[0]) < -DAY / 2)
    return [
        _snapshot(s.machine, float(time), s.path, s.index, sidecar)
        for s, time in zip(snapshots, times, strict=True)
    ]


def _refuse_unread(data: Path) -> list[Refusal]:
    """Return refusals for files that are not read, so that none is ignored silently."""
    if not data.is_dir():
        return []
    is_machine = (data / NAME).exists()
    folders = [] if is_machine else _folders(data)
    refusals = []
    for path in _files(data) if folders else ():
        if not _is_machine_file(path):
            message = f"{path} lies beside the folders of machines and is not read"
            hint = "move it into one of them"
            refusals.append(Refusal(item=str(path), message=message, hint=hint))
    for folder in (data, *folders):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in UNREAD and path.is_file():
                message = f"{path} is of a type that is not read"
                hint = "save it as CSV, WAV, MAT, NPZ, TDMS or UFF"
                refusals.append(Refusal(item=str(path), message=message, hint=hint))
    return refusals


def _times(path: Path, recording: Recording, sidecar: Sidecar) -> NDArray[np.float64]:
    """Return the times of a file's snapshots, shape (snapshot,).

    They are those in the file, that of its name, or the number in its name times the interval of
    the sidecar. A time of day without a date is only used without such an interval.
    """
    count, dated = len(recording), time_of_name(path.name)
    if count == 1 and dated is not None:
        return np.array([dated])
    has_interval = sidecar.interval_seconds is not None
    if recording.times is not None and not (recording.of_day and has_interval):
        return recording.times
    if sidecar.interval_seconds is not None:
        counter = COUNTER.search(path.stem)
        start = int(counter.group(1)) if counter and count == 1 else 0
        return (start + np.arange(count, dtype=np.float64)) * sidecar.interval_seconds
    if count == 1 and dated is None:
        raise UserError(
            f"the time of {path} is not known",
            f"put it into the file name (2026-01-31T08-15-00), or interval_seconds into {NAME}",
        )
    raise UserError(
        f"{path} has {count} snapshots and no times", f"put interval_seconds into {NAME}"
    )


def _snapshot(
    machine: str, time: float, path: Path, index: int, sidecar: Sidecar, faulty: float = np.nan
) -> Snapshot:
    label = UNKNOWN
    if np.isfinite(faulty):
        label = FAULTY if faulty else HEALTHY
    elif sidecar.fault_from is not None:
        label = FAULTY if time >= sidecar.fault_from else HEALTHY
    elif sidecar.failed_at is not None and time >= sidecar.failed_at:
        label = FAULTY
    return Snapshot(
        id=f"{machine}@{time:.3f}", machine=machine, time=time, path=path, index=index, label=label
    )
