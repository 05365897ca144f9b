"""Metrics with intervals: whole groups are resampled, because items of a group are not independent.

Any `Metric` works. One whose `of` is a `RankMetric` (or offers `weighted`) is computed for all
resamples at once: the scores are sorted a single time and each resample is a row of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.statistics.ranking import Ranking, rank

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CELLS_AT_ONCE = 1_000_000
"""Bound on repetitions x outcomes held in memory at once (8 MB per array)."""
LARGEST_UNDEFINED_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class Units:
    """What is ranked: one score and label per unit.

    Attributes:
        scores: Shape (units,).
        labels: 0 or 1, shape (units,).
        index: An outcome of each unit, shape (units,); the unit takes the weight of its group.
    """

    scores: Floats
    labels: Floats
    index: Ints


@runtime_checkable
class Weighted(Protocol):
    """A measure that can be computed for many resamples at once."""

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        """Return a function from weights (repetitions, outcomes) to values (repetitions,)."""
        ...


def each_outcome(outcomes: Sequence[Outcome]) -> Units:
    """Return every outcome as a unit of its own (``score`` and ``label`` of its value)."""
    return Units(
        scores=np.array([o.value.get("score", np.nan) for o in outcomes], dtype=np.float64),
        labels=np.array([o.value.get("label", np.nan) for o in outcomes], dtype=np.float64),
        index=np.arange(len(outcomes)),
    )


@dataclass(frozen=True, kw_only=True)
class RankMetric:
    """A measure of a `Ranking`, usable as ``Metric.of`` and fast under the bootstrap.

    It is NaN without outcomes, or where a score or label is missing.

    Example:
        >>> auroc = RankMetric(statistic=Ranking.auroc)
        >>> metric = Metric(name="auroc", unit="fraction", better="higher", of=auroc)
    """

    statistic: Callable[[Ranking], Floats]
    units: Callable[[Sequence[Outcome]], Units] = each_outcome

    def __call__(self, outcomes: Sequence[Outcome]) -> float:
        """Return the value on these outcomes."""
        return float(self.weighted(outcomes)(np.ones((1, len(outcomes))))[0])

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        """Return a function from weights (repetitions, outcomes) to values (repetitions,)."""
        units = self.units(outcomes)
        if not len(units.scores) or np.isnan(units.scores + units.labels).any():
            return lambda weights: np.full(len(weights), np.nan)

        def value(weights: Floats) -> Floats:
            return self.statistic(rank(units.scores, units.labels, weights[:, units.index]))

        return value


def estimate(
    outcomes: Sequence[Outcome],
    metric: Metric,
    rng: np.random.Generator,
    repetitions: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Return a metric with its percentile bootstrap interval over groups (Efron 1979).

    There is no interval, but a reason, with fewer than 2 groups, where the metric is undefined
    here or in more than a tenth of the resamples, where all resamples agree (a perfect ranking):
    such an interval would have no width and would claim more than is known; and where the
    resamples miss the value itself, as they do when one extreme group decides it.
    """
    value = float(metric.of(outcomes)) if outcomes else float("nan")
    weights, place = _resamples([outcomes], rng, repetitions)
    values = _values(outcomes, metric, weights, place[0]) if len(weights) else np.array([])
    return _summary(value, values, metric, weights.shape[1], confidence)


def paired_difference(
    a: Sequence[Outcome],
    b: Sequence[Outcome],
    metric: Metric,
    rng: np.random.Generator,
    repetitions: int = 1000,
    confidence: float = 0.95,
) -> Estimate:
    """Return metric(a) - metric(b) on the items both have; groups are resampled together."""
    names = {o.item for o in a} & {o.item for o in b}
    common = [[o for o in side if o.item in names] for side in (a, b)]
    if not names:
        return Estimate(value=float("nan"), unit=metric.unit, better=metric.better,
                        reason="there are no common items")  # fmt: skip
    value = float(metric.of(common[0])) - float(metric.of(common[1]))
    weights, place = _resamples(common, rng, repetitions)
    if not len(weights):
        return _summary(value, np.array([]), metric, weights.shape[1], confidence)
    first, second = (
        _values(side, metric, weights, where) for side, where in zip(common, place, strict=True)
    )
    found = _summary(value, first - second, metric, weights.shape[1], confidence)
    left_out = max(len(a), len(b)) - len(names)
    note = f", paired, {left_out} items left out" if left_out else ", paired"
    return dataclasses.replace(found, method=found.method + note if found.method else "")


def by_slice(
    outcomes: Sequence[Outcome],
    metric: Metric,
    slice_name: str,
    *,
    rng: np.random.Generator | None = None,
    repetitions: int = 1000,
    against: str | None = None,
) -> dict[str, Estimate]:
    """Return the metric per value of a slice, in alphabetical order.

    Args:
        outcomes: Outcomes; those without this slice are left out.
        metric: What to compute.
        slice_name: Key of `Outcome.slices`.
        rng: Random stream of the intervals; without it there are values only.
        repetitions: Number of resamples per slice.
        against: A slice value that joins every other one and has no row of its own, for metrics
            that need both labels (each kind of fault against all good ones).
    """
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if slice_name in outcome.slices:
            members.setdefault(outcome.slices[slice_name], []).append(outcome)
    shared = members.pop(against, []) if against is not None else []
    found = {}
    for name in sorted(members):
        chosen = [*members[name], *shared]
        if rng is None:
            found[name] = Estimate(
                value=float(metric.of(chosen)), unit=metric.unit, better=metric.better,
                n=len({o.group for o in chosen}), reason="no interval was asked for",
            )  # fmt: skip
        else:
            found[name] = estimate(chosen, metric, rng, repetitions)
    return found


