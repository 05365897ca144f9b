"""What is learned as normal, when, and with whose consent: the guard against poisoning.

A machine's normal is learned once, after its run-in. Nothing is learned by itself later: rows
that would move the baseline are only taken with the name of a person who consents, and every
decision is a row of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import UserError
from lineside.machines.detectors.detection import Rows

Floats = NDArray[np.float64]
Phase = Literal["run-in", "learning", "settling", "monitoring"]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """When a machine is learned from and judged.

    Attributes:
        run_in_seconds: Time at the start that is not learned from.
        rows: Snapshots to learn from.
        gap_seconds: A longer silence is a restart.
        settle: Snapshots after a restart that are not judged.
        drift: Largest change along the learned rows, or from the old to the new baseline, in
            robust spreads, that passes as steady.
    """

    run_in_seconds: float = 0.0
    rows: int = 200
    gap_seconds: float = 3600.0
    settle: int = 3
    drift: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A row of the ledger.

    Attributes:
        time: When it was decided, seconds.
        first: Time of the first row that was learned from.
        last: Time of the last one.
        rows: How many.
        shift: Largest move of a feature, in robust spreads.
        feature: Which one moved most.
        by: Who consented; empty for the first baseline of a machine.
        why: The reason given.
    """

    time: float
    first: float
    last: float
    rows: int
    shift: float
    feature: int
    by: str = ""
    why: str = ""


class LearningGuard:
    """Phases of one machine, and the ledger of what was learned; its memory is plain JSON."""

    def __init__(self, learning: Learning, state: Mapping[str, Any] | None = None) -> None:
        """Start with a new machine, or go on from `state`."""
        self.learning = learning
        fresh = {"start": None, "last": None, "rows": 0, "settling": 0, "center": None}
        self._s: dict[str, Any] = {**fresh, "spread": None, "ledger": [], **(state or {})}

    def state(self) -> dict[str, Any]:
        """Return all memory as plain JSON values."""
        return {**self._s, "ledger": [dict(row) for row in self._s["ledger"]]}

    @property
    def ledger(self) -> tuple[Learned, ...]:
        """What was learned when, oldest first."""
        return tuple(Learned(**row) for row in self._s["ledger"])

    def push(self, time: float) -> Phase:
        """Take the time of one healthy-looking snapshot and return what to do with it.

        A restart (a gap) while learning begins the learning anew: a level step across it would
        be learned as spread.
        """
        s, learning = self._s, self.learning
        if s["start"] is None:
            s["start"] = float(time)
        restart = s["last"] is not None and time - s["last"] > learning.gap_seconds
        s["last"] = float(time)
        if restart:
            s["settling"] = learning.settle
            if s["center"] is None:
                s["rows"] = 0
        if time - s["start"] < learning.run_in_seconds:
            return "run-in"
        if s["settling"] > 0:
            s["settling"] -= 1
            return "settling"
        if s["center"] is None:
            s["rows"] += 1
            return "learning"
        return "monitoring"

    @property
    def ready(self) -> bool:
        """True if enough rows have been seen since the last restart, and none were learned yet."""
        return self._s["center"] is None and self._s["rows"] >= self.learning.rows

    def learn(
        self,
        rows: Rows,
        times: Sequence[float],
        *,
        now: float,
        by: str = "",
        why: str = "",
    ) -> Learned:
        """Take rows as the machine's normal, or refuse.

        Args:
            rows: Shape (snapshot, feature), in order of time.
            times: Their times in seconds.
            now: Time of the decision.
            by: Who consents.
            why: The reason, e.g. ``"bearing replaced"``.

        Raises:
            UserError: without consent: a trend along the first baseline (a fault during learning),
                or any later baseline, with how far it would move.
        """
        values = np.asarray(rows, dtype=np.float64)
        center, spread = np.median(values, axis=0), robust_spread(values)
        if self._s["center"] is None:
            moves, what = drift_along(values), "a feature drifts while the first normal is learned"
        else:
            old, old_spread = np.array(self._s["center"]), np.array(self._s["spread"])
            moves = np.abs(center - old) / old_spread
            what = "learning again would move the normal"
        feature, shift = int(np.argmax(moves)), float(moves.max())
        consented = bool(by.strip())
        if not consented and (self._s["center"] is not None or shift > self.learning.drift):
            raise UserError(
                f"{what}: feature {feature} by {shift:.1f} robust spreads",
                "a person must consent, with name and reason, after looking at the machine",
            )
        row = Learned(
            time=float(now), first=float(times[0]), last=float(times[-1]), rows=len(values),
            shift=shift, feature=feature, by=by, why=why,
        )  # fmt: skip
        self._s.update(center=center.tolist(), spread=spread.tolist(), rows=len(values))
        self._s["ledger"] = [*self._s["ledger"], asdict(row)]
        return row


def robust_spread(values: Floats) -> Floats:
    """Return 1.4826 MAD of each feature, never 0, shape (feature,)."""
    center = np.median(values, axis=0)
    spread = 1.4826 * np.median(np.abs(values - center), axis=0)
    return np.where(spread > 1e-9 * np.maximum(1.0, np.abs(center)), spread, 1.0)


def drift_along(values: Floats) -> Floats:
    """Return how far each feature moves from the first to the last fifth of the rows.

    In robust spreads about a running level, so that the drift itself does not widen the measure.
    """
    fifth = max(2, len(values) // 5)
    first, last = np.median(values[:fifth], axis=0), np.median(values[-fifth:], axis=0)
    pieces = [p - np.median(p, axis=0) for p in np.array_split(values, 5) if len(p)]
    return np.abs(last - first) / robust_spread(np.concatenate(pieces))


def start_of_normal(values: Floats, *, window: int = 40, drift: float = 1.5) -> int:
    """Return from which row on a run-in has levelled off: the delayed start.

    Args:
        values: Rows, shape (snapshot, feature).
        window: Rows of the two pieces that are compared.
        drift: Their levels may differ by this many robust spreads.

    Returns:
        The first row after which two windows in a row are level; the last possible row otherwise.
    """
    last = max(0, len(values) - 2 * window)
    for start in range(0, last + 1, max(1, window // 4)):
        first = values[start : start + window]
        second = values[start + window : start + 2 * window]
        apart = np.abs(np.median(first, axis=0) - np.median(second, axis=0))
        if (apart / robust_spread(second)).max() <= drift:
            return start
    return last
