"""One snapshot as an item of a data set: where it lies and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lineside.core.contract import Source

HEALTHY, FAULTY, UNKNOWN = "healthy", "faulty", ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One snapshot of a machine; it holds paths and labels, never samples.

    Attributes:
        id: ``MACHINE@TIME``, unique in a data set.
        machine: The independent unit.
        time: Seconds, see `Measurement`.
        path: The file it lies in.
        place: Which snapshot of that file, counted from 0.
        label: ``"healthy"``, ``"faulty"``, or ``""`` where nobody knows.
    """

    id: str
    machine: str
    time: float
    path: Path
    place: int = 0
    label: str = UNKNOWN

    @property
    def source(self) -> Source:
        """The file, and which of its snapshots this is."""
        return Source(self.path, str(self.place))

    @property
    def groups(self) -> tuple[str]:
        """The machine."""
        return (self.machine,)
