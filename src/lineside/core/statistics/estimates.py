"""Metrics with their confidence intervals: the group is the independent unit, not its items.

A metric that has a closed form takes it (`RankMetric.closed_form`), every other one the jackknife:
the metric is computed without each group in turn. One whose `of` offers `weighted` is computed for
all of them at once: the scores are sorted a single time and each row of weights leaves a group out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.statistics.intervals import (
    CONFIDENCE,
    Interval,
    auroc_interval,
    fpr_interval,
    jackknife_interval,
)
from lineside.core.statistics.ranking import Ranking, rank

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CELLS_AT_ONCE = 1_000_000
"""Bound on repetitions x outcomes held in memory at once (8 MB per array)."""
BLOCKS = 200
"""Most blocks of a class: more groups than this are left out several at a time, at random."""
ClosedForm = Callable[[Floats, Floats, int, int], Interval]
"""Interval from scores, labels, and numbers of groups with positives and with negatives."""


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
    """A measure that can be computed for many weights of the outcomes at once."""

    def weighted(self, outcomes: Sequence[Outcome]) -> Callable[[Floats], Floats]:
        """Return a function from weights (repetitions, outcomes) to values (repetitions,)."""
        ...


@runtime_checkable
class WithInterval(Protocol):
    """A measure with an interval of its own."""

    def interval(self, outcomes: Sequence[Outcome]) -> tuple[Interval | str, str] | None:
        """Return the interval, or why there is none, and its method; None leaves it to others."""
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
    """A measure of a `Ranking`, usable as ``Metric.of``.

    It is NaN without outcomes, or where a score or label is missing.

    Attributes:
        statistic: The measure.
        units: What is ranked.
        closed_form: Its interval; None for the jackknife.
        method: Name of the closed form.
        smooth: False where a few outcomes decide it: the jackknife of a difference then covers too
            little (.91 simulated), and there is none.

    Example:
        >>> precision = RankMetric(statistic=Ranking.average_precision)
        >>> metric = Metric(name="ap", unit="fraction", better="higher", of=precision)
    """

    statistic: Callable[[Ranking], Floats]
    units: Callable[[Sequence[Outcome]], Units] = each_outcome
    closed_form: ClosedForm | None = None
    method: str = ""
    smooth: bool = True

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

    def interval(self, outcomes: Sequence[Outcome]) -> tuple[Interval, str] | None:
        """Return the closed form over groups; None for units of several groups (pairs)."""
        units = self.units(outcomes)
        groups = [outcomes[index].groups for index in units.index]
        if self.closed_form is None or any(len(names) != 1 for names in groups):
            return None
        positives, negatives = (
            len({names for names, y in zip(groups, units.labels, strict=True) if y == label})
            for label in (1, 0)
        )
        found = self.closed_form(units.scores, units.labels, positives, negatives)
        return found, f"{self.method} over groups"


def area_under_roc(units: Callable[[Sequence[Outcome]], Units] = each_outcome) -> RankMetric:
    """Return the measure P(positive > negative) + P(tie) / 2."""
    return RankMetric(
        statistic=Ranking.auroc, units=units, closed_form=auroc_interval, method="Newcombe 2006"
    )


def fpr_at_recall(
    recall: float, units: Callable[[Sequence[Outcome]], Units] = each_outcome
) -> RankMetric:
    """Return the measure: share of negatives called positive where `recall` is reached."""
    return RankMetric(
        statistic=partial(Ranking.fpr_at_recall, recall=recall),
        units=units,
        closed_form=partial(fpr_interval, recall=recall),
        method="order statistics and Wilson",
        smooth=False,
    )


def estimate(outcomes: Sequence[Outcome], metric: Metric, rng: np.random.Generator) -> Estimate:
    """Return a metric with its 95 % interval over groups.

    There is no interval, but a reason, with fewer than 2 groups, or 10 of each class for the
    jackknife of a fraction; where the metric is undefined here or without one of its groups; and
    where all groups agree: an interval without width would claim more than is known.

    Args:
        outcomes: Of the items.
        metric: What to compute.
        rng: Draws the blocks, where there are many groups.
    """
    value = float(metric.of(outcomes)) if outcomes else float("nan")
    blocks = _blocks([outcomes], rng)
    bare = _bare(value, metric, blocks, outcomes)
    if bare.reason:
        return bare
    own = metric.of.interval(outcomes) if isinstance(metric.of, WithInterval) else None
    return _with_interval(bare, *(own or _jackknife(value, [outcomes], metric, blocks)))


def paired_difference(
    a: Sequence[Outcome], b: Sequence[Outcome], metric: Metric, rng: np.random.Generator
) -> Estimate:
    """Return metric(a) - metric(b) on the items both have, with a jackknife over groups."""
    shared = {o.item for o in a} & {o.item for o in b}
    common = [[o for o in side if o.item in shared] for side in (a, b)]
    if not shared:
        return Estimate(value=float("nan"), unit=metric.unit, better=metric.better,
                        reason="there are no common items")  # fmt: skip
    value = float(metric.of(common[0])) - float(metric.of(common[1]))
    blocks = _blocks(common, rng)
    bare = _bare(value, metric, blocks, common[0])
    if bare.reason:
        return bare
    if not getattr(metric.of, "smooth", True):
        reason = "a few items decide it: no interval of its difference holds"
        return dataclasses.replace(bare, reason=reason)
    left_out = max(len(a), len(b)) - len(shared)
    note = f", paired, {left_out} items left out" if left_out else ", paired"
    found, method = _jackknife(value, common, metric, blocks)
    return _with_interval(bare, found, method + note)


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


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Groups that are left out together, one each unless there are many.

    Attributes:
        names: All groups in alphabetical order.
        positive: Whether a group has a positive outcome, shape (groups,).
        of_group: Block of each group.
        strata: Class of each block, shape (blocks,); all 0 where the classes are not separate.
    """

    names: Sequence[str]
    positive: NDArray[np.bool_]
    of_group: dict[str, int]
    strata: Ints


