"""Snapshots from a folder that somebody else fills: one folder per machine, as for training.

Nothing in it is moved or changed. It is looked through again and again instead of asking the
operating system for events, since those do not come from network drives. A file is taken once it
has kept its size and time for two looks; tables that grow are taken up to their last line. Files
are taken in order of time, and one that is still being written holds back the later ones of its
machine for a while, so that it does not come late. The store knows what it has: a file that is
read twice is stored once.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lineside.core.errors import UserError
from lineside.machines.data import (
    SIDECAR,
    Sidecar,
    load_measurement,
    read_sidecar,
    snapshots_of,
)
from lineside.machines.data.histories import machines_in, time_of_name
from lineside.machines.data.items import Snapshot
from lineside.machines.data.tables import is_table
from lineside.machines.streams.desk import Desk, Receipt

NUMBERS = re.compile(r"(\d+)")


@dataclass(kw_only=True)
class _File:
    """A file that was seen and is not finished.

    Attributes:
        path: Where it lies.
        stamp: Size and time of change at the last look.
        since: When it was first seen with this stamp, by the monotonic clock.
        first: When it was first seen at all.
        opens: It holds a snapshot of a time that is still to come: nothing to do before.
        holds: It could not be taken yet, and later ones of its machine wait for it.
        asked: The store was asked whether it was finished before.
    """

    path: Path
    stamp: str
    since: float
    first: float
    opens: float = -math.inf
    holds: bool = False
    asked: bool = False


@dataclass(kw_only=True)
class FolderSource:
    """Watches one folder, or one file.

    Attributes:
        data: What is watched.
        desk: Takes the snapshots.
        patience_seconds: A file that cannot be read and has not changed for so long is refused; a
            file that keeps changing holds back later ones for no longer.
        live: Snapshots are new, so that one from the future waits until its time has come.
        trouble: Why something cannot be looked at, empty while all can.
    """

    data: Path
    desk: Desk
    patience_seconds: float = 10.0
    live: bool = True
    trouble: str = ""
    _done: dict[str, str] = field(default_factory=dict)
    _waiting: dict[str, _File] = field(default_factory=dict)
    _taken: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of files with many snapshots: how many were taken, and the time of the last of them."""

    @property
    def waiting(self) -> int:
        """How many files were seen and are not finished."""
        return len(self._waiting)

    def look(self) -> Iterator[Receipt | None]:
        """Take what is complete and new; yield after every snapshot, and None after every file.

        Raises:
            NotTakenError: something could not be stored; look again.
        """
        present: set[str] = set()
        trouble = ""
        now = time.monotonic()
        try:
            found = [
                (m, self._look_at(m, files, present, now)) for m, files in machines_in(self.data)
            ]
            while found:  # file by file in turns, so that no machine holds back the others
                for entry in list(found):
                    try:
                        yield from next(entry[1])
                        yield None
                    except StopIteration:
                        found.remove(entry)
                    except UserError as error:  # what people wrote about this machine
                        trouble = f"{entry[0]}: {error}"
                        found.remove(entry)
        except OSError as error:
            trouble = f"{self.data} cannot be looked at: {error.strerror or error}"
        self.trouble = trouble
        # What is gone is forgotten, so that memory does not grow; the store still knows it.
        for known in (self._done, self._waiting, self._taken):
            for source in [source for source in known if source not in present]:
                del known[source]  # type: ignore[attr-defined]

    def _look_at(
        self, machine: str, files: Sequence[Path], present: set[str], now: float
    ) -> Iterator[Iterator[Receipt]]:
        """Yield what takes each file; the next one is looked at when that has ended."""
        facts = files[0].parent / SIDECAR
        told = _stamp(facts)
        fresh = [file for path in files if (file := self._fresh(path, told, present, now))]
        if not fresh:
            return
        sidecar = read_sidecar(facts.parent)
        for file in sorted(fresh, key=_order):
            if self.live and self.desk.is_ahead(file.opens):
                continue
            if file.since < now or _whole_lines(file.path):
                yield self._take(file, machine, sidecar, told, now)
            else:
                file.holds = True
            if file.holds and now - file.first < self.patience_seconds:
                return

    def _fresh(self, path: Path, told: str, present: set[str], now: float) -> _File | None:
        """Return a file that is not finished, with what is known of it from earlier looks."""
        source, stamp = str(path), _stamp(path)
        if not stamp:
            return None
        present.add(source)
        refused = f"{stamp} {told}"  # what is said of the machine may mend it
        if self._done.get(source) in (stamp, refused):
            return None
        file = self._waiting.get(source)
        if file is None:
            file = _File(path=path, stamp=stamp, since=now, first=now)
            self._waiting[source] = file
        elif file.stamp != stamp:
            file.stamp, file.since, file.opens = stamp, now, -math.inf
        file.holds = False
        return file

    def _take(
        self, file: _File, machine: str, sidecar: Sidecar, told: str, now: float
    ) -> Iterator[Receipt]:
        source, stamp = str(file.path), file.stamp
        if not file.asked and self._is_known(source, stamp, told):
            return
        file.asked = True
        try:
            found = snapshots_of(file.path, machine, sidecar)
            if file.since == now:  # a table that grows: its last line may not be whole
                found = found[:-1]
            for snapshot in self._new(source, found):
                measurement = load_measurement(snapshot)
                if self.live and self.desk.is_ahead(snapshot.time):
                    file.opens = snapshot.time
                    yield self.desk.refuse_ahead(measurement, source)
                    return
                yield self.desk.take(measurement, source)
        except (OSError, IndexError):  # it was changed or removed meanwhile: look again
            file.holds = True
            return
        except UserError as error:
            if now - file.since < self.patience_seconds:
                file.holds = True
                return
            yield self.desk.refuse(source, error, source)
            self._finish(source, f"{stamp} {told}")
            return
        if len(found) > 1:
            self._taken[source] = (len(found), found[-1].time)
        if file.since < now:
            self._finish(source, stamp)

    def _is_known(self, source: str, stamp: str, told: str) -> bool:
        """Return whether the store knows a file as finished, from an earlier watch."""
        for known in (stamp, f"{stamp} {told}"):
            if self.desk.is_done(source, known):
                self._done[source] = known
                self._waiting.pop(source, None)
                return True
        return False

    def _new(self, source: str, found: Sequence[Snapshot]) -> list[Snapshot]:
        """Return the snapshots that were not taken yet, in order of time."""
        count, last = self._taken.get(source, (0, 0.0))
        if count > len(found) or (count and found[count - 1].time != last):
            count = 0  # written anew: the store tells what it has
        return sorted(found[count:], key=lambda s: (math.isnan(s.time), s.time))

    def _finish(self, source: str, stamp: str) -> None:
        self.desk.finish(source, stamp)
        self._done[source] = stamp
        self._waiting.pop(source, None)


def _stamp(path: Path) -> str:
    """Return size and time of change of a file, empty if it is gone."""
    try:
        state = path.stat()
    except OSError:
        return ""
    return f"{state.st_size}-{state.st_mtime_ns}"


def _order(file: _File) -> tuple[float, list[str | int], str]:
    """Sort by the time in a name, then by its numbers."""
    name = file.path.name
    pieces = NUMBERS.split(name)
    numbers = [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]
    return (time_of_name(name) or 0.0, numbers, name)


def _whole_lines(path: Path) -> bool:
    """Return whether a file is a table that ends with a whole line."""
    try:
        if path.suffix.lower() not in (".csv", ".txt") or not is_table(path):
            return False
        with path.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"
    except OSError:
        return False
