"""How often do the printed 95 % intervals hold the truth? Simulated with few groups of a class.

Scores are normal. Items of a group are correlated (0.6), and groups may be of unequal size. The
faulty groups are as many as small businesses have: 5, 15, and 200 for comparison. The percentile
bootstrap over groups, which most programs print, stands beside. A tenth is rehearsed with
``python -m benchmarks.core.coverage``.
"""

from __future__ import annotations

import functools
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
from benchmarks.parts.cross_validation import Fold, estimate_of
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
from lineside.core.statistics.intervals import precision_interval
from lineside.core.statistics.ranking import Ranking
from lineside.machines.alarms.calibration import MONTH_SECONDS
from lineside.machines.metrics import METRICS as MACHINE_METRICS
from lineside.parts.metrics import AUPRO_LIMIT, METRICS, MapOverlap, area_under_overlap

STORE = checkpoint_folder("core/coverage", __file__)
SIMULATIONS = 400
RESAMPLES = 300
"""Of the percentile bootstrap."""
CORRELATION = 0.6
LARGE = 8_000
ENOUGH = 15
"""Faulty groups from which on an interval should nearly always be printed."""
Floats = NDArray[np.float64]
Data = Sequence[Sequence[Outcome]]
"""Outcomes of one method, or of two that are compared."""


