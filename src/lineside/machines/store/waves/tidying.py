"""Moving waveforms that wait into segments, and turning the ring.

A new file is written and flushed first; then one transaction says that it holds what waited or
lay in older files; then those are deleted. Before a file is made, and when it is replaced, its
name is written down as litter, so that whatever a crash leaves is found and nothing else deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import time as clock
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from lineside.core.database import reading, writing
from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.packing import MICROSECONDS
from lineside.machines.store.waves import tables
from lineside.machines.store.waves.finding import waveform
from lineside.machines.store.waves.segments import SUFFIX, TEMPORARY, need_pyarrow, write_segment

if TYPE_CHECKING:
    from lineside.machines.store.opening import Store

DAY_US = 86_400 * MICROSECONDS
SEGMENT_BYTES = 16 * 2**20
"""A segment is closed when its samples take so many bytes uncompressed, or its day is over."""
SEGMENT_SNAPSHOTS = 2000
"""Or when it holds so many: to find one in a file takes the longer the more it holds."""
WAITING_BYTES = 512 * 2**20
"""If more than this waits in all, unfinished days are moved, too."""
SMALL_BYTES = 4 * 2**20
"""Thinned segments below this size are put together."""


@dataclass(frozen=True, kw_only=True)
class Tidied:
    """What was done.

    Attributes:
        moved: Waveforms that went into segments.
        dropped: Waveforms that the ring gave up.
        busy: Another process was at it, so nothing was done.
    """

    moved: int = 0
    dropped: int = 0
    busy: bool = False


def tidy(store: Store, *, everything: bool = False) -> Tidied:
    """Move waveforms that wait into segments, then turn the ring.

    Args:
        store: Whose.
        everything: Do not wait until a day is over or a segment is full.

    Raises:
        UserError: pyarrow is missing, or the disk is full.
    """
    with reading(store.engine) as connection:
        waiting = tables.waiting(connection)
    if not waiting and not store.folder.exists():
        return Tidied()
    need_pyarrow()
    with _alone(store.folder) as alone:
        if not alone:
            return Tidied(busy=True)
        _sweep(store)
        everything |= sum(int(row["size"]) for row in waiting) > WAITING_BYTES
        moved = sum(_move(store, row, everything) for row in waiting)
        with reading(store.engine) as connection:
            machines = {int(row["machine"]) for row in tables.segments(connection)}
        dropped = sum(_thin(store, machine) for machine in sorted(machines))
        return Tidied(moved=moved, dropped=dropped + _shrink(store, sorted(machines)))


def sweep(store: Store) -> int:
    """Delete what a crash left behind; return how many files."""
    if not store.folder.exists():
        return 0
    with _alone(store.folder) as alone:
        # Whoever is at it may be writing one of these files just now.
        return _sweep(store) if alone else 0


def _sweep(store: Store) -> int:
    with reading(store.engine) as connection:
        paths = tables.litter(connection)
    for path in paths:
        _discard(store, path)
    return len(paths)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False if another process (or thread) has it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    with handle:  # the lock goes with the file, and with the process if that is killed
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _move(store: Store, machine: tables.Row, everything: bool) -> int:
    """Move what waits of one machine, a segment at a time."""
    number, name = int(machine["id"]), str(machine["name"])
    with reading(store.engine) as connection:
        rows = tables.waiting_of(connection, number)
        newest = tables.newest_of(connection, number) or 0
    moved = 0
    for part in _parts(rows):
        full = _is_full(len(part), sum(size for _, _, size in part))
        if everything or full or part[0][0] // DAY_US < newest // DAY_US:
            _replace(store, number, name, [(at, seconds) for at, seconds, _ in part], [], False)
            moved += len(part)
    return moved


def _parts(rows: Sequence[tuple[int, float, int]]) -> Iterator[list[tuple[int, float, int]]]:
    """Cut waveforms in order of time by day and size."""
    for _, day in groupby(rows, key=lambda row: row[0] // DAY_US):
        part: list[tuple[int, float, int]] = []
        size = 0
        for row in day:
            part.append(row)
            size += row[2]
            if _is_full(len(part), size):
                yield part
                part, size = [], 0
        if part:
            yield part


def _is_full(count: int, size: int) -> bool:
    return count >= SEGMENT_SNAPSHOTS or size >= SEGMENT_BYTES


def _thin(store: Store, machine: int) -> int:
    """Let the ring go through the segments of a machine that have become old as a whole."""
    with reading(store.engine) as connection:
        segments = tables.segments(connection, machine)
        newest = min(tables.newest_of(connection, machine) or 0, _now_us())
        young = store.ring.oldest_full_us(newest)
        old = [row for row in segments if not row["thinned"] and row["last"] < young]
        if not old:
            return 0
        waves = tables.waves_of(connection, machine)
        alarms = tables.alarms_of(connection, machine)
        name = tables.name_of(connection, machine)
    stay = store.ring.stay([row["time_us"] for row in waves], newest, alarms)
    small = [row for row in segments if row["thinned"] and row["size"] < SMALL_BYTES]
    olds = {row["id"] for row in (*old, *small)}
    kept = [row for row in waves if row["segment"] in olds and row["time_us"] in stay]
    dropped = sum(row["segment"] in olds for row in waves) - len(kept)
    if dropped == 0 and len(olds) == 1:
        with writing(store.engine) as connection:
            tables.mark_thinned(connection, old[0]["id"])
        return 0
    _replace(store, machine, name, _times(kept), [*old, *small], True)
    return dropped


def _shrink(store: Store, machines: Sequence[int]) -> int:
    """Give up the oldest segments while all are too large; what is around alarms goes last."""
    limit, dropped = round(store.ring.max_gb * 1e9), 0
    for spare in (True, False):
        with reading(store.engine) as connection:
            size, rows = tables.size_of_segments(connection), tables.segments(connection)
            alarms = {machine: tables.alarms_of(connection, machine) for machine in machines}
        for row in rows:
            if size <= limit:
                return dropped
            machine = int(row["machine"])
            with reading(store.engine) as connection:
                waves = [
                    w for w in tables.waves_of(connection, machine) if w["segment"] == row["id"]
                ]
                name = tables.name_of(connection, machine)
            kept = [w for w in waves if spare and store.ring.is_near(w["time_us"], alarms[machine])]
            if len(kept) < len(waves):
                size += _replace(store, machine, name, _times(kept), [row], True) - row["size"]
                dropped += len(waves) - len(kept)
    return dropped


def _times(rows: Sequence[tables.Row]) -> list[tuple[int, float]]:
    return [(row["time_us"], row["seconds"]) for row in rows]


def _replace(
    store: Store,
    machine: int,
    name: str,
    kept: Sequence[tuple[int, float]],
    olds: Sequence[tables.Row],
    thinned: bool,
) -> int:
    """Put waveforms into one new segment, in the place of where they were; return its bytes."""
    path, size = "", 0
    if kept:
        path = f"{_folder_of(machine, name)}/{kept[0][0]}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        with writing(store.engine) as connection:
            tables.put_litter(connection, path)
        size = write_segment(store.folder / path, _waveforms(store, machine, name, kept))
    times = [at for at, _ in kept]
    # Flushed to the disk before old files go: a power cut must not bring their index back.
    with writing(store.engine, durable=bool(olds)) as connection:
        for old in olds:
            tables.drop_segment(connection, old["id"])
            tables.put_litter(connection, old["path"])
        if kept:
            tables.put_segment(connection, machine, path, size, thinned, times)
            tables.drop_litter(connection, path)
            if not olds:
                tables.drop_waiting(connection, machine, times)
    for old in olds:
        _discard(store, old["path"])
    return size


def _waveforms(
    store: Store, machine: int, name: str, kept: Sequence[tuple[int, float]]
) -> Iterator[Measurement]:
    for at, seconds in kept:
        found = waveform(store, machine, at, name, seconds)
        if found is None:
            raise UserError(
                f"the waveform of {name}@{seconds:.3f} is gone", "is the store damaged?"
            )
        yield found


def _discard(store: Store, path: str) -> None:
    """Delete a file, with its unfinished form, and forget that it lay about."""
    for file in (store.folder / path, (store.folder / path).with_suffix(TEMPORARY)):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    with writing(store.engine) as connection:
        tables.drop_litter(connection, path)


def _folder_of(machine: int, name: str) -> str:
    """Return a folder that tells the machine; names may hold anything, so its number leads."""
    readable = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in name)[:40]
    return f"{machine:06d}-{readable}"


def _now_us() -> int:
    return round(clock.time() * MICROSECONDS)
