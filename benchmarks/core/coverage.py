"""How often do the printed 95 % intervals hold the truth? Simulated with few groups of a class.

Scores are normal. Items of a group are correlated (0.6). The faulty groups are as many as small
businesses have: 5, 15, and 200 for comparison. A tenth is rehearsed with
``python -m benchmarks.core.coverage``.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.checkpoints import checkpoint_folder
from benchmarks.results import Say, plain
from lineside.core.contract import Estimate, Metric, Outcome
from lineside.core.run.files import write_json
from lineside.core.statistics.agreement import cohen_kappa
from lineside.core.statistics.estimates import (
    RankMetric,
    area_under_roc,
    estimate,
    fpr_at_recall,
    paired_difference,
)
from lineside.core.statistics.ranking import Ranking
from lineside.parts.metrics import METRICS

STORE = checkpoint_folder("core/coverage", __file__)
SIMULATIONS = 400
CORRELATION = 0.6
LARGE = 8_000
ENOUGH = 15
"""Faulty groups from which on an interval should nearly always be printed."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """Groups of a simulated test set: good, faulty, and items of each."""

    good: int
    faulty: int
    items: int = 1

    def __str__(self) -> str:
        return f"{self.good}_{self.faulty}_{self.items}"


CASES = (Groups(200, 5), Groups(60, 15), Groups(20, 5, 3), Groups(300, 200))
AREAS = (0.70, 0.90, 0.97)
FALSE_REJECTS = (0.16, 0.43)
KAPPAS = (0.4, 0.8)
Interval = Callable[[Groups, np.random.Generator], Estimate]


def coverage(say: Say) -> None:
    """What intervals of ranking metrics, differences and kappa cover, 400 simulations each."""
    measure(say, SIMULATIONS)


def measure(say: Say, simulations: int) -> None:
    """Publish the coverage of each metric and case, and the worst of each metric."""
    printed = []
    for metric, truths in _metrics().items():
        worst = 1.0
        for label, (truth_of, interval) in truths.items():
            for number, groups in enumerate(CASES):
                name = f"{metric}_{label}_{groups}"
                found = _stored(name, number, simulations, groups, truth_of(groups), interval)
                if groups.faulty >= ENOUGH:
                    printed.append(found["printed"])
                if found["printed"]:
                    share = f"of {found['printed']:.2f} that are printed"
                    value = plain(found["covers"], "fraction", simulations, reason=share)
                    say(f"coverage_{name}", value)
                    worst = min(worst, found["covers"])
        reason = f"worst of {len(truths)} truths x {len(CASES)} sizes"
        say(f"coverage_{metric}_worst", plain(worst, "fraction", simulations, reason=reason))
    reason = f"least share of simulations with an interval, {ENOUGH} and more faulty groups"
    say("coverage_printed", plain(min(printed), "fraction", simulations, reason=reason))
    reason = f"CPU time, median of 3, {len(METRICS)} metrics of parts on {LARGE} outcomes"
    say("interval_cpu_seconds", plain(_cpu_seconds(), "s", LARGE, "lower", reason))


def _cpu_seconds() -> float:
    """Time all metrics of `parts` on 8,000 outcomes of 2,000 parts."""
    rng = np.random.default_rng(0)
    outcomes = _outcomes(_noise(1500, 4, rng), 1.5 + _noise(500, 4, rng))
    seconds = []
    for _ in range(3):
        start = time.process_time()
        for metric in METRICS:
            estimate(outcomes, metric, rng)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _stored(
    name: str, seed: int, simulations: int, groups: Groups, truth: float, interval: Interval
) -> dict[str, float]:
    path = STORE / f"{name}-{simulations}.json"
    if not path.exists():
        rng = np.random.default_rng([seed, simulations])
        found = [interval(groups, rng) for _ in range(simulations)]
        ends = [(e.low, e.high) for e in found if e.low is not None and e.high is not None]
        covers = [low <= truth <= high for low, high in ends]
        share = float(np.mean(covers)) if covers else 0.0
        write_json(path, {"covers": share, "printed": len(ends) / simulations})
    stored: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    print(f"  {name}: {stored}", file=sys.stderr, flush=True)
    return stored


def _metrics() -> dict[str, dict[str, tuple[Callable[[Groups], float], Interval]]]:
    """Return, by metric and label of the truth, the truth for groups and what makes an interval."""
    shift = {area: math.sqrt(2) * float(special.ndtri(area)) for area in AREAS}
    recall_shift = {
        rate: float(special.ndtri(0.95) + special.ndtri(1 - rate)) for rate in FALSE_REJECTS
    }
    area, rate = area_under_roc(), fpr_at_recall(0.95)
    precision = RankMetric(statistic=Ranking.average_precision)
    return {
        "auroc": {f"{100 * a:.0f}": (lambda _, a=a: a, _ranked(area, shift[a])) for a in AREAS},
        "frr": {
            f"{100 * r:.0f}": (lambda _, r=r: r, _ranked(rate, recall_shift[r]))
            for r in FALSE_REJECTS
        },
        "average_precision": {
            f"{100 * a:.0f}": (
                lambda g, a=a: _true_precision(shift[a], g),
                _ranked(precision, shift[a]),
            )
            for a in AREAS
        },
        "difference": {
            "5": (lambda _: 0.05, _difference(area, shift[0.90], _shift(0.85))),
            "0": (lambda _: 0.0, _difference(area, shift[0.90], shift[0.90])),
        },
        "kappa": {f"{100 * k:.0f}": (lambda _, k=k: k, _kappa(k)) for k in KAPPAS},
    }


def _shift(area: float) -> float:
    return math.sqrt(2) * float(special.ndtri(area))


def _metric(of: RankMetric) -> Metric:
    return Metric(name="m", unit="fraction", better="higher", of=of)


def _noise(groups: int, items: int, rng: np.random.Generator) -> Floats:
    """Return standard normal noise, shape (groups, items), correlated within a group."""
    common, own = rng.normal(size=(groups, 1)), rng.normal(size=(groups, items))
    return math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own


def _outcomes(good: Floats, faulty: Floats) -> list[Outcome]:
    return list(_rows("g", good, 0.0)) + list(_rows("f", faulty, 1.0))


def _rows(prefix: str, scores: Floats, label: float) -> Iterator[Outcome]:
    for group, row in enumerate(scores):
        name = f"{prefix}{group}"
        for item, score in enumerate(row):
            yield Outcome(
                item=f"{name}.{item}", groups=(name,), unit=name,
                value={"score": float(score), "label": label},
            )  # fmt: skip


def _ranked(of: RankMetric, shift: float) -> Interval:
    def interval(groups: Groups, rng: np.random.Generator) -> Estimate:
        good = _noise(groups.good, groups.items, rng)
        faulty = shift + _noise(groups.faulty, groups.items, rng)
        return estimate(_outcomes(good, faulty), _metric(of), rng)

    return interval


def _difference(of: RankMetric, first: float, second: float) -> Interval:
    """Two methods whose scores of an item are correlated (0.6)."""

    def interval(groups: Groups, rng: np.random.Generator) -> Estimate:
        good, faulty = (_noise(n, groups.items, rng) for n in (groups.good, groups.faulty))
        share, rest = math.sqrt(CORRELATION), math.sqrt(1 - CORRELATION)
        a, b = (
            _outcomes(
                share * good + rest * _noise(groups.good, groups.items, rng),
                share * faulty + rest * _noise(groups.faulty, groups.items, rng) + shift,
            )
            for shift in (first, second)
        )
        return paired_difference(a, b, _metric(of), rng)

    return interval


def _kappa(kappa: float) -> Interval:
    """Two raters of equal habits who agree by more than chance with probability kappa."""

    def interval(groups: Groups, rng: np.random.Generator) -> Estimate:
        count = groups.good + groups.faulty
        share = groups.faulty / count
        copied = np.repeat(rng.random(count) < kappa, groups.items)
        first = rng.random(count * groups.items) < share
        second = np.where(copied, first, rng.random(count * groups.items) < share)
        names = np.repeat(np.arange(count), groups.items)
        return cohen_kappa(first.tolist(), second.tolist(), groups=names.tolist())

    return interval


def _true_precision(shift: float, groups: Groups) -> float:
    """Return the area under precision over recall of the population with these shares."""
    threshold = np.linspace(12.0, -9.0, 200_001)
    recall, fpr = special.ndtr(shift - threshold), special.ndtr(-threshold)
    share = groups.faulty / (groups.faulty + groups.good)
    called = share * recall + (1 - share) * fpr
    precision = np.where(called > 0, share * recall / np.maximum(called, 1e-300), 1.0)
    return float(np.trapezoid(precision, recall))


def main(arguments: Sequence[str]) -> int:
    """Rehearse a tenth; nothing is published."""
    measure(lambda name, value: print(f"{name:<44} {value.value:.3f}"), SIMULATIONS // 10)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
