"""Costs and rates of an operating point in production, where positives are rare."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.contract import Estimate
from lineside.core.statistics.decisions import (
    DecisionRates,
    decision_rates,
    decisions,
    rate_estimates,
    shares,
)
from lineside.core.statistics.intervals import precision_interval
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import clopper_pearson, clopper_pearson_upper
from lineside.core.statistics.units import UnitScores

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ProductionRates:
    """Rates at a production prevalence; a reviewing person is taken to be right.

    Attributes:
        prevalence: Share of positive units in production.
        misses_per_million: Positives among a million released units; NaN if none is released.
        precision: Positives among the units that are held back; NaN if none is.
        first_pass_yield: Share of all units accepted at once.
        review_share: Share of all units that a person reviews.
    """

    prevalence: float
    misses_per_million: float
    precision: float
    first_pass_yield: float
    review_share: float


def at_prevalence(rates: DecisionRates, prevalence: float) -> ProductionRates:
    """Convert rates per label to the prevalence of production; test sets hold more positives.

    Released are accepted units and the negatives that a person releases: with the prevalence pi,
    misses per million are 1e6 * pi * miss / (pi * miss + (1 - pi) * (1 - false_alarm)).
    """
    pi = prevalence
    missed = pi * rates.miss
    released = missed + (1 - pi) * (1 - rates.false_alarm)
    held_positive, held_negative = pi * rates.recall, (1 - pi) * rates.held_negative
    held = held_positive + held_negative
    review = pi * rates.review_positive + (1 - pi) * rates.review_negative
    return ProductionRates(
        prevalence=pi,
        misses_per_million=1e6 * missed / released if released > 0 else float("nan"),
        precision=held_positive / held if held > 0 else float("nan"),
        first_pass_yield=1 - held,
        review_share=review,
    )


def misses_per_million(
    scores: UnitScores, point: OperatingPoint, prevalence: float, confidence: float = 0.95
) -> Estimate:
    """Return the positives among a million released units with an interval.

    It grows with the miss rate and with the false-alarm rate, so its ends are those of both rates,
    each end with half of the error that is left (Bonferroni). The interval is one-sided, from 0
    on, where no miss was seen, and two-sided otherwise.
    """
    seen = decision_rates(scores, point)
    value = at_prevalence(seen, prevalence).misses_per_million
    bare = Estimate(value=value, unit="per million", n=len(scores.scores), better="lower")
    if np.isnan(value):
        known = len(scores.positive) and len(scores.negative)
        reason = "nothing is shipped" if known else "units of one label only"
        return dataclasses.replace(bare, reason=reason)
    # an interval of (1 + confidence) / 2 leaves half of the error to each of the two rates
    each = (1 + confidence) / 2 if seen.miss > 0 else confidence
    rates = rate_estimates(scores, point, each)
    miss, false_alarm = rates["miss"], rates["false_alarm"]

    def at(miss: float | None, false_alarm: float | None) -> float:
        assert miss is not None and false_alarm is not None
        ends = dataclasses.replace(seen, miss=miss, false_alarm=false_alarm)
        return at_prevalence(ends, prevalence).misses_per_million

    low = at(miss.low, false_alarm.low) if seen.miss > 0 else 0.0
    side = "two-sided" if seen.miss > 0 else "one-sided"
    return dataclasses.replace(
        bare, low=low, high=at(miss.high, false_alarm.high),
        method=f"Clopper-Pearson of both rates, {side}, {100 * confidence:.3g} %",
    )  # fmt: skip


def precision_at_prevalence(
    scores: UnitScores, point: OperatingPoint, prevalence: float, confidence: float = 0.95
) -> Estimate:
    """Return the positives among what is held back in production with a two-sided interval."""
    held = ~decisions(scores, point)[0]
    found, called = (int(held[scores.labels == label].sum()) for label in (1, 0))
    positives, negatives = len(scores.positive), len(scores.negative)
    interval = precision_interval(found, positives, called, negatives, prevalence, confidence)
    low, high = (None, None) if isinstance(interval, str) else interval
    return Estimate(
        value=at_prevalence(decision_rates(scores, point), prevalence).precision,
        low=low, high=high, n=positives + negatives, positives=positives,
        method=f"MOVER-R of Clopper-Pearson intervals, {100 * confidence:.3g} %",
        reason=interval if isinstance(interval, str) else "",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What decisions cost, in units of one rejected negative.

    Attributes:
        prevalence: Share of positives in production.
        miss: Cost of a miss.
        review: Cost of a review by a person, who is taken to be right.
    """

    prevalence: float
    miss: float
    review: float


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A way to decide and its expected cost per unit at the production prevalence.

    Attributes:
        name: ``as decided``, ``review what is held back``, ``review all`` or ``accept all``.
        cost: Expected cost.
        high: One-sided upper bound of it; equal to it where no model is used.
    """

    name: str
    cost: float
    high: float


def policies(
    scores: UnitScores, point: OperatingPoint, prices: Prices, confidence: float = 0.95
) -> dict[str, Policy]:
    """Return the expected cost per unit with the model (two ways to use it) and without.

    policy                      cost of a positive unit               cost of a negative unit
    as decided                  miss * C + reviewed * R               rejected + reviewed * R
    review what is held back    miss * C + (1 - miss) * R             held back * R
    review all                  R                                     R
    accept all                  C                                     0

    The bound takes one-sided Clopper-Pearson bounds of all its rates at once (Bonferroni), since a
    bootstrap of rates that are 0 here would claim that they are 0.

    Args:
        scores: Fresh units of both labels.
        point: The operating point.
        prices: Costs.
        confidence: Confidence of the bounds.
    """
    accepted, rejected = decisions(scores, point)
    positive, negative = scores.labels == 1, scores.labels == 0
    pi, miss_cost, review = prices.prevalence, prices.miss, prices.review

    def policy(name: str, costs: Sequence[tuple[float, Bools, Bools]]) -> Policy:
        """Add up cost * rate of (weight * cost, event, label); bound all rates together."""
        each = 1 - (1 - confidence) / len(costs)
        counts = [(price, int((e & label).sum()), int(label.sum())) for price, e, label in costs]
        return Policy(
            name=name,
            cost=sum(price * hits / n for price, hits, n in counts),
            high=sum(price * clopper_pearson_upper(hits, n, each) for price, hits, n in counts),
        )

    reviewed = ~accepted & ~rejected
    missed = (pi * miss_cost, accepted, positive)
    found = [
        policy(
            "as decided",
            [missed, (pi * review, reviewed, positive), (1 - pi, rejected, negative),
             ((1 - pi) * review, reviewed, negative)],
        ),
        policy(
            "review what is held back",
            [missed, (pi * review, ~accepted, positive), ((1 - pi) * review, ~accepted, negative)],
        ),
        Policy(name="review all", cost=review, high=review),
        Policy(name="accept all", cost=pi * miss_cost, high=pi * miss_cost),
    ]  # fmt: skip
    return {policy.name: policy for policy in found}


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """Expected cost per unit over prevalence, for one cost ratio.

    Costs are normalised as in Drummond & Holte (2006): divided by the cost of deciding every
    unit wrongly, prevalence * cost_ratio + (1 - prevalence), where one false alarm costs 1.
    `low` and `high` are the ends of a 95 % interval: the cost is a weighted sum of four rates,
    whose Clopper-Pearson intervals are joined by the squares of their distances (MOVER, Zou and
    Donner 2008). Rates of one label cannot both be high, so it is rather too wide; a rate of 0
    keeps its upper end, which a bootstrap over units does not.

    Attributes:
        prevalence: Shape (k,).
        cost: This operating point, shape (k,).
        low: Lower end; None with fewer than 2 units of a label.
        high: Upper end.
        review_all: A person reviews everything.
        accept_all: Everything is accepted.
        reject_all: Everything is rejected.
        break_even_prevalence: Where the point and `review_all` cost the same, or None.
    """

    prevalence: Floats
    cost: Floats
    low: Floats | None
    high: Floats | None
    review_all: Floats
    accept_all: Floats
    reject_all: Floats
    break_even_prevalence: float | None


def cost_curve(
    scores: UnitScores,
    point: OperatingPoint,
    *,
    cost_ratio: float,
    review_cost: float,
    prevalences: Sequence[float] | Floats | None = None,
) -> CostCurve:
    """Return the expected cost of an operating point over prevalence.

    Cost per unit = pi * miss * cost_ratio + (1 - pi) * false_alarm + reviewed share * review_cost;
    a reviewing person is taken to be right.

    Args:
        scores: Fresh units of both labels.
        point: The operating point.
        cost_ratio: Cost of a miss over that of a false alarm.
        review_cost: Cost of a review in the same unit.
        prevalences: Where to evaluate; 61 values from 1e-4 to 0.5, spaced evenly in the logarithm.
    """
    pi = np.asarray(np.geomspace(1e-4, 0.5, 61) if prevalences is None else prevalences)
    scale = pi * cost_ratio + (1 - pi)
    # rates of miss, false alarm, reviewed positive and reviewed negative, shape (4,)
    rates = shares(scores, point, np.ones((1, len(scores.scores))))[0]
    counts = [len(scores.positive), len(scores.negative)] * 2
    prices = np.array([cost_ratio, 1.0, review_cost, review_cost])
    # what each rate adds to the cost of a unit, at every prevalence: shape (4, k)
    price = prices[:, None] * np.array([pi, 1 - pi, pi, 1 - pi]) / scale
    cost = rates @ price
    low = high = None
    if min(counts) >= 2:
        ends = np.array([
            clopper_pearson(round(r * n), n) for r, n in zip(rates, counts, strict=True)
        ])  # fmt: skip
        below, above = (np.sqrt(((end - rates) ** 2) @ price**2) for end in ends.T)
        low, high = np.maximum(cost - below, 0), cost + above
    return CostCurve(
        prevalence=pi, cost=cost, low=low, high=high,
        review_all=review_cost / scale, accept_all=pi * cost_ratio / scale,
        reject_all=(1 - pi) / scale,
        break_even_prevalence=_crossing(
            cost_ratio * rates[0] + review_cost * (rates[2] - 1),
            rates[1] + review_cost * (rates[3] - 1),
        ),
    )  # fmt: skip


def _crossing(positive: float, negative: float) -> float | None:
    """Return the pi in (0, 1) with pi * positive + (1 - pi) * negative = 0, or None."""
    if not positive * negative < 0:
        return None
    return negative / (negative - positive)