def _blocks(sides: Sequence[Sequence[Outcome]], rng: np.random.Generator) -> _Blocks:
    """Divide the groups into blocks of one class each.

    Outcomes of several groups (pairs) have no class of their own: all groups are one stratum. So
    they are where a class has a single group, which leaves its error unknown.
    """
    outcomes = [outcome for side in sides for outcome in side]
    names = sorted({name for outcome in outcomes for name in outcome.groups})
    with_positive = {n for o in outcomes if o.value.get("label") == 1 for n in o.groups}
    positive = np.array([name in with_positive for name in names], dtype=bool)
    pairs = any(len(outcome.groups) > 1 for outcome in outcomes)
    smaller = min(positive.sum(), (~positive).sum())
    strata = np.zeros(len(names), dtype=np.int64) if pairs or smaller < 2 else positive.astype(int)
    of_group: dict[str, int] = {}
    block_strata: list[int] = []
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        if len(members) > BLOCKS:
            members = rng.permutation(members)
        for block in np.array_split(members, min(BLOCKS, len(members))):
            of_group |= {names[member]: len(block_strata) for member in block}
            block_strata.append(int(stratum))
    return _Blocks(
        names=names, positive=positive, of_group=of_group, strata=np.array(block_strata, int)
    )


def _bare(value: float, metric: Metric, blocks: _Blocks, outcomes: Sequence[Outcome]) -> Estimate:
    """Return the estimate without interval, with a reason where there cannot be one."""
    labelled = any("label" in outcome.value for outcome in outcomes)
    groups = len(blocks.names)
    reason = ""
    if np.isnan(value):
        reason = "undefined on these outcomes"
    elif groups < 2:
        reason = f"{groups} group, an interval needs at least 2"
    return Estimate(
        value=value, unit=metric.unit, better=metric.better, n=groups, reason=reason,
        positives=int(blocks.positive.sum()) if labelled else None,
    )  # fmt: skip


def _jackknife(
    value: float, sides: Sequence[Sequence[Outcome]], metric: Metric, blocks: _Blocks
) -> tuple[Interval | str, str]:
    """Return the jackknife interval of a metric, or of the difference of two sides."""
    left_out = [_leave_out(side, metric, blocks) for side in sides]
    found = jackknife_interval(
        value,
        left_out[0] - left_out[1] if len(sides) > 1 else left_out[0],
        blocks.strata,
        fraction=metric.unit == "fraction" and len(sides) == 1,
    )
    return found, "jackknife over groups"


def _leave_out(outcomes: Sequence[Outcome], metric: Metric, blocks: _Blocks) -> Floats:
    """Return the metric without each block, shape (blocks,)."""
    count = len(blocks.strata)
    # the blocks of each outcome, shape (outcomes, most groups), filled up with the first
    most = max(len(outcome.groups) for outcome in outcomes)
    index = np.array(
        [
            [blocks.of_group[name] for name in (*o.groups, *o.groups[:1] * (most - len(o.groups)))]
            for o in outcomes
        ]
    )
    if not isinstance(metric.of, Weighted):
        kept = [(index != block).all(axis=1) for block in range(count)]
        return np.array([
            metric.of([o for o, keep in zip(outcomes, keeps, strict=True) if keep])
            for keeps in kept
        ])  # fmt: skip
    value = metric.of.weighted(outcomes)
    step = max(1, CELLS_AT_ONCE // index.size)
    chunks = [
        # weights of shape (blocks, outcomes): 0 where a group of the outcome is left out
        value((index != np.arange(start, min(start + step, count))[:, None, None]).all(2) * 1.0)
        for start in range(0, count, step)
    ]
    return np.concatenate(chunks)


def _with_interval(bare: Estimate, found: Interval | str, method: str) -> Estimate:
    if isinstance(found, str):
        return dataclasses.replace(bare, reason=found)
    low, high = found
    method = f"{method}, {100 * CONFIDENCE:.3g} %"
    return dataclasses.replace(bare, low=low, high=high, method=method)
