"""Retention of waveforms: compaction into segments, thinning of old ones, a limit of size.

Crash safety: every step is write file, commit, delete file. A new segment is written and flushed
first; one transaction then says that it holds what was pending or lay in older segments; only then
are those deleted. The name of a file is recorded as an orphan before the file is created and in
the transaction that replaces it, so that `delete_orphans` finds whatever a crash has left, and
deletes nothing else. A waveform is readable at every moment, also for readers beside.
"""

from __future__ import annotations

import contextlib
import fcntl
import time as clock
import uuid
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from lineside.core.database import read_transaction, write_transaction
from lineside.core.errors import UserError
from lineside.core.run.files import disk_errors
from lineside.machines.data.measurement import Measurement
from lineside.machines.store.packing import MICROSECONDS, Row
from lineside.machines.store.segments import (
    SUFFIX,
    TEMPORARY_SUFFIX,
    require_pyarrow,
    write_segment,
)
from lineside.machines.store.waveforms import (
    add_orphan,
    alarm_times,
    delete_pending,
    delete_segment,
    insert_segment,
    mark_thinned,
    newest_time,
    orphan_files,
    pending_by_machine,
    pending_of_machine,
    read_waveform,
    remove_orphan,
    segments,
    waveforms_of_machine,
)

if TYPE_CHECKING:
    from lineside.machines.store.store import Store

HOUR_US = 3600 * MICROSECONDS
DAY_US = 24 * HOUR_US
SEGMENT_BYTES = 16 * 2**20
"""A segment is closed when its samples take this many bytes uncompressed, or its day is over."""
SEGMENT_SNAPSHOTS = 2000
"""Or when it holds this many: finding one takes longer the more row groups a file has."""
PENDING_BYTES = 512 * 2**20
"""If more than this is pending in all, unfinished days are moved as well."""
SMALL_BYTES = 4 * 2**20
"""Thinned segments below this size are merged."""


@dataclass(frozen=True, kw_only=True)
class RetentionPolicy:
    """How long waveforms stay; features, scores and events stay for good.

    Ages are counted back from the newest snapshot of the machine, or from now if that is earlier:
    a sensor whose clock jumps ahead must not make everything old.

    Attributes:
        days: Everything younger is kept.
        thin_hours: Of what is older, the first snapshot in each interval of this length is kept...
        around_hours: ...and everything within this many hours of an alert or a danger.
        max_gb: The oldest are deleted when all files together are larger, those around alarms last.
    """

    days: float = 14.0
    thin_hours: float = 24.0
    around_hours: float = 12.0
    max_gb: float = 20.0

    def __post_init__(self) -> None:
        if self.days < 0 or self.thin_hours <= 0 or self.around_hours < 0 or self.max_gb <= 0:
            raise UserError(
                "days to keep (and hours around alarms) must not be negative, gigabytes above 0",
                "e.g. --keep-days 14 --max-gb 20",
            )

    def full_since(self, newest_us: int) -> int:
        """Return the time from which on everything is kept."""
        return newest_us - round(self.days * DAY_US)

    def is_near_alarm(self, time_us: int, alarms_us: Sequence[int]) -> bool:
        """Return whether a snapshot lies within `around_hours` of an alarm; alarms are sorted."""
        reach = round(self.around_hours * HOUR_US)
        next_alarm = bisect_left(alarms_us, time_us - reach)
        return next_alarm < len(alarms_us) and alarms_us[next_alarm] <= time_us + reach

    def select(self, times_us: Sequence[int], newest_us: int, alarms_us: Sequence[int]) -> set[int]:
        """Return the times that are kept, of all those of one machine, sorted.

        Selecting again from what was kept changes nothing: the intervals are fixed multiples of
        `thin_hours` since 1970, and the first snapshot of each stays the first.
        """
        full, width = self.full_since(newest_us), round(self.thin_hours * HOUR_US)
        kept, filled = set(), set()
        for time_us in times_us:
            interval = time_us // width
            if time_us >= full or interval not in filled or self.is_near_alarm(time_us, alarms_us):
                kept.add(time_us)
                filled.add(interval)
        return kept


