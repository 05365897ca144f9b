"""What an operating point costs and ships in production, where faults are rare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineside.core.statistics.decisions import DecisionRates, shares
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.unit_scores import GroupScores

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ProductionRates:
    """Rates at a production prevalence; a reviewing person is taken to be right.

    Attributes:
        prevalence: Share of faulty groups in production.
        escapes_per_million: Faulty among a million shipped groups.
        precision: Faulty among the groups that are held back; NaN if none is.
        first_pass_yield: Share of all groups accepted at once.
        review_share: Share of all groups that a person looks at.
        reject_share: Share of all groups rejected without a person.
    """

    prevalence: float
    escapes_per_million: float
    precision: float
    first_pass_yield: float
    review_share: float
    reject_share: float


def at_prevalence(rates: DecisionRates, prevalence: float) -> ProductionRates:
    """Convert rates per label to production, where test sets hold far too many faults.

    Shipped are accepted groups and the good ones that a person releases: escapes per million are
    1e6 * pi * escape / (pi * escape + (1 - pi) * (1 - overkill)).
    """
    pi = prevalence
    escaped = pi * rates.escape
    shipped = escaped + (1 - pi) * (1 - rates.overkill)
    held_faulty, held_good = pi * rates.recall, (1 - pi) * rates.false_reject
    held = held_faulty + held_good
    review = pi * rates.review_faulty + (1 - pi) * rates.review_good
    return ProductionRates(
        prevalence=pi,
        escapes_per_million=1e6 * escaped / shipped if shipped > 0 else 0.0,
        precision=held_faulty / held if held > 0 else float("nan"),
        first_pass_yield=1 - held,
        review_share=review,
        reject_share=held - review,
    )


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """Expected cost per group over prevalence, for one cost ratio.

    Costs are normalised as in Drummond & Holte (2006): divided by the cost of deciding every
    group wrongly, prevalence * cost_ratio + (1 - prevalence), in units of one good group
    rejected. `low` and `high` are 95 % bootstrap ends over groups.

    Attributes:
        cost_ratio: Cost of one escape in units of one good group rejected.
        review_cost: Cost of one review in the same unit.
        prevalence: Shape (k,).
        probability_cost: prevalence * cost_ratio / normaliser, the usual axis, shape (k,).
        cost: This operating point, shape (k,).
        low: Lower end; None with fewer than 2 groups of a label.
        high: Upper end.
        review_all: A person looks at everything.
        accept_all: Everything is shipped.
        reject_all: Nothing is shipped.
        break_even_prevalence: Where the point and `review_all` cost the same, or None.
        break_even_review_cost: Cost of a review from which on the point is cheaper than
            `review_all`, shape (k,); NaN if the point reviews everything.
    """

    cost_ratio: float
    review_cost: float
    prevalence: Floats
    probability_cost: Floats
    cost: Floats
    low: Floats | None
    high: Floats | None
    review_all: Floats
    accept_all: Floats
    reject_all: Floats
    break_even_prevalence: float | None
    break_even_review_cost: Floats


def cost_curve(
    groups: GroupScores,
    point: OperatingPoint,
    *,
    cost_ratio: float,
    review_cost: float,
    prevalences: Sequence[float] | Floats | None = None,
    human_recall: float = 1.0,
    rng: np.random.Generator | None = None,
    repetitions: int = 1000,
) -> CostCurve:
    """Return the expected cost of an operating point over prevalence.

    Cost per group = pi * escape * cost_ratio + (1 - pi) * overkill + reviewed share * review_cost.

    Args:
        groups: Fresh groups of both labels.
        point: The operating point.
        cost_ratio: Cost of an escape in units of one good group rejected.
        review_cost: Cost of a review in the same unit.
        prevalences: Where to evaluate; 61 values from 1e-4 to 0.5, spaced evenly in the logarithm.
        human_recall: Share of faulty groups that a reviewing person finds.
        rng: Random stream of the bands; without it there are none.
        repetitions: Number of resamples.
    """
    pi = np.asarray(np.geomspace(1e-4, 0.5, 61) if prevalences is None else prevalences)
    slip = 1 - human_recall

    def faulty_good(share: Floats) -> tuple[Floats, Floats]:
        escape, overkill, reviewed, reviewed_good = (share[:, i, None] for i in range(4))
        on_faulty = (escape + slip * reviewed) * cost_ratio + reviewed * review_cost
        return on_faulty, overkill + reviewed_good * review_cost

    share = shares(groups, point, np.ones((1, len(groups.scores))))
    on_faulty, on_good = faulty_good(share)
    scale = pi * cost_ratio + (1 - pi)
    cost = ((pi * on_faulty + (1 - pi) * on_good) / scale)[0]
    by_people = review_cost + pi * slip * cost_ratio
    reviewed = pi * share[0, 2] + (1 - pi) * share[0, 3]
    decided = cost * scale - reviewed * review_cost
    room = np.where(reviewed < 1, 1 - reviewed, np.nan)
    low, high = _band(groups, point, faulty_good, pi, scale, rng, repetitions)
    return CostCurve(
        cost_ratio=cost_ratio,
        review_cost=review_cost,
        prevalence=pi,
        probability_cost=pi * cost_ratio / scale,
        cost=cost,
        low=low,
        high=high,
        review_all=by_people / scale,
        accept_all=pi * cost_ratio / scale,
        reject_all=(1 - pi) / scale,
        break_even_prevalence=_crossing(
            float(on_faulty[0, 0]) - review_cost - slip * cost_ratio,
            float(on_good[0, 0]) - review_cost,
        ),
        break_even_review_cost=np.maximum(0.0, (decided - pi * slip * cost_ratio) / room),
    )


def _crossing(on_faulty: float, on_good: float) -> float | None:
    """Return the pi in (0, 1) with pi * on_faulty + (1 - pi) * on_good = 0, or None."""
    if not on_faulty * on_good < 0:
        return None
    return on_good / (on_good - on_faulty)


def _band(
    groups: GroupScores,
    point: OperatingPoint,
    faulty_good: Callable[[Floats], tuple[Floats, Floats]],
    pi: Floats,
    scale: Floats,
    rng: np.random.Generator | None,
    repetitions: int,
) -> tuple[Floats | None, Floats | None]:
    n = len(groups.scores)
    if rng is None or min(len(groups.good), len(groups.faulty)) < 2:
        return None, None
    weights = rng.multinomial(n, np.full(n, 1 / n), repetitions).astype(np.float64)
    on_faulty, on_good = faulty_good(shares(groups, point, weights))
    costs = (pi * on_faulty + (1 - pi) * on_good) / scale
    low, high = np.nanpercentile(costs, [2.5, 97.5], axis=0)
    return low, high