@dataclass(frozen=True)
class Groups:
    """Groups of a simulated test set: good, faulty, and items of each.

    With `uneven` a group has 1, 2, ... up to `items` items, small ones more often.
    """

    good: int
    faulty: int
    items: int = 1
    uneven: bool = False

    def __str__(self) -> str:
        return f"{self.good}_{self.faulty}_{'uneven' if self.uneven else self.items}"

    def sizes(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the number of items of each of some groups."""
        if not self.uneven:
            return np.full(count, self.items)
        return np.minimum(rng.geometric(0.3, count), self.items)


CASES = (
    Groups(200, 5), Groups(60, 15), Groups(20, 5, 3), Groups(300, 200), Groups(60, 15, 12, True),
)  # fmt: skip
AREAS = (0.70, 0.90, 0.97)
FALSE_REJECTS = (0.16, 0.43)
KAPPAS = (0.4, 0.8)
PREVALENCE = 0.02
TILES = Groups(107, 44, 6)
"""As many parts and images as the magnetic tiles have."""
FOLDS, SPLITS, OF_MODEL = 5, 3, 0.1
"""Of cross-validation; the share of a score's variance that comes from the training of its fold."""
MACHINES = {"4": 4, "8": 8, "20": 20}
EPISODES = (0.5, 4.0)
"""False episodes per machine-month."""


@dataclass(frozen=True)
class Plan:
    """What is simulated for one metric and one truth.

    Attributes:
        truth: The true value.
        draw: Returns a data set.
        interval: Returns the printed estimate of a data set.
        bootstrap: Returns the values of many resamples, or None where there is no such baseline.
        faulty: Groups of the rarer class.
    """

    truth: float
    draw: Callable[[np.random.Generator], Data]
    interval: Callable[[Data, np.random.Generator], Estimate]
    bootstrap: Callable[[Data, np.random.Generator], Floats] | None = None
    faulty: int = 0


def coverage(say: Say) -> None:
    """What intervals of all kinds of numbers cover, 400 simulations each; the bootstrap beside."""
    measure(say, SIMULATIONS)


def measure(say: Say, simulations: int) -> None:
    """Publish the coverage of each metric and case, and the worst of each metric."""
    printed = []
    for metric, plans in _plans().items():
        found = {name: _stored(f"{metric}_{name}", i, simulations, plan)
                 for i, (name, plan) in enumerate(plans.items())}  # fmt: skip
        printed += [found[n]["printed"] for n, plan in plans.items() if plan.faulty >= ENOUGH]
        for name, row in found.items():
            if row["printed"]:
                share = f"of {row['printed']:.2f} that are printed"
                value = plain(row["covers"], "fraction", simulations, reason=share)
                say(f"coverage_{metric}_{name}", value)
        for column, prefix in (("covers", "coverage"), ("bootstrap", "coverage_bootstrap")):
            values = [row[column] for row in found.values() if row["printed"] and column in row]
            if values:
                reason = f"worst of {len(values)} cases"
                value = plain(min(values), "fraction", simulations, reason=reason)
                say(f"{prefix}_{metric}_worst", value)
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


def _stored(name: str, seed: int, simulations: int, plan: Plan) -> dict[str, float]:
    path = STORE / f"{name}-{simulations}.json"
    if not path.exists():
        rng = np.random.default_rng([seed, simulations])
        covers, resampled = [], []
        for _ in range(simulations):
            data = plan.draw(rng)
            found = plan.interval(data, rng)
            if found.low is not None and found.high is not None:
                covers.append(found.low <= plan.truth <= found.high)
            if plan.bootstrap is not None:
                low, high = np.nanpercentile(plan.bootstrap(data, rng), [2.5, 97.5])
                resampled.append(low <= plan.truth <= high)
        row = {"covers": float(np.mean(covers)) if covers else 0.0,
               "printed": len(covers) / simulations}  # fmt: skip
        write_json(path, row | ({"bootstrap": float(np.mean(resampled))} if resampled else {}))
    stored: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    print(f"  {name}: {stored}", file=sys.stderr, flush=True)
    return stored


def _plans() -> dict[str, dict[str, Plan]]:
    """Return, by metric and case, what is simulated."""
    area, rate = area_under_roc(), fpr_at_recall(0.95)
    average = RankMetric(statistic=Ranking.average_precision)
    separations = {f"{100 * r:.0f}": special.ndtri(0.95) + special.ndtri(1 - r)
                   for r in FALSE_REJECTS}  # fmt: skip
    areas = {f"{100 * a:.0f}": _shift(a) for a in AREAS}
    return {
        "auroc": {
            f"{name}_{g}": _ranked(area, shift, AREAS[i], g)
            for i, (name, shift) in enumerate(areas.items()) for g in CASES
        },
        "frr": {
            f"{name}_{g}": _ranked(rate, shift, FALSE_REJECTS[i], g)
            for i, (name, shift) in enumerate(separations.items()) for g in CASES
        },
        "average_precision": {
            f"{name}_{g}": _ranked(average, shift, _true_precision(shift, g), g)
            for name, shift in areas.items() for g in CASES
        },
        "difference": {
            f"{100 * gain:.0f}_{g}": _difference(area, 0.90, 0.90 - gain, g)
            for gain in (0.05, 0.0) for g in CASES
        },
        "kappa": {f"{100 * k:.0f}_{g}": _kappa(k, g) for k in KAPPAS for g in CASES},
        "aupro": {f"{x}_{g}": _overlap(x, g) for x in (2, 3) for g in CASES},
        "precision": {f"{r}_{g}": _precision(r / 100, g) for r in (80, 95) for g in CASES},
        "cross_validation": {
            **{f"auroc_{name}": _folds("auroc", shift, AREAS[i])
               for i, (name, shift) in enumerate(areas.items())},
            **{f"frr_{name}": _folds("frr95", shift, FALSE_REJECTS[i])
               for i, (name, shift) in enumerate(separations.items())},
        },
        "machine_rate": {
            f"{episodes:g}_{spread}_{name}".replace(".", "_"): _episodes(count, episodes, spread)
            for episodes in EPISODES for spread in (0, 1) for name, count in MACHINES.items()
        },
    }  # fmt: skip


def _shift(area: float) -> float:
    return math.sqrt(2) * float(special.ndtri(area))


def _metric(of: Callable[[Sequence[Outcome]], float]) -> Metric:
    return Metric(name="m", unit="fraction", better="higher", of=of)


def _noise(groups: int, items: int, rng: np.random.Generator) -> Floats:
    """Return standard normal noise, shape (groups, items), correlated within a group."""
    common, own = rng.normal(size=(groups, 1)), rng.normal(size=(groups, items))
    return math.sqrt(CORRELATION) * common + math.sqrt(1 - CORRELATION) * own


def _outcomes(
    good: Floats, faulty: Floats, sizes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> list[Outcome]:
    """Return outcomes of scores (group, item); of each group as many as its size says."""
    of_good, of_faulty = sizes or (np.full(len(x), x.shape[1]) for x in (good, faulty))
    return [*_rows("g", good, 0.0, of_good), *_rows("f", faulty, 1.0, of_faulty)]


def _rows(prefix: str, scores: Floats, label: float, sizes: NDArray[np.int64]) -> Iterator[Outcome]:
    for group, (row, size) in enumerate(zip(scores, sizes, strict=True)):
        name = f"{prefix}{group}"
        for item, score in enumerate(row[:size]):
            yield Outcome(
                item=f"{name}.{item}", groups=(name,), unit=name,
                value={"score": float(score), "label": label},
            )  # fmt: skip


def _ranked(of: RankMetric, shift: float, truth: float, groups: Groups) -> Plan:
    def draw(rng: np.random.Generator) -> Data:
        good = _noise(groups.good, groups.items, rng)
        faulty = shift + _noise(groups.faulty, groups.items, rng)
        sizes = groups.sizes(groups.good, rng), groups.sizes(groups.faulty, rng)
        return [_outcomes(good, faulty, sizes)]

    return Plan(
        truth=truth, draw=draw, faulty=groups.faulty, bootstrap=_resampled(of),
        interval=lambda data, rng: estimate(data[0], _metric(of), rng),
    )  # fmt: skip


def _resampled(of: RankMetric | MapOverlap) -> Callable[[Data, np.random.Generator], Floats]:
    """Return what makes values of resamples of groups, of one method or of a difference."""

    def values(data: Data, rng: np.random.Generator) -> Floats:
        names = [outcome.groups[0] for outcome in data[0]]
        known, group = np.unique(names, return_inverse=True)
        counts = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), RESAMPLES)
        found = [of.weighted(side)(counts[:, group].astype(float)) for side in data]
        return found[0] if len(found) == 1 else found[0] - found[1]

    return values


