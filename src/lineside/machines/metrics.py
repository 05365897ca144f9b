"""Measures of condition monitoring, from one outcome per snapshot.

Every measure is a ratio of sums over snapshots, so that machines can be resampled as a whole. The
values of an outcome (see `timeline`):

* ``score``: novelty, NaN where it was not judged; ``label``: 0 healthy, 1 faulty, NaN unknown;
* ``seconds``: time until the next snapshot; ``exceeds``: 1 if its novelty exceeds the limit;
* ``episode``: 1 where an alarm episode begins;
* ``onset``: 1 at the first faulty snapshot; ``found``: 1 there if an alarm was raised between onset
  and failure; ``lead_hours``: from that alarm to the failure; ``delay_hours``: from the onset on;
  ``late``: the delay as a share of the time from onset to failure.

Point-adjusted scores are not offered: one detected point would count a whole window as detected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Metric, Outcome
from lineside.core.statistics.estimates import Units, area_under_roc
from lineside.core.statistics.intervals import Interval, median_interval, rate_interval
from lineside.machines.alarms.calibration import MONTH_SECONDS

MISSED_COST = 50.0
"""Cost of a failure without warning, in units of one false alarm episode."""

LATE_COST = 1.0
"""Extra cost of a warning at the last moment over one at the onset, in the same unit."""

Floats = NDArray[np.float64]


def column(outcomes: Sequence[Outcome], name: str) -> Floats:
    """Return one value of every outcome, NaN where it is absent, shape (outcome,)."""
    return np.array([o.value.get(name, np.nan) for o in outcomes], dtype=np.float64)


def healthy_months(outcomes: Sequence[Outcome]) -> float:
    """Return the monitored time of healthy snapshots, in machine-months."""
    healthy = column(outcomes, "label") == 0
    return float(np.nansum(column(outcomes, "seconds")[healthy])) / MONTH_SECONDS


@dataclass(frozen=True)
class FalseEpisodes:
    """A measure: alarm episodes that begin while healthy, per machine-month."""

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """Return the rate; NaN without healthy time."""
        counts, months = self._by_machine(outcomes)
        return float(counts.sum() / months.sum()) if months.sum() > 0 else np.nan

    def interval(self, outcomes: Sequence[Outcome]) -> tuple[Interval | str, str]:
        """Return its interval over machines."""
        counts, months = self._by_machine(outcomes)
        return rate_interval(counts, months), "wider of Garwood and jackknife over machines"

    def _by_machine(self, outcomes: Sequence[Outcome]) -> tuple[Floats, Floats]:
        """Return episodes and monitored months of each machine's healthy snapshots."""
        healthy = column(outcomes, "label") == 0
        names = np.array([o.groups[0] for o in outcomes])[healthy]
        known, machine = np.unique(names, return_inverse=True)

        def total(name: str) -> Floats:
            values = np.nan_to_num(column(outcomes, name)[healthy])
            return np.asarray(np.bincount(machine, values, len(known)), dtype=np.float64)

        return total("episode"), total("seconds") / MONTH_SECONDS


false_episodes = FalseEpisodes()


def detected_share(outcomes: Sequence[Outcome]) -> float:
    """Return the share of faults with an alarm between onset and failure."""
    onset = column(outcomes, "onset") == 1
    return float(column(outcomes, "found")[onset].mean()) if onset.any() else np.nan


@dataclass(frozen=True)
class MedianOverFaults:
    """A measure: the median of a value over the detected faults.

    Attributes:
        name: Of the value.
    """

    name: str

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """Return the median; NaN without a detected fault."""
        values = self._values(outcomes)
        return float(np.median(values)) if len(values) else np.nan

    def interval(self, outcomes: Sequence[Outcome]) -> tuple[Interval | str, str]:
        """Return its interval between two order statistics."""
        return median_interval(self._values(outcomes)), "order statistics of the faults"

    def _values(self, outcomes: Sequence[Outcome]) -> Floats:
        values = column(outcomes, self.name)
        return values[np.isfinite(values)]


def false_exceedances(outcomes: Sequence[Outcome]) -> float:
    """Return the share of judged healthy snapshots beyond the limit, without the alarm logic."""
    judged = (column(outcomes, "label") == 0) & np.isfinite(column(outcomes, "score"))
    return float(column(outcomes, "exceeds")[judged].mean()) if judged.any() else np.nan


