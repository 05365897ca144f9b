"""From scores to novelty z: calibration on healthy snapshots that the detector was not fitted on.

    y_t = log score_t
    s_t = factor y_t + (1 - factor) s_(t-1)            EWMA (Roberts 1959)
    z_t = (s_t - median) / (1.4826 MAD)                median and MAD of s over held-out snapshots

*Alert* is z above a limit, *danger* z far above it, or a vibration level of several times the
healthy one, which needs no detector and no calibration. Scores with a ceiling, which may never
reach the limit, are ranked among the healthy ones instead. A limit guarantees a false-alarm budget
only if the held-out time suffices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lineside.core.errors import UserError
from lineside.machines.alarms.logic import Alarm, Rules

Floats = NDArray[np.float64]
MONTH_SECONDS = 365.25 * 86400 / 12
FEWEST = 20
TINY = 1e-300
LIMITS = tuple(0.5 * i for i in range(8, 61))
"""Limits that are tried: z of 4 to 30."""
USUAL_BUDGET = 0.1
"""Episodes per machine-month for which the default limit of the rules is meant."""
STEP_PER_DECADE = 3.0
"""Added to the default limit for each factor of ten below the usual budget."""
RANK_SHARE = 0.5
"""A ranked score reaches the limit this far up from the largest healthy one to the ceiling."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Meaning of the scores of one machine's detector.

    Attributes:
        factor: Weight of the newest log score in the EWMA.
        center: Median of the smoothed log score over held-out healthy snapshots.
        spread: 1.4826 MAD of it.
        limit: z above which a snapshot counts towards an alert.
        kind: ``z``, or ``rank`` for scores that saturate.
        largest: Largest smoothed log score of the held-out snapshots.
        ceiling: Logarithm of the largest possible score, None without a bound.
        rows: Number of held-out snapshots.
        months: Their time, in machine-months.
        guarantee: One sentence: what they can guarantee.
    """

    factor: float
    center: float
    spread: float
    limit: float
    kind: Literal["z", "rank"] = "z"
    largest: float = 0.0
    ceiling: float | None = None
    rows: int = 0
    months: float = 0.0
    guarantee: str = ""

    def smooth(self, score: float, before: float | None) -> float:
        """Return the EWMA after one more score; `before` is None for the first one."""
        value = math.log(max(score, TINY))
        return value if before is None else self.factor * value + (1.0 - self.factor) * before

    def z(self, smoothed: float) -> float:
        """Return the novelty of a smoothed log score, in robust spreads.

        For ranks: piecewise linear from the median (0) over the largest healthy score (0.75 of the
        limit) and the limit to the ceiling (twice the limit).
        """
        if self.kind == "z" or self.ceiling is None:
            return (smoothed - self.center) / self.spread
        top = self.ceiling
        at_limit = self.largest + RANK_SHARE * (top - self.largest)
        knots = [2 * self.center - self.largest, self.center, self.largest, at_limit, top]
        return self.limit * float(np.interp(smoothed, knots, [-0.75, 0.0, 0.75, 1.0, 2.0]))

    def series(self, scores: Floats) -> Floats:
        """Return z of scores in order of time, as a stream would give it, shape (snapshot,)."""
        smoothed: float | None = None
        z = np.empty(len(scores))
        for i, score in enumerate(scores):
            smoothed = self.smooth(float(score), smoothed)
            z[i] = self.z(smoothed)
        return z


def calibrate(
    scores: Floats,
    times: Sequence[float] | NDArray[np.floating[Any]],
    *,
    rules: Rules,
    budget: float = 0.1,
    factor: float = 0.2,
    ceiling: float | None = None,
) -> Calibration:
    """Calibrate on healthy snapshots that the detector was **not** fitted on.

    Args:
        scores: Of the held-out healthy snapshots in order of time, shape (snapshot,).
        times: Their times in seconds.
        rules: The alarm logic; `rules.limit` is the default limit.
        budget: Acceptable false alarm episodes per machine-month.
        factor: Of the EWMA.
        ceiling: Largest possible score of the detector, None without a bound.

    Raises:
        UserError: too few held-out snapshots, or scores that are not finite.
    """
    if len(scores) < FEWEST or not np.isfinite(scores).all():
        raise UserError(
            f"{len(scores)} held-out healthy snapshots cannot calibrate a detector",
            f"at least {FEWEST} with finite scores are needed, 66 are better",
        )
    unscaled = Calibration(factor=factor, center=0.0, spread=1.0, limit=rules.limit)
    smoothed = unscaled.series(scores)
    center = float(np.median(smoothed))
    spread = max(1.4826 * float(np.median(np.abs(smoothed - center))), 1e-6)
    top = None if ceiling is None else math.log(max(ceiling, TINY))
    saturates = top is not None and (top - center) / spread < 1.25 * rules.limit
    seconds = np.asarray(times, dtype=np.float64)
    limit, guarantee = (
        (rules.limit, _rank_guarantee(len(scores)))
        if saturates
        else limit_for_budget((smoothed - center) / spread, seconds, rules, budget)
    )
    return Calibration(
        factor=factor, center=center, spread=spread, limit=limit,
        kind="rank" if saturates else "z", largest=float(smoothed.max()), ceiling=top,
        rows=len(scores), months=monitored_months(seconds), guarantee=guarantee,
    )  # fmt: skip


def limit_for_budget(z: Floats, times: Floats, rules: Rules, budget: float) -> tuple[float, str]:
    """Return a limit for a false-alarm budget, and one sentence on what it guarantees.

    If the healthy time suffices (no episode in T months bounds the rate at 3 / T with 95 %
    confidence, Hanley and Lippman-Hand 1983), it is the smallest limit whose upper bound keeps the
    budget. Limits are tried from the highest down to the first that fails, so that choosing among
    them does not affect the confidence (fixed-sequence testing, Maurer et al. 1995). Otherwise it
    is the default for that budget, raised until the held-out snapshots raise no alarm.

    Args:
        z: Of held-out healthy snapshots in order of time.
        times: Seconds.
        rules: The alarm logic.
        budget: Episodes per machine-month.
    """
    months = monitored_months(times)
    if 3.0 / max(months, 1e-9) <= budget:
        proven: tuple[float, str] | None = None
        for limit in reversed(LIMITS):
            count = count_episodes(z, times, rules, limit)
            upper = poisson_upper_bound(count, months)
            if upper > budget:
                break
            guarantee = (
                f"{count} episodes in {months:.2f} held-out machine-months at z > {limit:g}: at "
                f"most {upper:.3g} per month with 95 % confidence, within the budget of {budget:g}"
            )
            proven = limit, guarantee
        if proven is not None:
            return proven
    start = default_limit(rules, budget)
    limit = start
    for limit in (start, *[higher for higher in LIMITS if higher > start]):
        count = count_episodes(z, times, rules, limit)
        if count == 0:
            break
    raised = "" if limit == start else f", raised from {start:g}"
    return limit, (
        f"{len(z)} held-out healthy snapshots over {months:.3g} machine-months are too few to "
        f"prove the budget of {budget:g} per month: with {count} episodes the rate is at most "
        f"{poisson_upper_bound(count, months):.3g}; the limit is the default of z > {limit:g}"
        f"{raised}; {3.0 / budget:.3g} months without an episode would prove it"
    )


def default_limit(rules: Rules, budget: float) -> float:
    """Return the limit to begin with: that of the rules at the usual budget.

    3 higher for a tenth of the budget, 3 lower for ten times as much: on simulated machines the
    default keeps its budget with room, and a limit 2 higher lowers the rate by a factor of two to
    three. It is never below the smallest limit that is tried.
    """
    limit = rules.limit + STEP_PER_DECADE * math.log10(USUAL_BUDGET / budget)
    return min(max(round(2 * limit) / 2, min(LIMITS[0], rules.limit)), LIMITS[-1])


def poisson_upper_bound(count: int, months: float) -> float:
    """Return the upper 95 % bound of a Poisson rate per month, chi2(0.95, 2 n + 2) / 2 / months.

    Garwood 1936.
    """
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, 2 * count + 2)) / 2 / max(months, 1e-9)


def count_episodes(z: Floats, times: Floats, rules: Rules, limit: float) -> int:
    """Return the number of alarm episodes of a series at a limit."""
    alarm = Alarm(rules, limit=limit)
    events = [alarm.push(float(v), float(time))[1] for v, time in zip(z, times, strict=True)]
    return sum(event is not None and bool(event.evidence.get("first")) for event in events)


def monitored_months(times: Floats) -> float:
    """Return monitored time in machine-months: a gap counts as at most three usual steps."""
    if len(times) < 2:
        return 0.0
    steps = np.diff(times)
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    return float(np.clip(steps, 0.0, 3 * usual).sum() + usual) / MONTH_SECONDS


def _rank_guarantee(rows: int) -> str:
    return (
        f"the score saturates, so it is ranked among {rows} held-out healthy snapshots: it counts "
        f"from {RANK_SHARE:.0%} of the way between the largest of them and its ceiling; no rate "
        "can be guaranteed"
    )