def tidy(store: Store, *, everything: bool = False) -> None:
    """Move pending waveforms into segments, then apply the retention policy; call it now and then.

    It may run in a thread or a process of its own, and two at a time do no harm: the second does
    nothing. A crash anywhere loses no waveform that the policy keeps.

    Args:
        store: Whose waveforms.
        everything: Do not wait until a day is over or a segment is full.

    Raises:
        UserError: pyarrow is missing, or the disk is full; nothing is lost then.
    """
    with read_transaction(store.engine) as connection:
        pending = pending_by_machine(connection)
    if not pending and not store.folder.exists():
        return
    require_pyarrow()
    with _lock_folder(store.folder) as locked:
        if not locked:
            return
        _delete_orphans(store)
        everything |= sum(int(row["size"]) for row in pending) > PENDING_BYTES
        for row in pending:
            _compact(store, row, everything)
        with read_transaction(store.engine) as connection:
            machines = sorted({int(row["machine"]) for row in segments(connection)})
        for machine in machines:
            _thin(store, machine)
        _limit_size(store, machines)


def delete_orphans(store: Store) -> None:
    """Delete the files that a crash has left."""
    if store.folder.exists():
        with _lock_folder(store.folder) as locked:
            if locked:  # whoever holds the lock may be writing one of these files just now
                _delete_orphans(store)


def _delete_orphans(store: Store) -> None:
    with read_transaction(store.engine) as connection:
        paths = orphan_files(connection)
    for path in paths:
        _delete_file(store, path)