def risk(outcomes: Sequence[Outcome]) -> float:
    """Return the cost per machine-month.

    (false episodes + 50 missed faults + sum of the relative delays) / months
    """
    seconds = column(outcomes, "seconds")
    months = float(np.nansum(seconds[np.isfinite(column(outcomes, "label"))])) / MONTH_SECONDS
    if months <= 0:
        return np.nan
    false = np.nansum(column(outcomes, "episode")[column(outcomes, "label") == 0])
    onset = column(outcomes, "onset") == 1
    missed = float((1 - column(outcomes, "found")[onset]).sum())
    late = float(np.nansum(column(outcomes, "late")[onset]))
    return (float(false) + MISSED_COST * missed + LATE_COST * late) / months


def _judged(outcomes: Sequence[Outcome]) -> Units:
    score, label = column(outcomes, "score"), column(outcomes, "label")
    index = np.flatnonzero(np.isfinite(score) & np.isfinite(label))
    return Units(scores=score[index], labels=label[index], index=index)


METRICS = (
    Metric(
        name="risk", unit="false alarms per machine-month", better="lower", of=risk,
        help=f"false episodes plus {MISSED_COST:g} for every missed fault, and up to "
        f"{LATE_COST:g} for one that was found late",
    ),
    Metric(name="false_episodes", unit="per machine-month", better="lower", of=false_episodes),
    Metric(name="faults_found", unit="fraction", better="higher", of=detected_share),
    Metric(name="lead_time", unit="h", better="higher", of=MedianOverFaults("lead_hours")),
    Metric(name="delay", unit="h", better="lower", of=MedianOverFaults("delay_hours")),
    Metric(name="false_exceedances", unit="fraction", better="lower", of=false_exceedances),
    Metric(
        name="auroc", unit="fraction", better="higher",
        of=area_under_roc(_judged),
    ),
)  # fmt: skip

MEASURES = {metric.name: metric.of for metric in METRICS}


def timeline(
    times: Floats,
    scores: Floats,
    limits: Floats,
    labels: Floats,
    episodes: NDArray[np.bool_],
    failed_at: float | None,
    raised: NDArray[np.bool_] | None = None,
) -> list[dict[str, Any]]:
    """Return the outcome values of one machine, in order of time.

    Args:
        times: Seconds, shape (snapshot,).
        scores: Novelty, NaN where it was not judged.
        limits: The limit.
        labels: 0 healthy, 1 faulty, NaN unknown.
        episodes: True where an alarm episode begins.
        failed_at: Second of the failure, or None if it never came.
        raised: True where an alert or danger event is raised; a fault is found by one after the
            onset. As `episodes` if None.
    """
    steps = np.diff(times, prepend=times[:1])
    usual = float(np.median(steps[1:])) if len(times) > 1 else 0.0
    # a gap counts as at most three usual intervals: nothing was monitored in it
    seconds = np.where(steps > 0, np.minimum(steps, 3 * usual), usual)
    rows = [
        {"score": s, "label": y, "seconds": d, "exceeds": float(s >= u), "episode": float(e)}
        for s, y, d, u, e in zip(
            scores.tolist(), labels.tolist(), seconds.tolist(), limits.tolist(),
            episodes.tolist(), strict=True,
        )
    ]  # fmt: skip
    faulty = np.flatnonzero(labels == 1)
    if len(faulty):
        onset = int(faulty[0])
        end = np.inf if failed_at is None else failed_at
        alarms = np.flatnonzero(episodes if raised is None else raised)
        in_time = [i for i in alarms if i >= onset and times[i] < end]
        rows[onset].update(onset=1.0, found=float(bool(in_time)))
        if in_time:
            first = times[in_time[0]]
            rows[onset]["delay_hours"] = (first - times[onset]) / 3600
            until = (times[-1] if failed_at is None else failed_at) - times[onset]
            rows[onset]["late"] = (first - times[onset]) / until if until > 0 else 0.0
            if failed_at is not None:
                rows[onset]["lead_hours"] = (failed_at - first) / 3600
    return rows