def _difference(of: RankMetric, first: float, second: float, groups: Groups) -> Plan:
    """Two methods of these AUROCs whose scores of an item are correlated (0.6)."""
    truth = first - second if of.statistic is Ranking.auroc else 0.0

    def draw(rng: np.random.Generator) -> Data:
        good, faulty = (_noise(n, groups.items, rng) for n in (groups.good, groups.faulty))
        sizes = groups.sizes(groups.good, rng), groups.sizes(groups.faulty, rng)
        share, rest = math.sqrt(CORRELATION), math.sqrt(1 - CORRELATION)
        return [
            _outcomes(
                share * good + rest * _noise(groups.good, groups.items, rng),
                share * faulty + rest * _noise(groups.faulty, groups.items, rng) + _shift(area),
                sizes,
            )
            for area in (first, second)
        ]

    return Plan(
        truth=truth, draw=draw, faulty=groups.faulty, bootstrap=_resampled(of),
        interval=lambda data, rng: paired_difference(data[0], data[1], _metric(of), rng),
    )  # fmt: skip


def _kappa(kappa: float, groups: Groups) -> Plan:
    """Two raters of equal habits who agree by more than chance with probability kappa."""
    count = groups.good + groups.faulty

    def draw(rng: np.random.Generator) -> Data:
        sizes = groups.sizes(count, rng)
        share, names = groups.faulty / count, np.repeat(np.arange(count), sizes)
        copied = np.repeat(rng.random(count) < kappa, sizes)
        first = rng.random(len(names)) < share
        second = np.where(copied, first, rng.random(len(names)) < share)
        return [
            [
                Outcome(item=f"{i}", groups=(f"{name}",), value={"rating": float(rating)})
                for i, (name, rating) in enumerate(zip(names, ratings, strict=True))
            ]
            for ratings in (first, second)
        ]

    def interval(data: Data, rng: np.random.Generator) -> Estimate:
        first, second = ([o.value["rating"] > 0 for o in side] for side in data)
        return cohen_kappa(first, second, groups=[o.groups[0] for o in data[0]])

    return Plan(truth=kappa, draw=draw, interval=interval, faulty=groups.faulty)


