"""Snapshots from a folder that recorders write to: one folder per machine, as for training.

Nothing in it is moved or changed. It is scanned again and again instead of asking the operating
system for events, since those do not come from network drives. A file is ingested once it has kept
its size and time for two scans; tables that grow are ingested up to their last line. Files are
ingested in order of time, and one that is still being written holds back the later ones of its
machine for a while, so that it does not come out of order. A file is noted as finished after its
last commit; one that is read twice is stored once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lineside.core.errors import UserError
from lineside.core.run.folder_watcher import FolderWatcher, PendingFile, stamp_of
from lineside.machines.data import load_measurement, read_sidecar
from lineside.machines.data.histories import machines_in, snapshots_of, time_of_name
from lineside.machines.data.items import Snapshot
from lineside.machines.data.sidecar import NAME as SIDECAR
from lineside.machines.data.sidecar import Sidecar
from lineside.machines.data.tables import is_table
from lineside.machines.store.ingest_result import IngestResult
from lineside.machines.streams.ingestor import Ingestor

NUMBERS = re.compile(r"(\d+)")


@dataclass(kw_only=True)
class SnapshotFile(PendingFile):
    """A file that is not finished.

    Attributes:
        not_before: It holds a snapshot of this time, which is in the future: wait for it.
        incomplete: It could not be ingested yet, and later ones of its machine wait for it.
        checked: The store was asked whether an earlier watch finished it.
    """

    not_before: float = -math.inf
    incomplete: bool = False
    checked: bool = False


@dataclass(kw_only=True)
class FolderSource:
    """Watches one folder, or one file.

    Attributes:
        data: What is watched.
        ingestor: Ingests the snapshots.
        patience_seconds: A file that cannot be read and has not changed for this long is refused;
            a file that keeps changing holds back later ones for no longer.
        live: Snapshots are new, so that one from the future waits until its time has come.
        problem: Why something cannot be scanned, empty while everything can.
    """

    data: Path
    ingestor: Ingestor
    patience_seconds: float = 10.0
    live: bool = True
    problem: str = ""
    _files: FolderWatcher[SnapshotFile] = field(
        default_factory=lambda: FolderWatcher(kind=SnapshotFile)
    )
    _ingested: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of files with many snapshots: how many were ingested, and the time of the last of them."""

    @property
    def pending(self) -> int:
        """How many files were seen and are not finished."""
        return len(self._files.pending)

    def scan(self) -> Iterator[IngestResult | None]:
        """Ingest what is complete and new; yield after every snapshot, and None after every file.

        Raises:
            NotStoredError: something could not be stored; scan again.
        """
        problem = ""
        try:
            machines = list(machines_in(self.data))
            context: dict[Path, str] = {}
            for _, paths in machines:
                context.update(dict.fromkeys(paths, _sidecar_stamp(paths)))
            pending = {file.path: file for file in self._files.look(context)}
            queues = [
                (machine, self._ingest_files(machine, [pending[p] for p in paths if p in pending]))
                for machine, paths in machines
            ]
            while queues:  # a file of each machine in turn, so that none holds back the others
                for entry in list(queues):
                    machine, files = entry
                    try:
                        yield from next(files)
                        yield None
                    except StopIteration:
                        queues.remove(entry)
                    except UserError as error:  # what people wrote about this machine
                        problem = f"{machine}: {error}"
                        queues.remove(entry)
        except OSError as error:
            problem = f"{self.data} cannot be read: {error.strerror or error}"
        self.problem = problem
        # Deleted files are forgotten, so that memory does not grow; the store still knows it.
        present = self._files.present
        self._files.forget_gone(present)
        self._ingested = {name: last for name, last in self._ingested.items() if name in present}

    def _ingest_files(
        self, machine: str, files: Sequence[SnapshotFile]
    ) -> Iterator[Iterator[IngestResult]]:
        """Yield an iterator that ingests each file; the next one is begun when that has ended."""
        if not files:
            return
        sidecar = read_sidecar(files[0].path.parent)
        for file in sorted(files, key=_order):
            file.incomplete = False
            if self.live and self.ingestor.is_in_future(file.not_before):
                continue
            if file.complete or _ends_with_line(file.path):
                yield self._ingest_file(file, machine, sidecar)
            else:
                file.incomplete = True
            if file.incomplete and file.waited_seconds < self.patience_seconds:
                return

    def _ingest_file(
        self, file: SnapshotFile, machine: str, sidecar: Sidecar
    ) -> Iterator[IngestResult]:
        source = file.name
        if not file.checked and self._is_finished(file):
            return
        file.checked = True
        try:
            snapshots = snapshots_of(file.path, machine, sidecar)
            if not file.complete:  # a table that grows: its last line may not be whole
                snapshots = snapshots[:-1]
            for snapshot in self._new_snapshots(source, snapshots):
                measurement = load_measurement(snapshot)
                if self.live and self.ingestor.is_in_future(snapshot.time):
                    file.not_before = snapshot.time
                    yield self.ingestor.refuse_future(measurement, source)
                    return
                yield self.ingestor.ingest(measurement, source)
        except (OSError, IndexError):  # it was changed or removed meanwhile: scan again
            file.incomplete = True
            return
        except UserError as error:
            if file.unchanged_seconds < self.patience_seconds:
                file.incomplete = True
                return
            yield self.ingestor.refuse(source, error, source)
            self._finish(source, file.marks[1])
            return
        if len(snapshots) > 1:
            self._ingested[source] = (len(snapshots), snapshots[-1].time)
        if file.complete:
            self._finish(source, file.marks[0])

    def _is_finished(self, file: SnapshotFile) -> bool:
        """Return whether the store knows a file as finished, from an earlier watch."""
        for mark in file.marks:
            if self.ingestor.is_finished(file.name, mark):
                self._files.finish(file.name, mark)
                return True
        return False

    def _new_snapshots(self, source: str, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """Return the snapshots that were not ingested yet, in order of time."""
        count, last = self._ingested.get(source, (0, 0.0))
        if count > len(snapshots) or (count and snapshots[count - 1].time != last):
            count = 0  # the file was rewritten: the store recognises the duplicates
        return sorted(snapshots[count:], key=lambda s: (math.isnan(s.time), s.time))

    def _finish(self, source: str, mark: str) -> None:
        self.ingestor.finish(source, mark)
        self._files.finish(source, mark)


def _sidecar_stamp(paths: Sequence[Path]) -> str:
    """Return the stamp of what people say of a machine, which may make a refused file readable."""
    return str(stamp_of(paths[0].parent / SIDECAR) or "")


def _order(file: SnapshotFile) -> tuple[float, list[str | int], str]:
    """Sort by the time in a name, then by its numbers."""
    name = file.path.name
    pieces = NUMBERS.split(name)
    numbers = [int(piece) if number % 2 else piece for number, piece in enumerate(pieces)]
    return (time_of_name(name) or 0.0, numbers, name)


def _ends_with_line(path: Path) -> bool:
    """Return whether a file is a table that ends with a whole line."""
    try:
        if path.suffix.lower() not in (".csv", ".txt") or not is_table(path):
            return False
        with path.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read(1) == b"\n"
    except OSError:
        return False
