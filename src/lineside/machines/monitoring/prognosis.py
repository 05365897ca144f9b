"""Time to danger: the trend of novelty, extrapolated with an interval, or "no clear trend".

Novelty is the logarithm of a score in robust spreads, so that a fault that grows by a constant
factor per hour makes it rise linearly. The slope is that of Theil and Sen: the median of the slopes
between all pairs of snapshots, which a single burst cannot tilt, with the interval of Sen 1968
(section 5) from the standard deviation of Kendall's statistic. Neighbouring snapshots are not
independent, so it is widened by sqrt((1 + rho) / (1 - rho)), with rho the lag-one autocorrelation
of the residuals. Real trends bend: lines are also fitted to the latest half and third of the
snapshots, and the interval spans all of them.

*Danger* is the novelty of the alarm logic's danger tier, not the failure: how much more a machine
withstands is only known after similar machines have failed.
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
"""Points of the trend that are kept during an alarm; beyond it the older half is thinned out."""
BEFORE = 24
"""Points that are kept from before an alarm, none older than the last one of novelty 0 or less."""
RECENT = 3
"""Snapshots whose median decides whether the danger level is reached already."""
EVERY = 6
"""During an alarm the forecast is updated after this many snapshots."""
MATERIAL = 0.25
"""A forecast is reported again if its time moved by this share of the time that was left."""
CONFIDENCE = 0.9
"""Of the interval of a forecast, two-sided."""
HOUR = 3600.0
SOON = 0.5
"""Hours below which maintenance is due now."""

Floats = NDArray[np.float64]
TrendState = dict[str, Any]
"""Plain JSON: ``trend``: points (seconds, novelty); ``age``: snapshots since the last forecast;
``forecast``: the last one, see `Verdict.forecast`; ``reported``: the last one reported."""
INITIAL: TrendState = {"trend": [], "age": 0, "forecast": None, "reported": None}


@dataclass(frozen=True, kw_only=True)
class Prognosis:
    """Time until novelty reaches the danger level, counted from the last snapshot.

    Attributes:
        hours: Most likely time to danger, None without a trend.
        earliest_hours: Lower end of the interval.
        latest_hours: Upper end; None without a trend or if there is no upper end.
        text: One sentence for people, with the recommended time of maintenance.
    """

    hours: float | None
    earliest_hours: float | None
    latest_hours: float | None
    text: str


def forecast(times: ArrayLike, novelty: ArrayLike, danger: float) -> Prognosis:
    """Return when novelty reaches the danger level if the trend continues.

    Args:
        times: Seconds, ascending, shape (snapshot,).
        novelty: Since the fault began to show, in robust spreads, shape (snapshot,).
        danger: Novelty of the danger level.
    """
    t, y = np.asarray(times, dtype=np.float64), np.asarray(novelty, dtype=np.float64)
    finite = np.isfinite(y)
    t, y = t[finite], y[finite]
    if len(t) and float(np.median(y[-RECENT:])) >= danger:
        return Prognosis(
            hours=0.0, earliest_hours=0.0, latest_hours=0.0,
            text="The danger level is reached. Stop the machine or maintain it now.",
        )  # fmt: skip
    if len(t) < FEWEST:
        return _no_forecast(f"{len(t)} snapshots are too few for a trend, {FEWEST} are needed.")
    lengths = [len(t) // share for share in (1, 2, 3) if len(t) // share >= FEWEST]
    lines = [_hours_to_danger(t[-n:], y[-n:], danger) for n in lengths]
    hours = float(np.median([likely for likely, _, _ in lines]))
    if not np.isfinite(lines[0][2]) or not np.isfinite(hours):
        return _no_forecast("No clear rising trend: the time to danger cannot be said.")
    earliest = min(early for _, early, _ in lines)
    latest = max(late for _, _, late in lines)
    open_end = not np.isfinite(latest)
    interval = (
        f"at the earliest in {_duration(earliest)}, no upper limit"
        if open_end
        else f"{CONFIDENCE:.0%} interval {_duration(earliest)} to {_duration(latest)}"
    )
    text = (
        f"At this trend danger (novelty {danger:.3g}) is reached in about {_duration(hours)} "
        f"({interval}). Plan maintenance "
        f"{'now' if earliest < SOON else f'within {_duration(earliest)}'}."
    )
    return Prognosis(
        hours=hours, earliest_hours=earliest, latest_hours=None if open_end else latest, text=text
    )


def update(
    state: Mapping[str, Any],
    time: float,
    novelty: float,
    alarmed: bool,
    danger: float | None,
    *,
    now: bool = False,
) -> TrendState:
    """Add one judged snapshot to the trend, and update the forecast if that is due.

    Args:
        state: As returned for the previous snapshot, `INITIAL` at first.
        time: Seconds.
        novelty: In robust spreads.
        alarmed: Whether an alarm is active; without one there is no forecast.
        danger: Novelty of the danger level, None if the score cannot reach it.
        now: Update the forecast even if it is not due.
    """
    trend = _extended(state["trend"], time, novelty, alarmed)
    if not alarmed:
        return {**INITIAL, "trend": trend}
    if state["forecast"] is not None and state["age"] + 1 < EVERY and not now:
        return {**state, "trend": trend, "age": state["age"] + 1}
    if danger is None:
        prognosis = _no_forecast(
            "The score of this detector ends below danger: the time to danger cannot be said."
        )
    else:
        prognosis = forecast([t for t, _ in trend], [y for _, y in trend], danger)
    # "made" is a key of stored verdicts: the time of the snapshot from which the hours count.
    current = {**asdict(prognosis), "danger": danger, "made": trend[-1][0]}
    return {**state, "trend": trend, "age": 0, "forecast": current}


def is_news(state: Mapping[str, Any]) -> bool:
    """Return whether the forecast differs materially from the one that was last reported."""
    current, reported = state["forecast"], state["reported"]
    if current is None or reported is None:
        return current is not None
    if None in (current["hours"], reported["hours"]):
        return bool(current["hours"] is not reported["hours"])
    moved = abs((current["made"] - reported["made"]) / HOUR + current["hours"] - reported["hours"])
    reached = current["hours"] == 0.0 and reported["hours"] != 0.0
    return reached or (current["hours"] != 0.0 and moved > max(MATERIAL * reported["hours"], 1.0))


def _extended(
    trend: Sequence[Sequence[float]], time: float, novelty: float, alarmed: bool
) -> list[list[float]]:
    """Points since novelty was last 0 or less; of a long alarm the older half is thinned out."""
    start = [] if not alarmed and novelty <= 0 else trend
    points = [*map(list, start), [float(time), float(novelty)]]
    if not alarmed:
        return points[-BEFORE:]
    half = len(points) // 2
    return points if len(points) <= MOST else points[:half:2] + points[half:]


def _hours_to_danger(t: Floats, y: Floats, danger: float) -> tuple[float, float, float]:
    """Return most likely, earliest and latest hours along one line; infinite if it never rises.

    The line is ``y = level + slope (t - middle)``; with its slope at the ends of Sen's interval,
    and shifted by the spread of the residuals, it gives the earliest and the latest time.
    """
    slopes = _pair_slopes(t, y)
    slope = float(np.median(slopes))
    middle = float(np.median(t))
    level = float(np.median(y - slope * (t - middle)))
    residuals = y - level - slope * (t - middle)
    low, high = _slope_interval(slopes, residuals)
    z = ndtri(0.5 + CONFIDENCE / 2)
    scatter = float(z * 1.4826 * np.median(np.abs(residuals)))

    def hours(rate: float, shift: float) -> float:
        # The line turns about the middle of the snapshots, where it is most certain.
        if rate <= 0:
            return float("inf")
        return max(((danger - level - shift) / rate - (float(t[-1]) - middle)) / HOUR, 0.0)

    return hours(slope, 0.0), hours(high, scatter), hours(low, -scatter)


def _pair_slopes(t: Floats, y: Floats) -> Floats:
    """Slopes between all n (n - 1) / 2 pairs of snapshots, ascending; no two times are equal."""
    first, second = np.triu_indices(len(t), 1)
    return np.sort((y[second] - y[first]) / (t[second] - t[first]))


def _slope_interval(slopes: Floats, residuals: Floats) -> tuple[float, float]:
    """Return Sen's interval of the slope, widened for autocorrelated residuals.

    Kendall's statistic of n independent values has variance ``n (n - 1) (2 n + 5) / 18``; the
    interval goes from the pair slope of rank ``(N - z sigma) / 2`` to that of rank
    ``(N + z sigma) / 2``, with N pairs.
    """
    n = len(residuals)
    product = float(residuals[:-1].std() * residuals[1:].std())
    rho = float(np.corrcoef(residuals[:-1], residuals[1:])[0, 1]) if product > 0 else 0.0
    rho = float(np.clip(rho, 0.0, 0.95))
    sigma = np.sqrt(n * (n - 1) * (2 * n + 5) / 18) * np.sqrt((1 + rho) / (1 - rho))
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * sigma / 2
    middle = len(slopes) / 2
    low = slopes[int(np.clip(np.floor(middle - half), 0, len(slopes) - 1))]
    high = slopes[int(np.clip(np.ceil(middle + half), 0, len(slopes) - 1))]
    return float(low), float(high)


def _duration(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _no_forecast(text: str) -> Prognosis:
    return Prognosis(hours=None, earliest_hours=None, latest_hours=None, text=text)