def _true_precision(shift: float, groups: Groups) -> float:
    """Return the area under precision over recall of the population with these shares."""
    threshold = np.linspace(12.0, -9.0, 200_001)
    recall, fpr = special.ndtr(shift - threshold), special.ndtr(-threshold)
    share = groups.faulty / (groups.faulty + groups.good)
    called = share * recall + (1 - share) * fpr
    precision = np.where(called > 0, share * recall / np.maximum(called, 1e-300), 1.0)
    return float(np.trapezoid(precision, recall))


EDGES = np.linspace(-6, 10, 129)
"""Of the bins of map scores."""
PICTURE, FAULT = 0.5, 1.0
"""Standard deviations of a picture's and of a fault's mean score; that of a pixel is 1."""


def _pixels(mean: float, spread: float = 1.0) -> Floats:
    """Return the share of pixels by bin, the lowest first, shape (128,)."""
    return np.diff(special.ndtr((EDGES - mean) / spread))


def _overlap(shift: float, groups: Groups) -> Plan:
    """Maps with one fault per faulty picture, whose pixels score higher by `shift` on average."""

    def details(picture: float, fault: float | None) -> tuple[dict[str, object], ...]:
        rows = [(0, 2000, picture)] + ([] if fault is None else [(1, 200, picture + fault)])
        return tuple(
            {"fault": i, "pixels_by_bin": {str(b): int(c) for b, c in enumerate(
                np.round(pixels * _pixels(mean)).astype(int)) if c}}
            for i, pixels, mean in rows
        )  # fmt: skip

    def draw(rng: np.random.Generator) -> Data:
        rows = []
        for name, count in (("g", groups.good), ("f", groups.faulty)):
            pictures, faults = (_noise(count, groups.items, rng) for _ in range(2))
            for group, size in enumerate(groups.sizes(count, rng)):
                for item in range(size):
                    fault = shift + FAULT * faults[group, item] if name == "f" else None
                    rows.append(Outcome(
                        item=f"{name}{group}.{item}", groups=(f"{name}{group}",),
                        value={"label": float(name == "f")},
                        details=details(PICTURE * pictures[group, item], fault),
                    ))  # fmt: skip
        return [rows]

    good = _pixels(0.0, math.hypot(1, PICTURE))[::-1]
    overlap = _pixels(shift, math.sqrt(1 + PICTURE**2 + FAULT**2))[::-1]
    return Plan(
        truth=area_under_overlap(good, overlap, 1.0, AUPRO_LIMIT), draw=draw,
        faulty=groups.faulty, bootstrap=_resampled(MapOverlap()),
        interval=lambda data, rng: estimate(data[0], _metric(MapOverlap()), rng),
    )  # fmt: skip


