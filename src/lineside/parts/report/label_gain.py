"""What the labelled faulty parts added: the score beside its good-only term, on the same parts.

The good-only score is the normal model's term of the same fit, so it costs no second training:
the normal model has seen good pictures only, whatever else was labelled.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lineside.core.contract import Estimate, Metric, Outcome, Section, Table
from lineside.core.report.chapters import titled
from lineside.core.statistics.estimates import RankMetric, estimate, paired_difference
from lineside.core.study import MethodStudy, Study
from lineside.parts.metrics import METRICS
from lineside.parts.outcomes import GOOD_ONLY

TITLE = "What the labels added"


def label_gain(study: Study) -> Section:
    """Show each ranking metric with labels, with good parts only, and their paired difference."""
    method = _method(study)
    if method is None:
        return Section(title=TITLE)
    with_labels, rows = method.outcomes["test"], []
    for metric in METRICS:
        if isinstance(metric.of, RankMetric) and not math.isnan(metric.of(with_labels)):
            alone = estimate(good_only(with_labels), metric, study.run.rng(f"alone {metric.name}"))
            added = difference(with_labels, metric, study.run.rng(f"labels {metric.name}"))
            labelled = method.estimates[metric.name]
            rows.append((titled(metric.name), labelled.text(), alone.text(), added.text()))
    table = Table(
        title="With labels and with good parts only",
        columns=("metric", "with labels", "good parts only", "difference"),
        rows=tuple(rows),
        caption=f"The same fit of {method.name} and the same test pictures: good-only is the "
        "normal model's term of the score. The difference is paired, with the 95 % interval of a "
        "jackknife over groups.",
    )
    return Section(title=TITLE, lead=verdict(study), blocks=(table,) if rows else ())


def verdict(study: Study) -> str:
    """Return one sentence: whether the labels helped; empty where that is not known."""
    method, metric = _method(study), METRICS[0]
    if method is None:
        return ""
    outcomes = method.outcomes["test"]
    value, alone = metric.of(outcomes), metric.of(good_only(outcomes))
    if math.isnan(value):
        return ""
    added = difference(outcomes, metric, study.run.rng(f"labels {metric.name}"))
    return sentence(value, alone, added)


def _method(study: Study) -> MethodStudy | None:
    """Return the method whose score has a good-only term: the chosen one if it has."""
    methods = [study.best, *study.methods]
    return next((method for method in methods if good_only(method.outcomes["test"])), None)


def sentence(with_labels: float, without: float, added: Estimate) -> str:
    """Say whether labels helped, from the AUROC with and without them and its difference."""
    numbers = f"image AUROC {with_labels:.3f} with labels, {without:.3f} with good parts only"
    if added.low is None or added.high is None:
        if with_labels == without:
            return f"The labels did NOT help: {numbers}."
        return f"Whether the labels helped cannot be told ({added.reason}): {numbers}."
    numbers += f", difference {added.value:+.3f} [{added.low:+.3f}, {added.high:+.3f}]"
    if added.low > 0:
        return f"The labels helped: {numbers}."
    if added.high < 0:
        return (
            f"The labels did HARM: {numbers}. Check the labels and masks of the faulty parts, or "
            "train without them."
        )
    return f"The labels did NOT help by more than chance: {numbers}."


def difference(outcomes: Sequence[Outcome], metric: Metric, rng: np.random.Generator) -> Estimate:
    """Return the metric with labels minus the metric of the good-only term, paired."""
    return paired_difference(outcomes, good_only(outcomes), metric, rng)


def good_only(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes with the good-only term as their score; none without such terms."""
    if not all(GOOD_ONLY in outcome.value for outcome in outcomes):
        return []
    return [
        dataclasses.replace(o, value={**o.value, "score": o.value[GOOD_ONLY]}) for o in outcomes
    ]
