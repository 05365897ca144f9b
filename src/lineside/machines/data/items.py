"""One snapshot as an item of a data set: its machine, time, file and label."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lineside.core.contract import Source

HEALTHY, FAULTY, UNKNOWN = "healthy", "faulty", ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One snapshot of a machine; it has a path and a label, but no samples.

    Attributes:
        id: ``MACHINE@TIME``, unique in a data set.
        machine: Name of the machine, the independent unit of all statistics.
        time: Seconds, see `Measurement`.
        path: Its file.
        index: Index of the snapshot in that file, from 0.
        label: ``"healthy"``, ``"faulty"``, or ``""`` if not known.
    """

    id: str
    machine: str
    time: float
    path: Path
    index: int = 0
    label: str = UNKNOWN

    @property
    def source(self) -> Source:
        """The file, and the index of the snapshot in it."""
        return Source(self.path, str(self.index))

    @property
    def groups(self) -> tuple[str]:
        """The machine."""
        return (self.machine,)
