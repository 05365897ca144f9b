"""The alarm logic of one machine: k of n, hysteresis, two levels, mute and acknowledge.

A state machine over the novelty z of successive snapshots. All of its state is plain JSON.

    normal --(k of the last n above the limit)--> alert --(danger_k far above, or loud)--> danger
    alert, danger --(`quiet` snapshots in a row below hysteresis x limit)--> normal
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

from lineside.core.errors import UserError
from lineside.machines.alarms.verdict import Event

Level = Literal["normal", "alert", "danger"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """When an alarm begins and ends.

    Attributes:
        limit: z above which a snapshot counts towards an alert.
        k: Of the last `n` snapshots, this many must count for an alert.
        n: See `k`.
        danger: z above which a snapshot also counts towards danger; infinite for none.
        growth: Factor over the healthy vibration level from which a snapshot counts towards
            danger; infinite for none.
        danger_k: Of the last `n` snapshots, this many must count towards danger (all of them if n
            is smaller).
        hysteresis: A snapshot is quiet below this share of the limit.
        quiet: This many quiet snapshots in a row end the episode.
    """

    limit: float = 6.0
    k: int = 5
    n: int = 6
    danger: float = math.inf
    growth: float = math.inf
    danger_k: int = 3
    hysteresis: float = 0.7
    quiet: int = 6


INITIAL: dict[str, Any] = {
    "level": "normal", "recent": [], "severe": [], "quiet": 0, "episode": 0, "began": None,
    "acknowledged": None, "muted_until": None, "muted_by": "", "pending": None,
}  # fmt: skip


class Alarm:
    """Folds z over time into levels and events.

    `push` is a pure function of `state` and its arguments: two alarms that continue from the same
    state give the same events.
    """

    def __init__(
        self, rules: Rules, state: Mapping[str, Any] | None = None, limit: float | None = None
    ) -> None:
        """Start, or continue from a state; `limit` replaces the limit of the rules."""
        self.rules = rules
        self.limit = rules.limit if limit is None else limit
        self._s: dict[str, Any] = copy.deepcopy({**INITIAL, **(state or {})})

    def state(self) -> dict[str, Any]:
        """Return the whole state as plain JSON values."""
        return copy.deepcopy(self._s)

    @property
    def level(self) -> Level:
        """State of the machine after the last push."""
        return cast(Level, self._s["level"])

    def push(self, z: float, time: float, growth: float = 1.0) -> tuple[Level, Event | None]:
        """Add one judged snapshot.

        Args:
            z: Novelty, see `Calibration.z`; NaN (not judged) changes nothing.
            time: Seconds; never decreasing.
            growth: Factor over the healthy vibration level.

        Returns:
            The level, and an event if it changed and is not muted.
        """
        if not math.isfinite(z):
            return self.level, None
        self._count(z, growth)
        event = self._change_level(z, time, growth)
        return self.level, self._release(event, time)

    def mute(self, until: float, by: str) -> None:
        """Hold back events until a time; an alarm that lasts longer is reported afterwards."""
        self._s["muted_until"], self._s["muted_by"] = float(until), by

    def acknowledge(self, time: float, by: str) -> None:
        """Record that a person has seen the active episode.

        Raises:
            UserError: no alarm is active.
        """
        if self.level == "normal":
            raise UserError("no alarm is active", "only an active alarm can be acknowledged")
        self._s["acknowledged"] = {"time": float(time), "by": by}

    def reset_window(self) -> None:
        """Forget the last n snapshots after a restart; level and episode stay."""
        self._s.update(recent=[], severe=[], quiet=0)

    def _count(self, z: float, growth: float) -> None:
        """Add a snapshot to the k-of-n windows and to the quiet run."""
        rules, s = self.rules, self._s
        counts = z > self.limit
        severe = (counts and z > rules.danger) or growth >= rules.growth
        s["recent"] = [*s["recent"], int(counts or severe)][-rules.n :]
        s["severe"] = [*s["severe"], int(severe)][-rules.n :]
        is_quiet = z < rules.hysteresis * self.limit and not severe
        s["quiet"] = s["quiet"] + 1 if is_quiet else 0

    def _change_level(self, z: float, time: float, growth: float) -> Event | None:
        rules, s = self.rules, self._s
        if s["level"] != "danger" and sum(s["severe"]) >= min(rules.danger_k, rules.n):
            return self._enter("danger", z, time, growth)
        if s["level"] == "normal" and sum(s["recent"]) >= rules.k:
            return self._enter("alert", z, time, growth)
        if s["level"] == "normal" or s["quiet"] < rules.quiet:
            return None
        s["level"], s["acknowledged"] = "normal", None
        hours = (time - s["began"]) / 3600
        text = f"Cleared. Episode {s['episode']} ended after {hours:.1f} h."
        return self._event("cleared", text, {})

    def _enter(self, level: Level, z: float, time: float, growth: float) -> Event:
        s = self._s
        first = s["level"] == "normal"
        if first:
            s["episode"] += 1
            s["began"] = float(time)
        s["level"] = level
        evidence = {
            "z": z, "limit": self.limit, "growth": growth, "first": first,
            "counting": sum(s["recent"]), "of": len(s["recent"]),
        }  # fmt: skip
        text = (
            f"Alert. Novelty {z:.1f} above {self.limit:g}, {evidence['counting']} of the last "
            f"{evidence['of']} snapshots."
        )
        if level == "danger":
            text = f"Danger. Novelty {z:.1f} above {self.rules.danger:g}."
            if growth >= self.rules.growth:
                text = f"Danger. Vibration {growth:.1f} times its healthy level, novelty {z:.1f}."
        return self._event(level, text, evidence)

    def _event(self, kind: str, text: str, evidence: dict[str, Any]) -> Event:
        return Event(kind=kind, episode=self._s["episode"], text=text, evidence=evidence)

    def _release(self, event: Event | None, time: float) -> Event | None:
        """Hold events back while muted; afterwards return the last one that still holds."""
        s = self._s
        if s["muted_until"] is not None and time < s["muted_until"]:
            if event is not None:
                s["pending"] = asdict(event) if event.kind != "cleared" else None
            return None
        s["muted_until"] = None
        pending, s["pending"] = s["pending"], None
        if event is None and pending is not None:
            evidence = {**pending["evidence"], "held_back_by": s["muted_by"]}
            return Event(**{**pending, "evidence": evidence})
        return event
