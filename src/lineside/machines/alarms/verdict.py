"""The verdict on one snapshot of one machine, and its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

State = Literal["normal", "alert", "danger", "sensor fault", "unknown state", "idle", "warming up"]
"""``unknown state``: a speed or load outside of the trained range that cannot be judged.
``warming up``: after a restart, or too few snapshots for the detector. Stored in the database."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """A change that is reported to people.

    Attributes:
        kind: ``alert``, ``danger``, ``cleared``, ``sensor fault``, ``sensor recovered``, ``speed
            suspect``, ``speed confirmed``, ``acknowledged`` ...; stored in the database, where
            older stores have ``sensor well``, ``speed doubted`` and ``speed trusted``.
        episode: Number of the alarm episode of this machine, 0 for other events.
        text: For people.
        evidence: Channel, band, order, contributions ...; plain JSON values.
    """

    kind: str
    episode: int = 0
    text: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one snapshot.

    Attributes:
        machine: Name of the machine.
        time: Seconds, see `Measurement`.
        state: State of the machine after this snapshot.
        novelty: Deviation from normal, in robust spreads of held-out healthy snapshots; None if it
            was not judged (sensor fault, standstill, unknown state).
        limit: Novelty above which a snapshot counts towards an alert.
        events: What changed.
        note: Why it was not judged, or other remarks.
        forecast: During an alarm: hours to danger with their interval, see `Prognosis`, and
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
        """True if the machine needs a person's attention."""
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
        texts = [*(event.text for event in self.events), *self.note.split("; ")]
        remarks = join_texts(dict.fromkeys(texts))  # a note may repeat events
        time = format_time(self.time)
        return f"{self.state:<13} {novelty}  {time:<19}  {self.machine}  {remarks}".strip()


def join_texts(texts: Iterable[str]) -> str:
    """Join sentences by spaces and phrases by semicolons; empty texts are left out."""
    line = ""
    for text in filter(None, texts):
        line += text if not line else f" {text}" if line.endswith(".") else f"; {text}"
    return line


FIRST_DATED = 946_684_800.0
"""Times before the year 2000 are seconds since the start of a history without dates."""


def format_time(seconds: float) -> str:
    """Format a time: a date (UTC), or seconds since the start of a history without dates."""
    if seconds < FIRST_DATED:
        return f"{seconds:.0f} s"
    try:
        return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s"
