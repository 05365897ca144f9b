"""Finding the snapshots of a data folder: which machine, when, and in which file.

Layouts: ``DATA/MACHINE/files`` (one snapshot a file, or a history as NPZ), ``DATA/MACHINE.npz``,
and ``DATA/MACHINE.csv`` (a table of values). ``machine.json`` in a folder says that all its files
are of one machine, named like the folder, and what they cannot tell (`sidecar`). Snapshots come in
order of time; copies are refused, not used twice.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

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
DAY = 86400.0
NOTES = ("SOURCE", "README", "LICENSE", "LICENCE")
"""Files for people, whatever their suffix."""
UNREAD = (
    ".xlsx", ".xls", ".ods", ".h5", ".hdf5", ".parquet", ".bin", ".mf4", ".zip", ".gz", ".7z",
)  # fmt: skip
COUNTER = re.compile(r"(\d+)(?!.*\d)")


def find_snapshots(data: Path) -> list[Snapshot | Refusal]:
    """Return every snapshot of a folder (or of one file), and a refusal for what cannot be used.

    Raises:
        UserError: if it does not exist, or nothing that could be a snapshot is there.
    """
    if not data.exists():
        raise UserError(f"{data} does not exist", "check the path of the data")
    found: list[Snapshot | Refusal] = []
    for machine, files in machines_in(data):
        found += _ordered(machine, files, read_sidecar(files[0].parent))
    found += _left_out(data)
    if not found:
        raise UserError(
            f"{data} holds no snapshots",
            "one folder per machine with CSV, WAV, MAT, NPZ, TDMS or UFF files, or a table per "
            "machine",
        )
    return found


def snapshots_of(path: Path, machine: str, sidecar: Sidecar) -> list[Snapshot]:
    """Return the snapshots of one file.

    Raises:
        UserError: if it cannot be read, or does not tell when its snapshots were taken.
    """
    if is_table(path):
        read_table.cache_clear()  # it knows tables by name alone, and this one may have grown
        table = read_table(path)
        return [
            _snapshot(machine, float(t), path, place, sidecar, faulty)
            for place, (t, faulty) in enumerate(zip(table.times, table.faulty, strict=True))
        ]
    record = read_recording(path)
    times = _times(path, record, sidecar)
    return [_snapshot(machine, float(t), path, place, sidecar) for place, t in enumerate(times)]


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
    if data.is_file():
        alone = (data.parent / NAME).exists()
        yield data.parent.name if alone else data.stem, [data]
        return
    own = _files(data)
    if (data / NAME).exists():
        if own:
            yield data.resolve().name, own
        return
    folders = [p for p in sorted(data.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    for path in own:
        if is_table(path) or path.suffix.lower() == ".npz":
            yield path.stem, [path]
    loose = [p for p in own if not is_table(p) and p.suffix.lower() != ".npz"]
    if loose and not folders:  # the folder itself is one machine
        yield data.name, loose
    for folder in folders:
        files = _files(folder)
        if files:
            yield folder.name, files


def _files(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir())
        if p.is_file() and not p.name.startswith(".") and p.name != NAME
        and (p.suffix.lower() in SUFFIXES or DATE.search(p.name)) and p.stem.upper() not in NOTES
    ]  # fmt: skip


def _ordered(machine: str, files: Sequence[Path], sidecar: Sidecar) -> list[Snapshot | Refusal]:
    """Snapshots in order of time, one per time, and what is refused."""
    found: list[Snapshot] = []
    refused: list[Refusal] = []
    for path in sorted(files, key=_place_in_order):
        try:
            found += snapshots_of(path, machine, sidecar)
        except UserError as error:
            refused.append(Refusal(item=str(path), message=error.message, hint=error.hint))
    if sidecar.interval_seconds is None:
        found = _over_midnight(found, sidecar)
    refused += [_refused(s, "has no time", "give it one") for s in found if not _has_time(s)]
    seen: set[float] = set()
    kept: list[Snapshot | Refusal] = []
    timed = [s for s in found if _has_time(s)]
    for snapshot in sorted(timed, key=lambda s: (s.time, str(s.path), s.place)):
        if snapshot.time in seen:
            says = "is a second snapshot of the same time"
            hint = "the first one is used; remove it if it is a copy, or else mend its time"
            refused.append(_refused(snapshot, says, hint))
            continue
        seen.add(snapshot.time)
        kept.append(snapshot)
    return [*kept, *refused]


def _has_time(snapshot: Snapshot) -> bool:
    return math.isfinite(snapshot.time)


def _refused(snapshot: Snapshot, says: str, hint: str) -> Refusal:
    item = f"{snapshot.path}[{snapshot.place}]"
    return Refusal(item=item, message=f"{item} of {snapshot.machine} {says}", hint=hint)


def _place_in_order(path: Path) -> tuple[int, str]:
    """Files in order of their number, whether or not it is filled up with zeros."""
    counter = COUNTER.search(path.stem) if time_of_name(path.name) is None else None
    return (int(counter.group(1)) if counter else 0, str(path))


def _over_midnight(found: Sequence[Snapshot], sidecar: Sidecar) -> list[Snapshot]:
    """Add a day wherever clocks that tell no day begin anew, one file after the other."""
    clocks = all(0 <= s.time < DAY and time_of_name(s.path.name) is None for s in found)
    if not clocks or len({s.path for s in found}) < len(found) or len(found) < 2:
        return list(found)
    times = np.array([s.time for s in found])
    times += DAY * np.cumsum(np.diff(times, prepend=times[0]) < -DAY / 2)
    return [
        _snapshot(s.machine, float(time), s.path, s.place, sidecar)
        for s, time in zip(found, times, strict=True)
    ]


def _left_out(data: Path) -> list[Refusal]:
    """What lies in a folder and is read by nobody, so that nothing is lost without a word."""
    if data.is_file():
        return []
    folders = [p for p in sorted(data.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    machine = (data / NAME).exists()
    found = []
    for path in () if machine or not folders else _files(data):
        if not is_table(path) and path.suffix.lower() != ".npz":
            says = f"{path} lies beside the folders of machines and is not read"
            found.append(Refusal(item=str(path), message=says, hint="put it into one of them"))
    for folder in (data, *(() if machine else folders)):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in UNREAD and path.is_file():
                says = f"{path} is of a kind that is not read"
                hint = "save it as CSV, WAV, MAT, NPZ, TDMS or UFF"
                found.append(Refusal(item=str(path), message=says, hint=hint))
    return found


def _times(path: Path, record: Recording, sidecar: Sidecar) -> np.ndarray:
    """Times of a file's snapshots: its own, those of its name, or its number times the interval.

    A clock that tells no day counts only where people do not say the interval.
    """
    count, dated = len(record), time_of_name(path.name)
    if count == 1 and dated is not None:
        return np.array([dated])
    if record.times is not None and not (record.of_day and sidecar.interval_seconds is not None):
        return record.times
    counter = COUNTER.search(path.stem)
    if sidecar.interval_seconds is not None:
        start = int(counter.group(1)) if counter and count == 1 else 0
        return (start + np.arange(count)) * sidecar.interval_seconds
    if count == 1 and dated is None:
        raise UserError(
            f"{path} does not say when it was taken",
            f"put the date into its name (2026-01-31T08-15-00), or interval_seconds into {NAME}",
        )
    raise UserError(
        f"{path} has {count} snapshots and no times", f"put interval_seconds into {NAME}"
    )


def _snapshot(
    machine: str, time: float, path: Path, place: int, sidecar: Sidecar, faulty: float = np.nan
) -> Snapshot:
    label = UNKNOWN
    if np.isfinite(faulty):
        label = FAULTY if faulty else HEALTHY
    elif sidecar.fault_from is not None:
        label = FAULTY if time >= sidecar.fault_from else HEALTHY
    elif sidecar.failed_at is not None and time >= sidecar.failed_at:
        label = FAULTY
    return Snapshot(
        id=f"{machine}@{time:.3f}", machine=machine, time=time, path=path, place=place, label=label
    )
