"""Bootstrap intervals of metrics: whole groups are resampled, items of a group are not independent.

Any `Metric` works. One whose `of` is a `RankMetric` (or offers `weighted`) is computed for all
resamples at once: the scores are sorted a single time and each resample is a row of weights.
"""

from __future__ import annotations

import dataclasses
import itertools
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
CONFIDENCE = 0.95


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
) -> Estimate:
    """Return a metric with its percentile bootstrap interval over groups (Efron 1979).

    There is no interval, but a reason, with fewer than 2 groups, where the metric is undefined
    here or in more than a tenth of the resamples, where all resamples agree (a perfect ranking):
    such an interval would have no width and would claim more than is known; and where the
    resamples miss the value itself, as they do when one extreme group decides it.
    """
    value = float(metric.of(outcomes)) if outcomes else float("nan")
    names, draws, columns = _resamples([outcomes], rng, repetitions)
    values = _values(outcomes, metric, names, draws, columns[0])
    return _summary(value, values, metric, len(names))


def paired_difference(
    a: Sequence[Outcome],
    b: Sequence[Outcome],
    metric: Metric,
    rng: np.random.Generator,
    repetitions: int = 1000,
) -> Estimate:
    """Return metric(a) - metric(b) on the items both have; groups are resampled together."""
    shared = {o.item for o in a} & {o.item for o in b}
    common = [[o for o in side if o.item in shared] for side in (a, b)]
    if not shared:
        return Estimate(value=float("nan"), unit=metric.unit, better=metric.better,
                        reason="there are no common items")  # fmt: skip
    value = float(metric.of(common[0])) - float(metric.of(common[1]))
    names, draws, columns = _resamples(common, rng, repetitions)
    first, second = (
        _values(side, metric, names, draws, where)
        for side, where in zip(common, columns, strict=True)
    )
    difference = _summary(value, first - second, metric, len(names))
    left_out = max(len(a), len(b)) - len(shared)
    note = f", paired, {left_out} items left out" if left_out else ", paired"
    method = difference.method + note if difference.method else ""
    return dataclasses.replace(difference, method=method)


def by_slice(
    outcomes: Sequence[Outcome], metric: Metric, slice_name: str, rng: np.random.Generator
) -> dict[str, Estimate]:
    """Return the metric per value of a slice, in alphabetical order.

    Args:
        outcomes: Outcomes; those without this slice are left out.
        metric: What to compute.
        slice_name: Key of `Outcome.slices`.
        rng: Random stream of the intervals.
    """
    members: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if slice_name in outcome.slices:
            members.setdefault(outcome.slices[slice_name], []).append(outcome)
    return {name: estimate(members[name], metric, rng) for name in sorted(members)}


