"""When will it be dangerous? A trend with an interval, or a plain "no trend yet".

Novelty counts robust spreads of the *logarithm* of a score, so that a fault that grows by a
constant factor makes it rise in a straight line. The line's slope is the median of the slopes
between pairs of snapshots, with the interval of Sen 1968 (section 5) from the spread of Kendall's
statistic, which no single burst can tilt. Neighbouring snapshots are not independent, so the
interval is made with the effective number of them (lag-one autocorrelation of the residuals). Real
trends bend: lines are also fitted to the latest half and third, and the interval spans all of them.

*Danger* is the novelty of the alarm logic's own danger tier, not the failure: how much a machine
bears beyond it is known to nobody who has not seen one like it fail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

FEWEST = 8
MOST = 96
"""Points of a running alarm that are kept; beyond it the older half is thinned out."""
BEFORE = 24
"""Points that are kept from before an alarm, none older than the last ordinary one."""
RECENT = 3
"""Snapshots whose median says whether the danger level is reached already."""
EVERY = 6
"""While an alarm lasts, the forecast is made anew after so many snapshots."""
MATERIAL = 0.25
"""A forecast is told again when its moment moved by this share of the time that was left."""
HOUR = 3600.0
SOON = 0.5
"""Below so many hours there is no window to plan in."""
FRESH: dict[str, Any] = {"trend": [], "age": 0, "forecast": None, "told": None}

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Prognosis:
    """The way to the danger level, counted from the last snapshot.

    Attributes:
        hours: Most likely time to danger, None without a trend.
        earliest_hours: Lower end of the interval.
        latest_hours: Upper end; None with `hours` where it is open.
        text: One sentence for people, with the recommended window of maintenance.
    """

    hours: float | None
    earliest_hours: float | None
    latest_hours: float | None
    text: str


def forecast(
    times: ArrayLike, novelty: ArrayLike, danger: float, *, confidence: float = 0.9
) -> Prognosis:
    """Return when novelty reaches the danger level if it goes on as it did.

    Args:
        times: Seconds, ascending, shape (snapshot,).
        novelty: Since the fault began to show, in robust spreads, shape (snapshot,).
        danger: The novelty that must not be reached.
        confidence: Of the interval.
    """
    t, y = np.asarray(times, dtype=np.float64), np.asarray(novelty, dtype=np.float64)
    usable = np.isfinite(y)
    t, y = t[usable], y[usable]
    if len(t) and float(np.median(y[-RECENT:])) >= danger:
        return Prognosis(
            hours=0.0, earliest_hours=0.0, latest_hours=0.0,
            text="The danger level is reached: stop or maintain now.",
        )  # fmt: skip
    if len(t) < FEWEST:
        return _none(f"{len(t)} snapshots are too few for a trend, {FEWEST} are needed.")
    spans = [len(t) // share for share in (1, 2, 3) if len(t) // share >= FEWEST]
    reached = [_reached(t[-n:], y[-n:], danger, confidence) for n in spans]
    hours = float(np.median([found[0] for found in reached]))
    if not np.isfinite(reached[0][2]) or not np.isfinite(hours):
        return _none("There is no clear rising trend: when it will be dangerous cannot be said.")
    earliest, latest = min(found[1] for found in reached), max(found[2] for found in reached)
    open_end = not np.isfinite(latest)
    between = f"between {_span(earliest)} and {_span(latest)}"
    if open_end:
        between = f"at the earliest in {_span(earliest)}, the latest cannot be said"
    text = (
        f"If it goes on like this, danger (novelty {danger:.3g}) is reached in about "
        f"{_span(hours)} ({between}). Plan maintenance "
        f"{'now' if earliest < SOON else f'within {_span(earliest)}'}."
    )
    return Prognosis(
        hours=hours, earliest_hours=earliest, latest_hours=None if open_end else latest, text=text
    )


def follow(
    memory: Mapping[str, Any],
    time: float,
    novelty: float,
    alarmed: bool,
    danger: float | None,
    *,
    now: bool = False,
) -> dict[str, Any]:
    """Return the memory of a trend after one more judged snapshot; plain JSON.

    Args:
        memory: As it was, `FRESH` at first.
        time: Seconds.
        novelty: In robust spreads.
        alarmed: Whether an alarm is running.
        danger: Novelty of the danger tier, None if there is none that can be reached.
        now: Make the forecast anew, even if it is not time to.
    """
    trend = _remembered(memory["trend"], time, novelty, alarmed)
    if not alarmed:
        return {**FRESH, "trend": trend}
    known = memory["forecast"]
    if known is not None and memory["age"] + 1 < EVERY and not now:
        return {**memory, "trend": trend, "age": memory["age"] + 1}
    return {**memory, "trend": trend, "age": 0, "forecast": _made(trend, danger)}


def news(memory: Mapping[str, Any]) -> bool:
    """Return whether the forecast differs so much from the one that was told that it matters."""
    now, told = memory["forecast"], memory["told"]
    if now is None or told is None:
        return now is not None
    if None in (now["hours"], told["hours"]):
        return bool(now["hours"] is not told["hours"])
    moved = abs((now["made"] - told["made"]) / HOUR + now["hours"] - told["hours"])
    over = now["hours"] == 0.0 and told["hours"] != 0.0
    return over or (now["hours"] != 0.0 and moved > max(MATERIAL * told["hours"], 1.0))


def _made(trend: Sequence[Sequence[float]], danger: float | None) -> dict[str, Any]:
    if danger is None:
        found = _none("This detector's score ends below danger: when that comes cannot be said.")
    else:
        found = forecast([t for t, _ in trend], [y for _, y in trend], danger)
    return {**asdict(found), "danger": danger, "made": trend[-1][0]}


def _remembered(
    trend: Sequence[Sequence[float]], time: float, novelty: float, alarmed: bool
) -> list[list[float]]:
    """Points since novelty was last an ordinary one; a long alarm's older half is thinned."""
    begun = [] if not alarmed and novelty <= 0 else trend
    kept = [*map(list, begun), [float(time), float(novelty)]]
    if not alarmed:
        return kept[-BEFORE:]
    half = len(kept) // 2
    return kept if len(kept) <= MOST else kept[:half:2] + kept[half:]


