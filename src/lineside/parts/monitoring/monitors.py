"""What ``watch`` monitors over weeks: views of parts, score drift, image quality.

Memory is bounded, and the state depends on the inspected pictures only, so that replaying an audit
trail restores it.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from lineside.parts.model import PartsModel
from lineside.parts.monitoring.drift import DriftMonitor

SMALLEST_REFERENCE = 8
PARTS_KEPT = 1000
OPEN_PARTS = 8
"""A part counts as complete after this many later parts."""
PART_SECONDS = 3600.0
"""A view this much later than the last one belongs to another part of the same name."""
PICTURES, UNHEALTHY = 20, 10
"""Of the last 20 pictures, 10 of unusual quality suspend the certificate."""
PARTS, HELD_BACK = 40, 20
"""Of the last 40 parts, 20 that are not accepted suspend the certificate."""


@dataclass
class Part:
    """A part so far: the joined score of its views, not the views."""

    views: int
    score: float
    verdict: str
    last_seconds: float
    usual: bool
    counted: bool = False


@dataclass
class Monitors:
    """Monitors of inspected pictures; they suspend the certificate when it no longer holds.

    Attributes:
        model: Joins and decides.
        drift: Gets one score per accepted part; None without a reference.
        suspended: Why the certificate does not hold, or ``""``; once set it stays until the
            model is recalibrated.
        parts: The latest parts, the one with the latest view last; empty without a part pattern.
        unhealthy: For the latest pictures, whether the image quality was unusual.
        held_back: For the latest parts, whether one was not accepted.
    """

    model: PartsModel
    drift: DriftMonitor | None
    suspended: str = ""
    parts: OrderedDict[str, Part] = field(default_factory=OrderedDict)
    unhealthy: deque[bool] = field(default_factory=lambda: deque(maxlen=PICTURES))
    held_back: deque[bool] = field(default_factory=lambda: deque(maxlen=PARTS))

    @classmethod
    def of(cls, model: PartsModel) -> Monitors:
        """Return the monitors of a model before its first picture."""
        scores: Sequence[float] = ()  # of good calibration parts, joined as in production
        if model.operating is not None:
            named = model.settings.part_pattern
            scores = model.operating.good_scores if named else model.operating.good_view_scores
        accepted = [score for score in scores if score < model.threshold]
        drift = DriftMonitor(accepted) if len(accepted) >= SMALLEST_REFERENCE else None
        return cls(model=model, drift=drift, suspended=model.suspended)

    def update(self, name: str, score: float, health: Sequence[str], seconds: float) -> Part:
        """Add one inspected picture and return its part as it stands now.

        Args:
            name: The part.
            score: Of the picture.
            health: What is unusual about the picture.
            seconds: Time of the inspection, seconds since 1970.
        """
        self.unhealthy.append(bool(health))
        if self.suspended == "" and sum(self.unhealthy) >= UNHEALTHY:
            self.suspended = (
                f"{sum(self.unhealthy)} of the last {len(self.unhealthy)} pictures are unusual "
                f"(the last: {health[0] if health else 'healthy'}); check camera and light"
            )
        part = self._add_view(name, score, not health, seconds)
        if not self.model.settings.part_pattern:
            self._count(part)  # every picture is a part of its own, complete at once
            return part
        self.parts[name] = part
        self.parts.move_to_end(name)
        for complete in itertools.islice(reversed(self.parts.values()), OPEN_PARTS, OPEN_PARTS + 1):
            self._count(complete)
        if len(self.parts) > PARTS_KEPT:
            self.parts.popitem(last=False)
        return part

    def _add_view(self, name: str, score: float, usual: bool, seconds: float) -> Part:
        """Return the part with one more view."""
        before = self.parts.get(name)
        if before is None or seconds - before.last_seconds > PART_SECONDS:
            if before is not None:
                self._count(before)
            joined, verdict = self.model.decide([score], usual=usual)
            return Part(views=1, score=joined, verdict=verdict, last_seconds=seconds, usual=usual)
        usual = usual and before.usual
        joined, verdict = self.model.decide([before.score, score], usual=usual)
        return Part(
            views=before.views + 1,
            score=joined,
            verdict=verdict,
            last_seconds=seconds,
            usual=usual,
            counted=before.counted,
        )

    def _count(self, part: Part) -> None:
        """Count a complete part once: its verdict, and its score if it was accepted.

        The reference holds scores below the threshold only, so that both samples are alike.
        """
        if part.counted:
            return
        part.counted = True
        self.held_back.append(part.verdict != "accept")
        if self.drift is not None and part.verdict == "accept":
            self.drift.push(part.score)
        if self.suspended:
            return
        if self.drift is not None and self.drift.alarm:
            self.suspended = "the scores of accepted parts have drifted; recalibrate"
        elif sum(self.held_back) >= HELD_BACK:
            self.suspended = (
                f"{sum(self.held_back)} of the last {len(self.held_back)} parts were not accepted; "
                "check parts and camera, then recalibrate"
            )
