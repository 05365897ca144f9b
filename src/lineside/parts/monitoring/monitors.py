"""What ``watch`` follows over weeks: views of parts, drift of scores, health of pictures.

Memory is bounded, and the state depends on the judged pictures only, so that replaying an audit
trail gives it back.
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
"""A part is taken to be complete when so many later ones have been seen."""
PART_SECONDS = 3600.0
"""Views that come later than this after the last one belong to another part of the same name."""
PICTURES, UNHEALTHY = 20, 10
"""The certificate is suspended when so many of the last pictures are unhealthy."""
PARTS, HELD_BACK = 40, 20
"""The certificate is suspended when so many of the last parts are not accepted."""


@dataclass
class Part:
    """What is known of a part so far: the joined score of its views, not the views."""

    views: int
    score: float
    verdict: str
    last_seconds: float
    usual: bool
    followed: bool = False


@dataclass
class Monitors:
    """Follows what was judged; says when the certificate no longer holds.

    Attributes:
        model: Joins and decides.
        drift: Follows one score per accepted part, or None without a reference.
        suspended: Why the certificate does not hold, or ``""``; once set it stays until the
            model is calibrated anew.
        parts: The latest parts, the one with the latest view last; empty without a part pattern.
        unhealthy: For the latest pictures, whether one was unhealthy.
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
        """Return the monitors of a model that has judged nothing yet."""
        accepted = [score for score in _reference(model) if score < model.threshold]
        drift = DriftMonitor(accepted) if len(accepted) >= SMALLEST_REFERENCE else None
        return cls(model=model, drift=drift, suspended=model.suspended)

    def take(self, name: str, score: float, health: Sequence[str], seconds: float) -> Part:
        """Take one judged picture and return its part as it stands now.

        Args:
            name: The part.
            score: Of the picture.
            health: What is unusual about the picture.
            seconds: When it was judged, seconds since 1970.
        """
        self.unhealthy.append(bool(health))
        if self.suspended == "" and sum(self.unhealthy) >= UNHEALTHY:
            self.suspended = (
                f"{sum(self.unhealthy)} of the last {len(self.unhealthy)} pictures are unusual "
                f"(the last: {health[0] if health else 'healthy'}); check camera and light"
            )
        part = self._join(name, score, not health, seconds)
        if not self.model.settings.part_pattern:
            self._follow(part)  # every picture is a part of its own, complete at once
            return part
        self.parts[name] = part
        self.parts.move_to_end(name)
        for complete in itertools.islice(reversed(self.parts.values()), OPEN_PARTS, OPEN_PARTS + 1):
            self._follow(complete)
        if len(self.parts) > PARTS_KEPT:
            self.parts.popitem(last=False)
        return part

    def _join(self, name: str, score: float, usual: bool, seconds: float) -> Part:
        """Return the part with one view more; views that came before count too."""
        before = self.parts.get(name)
        if before is None or seconds - before.last_seconds > PART_SECONDS:
            if before is not None:
                self._follow(before)
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
            followed=before.followed,
        )

    def _follow(self, part: Part) -> None:
        """Push a complete part once: its verdict, and its score if it was accepted.

        The reference is cut at the threshold too, so that both sides are alike.
        """
        if part.followed:
            return
        part.followed = True
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


def _reference(model: PartsModel) -> Sequence[float]:
    """Return scores of good calibration parts, made as production makes them."""
    if model.operating is None:
        return ()
    if model.settings.part_pattern:
        return model.operating.good_scores
    return model.operating.good_view_scores
