"""Coverage of certificates: repeated calibration and testing on the same scored items.

Three ways to calibrate "recall >= r with confidence c" on one half and test on the other:
by group (right), by item (wrong wherever items of a group resemble each other), and a control in
which items are split one by one as if they were independent. A finite test set alone makes a
correct certificate fail more often than 1 - c, so each share is compared with its exact value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from lineside.core.contract import Outcome
from lineside.core.errors import UserError
from lineside.core.statistics.thresholds import ROUNDING, order_statistic, order_statistic_threshold
from lineside.core.statistics.units import Rule, unit_scores

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What happened in all repetitions of one way to calibrate.

    Attributes:
        name: ``by group``, ``by group, counted by item``, ``by item``, ``independent items``.
        violation: Share of repetitions whose tested recall was below the guarantee.
        expected: Exact share for a correct certificate on untied, exchangeable units of the
            same number; for the by-item way the share that it would have if items were
            independent; NaN where no formula applies.
        standard_error: Monte-Carlo error of a share of size `expected` (`violation` if NaN).
        excess_sigma: (violation - expected) / standard_error; NaN without an expectation.
        mean_recall: Mean tested recall.
        worst_recall: The tested recall that 5 % of the repetitions fall below.
        n_calibration: Calibrating units (mean over repetitions, rounded, by item).
        n_test: Testing units (likewise).
        repetitions: Repetitions in which the guarantee was provable.
    """

    name: str
    violation: float
    expected: float
    standard_error: float
    excess_sigma: float
    mean_recall: float
    worst_recall: float
    n_calibration: int
    n_test: int
    repetitions: int


def simulate_certificates(
    outcomes: Sequence[Outcome],
    rng: np.random.Generator,
    *,
    recall: float = 0.9,
    confidence: float = 0.95,
    repetitions: int = 2000,
    n_calibration: int | None = None,
    rule: Rule = "every",
) -> dict[str, Simulation]:
    """Calibrate and test repeatedly on the faulty items of held-out outcomes.

    Args:
        outcomes: Outcomes with ``score`` and ``label``; only faulty groups matter.
        rng: Random stream of the splits.
        recall: Guaranteed recall.
        confidence: Confidence of the guarantee.
        repetitions: Number of random splits.
        n_calibration: Faulty groups that calibrate; half of them if None.
        rule: How items of a group are joined.

    Returns:
        Results by name; see `Simulation`.

    Raises:
        UserError: if there are fewer than 2 faulty groups, or n_calibration leaves none to test.
    """
    # items labelled good do not count, also in mixed groups
    faulty = [o for o in outcomes if o.value["label"] == 1]
    groups = unit_scores(faulty, rule)
    names = groups.units
    size = len(names) // 2 if n_calibration is None else n_calibration
    if not 0 < size < len(names):
        raise UserError(
            f"{size} of {len(names)} faulty groups cannot calibrate", "both sides need some"
        )
    index = {name: i for i, name in enumerate(names)}
    items = np.array([o.value["score"] for o in faulty], dtype=np.float64)
    owner = np.array([index[o.unit or o.item] for o in faulty], dtype=np.int64)
    tries: dict[str, list[tuple[float, int, int]]] = {}
    for _ in range(repetitions):
        for name, calibrating, testing in _halves(groups.positive, items, owner, size, rng):
            threshold = order_statistic_threshold(calibrating, recall, confidence)
            if threshold is not None and len(testing):
                tested = float(np.mean(testing >= threshold))
                tries.setdefault(name, []).append((tested, len(calibrating), len(testing)))
    return {name: _summary(name, rows, recall, confidence) for name, rows in tries.items()}


def _halves(
    scores: Floats, items: Floats, owner: NDArray[np.int64], size: int, rng: np.random.Generator
) -> list[tuple[str, Floats, Floats]]:
    """Return (name, calibrating scores, testing scores) of one random split, per way."""
    chosen = np.zeros(len(scores), dtype=bool)
    chosen[rng.permutation(len(scores))[:size]] = True
    mine = chosen[owner]
    single = np.zeros(len(items), dtype=bool)
    single[rng.permutation(len(items))[: round(len(items) * size / len(scores))]] = True
    return [
        ("by group", scores[chosen], scores[~chosen]),
        ("by group, counted by item", scores[chosen], items[~mine]),
        ("by item", items[mine], items[~mine]),
        ("independent items", items[single], items[~single]),
    ]


def _summary(
    name: str, rows: Sequence[tuple[float, int, int]], recall: float, confidence: float
) -> Simulation:
    tested = np.array([row[0] for row in rows])
    n_calibration, n_test = (round(float(np.mean([row[i] for row in rows]))) for i in (1, 2))
    violation = float(np.mean(tested < recall - 1e-12))
    expected = (
        float("nan")
        if name == "by group, counted by item"
        else expected_violation(n_calibration, n_test, recall, confidence)
    )
    share = violation if math.isnan(expected) else expected
    error = math.sqrt(share * (1 - share) / len(rows))
    excess = (violation - expected) / error if error > 0 else float("nan")
    return Simulation(
        name=name, violation=violation, expected=expected, standard_error=error,
        excess_sigma=excess, mean_recall=float(tested.mean()),
        worst_recall=float(np.percentile(tested, 5)), n_calibration=n_calibration,
        n_test=n_test, repetitions=len(rows),
    )  # fmt: skip


def expected_violation(
    n_calibration: int, n_test: int, recall: float, confidence: float = 0.95
) -> float:
    """Return how often n_test further groups show a recall below the guarantee, although it holds.

    A test set is finite, so a correct threshold fails a test more often than 1 - confidence.
    For untied exchangeable groups the share is exactly P(H <= k* - 1), where H counts calibration
    groups among the k* - 1 + m lowest of all scores, H ~ Hypergeometric(n_calibration + n_test,
    n_calibration, k* - 1 + m), and m is the smallest number of misses that breaks the recall.
    NaN if the recall is not provable with n_calibration groups.
    """
    k = order_statistic(n_calibration, recall, confidence)
    m = math.floor(n_test * (1 - recall) + ROUNDING) + 1
    if not k or n_test < 1:
        return float("nan")
    if m > n_test:
        return 0.0
    drawn = k - 1 + m
    low = max(0, drawn - n_test)
    hits = np.arange(low, k, dtype=np.float64)
    log = (
        _log_choose(n_calibration, hits)
        + _log_choose(n_test, drawn - hits)
        - _log_choose(n_calibration + n_test, np.array([float(drawn)]))
    )
    return float(min(1.0, np.exp(log).sum()))


def _log_choose(n: int, k: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(
        special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1),
        dtype=np.float64,
    )
