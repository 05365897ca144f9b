"""When a training is sampled: as often as a share of its time allows."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

_RECENT = 5
_FIRST = 3


class Pace:
    """Chooses the sampled steps.

    A sample waits until the training has run for cost / share since the last one. The cost is the
    median of recent samples, so that one slow sample is forgotten, and the wait follows the
    training when its steps become faster or slower. Beside these there are

    * the first three samples, `every` steps apart;
    * the end of the training, where it is known: the last step, and one `every` steps before it,
      so that what has happened late is seen twice;
    * one more after `every` steps where a sample has shown something that must be confirmed.

    Args:
        every: Fewest steps between samples.
        last_step: Of the training, None where it is not known.

    Attributes:
        last_steps: Those at the end of the training.
        next_seconds: No other step is due before so many seconds of training.
    """

    def __init__(self, every: int, last_step: int | None = None) -> None:
        self._every = every
        self.last_steps = {last_step, last_step - every} if last_step is not None else set()
        self._costs: deque[float] = deque(maxlen=_RECENT)
        self._count = 0
        self._next_step = 0
        self._begin_seconds = self.next_seconds = 0.0
        self._confirming = self._confirmed = False

    def due(self, step: int, seconds: float) -> bool:
        """Return whether a step is to be sampled, after so many seconds of training."""
        if step in self.last_steps:
            return True
        return step >= self._next_step and seconds >= self.next_seconds

    def begin(self, step: int, seconds: float) -> None:
        """Begin a sample."""
        self._begin_seconds = seconds
        self._confirmed, self._confirming = self._confirming, False
        self._count += 1
        self._costs.append(0.0)
        self._next_step = step + self._every

    def spend(self, cost: float) -> None:
        """Add to the cost of the present sample, in seconds."""
        self._costs[-1] += cost

    def plan(self, share: float, *, confirm: bool) -> float:
        """Plan the next sample after the present one; return the seconds between them.

        Args:
            share: Of the training's time that samples may take.
            confirm: Whether the sample has shown something that a second one must confirm.
        """
        self._confirming = confirm and not self._confirmed
        wait = median(self._costs) / share if share > 0 else math.inf
        at_once = self._confirming or self._count < _FIRST
        self.next_seconds = self._begin_seconds + (0.0 if at_once else wait)
        return wait

    def resume(self, step: int) -> None:
        """Sample again from a step on, as at the start."""
        self._count, self._next_step = 0, step
        self.next_seconds = 0.0