@contextmanager
def _lock_folder(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False if another process (or thread) has it."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".lock").open("w")
    with handle:  # closing the file releases the lock, and so does the death of the process
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _compact(store: Store, machine: Row, everything: bool) -> None:
    """Move the pending waveforms of one machine into segments."""
    number, name = int(machine["id"]), str(machine["name"])
    with read_transaction(store.engine) as connection:
        pending = pending_of_machine(connection, number)
        newest_day = newest_time(connection, number) // DAY_US
    for part in _split_into_segments(pending):
        full = _is_full(len(part), sum(waveform["size"] for waveform in part))
        if everything or full or part[0]["time_us"] // DAY_US < newest_day:
            _write_replacement(store, number, name, part, [], thinned=False)


def _split_into_segments(pending: Sequence[Row]) -> Iterator[list[Row]]:
    """Split waveforms in order of time by day and size."""
    for _, day in groupby(pending, key=lambda waveform: waveform["time_us"] // DAY_US):
        part: list[Row] = []
        size = 0
        for waveform in day:
            part.append(waveform)
            size += waveform["size"]
            if _is_full(len(part), size):
                yield part
                part, size = [], 0
        if part:
            yield part


def _is_full(count: int, size: int) -> bool:
    return count >= SEGMENT_SNAPSHOTS or size >= SEGMENT_BYTES


def _thin(store: Store, machine: int) -> None:
    """Apply the policy to the segments of a machine that are old as a whole; merge small ones."""
    with read_transaction(store.engine) as connection:
        all_segments = segments(connection, machine)
        newest_us = min(newest_time(connection, machine), round(clock.time() * MICROSECONDS))
        full_since = store.retention.full_since(newest_us)
        old = [row for row in all_segments if not row["thinned"] and row["last"] < full_since]
        if not old:
            return
        waveforms = waveforms_of_machine(connection, machine)
        alarms_us = alarm_times(connection, machine)
    selected = store.retention.select([row["time_us"] for row in waveforms], newest_us, alarms_us)
    small = [row for row in all_segments if row["thinned"] and row["size"] < SMALL_BYTES]
    replaced = {row["id"] for row in (*old, *small)}
    candidates = [row for row in waveforms if row["segment"] in replaced]
    kept = [row for row in candidates if row["time_us"] in selected]
    if len(kept) == len(candidates) and len(replaced) == 1:  # it would be written as it is
        with write_transaction(store.engine) as connection:
            mark_thinned(connection, old[0]["id"])
        return
    _write_replacement(store, machine, old[0]["name"], kept, [*old, *small], thinned=True)


def _limit_size(store: Store, machines: Sequence[int]) -> None:
    """Delete the oldest waveforms while all are too large, those around alarms last."""
    limit = round(store.retention.max_gb * 1e9)
    for spare_alarms in (True, False):
        with read_transaction(store.engine) as connection:
            oldest_first = segments(connection)
            alarms_us = {machine: alarm_times(connection, machine) for machine in machines}
        size = sum(int(row["size"]) for row in oldest_first)
        for segment in oldest_first:
            if size <= limit:
                return
            machine = int(segment["machine"])
            with read_transaction(store.engine) as connection:
                waveforms = [
                    row
                    for row in waveforms_of_machine(connection, machine)
                    if row["segment"] == segment["id"]
                ]
            kept = [
                row
                for row in waveforms
                if spare_alarms
                and store.retention.is_near_alarm(row["time_us"], alarms_us[machine])
            ]
            if len(kept) < len(waveforms):
                new_size = _write_replacement(
                    store, machine, segment["name"], kept, [segment], thinned=True
                )
                size += new_size - segment["size"]


def _write_replacement(
    store: Store,
    machine: int,
    name: str,
    waveforms: Sequence[Row],
    replaced: Sequence[Row],
    *,
    thinned: bool,
) -> int:
    """Write waveforms into one new segment and delete where they were; return its bytes.

    Args:
        store: Whose.
        machine: Number of the machine.
        name: Its name.
        waveforms: Their time_us and seconds, sorted; none if all are to be deleted.
        replaced: Segments in which they are now; none if they are pending.
        thinned: Whether retention is done with what is written.
    """
    path, size = "", 0
    times_us = [row["time_us"] for row in waveforms]
    if waveforms:
        path = f"{_folder_name(machine, name)}/{times_us[0]}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        with write_transaction(store.engine) as connection:
            add_orphan(connection, path)  # until the transaction below
        size = write_segment(store.folder / path, _read_all(store, machine, name, waveforms))
    # Flushed to the disk before files are deleted: a power cut that took back this transaction
    # would bring back an index of files that are gone. (Deleting pending rows is part of it.)
    with write_transaction(store.engine, durable=bool(replaced)) as connection:
        for segment in replaced:
            delete_segment(connection, segment["id"])
            add_orphan(connection, segment["path"])
        if waveforms:
            insert_segment(connection, machine, path, size, thinned, times_us)
            remove_orphan(connection, path)
            if not replaced:
                delete_pending(connection, machine, times_us)
    for segment in replaced:
        _delete_file(store, segment["path"])
    return size


def _read_all(
    store: Store, machine: int, name: str, waveforms: Sequence[Row]
) -> Iterator[Measurement]:
    for row in waveforms:
        measurement = read_waveform(store, machine, row["time_us"], name, row["seconds"])
        if measurement is None:
            item = f"{name}@{row['seconds']:.3f}"
            raise UserError(f"the waveform of {item} is missing", "is the store damaged?")
        yield measurement


def _delete_file(store: Store, path: str) -> None:
    """Delete a file, and its temporary form, and remove it from the orphans."""
    for file in (store.folder / path, (store.folder / path).with_suffix(TEMPORARY_SUFFIX)):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
    with write_transaction(store.engine) as connection:
        remove_orphan(connection, path)


def _folder_name(machine: int, name: str) -> str:
    """Return a readable folder of a machine; names may hold anything, so its number leads."""
    readable = "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in name)[:40]
    return f"{machine:06d}-{readable}"
