"""What became of a snapshot that was ingested."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lineside.machines.alarms.verdict import Event, Verdict, join_texts

Status = Literal["judged", "duplicate", "out_of_order", "refused", "unknown_machine"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What became of one snapshot or message.

    Attributes:
        status: ``judged`` and stored; ``duplicate``: one of this machine and time is stored already
            (with a `message` if its content differs; the first one stays); ``out_of_order``: older
            than the last judged snapshot of its machine, stored but not judged;
            ``unknown_machine``: stored until the model knows the machine; ``refused``: it cannot
            be read or judged.
        item: ``MACHINE@TIME``, or where the message came from.
        source: Which source delivered it.
        machine: Empty where it is not known.
        time: Of the snapshot in seconds, NaN where it is not known.
        verdict: Of a judged one.
        events: What was done to its machine just before: acknowledged, muted, model changed.
        message: Why it was not judged, one line.
        hint: What to do about it.
        in_future: Refused because its time is in the future.
    """

    status: Status
    item: str
    source: str = ""
    machine: str = ""
    time: float = math.nan
    verdict: Verdict | None = None
    events: tuple[Event, ...] = ()
    message: str = ""
    hint: str = ""
    in_future: bool = False

    @property
    def finding(self) -> bool:
        """True if a person should look."""
        return self.verdict is not None and self.verdict.finding

    def as_json(self) -> dict[str, Any]:
        """Return the plain dictionary of one JSON line, and of the answer over HTTP."""
        fields: dict[str, Any] = {"status": self.status, "item": self.item, "source": self.source}
        if self.verdict is not None:
            fields.update(self.verdict.as_json())
        if self.message:
            fields.update(error=self.message, hint=self.hint)
        if self.events:
            fields["done"] = [event.text for event in self.events]
        return fields

    def as_line(self) -> str:
        """Return one line for people, in the columns of a verdict's line."""
        if self.verdict is not None:
            line = self.verdict.as_line()
        else:
            item = "" if self.item in self.message else f"{self.item}  "
            line = f"{self.status:<24}{item}{self.message}".rstrip()
        return join_texts([line, *(event.text for event in self.events)])