def worst_cases(
    outcomes: Sequence[Outcome],
    count: int = 12,
    badness: Callable[[Sequence[Outcome]], Floats] | None = None,
    per_group: int | None = 1,
) -> list[Outcome]:
    """Return the worst outcomes, worst first.

    Args:
        outcomes: Outcomes to choose from.
        count: How many at the most.
        badness: How bad each one is, shape (n,); only values above 0 are shown. By default the
            share of the other class that is ranked wrongly against it.
        per_group: How many of one group at the most; None for no limit.
    """
    if not outcomes:
        return []
    bad = (badness or misranked)(outcomes)
    taken: dict[str, int] = {}
    worst: list[Outcome] = []
    for i in np.argsort(-bad, kind="stable"):
        group = outcomes[i].group
        if len(worst) == count or not bad[i] > 0:
            break
        if per_group is None or taken.get(group, 0) < per_group:
            taken[group] = taken.get(group, 0) + 1
            worst.append(outcomes[i])
    return worst


def misranked(outcomes: Sequence[Outcome]) -> Floats:
    """Return, per outcome, the share of the other class ranked on its wrong side; ties half."""
    units = each_outcome(outcomes)
    bad = np.zeros(len(outcomes))
    for label, sign in ((1.0, 1.0), (0.0, -1.0)):
        own = units.labels == label
        other = np.sort(sign * units.scores[units.labels == 1.0 - label])
        if len(other):
            value = sign * units.scores[own]
            below = np.searchsorted(other, value, "left") + np.searchsorted(other, value, "right")
            bad[own] = 1 - below / (2 * len(other))
    return bad


def _resamples(
    sides: Sequence[Sequence[Outcome]], rng: np.random.Generator, repetitions: int
) -> tuple[Ints, list[Ints]]:
    """Return how often each group is drawn (repetitions, groups), and each outcome's group."""
    names = sorted({outcome.group for side in sides for outcome in side})
    places = {name: i for i, name in enumerate(names)}
    place = [np.array([places[o.group] for o in side], dtype=np.int64) for side in sides]
    if len(names) < 2:
        return np.zeros((0, len(names)), dtype=np.int64), place
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), repetitions)
    return draws, place


def _values(outcomes: Sequence[Outcome], metric: Metric, draws: Ints, place: Ints) -> Floats:
    if not isinstance(metric.of, Weighted):
        return _values_one_by_one(outcomes, metric, draws, place)
    value = metric.of.weighted(outcomes)
    step = max(1, CELLS_AT_ONCE // max(1, len(outcomes)))
    chunks = [
        value(draws[start : start + step][:, place].astype(np.float64))
        for start in range(0, len(draws), step)
    ]
    return np.concatenate(chunks)


def _values_one_by_one(
    outcomes: Sequence[Outcome], metric: Metric, draws: Ints, place: Ints
) -> Floats:
    # A group that is drawn twice is two groups: a metric by group must not merge them.
    copies: dict[tuple[int, int], list[Outcome]] = {}
    for outcome, group in zip(outcomes, place, strict=True):
        copies.setdefault((int(group), 0), []).append(outcome)
    values = np.full(len(draws), np.nan)
    for repetition, row in enumerate(draws):
        drawn: list[Outcome] = []
        for group in np.flatnonzero(row):
            for copy in range(row[group]):
                key = (int(group), copy)
                if key not in copies:
                    copies[key] = [
                        dataclasses.replace(o, group=f"{o.group}~{copy}")
                        for o in copies.get((int(group), 0), [])
                    ]
                drawn += copies[key]
        values[repetition] = metric.of(drawn)
    return values


def _summary(
    value: float, values: Floats, metric: Metric, groups: int, confidence: float
) -> Estimate:
    bare = Estimate(value=value, unit=metric.unit, n=groups, better=metric.better)
    defined = values[~np.isnan(values)]
    undefined = len(values) - len(defined)
    if np.isnan(value):
        return dataclasses.replace(bare, reason="undefined on these outcomes")
    if groups < 2:
        return dataclasses.replace(bare, reason=f"{groups} group, an interval needs at least 2")
    if undefined > LARGEST_UNDEFINED_SHARE * len(values):
        reason = f"undefined in {undefined} of {len(values)} resamples: too few groups of a class"
        return dataclasses.replace(bare, reason=reason)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(defined, [tail, 100 - tail])
    if low == high:
        reason = "all resamples agree: the bootstrap cannot tell how sure this is"
        return dataclasses.replace(bare, reason=reason)
    if not low <= value <= high:
        reason = "an extreme of few groups decides it: resampling misses the value itself"
        return dataclasses.replace(bare, reason=reason)
    method = f"bootstrap over groups, {100 * confidence:.3g} %"
    return dataclasses.replace(bare, low=float(low), high=float(high), method=method)