def _precision(recall: float, groups: Groups) -> Plan:
    """Precision of held-back groups at a prevalence of production; a group's score is its maximum.

    The threshold stands where the recall of single items is the given one at AUROC 0.97.
    """
    shift = _shift(0.97)
    threshold = shift - float(special.ndtri(recall))
    of_class = (0.0, shift)

    def held(count: int, mean: float, rng: np.random.Generator) -> int:
        scores, sizes = mean + _noise(count, groups.items, rng), groups.sizes(count, rng)
        scores[np.arange(groups.items) >= sizes[:, None]] = -np.inf
        return int((scores.max(1) >= threshold).sum())

    false, true = (held(200_000, mean, np.random.default_rng(0)) / 200_000 for mean in of_class)
    odds = (1 - PREVALENCE) / PREVALENCE

    def draw(rng: np.random.Generator) -> Data:
        counts = (
            held(n, m, rng) for n, m in zip((groups.good, groups.faulty), of_class, strict=True)
        )
        return [[Outcome(item=str(count), groups=()) for count in counts]]

    def interval(data: Data, rng: np.random.Generator) -> Estimate:
        negatives, positives = (int(outcome.item) for outcome in data[0])
        found = precision_interval(
            positives, groups.faulty, negatives, groups.good, prevalence=PREVALENCE
        )
        low, high = (None, None) if isinstance(found, str) else found
        return Estimate(value=0.0, low=low, high=high)

    return Plan(truth=1 / (1 + odds * false / true), draw=draw, interval=interval,
                faulty=groups.faulty)  # fmt: skip


def _folds(measure: str, shift: float, truth: float) -> Plan:
    """Cross-validation as on the magnetic tiles: other folds and other models in every split."""
    count = TILES.good + TILES.faulty
    faulty = np.arange(count) >= TILES.good

    def folds(rng: np.random.Generator) -> list[Fold]:
        base = _noise(count, TILES.items, rng)
        found = []
        for _ in range(SPLITS):
            own = rng.normal(size=base.shape)
            scores = math.sqrt(1 - OF_MODEL) * base + math.sqrt(OF_MODEL) * own
            scores += shift * faulty[:, None]
            fold = np.zeros(count, int)
            for label in (False, True):
                members = rng.permutation(np.flatnonzero(faulty == label))
                fold[members] = np.arange(len(members)) % FOLDS
            for number in range(FOLDS):
                held = fold == number
                found.append(Fold(
                    scores=scores[held].ravel(),
                    labels=np.repeat(faulty[held].astype(int), TILES.items),
                    parts=tuple(np.repeat(np.flatnonzero(held), TILES.items).astype(str)),
                ))  # fmt: skip
        return found

    return Plan(
        truth=truth, draw=lambda rng: folds(rng), faulty=TILES.faulty,
        interval=lambda data, rng: estimate_of(data, measure),
    )  # fmt: skip


def _episodes(machines: int, rate: float, spread: int) -> Plan:
    """False episodes per machine-month; with a spread of 1 machines differ as much as they have."""
    metric = next(metric for metric in MACHINE_METRICS if metric.name == "false_episodes")

    def draw(rng: np.random.Generator) -> Data:
        rates = rate * (rng.gamma(1 / spread, spread, machines) if spread else np.ones(machines))
        months = rng.uniform(0.5, 1.5, machines)
        counts = rng.poisson(rates * months)
        return [
            [
                Outcome(
                    item=str(machine), groups=(str(machine),),
                    value={"label": 0.0, "episode": float(counts[machine]),
                           "seconds": float(months[machine] * MONTH_SECONDS)},
                )
                for machine in range(machines)
            ]
        ]  # fmt: skip

    return Plan(
        truth=rate, draw=draw, interval=lambda data, rng: estimate(data[0], metric, rng),
        bootstrap=functools.partial(_resampled_rates),
    )  # fmt: skip


def _resampled_rates(data: Data, rng: np.random.Generator) -> Floats:
    counts, seconds = (
        np.array([outcome.value[name] for outcome in data[0]]) for name in ("episode", "seconds")
    )
    index = rng.integers(len(counts), size=(RESAMPLES, len(counts)))
    return np.asarray(counts[index].sum(1) / (seconds[index].sum(1) / MONTH_SECONDS))


def main(arguments: Sequence[str]) -> int:
    """Rehearse a tenth; nothing is published."""
    measure(lambda name, value: print(f"{name:<44} {value.value:.3f}"), SIMULATIONS // 10)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
