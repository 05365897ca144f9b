"""When will it be dangerous? A trend with an interval, or a plain "no trend yet".

The logarithm of a growing fault's level is nearly straight in time. Its slope is the median of the
slopes between pairs of snapshots, with the interval of Sen 1968 (section 5) from the spread of
Kendall's statistic, which no single burst can tilt. Neighbouring snapshots are not independent, so
the interval is made with the effective number of them (lag-one autocorrelation of the residuals).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FEWEST = 8
MOST = 400
"""Snapshots that a trend is fitted to; older ones are thinned out."""
RECENT = 3
"""Snapshots whose median says whether the danger level is reached already."""
HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Prognosis:
    """The way to the danger level, counted from the last snapshot.

    Attributes:
        hours: Most likely time to danger, None without a trend.
        earliest_hours: Lower end of the interval.
        latest_hours: Upper end.
        text: One sentence for people, with the recommended window of maintenance.
    """

    hours: float | None
    earliest_hours: float | None
    latest_hours: float | None
    text: str


def forecast(
    times: ArrayLike, levels: ArrayLike, danger: float, *, confidence: float = 0.9
) -> Prognosis:
    """Return when a level reaches the danger level if it goes on as it did.

    Args:
        times: Seconds, ascending, shape (snapshot,).
        levels: Positive levels since the fault began to show, shape (snapshot,).
        danger: The level that must not be reached.
        confidence: Of the interval.
    """
    t, y = np.asarray(times, dtype=np.float64), np.asarray(levels, dtype=np.float64)
    usable = np.isfinite(y) & (y > 0)
    t, y = t[usable], np.log(y[usable])
    if len(t) < FEWEST:
        return _none(f"{len(t)} snapshots are too few for a trend, {FEWEST} are needed.")
    t, y = _thinned(t), _thinned(y)
    slope = float(stats.theilslopes(y, t).slope)
    middle = float(np.median(t))
    level = float(np.median(y - slope * (t - middle)))
    low, high = _interval(t, y, y - level - slope * (t - middle), confidence)
    goal = float(np.log(danger))
    if float(np.median(y[-RECENT:])) >= goal:
        return Prognosis(
            hours=0.0, earliest_hours=0.0, latest_hours=0.0,
            text="The danger level is reached: stop or maintain now.",
        )  # fmt: skip
    if low <= 0:
        return _none("There is no clear rising trend: when it will be dangerous cannot be said.")
    # The line is surest in the middle of the snapshots and turns about that point.
    hours, earliest, latest = (
        max(((goal - level) / rate - (float(t[-1]) - middle)) / HOUR, 0.0)
        for rate in (slope, high, low)
    )
    text = (
        f"If it goes on like this, danger is reached in about {_span(hours)} (between "
        f"{_span(earliest)} and {_span(latest)}). Plan maintenance within {_span(earliest)}."
    )
    return Prognosis(hours=hours, earliest_hours=earliest, latest_hours=latest, text=text)


def _span(hours: float) -> str:
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def _none(text: str) -> Prognosis:
    return Prognosis(hours=None, earliest_hours=None, latest_hours=None, text=text)


def _thinned(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The latest half in full, older values at even distances."""
    if len(values) <= MOST:
        return values
    late = values[-MOST // 2 :]
    early = values[: -MOST // 2]
    places = np.linspace(0, len(early) - 1, MOST - len(late)).round().astype(int)
    return np.concatenate([early[places], late])


def _interval(
    t: NDArray[np.float64],
    y: NDArray[np.float64],
    residuals: NDArray[np.float64],
    confidence: float,
) -> tuple[float, float]:
    """Sen's interval of the slope, widened for snapshots that are not independent."""
    first, second = np.triu_indices(len(t), 1)
    slopes = np.sort((y[second] - y[first]) / (t[second] - t[first]))
    n = len(t)
    rho = float(np.clip(np.corrcoef(residuals[:-1], residuals[1:])[0, 1], 0.0, 0.95))
    widening = np.sqrt((1 + rho) / (1 - rho)) if np.isfinite(rho) else 1.0
    spread = np.sqrt(n * (n - 1) * (2 * n + 5) / 18) * widening
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * spread / 2
    middle = len(slopes) / 2
    low = slopes[int(np.clip(np.floor(middle - half), 0, len(slopes) - 1))]
    high = slopes[int(np.clip(np.ceil(middle + half), 0, len(slopes) - 1))]
    return float(low), float(high)