def _reached(t: Floats, y: Floats, danger: float, confidence: float) -> tuple[float, float, float]:
    """Hours to danger along one line: most likely, earliest, latest; infinite if it never rises."""
    slopes = _slopes(t, y)
    slope = float(np.median(slopes))
    middle = float(np.median(t))
    level = float(np.median(y - slope * (t - middle)))
    residuals = y - level - slope * (t - middle)
    low, high = _interval(slopes, residuals, confidence)
    shake = float(ndtri(0.5 + confidence / 2) * 1.4826 * np.median(np.abs(residuals)))

    def hours(rate: float, above: float) -> float:
        # The line is surest in the middle of the snapshots and turns about that point.
        if rate <= 0:
            return float("inf")
        return max(((danger - level - above) / rate - (float(t[-1]) - middle)) / HOUR, 0.0)

    return hours(slope, 0.0), hours(high, shake), hours(low, -shake)


def _span(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _none(text: str) -> Prognosis:
    return Prognosis(hours=None, earliest_hours=None, latest_hours=None, text=text)


def _slopes(t: Floats, y: Floats) -> Floats:
    """Slopes between all pairs of snapshots, ascending; times differ, see `Session.push`."""
    first, second = np.triu_indices(len(t), 1)
    found: Floats = np.sort((y[second] - y[first]) / (t[second] - t[first]))
    return found


def _interval(slopes: Floats, residuals: Floats, confidence: float) -> tuple[float, float]:
    """Sen's interval of the slope, widened for snapshots that are not independent."""
    n = len(residuals)
    scatter = float(residuals[:-1].std() * residuals[1:].std())
    rho = float(np.corrcoef(residuals[:-1], residuals[1:])[0, 1]) if scatter > 0 else 0.0
    rho = float(np.clip(rho, 0.0, 0.95))
    widening = np.sqrt((1 + rho) / (1 - rho))
    spread = np.sqrt(n * (n - 1) * (2 * n + 5) / 18) * widening
    half = float(ndtri(0.5 + confidence / 2)) * spread / 2
    middle = len(slopes) / 2
    low = slopes[int(np.clip(np.floor(middle - half), 0, len(slopes) - 1))]
    high = slopes[int(np.clip(np.ceil(middle + half), 0, len(slopes) - 1))]
    return float(low), float(high)
