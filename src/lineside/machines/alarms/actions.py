"""Operator actions: acknowledge an alarm, or mute a machine for a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lineside.core.errors import UserError
from lineside.machines.alarms.logic import Alarm
from lineside.machines.alarms.verdict import Event, format_time

ActionKind = Literal["acknowledge", "mute"]


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action of an operator.

    Attributes:
        kind: ``acknowledge`` or ``mute``.
        by: Who.
        why: The reason given.
        until: End of a mute, in seconds as in `Measurement.time`.
        applied: Time of the snapshot before which it took effect, None while it waits.
        number: Its number in the store, in the order of requests.
    """

    kind: ActionKind
    by: str
    why: str = ""
    until: float | None = None
    applied: float | None = None
    number: int = 0


def apply(alarm: Alarm, action: Action, time: float) -> Event:
    """Apply an action just before the snapshot of a time; return what it did."""
    evidence = {"by": action.by, "why": action.why}
    reason = f" ({action.why})" if action.why else ""
    episode = int(alarm.state()["episode"]) if alarm.level != "normal" else 0
    if action.kind == "mute":
        until = float(action.until or 0.0)
        alarm.mute(until, action.by)
        text = f"muted by {action.by} until {format_time(until)}{reason}"
        return Event(kind="muted", episode=episode, text=text, evidence=evidence)
    try:
        alarm.acknowledge(time, action.by)
    except UserError as error:
        text = f"not acknowledged by {action.by}{reason}: {error.message}"
        return Event(kind="nothing to acknowledge", text=text, evidence=evidence)
    text = f"acknowledged by {action.by}{reason}"
    return Event(kind="acknowledged", episode=episode, text=text, evidence=evidence)