def worst_cases(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the misranked outcomes, worst first, one of each group."""
    if not outcomes:
        return []
    misranking = misranked(outcomes)
    groups: set[str] = set()
    worst: list[Outcome] = []
    for i in np.argsort(-misranking, kind="stable"):
        if not misranking[i] > 0:
            break
        if groups.isdisjoint(outcomes[i].groups):
            groups.update(outcomes[i].groups)
            worst.append(outcomes[i])
    return worst


def misranked(outcomes: Sequence[Outcome]) -> Floats:
    """Return, per outcome, the share of the other class ranked on its wrong side; ties half."""
    units = each_outcome(outcomes)
    bad = np.zeros(len(outcomes))
    for label, sign in ((1.0, 1.0), (0.0, -1.0)):
        of_class = units.labels == label
        other = np.sort(sign * units.scores[units.labels == 1.0 - label])
        if len(other):
            value = sign * units.scores[of_class]
            below = np.searchsorted(other, value, "left") + np.searchsorted(other, value, "right")
            bad[of_class] = 1 - below / (2 * len(other))
    return bad


def _resamples(
    sides: Sequence[Sequence[Outcome]], rng: np.random.Generator, repetitions: int
) -> tuple[list[str], Ints, list[Ints]]:
    """Draw groups with replacement.

    Returns:
        The groups in alphabetical order.
        How often each group is drawn, shape (repetitions, groups + 1); the last column is 1.
        For each side the columns whose product weighs an outcome, shape (outcomes, most groups);
        an outcome of fewer groups is padded with the last column.
    """
    names = sorted({name for side in sides for outcome in side for name in outcome.groups})
    column = {name: i for i, name in enumerate(names)}
    columns = []
    for side in sides:
        most = max((len(o.groups) for o in side), default=1)
        padded = np.full((len(side), most), len(names), dtype=np.int64)
        for row, outcome in zip(padded, side, strict=True):
            row[: len(outcome.groups)] = [column[name] for name in outcome.groups]
        columns.append(padded)
    if len(names) < 2:
        return names, np.zeros((0, len(names) + 1), dtype=np.int64), columns
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), repetitions)
    return names, np.hstack([draws, np.ones((repetitions, 1), dtype=draws.dtype)]), columns


def _values(
    outcomes: Sequence[Outcome],
    metric: Metric,
    names: Sequence[str],
    draws: Ints,
    columns: Ints,
) -> Floats:
    if not len(draws) or not isinstance(metric.of, Weighted):
        return _values_one_by_one(outcomes, metric, names, draws)
    value = metric.of.weighted(outcomes)
    step = max(1, CELLS_AT_ONCE // max(1, columns.size))
    # draws[:, columns] is (repetitions, outcomes, groups of an outcome): the product over the
    # last axis is how often each outcome is drawn.
    chunks = [
        value(draws[start : start + step][:, columns].prod(2).astype(np.float64))
        for start in range(0, len(draws), step)
    ]
    return np.concatenate(chunks)


def _values_one_by_one(
    outcomes: Sequence[Outcome], metric: Metric, names: Sequence[str], draws: Ints
) -> Floats:
    """Compute any metric on each resample, one after the other.

    A group that is drawn twice is two groups: its copies get names of their own, so that a metric
    by group or unit does not merge them.
    """
    members: dict[tuple[str, ...], list[Outcome]] = {}
    for outcome in outcomes:
        members.setdefault(outcome.groups, []).append(outcome)
    copies: dict[tuple[tuple[str, int], ...], list[Outcome]] = {}
    values = np.full(len(draws), np.nan)
    for repetition, row in enumerate(draws):
        count = dict(zip(names, row.tolist(), strict=False))
        drawn: list[Outcome] = []
        for groups in sorted(members):
            for numbers in itertools.product(*(range(count[name]) for name in groups)):
                key = tuple(zip(groups, numbers, strict=True))
                if key not in copies:
                    copies[key] = [_copy(o, numbers) for o in members[groups]]
                drawn += copies[key]
        values[repetition] = metric.of(drawn)
    return values


def _copy(outcome: Outcome, numbers: Sequence[int]) -> Outcome:
    """Return the outcome in the given copies of its groups; copy 0 keeps its names."""
    if not any(numbers):
        return outcome
    groups = tuple(f"{g}~{k}" if k else g for g, k in zip(outcome.groups, numbers, strict=True))
    unit = f"{outcome.unit or outcome.item}~{'~'.join(map(str, numbers))}"
    return dataclasses.replace(outcome, groups=groups, unit=unit)


def _summary(value: float, values: Floats, metric: Metric, groups: int) -> Estimate:
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
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100 - tail])
    if low == high:
        reason = "all resamples agree: the bootstrap cannot tell how sure this is"
        return dataclasses.replace(bare, reason=reason)
    if not low <= value <= high:
        reason = "an extreme of few groups decides it: resampling misses the value itself"
        return dataclasses.replace(bare, reason=reason)
    method = f"bootstrap over groups, {100 * CONFIDENCE:.3g} %"
    return dataclasses.replace(bare, low=float(low), high=float(high), method=method)
