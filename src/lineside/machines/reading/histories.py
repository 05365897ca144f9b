"""Finding the snapshots of a data folder: which machine, when, and in which file.

Layouts: ``DATA/MACHINE/files`` (one snapshot a file, or a history as NPZ), ``DATA/MACHINE.npz``,
and ``DATA/MACHINE.csv`` (a table of values). ``machine.json`` in a folder says that all its files
are of one machine, named like the folder, and what they cannot tell (`sidecar`). Snapshots come in
order of time; copies are refused, not used twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lineside.core.contract import Refusal, UserError
from lineside.machines.items import FAULTY, HEALTHY, UNKNOWN, Snapshot
from lineside.machines.reading.formats import SUFFIXES, read_record
from lineside.machines.reading.sidecar import NAME, Sidecar, read_sidecar
from lineside.machines.reading.tables import is_table, read_table

DATE = re.compile(
    r"(\d{4})[-._]?(\d{2})[-._]?(\d{2})[-._T ]?(\d{2})[-._:]?(\d{2})(?:[-._:]?(\d{2}))?"
)
COUNTER = re.compile(r"(\d+)(?!.*\d)")


def find_snapshots(data: Path) -> list[Snapshot | Refusal]:
    """Return every snapshot of a folder (or of one file), and a refusal for what cannot be used.

    Raises:
        UserError: if nothing that could be a snapshot is there.
    """
    found: list[Snapshot | Refusal] = []
    for machine, files, sidecar in _machines(data):
        found += _ordered(machine, files, sidecar)
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
        table = read_table(path)
        return [
            _snapshot(machine, float(t), path, place, sidecar, faulty)
            for place, (t, faulty) in enumerate(zip(table.times, table.faulty, strict=True))
        ]
    record = read_record(path)
    times = _times(path, len(record), record.times, sidecar)
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


def _machines(data: Path) -> Iterator[tuple[str, list[Path], Sidecar]]:
    if data.is_file():
        alone = (data.parent / NAME).exists()
        yield data.parent.name if alone else data.stem, [data], read_sidecar(data.parent)
        return
    own = _files(data)
    if (data / NAME).exists():
        yield data.resolve().name, own, read_sidecar(data)
        return
    folders = [p for p in sorted(data.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    for path in own:
        if is_table(path) or path.suffix == ".npz":
            yield path.stem, [path], read_sidecar(data)
    loose = [p for p in own if not is_table(p) and p.suffix != ".npz"]
    if loose and not folders:  # the folder itself is one machine
        yield data.name, loose, read_sidecar(data)
    for folder in folders:
        files = _files(folder)
        if files:
            yield folder.name, files, read_sidecar(folder)


def _files(folder: Path) -> list[Path]:
    return [
        p for p in sorted(folder.iterdir())
        if p.is_file() and not p.name.startswith(".") and p.name != NAME
        and (p.suffix.lower() in SUFFIXES or DATE.search(p.name)) and p.stem.upper() != "SOURCE"
    ]  # fmt: skip


def _ordered(machine: str, files: Sequence[Path], sidecar: Sidecar) -> list[Snapshot | Refusal]:
    """Snapshots in order of time, one per time, and what is refused."""
    found: list[Snapshot] = []
    refused: list[Refusal] = []
    for path in files:
        try:
            found += snapshots_of(path, machine, sidecar)
        except UserError as error:
            refused.append(Refusal(item=str(path), message=error.message, hint=error.hint))
    seen: set[float] = set()
    kept: list[Snapshot | Refusal] = []
    for snapshot in sorted(found, key=lambda s: (s.time, str(s.path), s.place)):
        if snapshot.time in seen:
            refused.append(
                Refusal(
                    item=f"{snapshot.path}[{snapshot.place}]",
                    message=f"{machine} has a second snapshot of the same time",
                    hint="remove the copy; the first one is used",
                )
            )
            continue
        seen.add(snapshot.time)
        kept.append(snapshot)
    return [*kept, *refused]


def _times(path: Path, count: int, stored: np.ndarray | None, sidecar: Sidecar) -> np.ndarray:
    """Times of a file's snapshots: its own, those of its name, or its number times the interval."""
    dated = time_of_name(path.name)
    if count == 1 and dated is not None:
        return np.array([dated])
    if stored is not None:
        return stored
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
