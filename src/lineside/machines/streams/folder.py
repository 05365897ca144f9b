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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lineside.core.errors import UserError
from lineside.core.run.folder_watcher import FolderWatcher, PendingFile, stamp_of
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
class _File(PendingFile):
    """A file that was seen and is not finished.

    Attributes:
        opens: It holds a snapshot of a time that is still to come: nothing to do before.
        holds: It could not be taken yet, and later ones of its machine wait for it.
        asked: The store was asked whether it was finished before.
    """

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
    _files: FolderWatcher[_File] = field(default_factory=lambda: FolderWatcher(kind=_File))
    _taken: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of files with many snapshots: how many were taken, and the time of the last of them."""

    @property
    def waiting(self) -> int:
        """How many files were seen and are not finished."""
        return len(self._files.pending)

    def look(self) -> Iterator[Receipt | None]:
        """Take what is complete and new; yield after every snapshot, and None after every file.

        Raises:
            NotTakenError: something could not be stored; look again.
        """
        trouble = ""
        try:
            groups = list(machines_in(self.data))
            told: dict[Path, str] = {}
            for _, files in groups:
                told.update(dict.fromkeys(files, _told(files)))
            pending = {file.path: file for file in self._files.look(told)}
            found = [
                (m, self._take_all(m, [pending[path] for path in files if path in pending]))
                for m, files in groups
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
        present = self._files.present
        self._files.forget_gone(present)
        self._taken = {name: taken for name, taken in self._taken.items() if name in present}

    def _take_all(self, machine: str, files: Sequence[_File]) -> Iterator[Iterator[Receipt]]:
        """Yield what takes each file; the next one is looked at when that has ended."""
        if not files:
            return
        sidecar = read_sidecar(files[0].path.parent)
        for file in sorted(files, key=_order):
            file.holds = False
            if self.live and self.desk.is_ahead(file.opens):
                continue
            if file.complete or _whole_lines(file.path):
                yield self._take(file, machine, sidecar)
            else:
                file.holds = True
            if file.holds and file.waited_seconds < self.patience_seconds:
                return

    def _take(self, file: _File, machine: str, sidecar: Sidecar) -> Iterator[Receipt]:
        source = file.name
        if not file.asked and self._is_known(file):
            return
        file.asked = True
        try:
            found = snapshots_of(file.path, machine, sidecar)
            if not file.complete:  # a table that grows: its last line may not be whole
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
            if file.unchanged_seconds < self.patience_seconds:
                file.holds = True
                return
            yield self.desk.refuse(source, error, source)
            self._finish(source, file.marks[1])
            return
        if len(found) > 1:
            self._taken[source] = (len(found), found[-1].time)
        if file.complete:
            self._finish(source, file.marks[0])

    def _is_known(self, file: _File) -> bool:
        """Return whether the store knows a file as finished, from an earlier watch."""
        for mark in file.marks:
            if self.desk.is_done(file.name, mark):
                self._files.finish(file.name, mark)
                return True
        return False

    def _new(self, source: str, found: Sequence[Snapshot]) -> list[Snapshot]:
        """Return the snapshots that were not taken yet, in order of time."""
        count, last = self._taken.get(source, (0, 0.0))
        if count > len(found) or (count and found[count - 1].time != last):
            count = 0  # written anew: the store tells what it has
        return sorted(found[count:], key=lambda s: (math.isnan(s.time), s.time))

    def _finish(self, source: str, mark: str) -> None:
        self.desk.finish(source, mark)
        self._files.finish(source, mark)


def _told(files: Sequence[Path]) -> str:
    """Return the stamp of what people say of a machine, which may make a refused file readable."""
    return str(stamp_of(files[0].parent / SIDECAR) or "")


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
