"""What a model says about one snapshot of one machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["normal", "alert", "danger", "sensor fault", "unknown state", "idle", "warming up"]
"""``unknown state``: a speed or load that was never learned. ``warming up``: too little history."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change that people may have to know of.

    Attributes:
        kind: ``alert``, ``danger``, ``cleared``, ``sensor fault``, ``sensor well``, ``speed
            doubted``, ``speed trusted``, ``acknowledged`` ...
        episode: Number of the alarm episode of this machine, 0 for other events.
        text: One sentence.
        evidence: What speaks for it: channel, band, order, contributions; plain JSON values.
    """

    kind: str
    episode: int = 0
    text: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One judged snapshot; the machine may need attention even where nothing changed just now.

    Attributes:
        machine: Whose.
        time: Seconds, see `Measurement`.
        state: State of the machine after this snapshot.
        novelty: How unusual it is, in robust spreads of held-out healthy snapshots; None where
            it was not judged (sensor fault, standstill, unknown state).
        limit: Novelty from which on a snapshot counts towards an alert.
        events: What changed.
        note: Why it was not judged, or what else to know.
        forecast: While an alarm runs: hours to danger with their interval, see `Prognosis`, and
            ``made``, the time of the snapshot from which they count; None without an alarm.
    """

    machine: str
    time: float
    state: State
    novelty: float | None = None
    limit: float | None = None
    events: tuple[Event, ...] = ()
    note: str = ""
    forecast: Mapping[str, Any] | None = None

    @property
    def item(self) -> str:
        """The snapshot's id."""
        return f"{self.machine}@{self.time:.3f}"

    @property
    def finding(self) -> bool:
        """True if a person should look."""
        return self.state in ("alert", "danger", "sensor fault", "unknown state")

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line."""
        return {
            "item": self.item, "machine": self.machine, "time": self.time, "state": self.state,
            "novelty": self.novelty, "limit": self.limit, "note": self.note,
            "forecast": None if self.forecast is None else dict(self.forecast),
            "events": [
                {"kind": e.kind, "episode": e.episode, "text": e.text, "evidence": dict(e.evidence)}
                for e in self.events
            ],
        }  # fmt: skip

    def as_line(self) -> str:
        """Return one line of a table."""
        novelty = "       -" if self.novelty is None else f"{self.novelty:8.2f}"
        said = [*(event.text for event in self.events), *self.note.split("; ")]
        told = "; ".join(dict.fromkeys(text for text in said if text))  # a note may repeat events
        line = f"{self.state:<13} {novelty}  {date(self.time):<19}  {self.machine}"
        return f"{line}  {told}" if told else line


FIRST_DATED = 946_684_800.0
"""Times before the year 2000 are no dates but seconds since some start."""


def date(seconds: float) -> str:
    """Return a time for people: a date (UTC), or seconds since the start of a history."""
    if seconds < FIRST_DATED:
        return f"{seconds:.0f} s"
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"
