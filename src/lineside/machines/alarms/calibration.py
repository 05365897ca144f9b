"""From scores to z: logarithm, EWMA, robust spreads of healthy rows that nothing was fitted on.

Two tiers: *alert* where z passes a limit, *danger* far beyond it, or where the machine has become
louder by a stated factor, which needs no detector and no calibration. Scores with a ceiling, which
may never reach the limit, are ranked among the healthy ones instead. A limit is only promised for a
false-alarm budget where held-out data can support it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from lineside.core.errors import UserError
from lineside.machines.alarms.logic import Alarm, Rules

Floats = NDArray[np.float64]
MONTH_SECONDS = 365.25 * 86400 / 12
FEWEST = 20
TINY = 1e-300
LIMITS = tuple(0.5 * i for i in range(8, 61))
"""Limits that are tried: z of 4 to 30."""
USUAL_BUDGET = 0.1
"""Episodes per machine-month that the default limit of the rules is meant for."""
STEP_PER_DECADE = 3.0
"""So much is added to the default limit for a tenth of the usual budget."""
RANK_SHARE = 0.5
"""A ranked score reaches the limit this far up from the largest healthy one to the ceiling."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a score means on one machine.

    Attributes:
        factor: Weight of the newest logarithm in the EWMA.
        center: Median of the smoothed logarithm on held-out healthy rows.
        spread: 1.4826 MAD of it.
        limit: z from which on a snapshot counts towards an alert.
        kind: ``z``, or ``rank`` for scores that saturate.
        largest: Largest smoothed logarithm on the held-out rows.
        ceiling: Logarithm of the largest score that there is, None if there is none.
        reference: Healthy level that growth is measured from; None: `center`.
        rows: Held-out snapshots behind it.
        months: Their time, in machine-months.
        promise: One sentence: what they can support.
    """

    factor: float
    center: float
    spread: float
    limit: float
    kind: Literal["z", "rank"] = "z"
    largest: float = 0.0
    ceiling: float | None = None
    reference: float | None = None
    rows: int = 0
    months: float = 0.0
    promise: str = ""

    def smooth(self, score: float, before: float | None) -> float:
        """Return the EWMA after one more score; `before` is None at the first one."""
        value = math.log(max(score, TINY))
        return value if before is None else self.factor * value + (1.0 - self.factor) * before

    def z(self, smoothed: float) -> float:
        """Return novelty in robust spreads of healthy rows (of ranks: scaled to the limit)."""
        if self.kind == "z" or self.ceiling is None:
            return (smoothed - self.center) / self.spread
        # Linear between median (0), largest healthy (0.75), the limit (1) and the ceiling (2).
        top = self.ceiling
        at_limit = self.largest + RANK_SHARE * (top - self.largest)
        places = [2 * self.center - self.largest, self.center, self.largest, at_limit, top]
        return self.limit * float(np.interp(smoothed, places, [-0.75, 0.0, 0.75, 1.0, 2.0]))

    def growth(self, smoothed: float) -> float:
        """Return by which factor the smoothed score lies above its healthy level."""
        level = self.center if self.reference is None else self.reference
        return math.exp(min(smoothed - level, 700.0))

    def series(self, scores: Floats) -> tuple[Floats, Floats]:
        """Return z and growth of scores in order of time, as a stream would see them."""
        smoothed: float | None = None
        found = []
        for score in scores:
            smoothed = self.smooth(float(score), smoothed)
            found.append((self.z(smoothed), self.growth(smoothed)))
        both = np.array(found, dtype=np.float64).reshape(-1, 2)
        return both[:, 0], both[:, 1]


def calibrate(
    scores: Floats,
    times: Sequence[float] | NDArray[np.floating[Any]],
    *,
    rules: Rules,
    budget: float = 0.1,
    factor: float = 0.2,
    ceiling: float | None = None,
    reference: float | None = None,
) -> Calibration:
    """Calibrate on healthy snapshots that the detector was **not** fitted on.

    Args:
        scores: Of the held-out healthy rows in order of time, shape (snapshot,).
        times: Their times in seconds.
        rules: The alarm logic; `rules.limit` is the default limit.
        budget: False alarm episodes per machine-month that are acceptable.
        factor: Of the EWMA.
        ceiling: Largest score that the detector can give, None if there is no bound.
        reference: Logarithm of the score that growth is measured from (0 for a relative trend);
            the median of the held-out rows by default.

    Raises:
        UserError: too few held-out rows, or scores that are not finite.
    """
    if len(scores) < FEWEST or not np.isfinite(scores).all():
        raise UserError(
            f"{len(scores)} held-out healthy snapshots cannot calibrate a detector",
            f"{FEWEST} with finite scores are the fewest, 66 are better",
        )
    raw = Calibration(factor=factor, center=0.0, spread=1.0, limit=rules.limit)
    smoothed, last = np.empty(len(scores)), None
    for i, score in enumerate(scores):
        last = raw.smooth(float(score), last)
        smoothed[i] = last
    center = float(np.median(smoothed))
    spread = max(1.4826 * float(np.median(np.abs(smoothed - center))), 1e-6)
    largest = float(smoothed.max())
    top = None if ceiling is None else math.log(max(ceiling, TINY))
    saturates = top is not None and (top - center) / spread < 1.25 * rules.limit
    months = healthy_months(np.asarray(times, dtype=np.float64))
    z = (smoothed - center) / spread
    limit, promise = (
        (rules.limit, _ranked(len(scores)))
        if saturates
        else limit_for_budget(z, np.asarray(times, dtype=np.float64), rules, budget)
    )
    return Calibration(
        factor=factor, center=center, spread=spread,
        limit=limit, kind="rank" if saturates else "z", largest=largest, ceiling=top,
        rows=len(scores), months=months, promise=promise,
    )  # fmt: skip


def limit_for_budget(z: Floats, times: Floats, rules: Rules, budget: float) -> tuple[float, str]:
    """Return a limit for a false-alarm budget, and one sentence on what it rests on.

    Where healthy time suffices (zero episodes in T months bound the rate at 3/T with 95 %
    confidence, Hanley and Lippman-Hand 1983) it is the smallest limit whose upper bound keeps the
    budget: limits are tried from the highest down to the first that fails, so that the choice does
    not spoil the confidence (fixed-sequence testing, Maurer et al. 1995). Otherwise it is the
    default for that budget, raised until the held-out rows raise no alarm.

    Args:
        z: Of held-out healthy snapshots in order of time.
        times: Seconds.
        rules: The alarm logic.
        budget: Episodes per machine-month.
    """
    months = healthy_months(times)
    if 3.0 / max(months, 1e-9) <= budget:
        proven: tuple[float, str] | None = None
        for limit in reversed(LIMITS):
            count = episodes(z, times, rules, limit)
            upper = upper_rate(count, months)
            if upper > budget:
                break
            promise = (
                f"{count} episodes in {months:.2f} held-out machine-months at z > {limit:g}: at "
                f"most {upper:.3g} a month with 95 % confidence, within the budget of {budget:g}"
            )
            proven = limit, promise
        if proven is not None:
            return proven
    start = default_limit(rules, budget)
    limit = start
    for limit in (start, *[tried for tried in LIMITS if tried > start]):
        count = episodes(z, times, rules, limit)
        if count == 0:
            break
    raised = "" if limit == start else f", raised from {start:g}"
    return limit, (
        f"{len(z)} held-out healthy snapshots over {months:.3g} machine-months cannot prove the "
        f"budget of {budget:g} a month: {count} episodes there only bound the rate at "
        f"{upper_rate(count, months):.3g}; the limit is the default of z > {limit:g}{raised}; "
        f"{3.0 / budget:.3g} quiet months would prove it"
    )


def default_limit(rules: Rules, budget: float) -> float:
    """Return the limit to begin with for a budget: the rules' own at the usual budget.

    Three up for a tenth of the budget, three down for ten times as much: on simulated machines the
    default keeps its budget with room, and two up make the rate two or three times smaller. It is
    never below the smallest limit that is ever tried.
    """
    moved = rules.limit + STEP_PER_DECADE * math.log10(USUAL_BUDGET / budget)
    return min(max(round(2 * moved) / 2, min(LIMITS[0], rules.limit)), LIMITS[-1])


def upper_rate(count: int, months: float) -> float:
    """Return the upper 95 % bound of a Poisson rate per month (Garwood 1936)."""
    return float(chi2.ppf(0.95, 2 * count + 2)) / 2 / max(months, 1e-9)


def episodes(z: Floats, times: Floats, rules: Rules, limit: float) -> int:
    """Return how many alarm episodes the rules make of a series at a limit."""
    if (z > limit).sum() < rules.k and rules.danger == math.inf:
        return 0
    alarm = Alarm(rules, limit=limit)
    told = [alarm.push(float(value), float(time))[1] for value, time in zip(z, times, strict=True)]
    return sum(event is not None and bool(event.evidence.get("first")) for event in told)


def healthy_months(times: Floats) -> float:
    """Return monitored time in machine-months: gaps count as one usual step each."""
    if len(times) < 2:
        return 0.0
    steps = np.diff(times)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    return float(np.clip(steps, 0.0, 3 * usual).sum() + usual) / MONTH_SECONDS


def _ranked(rows: int) -> str:
    return (
        f"the score saturates, so it is ranked among {rows} held-out healthy snapshots: it counts "
        f"from {RANK_SHARE:.0%} of the way between the largest of them and its ceiling; no rate "
        "can be promised"
    )
