"""What became of a snapshot that the journal was given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lineside.core.contract import Refusal
from lineside.machines.alarms.verdict import Event, Verdict

Status = Literal["judged", "known", "late", "refused", "never learned"]


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What became of one snapshot.

    Attributes:
        item: ``MACHINE@TIME``.
        status: ``judged``; ``known``: it was there; ``late``: older than the last one judged, so
            kept but not judged; ``never learned``: kept so that its machine can be learned;
            ``refused``: it cannot be judged.
        verdict: If it was judged.
        refusal: Why not, for all but judged snapshots and plain repetitions.
        events: What was done to the machine just before: acknowledged, muted, model changed.
    """

    item: str
    status: Status
    verdict: Verdict | None = None
    refusal: Refusal | None = None
    events: tuple[Event, ...] = ()

    def line(self) -> str:
        """Return one line for people."""
        if self.verdict is not None:
            told = self.verdict.as_line()
        elif self.refusal is not None:
            told = f"{self.status:<13}           {self.item}  {self.refusal.message}"
        else:
            told = f"{self.status:<13}           {self.item}"
        return "; ".join([told, *(event.text for event in self.events)])
