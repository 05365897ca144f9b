"""The chapters of a `parts` report that are about decisions: guarantee, rates, kinds, costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lineside.core.contract import Check, Estimate, Fact, Figure, Section, Table
from lineside.core.report import plots
from lineside.core.report.chapters import verdict
from lineside.core.report.decision import (
    Decision,
    decide,
    decision_facts,
    decision_section,
    next_steps,
)
from lineside.core.report.render import Block
from lineside.core.statistics.costs import (
    CostCurve,
    Prices,
    at_prevalence,
    cost_curve,
    misses_per_million,
    precision_at_prevalence,
)
from lineside.core.statistics.decisions import decision_rates, decisions, rate_estimates
from lineside.core.statistics.estimates import by_slice
from lineside.core.statistics.guarantees import KindCertificate, certify_kinds
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import count_text, proportion
from lineside.core.statistics.ranking import pr_curve
from lineside.core.statistics.units import UnitScores, unit_scores
from lineside.core.study import Study
from lineside.parts.models.anogan.training import against_chance
from lineside.parts.outcomes import LOTS, share_lots
from lineside.parts.report import cases, label_gain
from lineside.parts.report.robustness import robustness

MOST_VALUES = 10
RATES = {
    "recall": "faulty parts held back (rejected or reviewed)",
    "miss": "faulty parts that escape",
    "false_alarm": "good parts rejected without a person",
    "review_negative": "good parts that a person reviews",
    "accepted_negative": "good parts accepted at once",
}


def decision_of(study: Study) -> Decision:
    """Return whether the model that predicts pays at the user's costs."""
    config, point = study.config, _point(study)
    if not point.suspended and share_lots(study.best.outcomes["test"]):
        point = point.suspend(LOTS)  # the bounds of what the test shows are counted by part, too
    calibration = unit_scores(study.best.outcomes["calibration"], point.rule)
    prices = Prices(prevalence=config.prevalence, miss=config.cost_ratio, review=config.review_cost)
    return decide(calibration, _test_groups(study), point, prices)


def summary(study: Study) -> list[str]:
    """Return plain-language paragraphs: use it or not, what next, evidence, guarantee, baseline."""
    decision = decision_of(study)
    lines = [decision.sentence]
    serious = [check.name for check in study.checks if check.status == "fail"]
    if serious:
        lines.insert(
            0,
            f"Do not use it yet, because the data audit found serious problems "
            f"({', '.join(serious)}): every rate below may be too good.",
        )
    lines.append(f"What to do next: {_next_step(study, decision, bool(serious))}")
    lines += [_evidence(decision), study.best.model.certificate, verdict(study)]
    return [*lines, *(line for line in (label_gain.verdict(study),) if line)]


def facts(study: Study) -> list[Fact]:
    """Return the headline: use it or not, escapes, false rejects."""
    return decision_facts(decision_of(study))


def numbers(study: Study) -> dict[str, Any]:
    """Return the decision as plain JSON, for ``report.json``."""
    return {"decision": decision_of(study).as_json()}


def _next_step(study: Study, decision: Decision, serious: bool) -> str:
    """Return what helps most, in plain words."""
    run = study.run.folder
    if serious:
        return "fix what the data audit names, then train again."
    steps, point = next_steps(decision), decision.point
    if point.suspended == LOTS:
        steps.insert(
            0,
            f"give one part of each lot to calibration and test (column split; {point.needed} or "
            f"more lots with a faulty part to calibrate on), then lots are counted and bounds hold",
        )
    elif not point.certified:
        command = f"lineside parts recalibrate DATA --model {run}"
        if point.needed > point.n_positive:  # the first step is to label more
            steps[0] += f" ({command})"
        else:
            steps.insert(0, f"recalibrate on fresh parts ({command})")
    if decision.status == "ok":
        steps.insert(
            0,
            f"let it judge new parts beside your present inspection for a while (lineside parts "
            f"predict NEW --model {run}), and check some of what it accepts",
        )
    if not steps:
        return "look at the misses and false rejects below, and label more parts like them."
    return "; or ".join(steps) + "."


def _evidence(decision: Decision) -> str:
    """Return what the test parts show, in one sentence."""
    test, confidence = decision.test, decision.point.confidence
    accepted, rejected = decisions(test, decision.point)
    faulty, good = test.labels == 1, test.labels == 0
    unusual = int((~test.usual & good & (test.scores < decision.point.threshold)).sum())
    escaped = count_text(int((accepted & faulty).sum()), int(faulty.sum()), confidence)
    held = count_text(int((~accepted & good).sum()), int(good.sum()), confidence)
    seen = f", {unusual} of them only because the picture is unusual" if unusual else ""
    return (
        f"On parts that it has never seen, {escaped} faulty ones escaped and {held} good ones were "
        f"held back: {int((rejected & good).sum())} rejected, "
        f"{int((~accepted & ~rejected & good).sum())} for a person to look at{seen}."
    )


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order; those after the first two are folded."""
    folded = [
        operating(study), kinds(study), costs(study), cases.cases(study), slices(study),
        label_gain.label_gain(study), weak_methods(study),
    ]  # fmt: skip
    if study.config.robustness:
        folded.append(robustness(study))
    folded += [cases.guide(study), cases.audit_cases(study)]
    return [
        decision_section(decision_of(study)),
        cases.verdict_sheet(study),
        *(dataclasses.replace(chapter, folded=True) for chapter in folded if chapter.blocks),
    ]


def weak_methods(study: Study) -> Section:
    """List methods at chance level or below, and those that are under-trained."""
    lines = []
    for method in study.methods:
        lines.append(against_chance(method.name, method.estimates["image_auroc"]))
        lines.append(str(getattr(method.model.detector, "shortfall", "")))
    return Section(
        title="Weak methods",
        lead="Do not read much into their rank.",
        blocks=tuple(line for line in lines if line),
    )


def operating(study: Study) -> Section:
    """Show thresholds, guarantee, score histograms and the precision-recall curve."""
    point, groups = _point(study), _test_groups(study)
    rates = rate_estimates(groups, point, point.confidence)
    unusual = int((~groups.usual).sum())
    table = Table(
        title="Decisions on test parts",
        columns=("share", "parts (interval)"),
        rows=tuple(
            (text, count_text(round(rates[name].value * n), n, point.confidence))
            for name, text in RATES.items()
            if (n := rates[name].n)
        ),
        caption=(
            f"Counted by part, decided by '{point.rule} view', as predict decides: the "
            f"{unusual} parts with a picture of unusual quality go to a person. Intervals are "
            "Clopper-Pearson. The thresholds were set on other parts."
        ),
    )
    rule = (
        "A part is accepted below the threshold, rejected from the reject threshold on, and goes "
        "to a person in between."
    )
    blocks: tuple[Block, ...] = (
        Check(name="guarantee", status="ok" if point.certified else "warn", evidence=point.message),
        rule,
        table,
        *([_histogram(groups, point)] if len(groups.scores) else []),
        *_pr(groups, point),
    )
    return Section(
        title="Operating point",
        lead="The thresholds between good and faulty, and the guarantee that they carry.",
        blocks=blocks,
    )


def _histogram(groups: UnitScores, point: OperatingPoint) -> Figure:
    marks = {"threshold": point.threshold}
    if point.reject_threshold > point.threshold:
        marks["reject threshold"] = point.reject_threshold
    return plots.histogram(
        "Scores of test parts",
        "Good parts should lie left of the threshold, faulty ones right of it.",
        {"good": groups.negative, "faulty": groups.positive},
        x_label="part score [-]",
        lines_at=marks,
    )


def _pr(groups: UnitScores, point: OperatingPoint) -> list[Figure]:
    if not len(groups.positive) or not len(groups.negative):
        return []
    recall, precision, _ = pr_curve(groups.scores, groups.labels)
    rates = decision_rates(groups, point)
    held = ~decisions(groups, point)[0]
    now = float(groups.labels[held].mean()) if held.any() else 1.0
    return [
        plots.lines(
            "Precision and recall of test parts",
            f"At the share of faulty parts in this test set, {groups.labels.mean():.0%}; in "
            "production faulty parts are rarer and precision is lower.",
            {"all thresholds": (recall, precision)},
            x_label="recall: faulty parts held back [-]",
            y_label="precision [-]",
            y_range=(0, 1.03),
            marks={"operating point": (rates.recall, now)},
        )
    ]


def kinds(study: Study) -> Section:
    """Show recall per kind of defect and what each kind can prove."""
    point, test = _point(study), _test_groups(study)
    calibration = unit_scores(study.best.outcomes["calibration"], point.rule)
    names = sorted({kind for kind in (*test.kinds, *calibration.kinds) if kind and kind != "good"})
    if not names:
        return Section(title="Kinds of defects")
    found: dict[str, Estimate] = {}
    accepted, _ = decisions(test, point)
    for name in names:
        of_kind = np.array([k == name for k in test.kinds]) & (test.labels == 1)
        found[name] = proportion(int((~accepted & of_kind).sum()), int(of_kind.sum()))
    provable = certify_kinds(
        calibration, recall=1 - study.config.max_escape, confidence=point.confidence
    )
    rows = tuple(
        (
            name,
            count_text(round(found[name].value * found[name].n), found[name].n)
            if found[name].n
            else "no test part",
            str(provable[name].n) if name in provable else "0",
            _certificate(provable.get(name), point),
        )
        for name in names
    )
    table = Table(
        title="Recall by kind",
        columns=("kind", "test parts held back", "calibration parts", "certificate of this kind"),
        rows=rows,
        caption="An average hides kinds that are missed. Few parts of a kind prove little.",
    )
    shown = {name: estimate for name, estimate in found.items() if estimate.n}
    blocks: list[Block] = [table]
    if shown:
        caption = "Share of faulty test parts held back, two-sided 95 % intervals."
        blocks.append(plots.bars("Recall by kind", caption, shown, y_label="recall [-]"))
    return Section(
        title="Kinds of defects",
        lead="Which defects are found, and which are not.",
        blocks=tuple(blocks),
    )


def _certificate(certificate: KindCertificate | None, point: OperatingPoint) -> str:
    """Return what the calibration parts of one kind prove at the threshold in use."""
    if certificate is None:
        return "unprovable: no calibration part"
    if certificate.threshold is None:
        best = np.floor(certificate.best_recall * 1000) / 1000
        return f"unprovable: {certificate.n} of {certificate.needed} parts; at best {best:.3f}"
    if point.threshold <= certificate.threshold:
        return "proven at the threshold in use"
    return f"not proven: needs a threshold of {certificate.threshold:.3f}"


def slices(study: Study) -> Section:
    """Show the primary metric for every value of the further columns of the data."""
    outcomes = study.best.outcomes["test"]
    metric = study.application.metrics[0]
    names = sorted({name for o in outcomes for name in o.slices} - {"kind"})
    rows = []
    for name in names:
        found = by_slice(outcomes, metric, name, study.run.rng(f"slice {name}"))
        found = {value: e for value, e in found.items() if not np.isnan(e.value)}
        if 2 <= len(found) <= MOST_VALUES:
            rows += [(name, value, e.text()) for value, e in found.items()]
    if not rows:
        return Section(title="Slices")
    table = Table(
        title="Image AUROC by column of the data",
        columns=("column", "value", "image AUROC"),
        rows=tuple(rows),
        caption="Columns with up to ten values, values with both good and faulty pictures; "
        "parts are the independent units of the two-sided 95 % intervals.",
    )
    return Section(
        title="Slices",
        lead="The same metric for every exposure, product and batch: an average hides weak ones.",
        blocks=(table,),
    )


def costs(study: Study) -> Section:
    """Show expected cost over prevalence and the rates at production prevalence."""
    point, groups = _point(study), _test_groups(study)
    if not len(groups.positive) or not len(groups.negative):
        return Section(title="Costs")
    config = study.config
    curve = cost_curve(
        groups,
        point,
        cost_ratio=config.cost_ratio,
        review_cost=config.review_cost,
    )
    x = np.asarray(curve.prevalence)
    series: Mapping[str, tuple[plots.Array, plots.Array]] = {
        "operating point": (x, curve.cost),
        "review everything": (x, curve.review_all),
        "ship everything": (x, curve.accept_all),
        "reject everything": (x, curve.reject_all),
    }
    rates = at_prevalence(decision_rates(groups, point), config.prevalence)
    precision = precision_at_prevalence(groups, point, config.prevalence, point.confidence)
    escapes = misses_per_million(groups, point, config.prevalence, point.confidence)
    rows = (
        ("escapes per million shipped", per_million_text(escapes)),
        (
            "faulty among those held back",
            precision.reason if precision.low is None else precision.text(),
        ),
        ("first-pass yield", f"{rates.first_pass_yield:.3f}"),
        ("share that a person reviews", f"{rates.review_share:.3f}"),
    )
    return Section(
        title="Costs in production",
        lead=(
            f"One escaped faulty part costs as much as {config.cost_ratio:g} good parts rejected, "
            f"a look by a person as much as {config.review_cost:g} (settings cost_ratio and "
            "review_cost)."
        ),
        blocks=(
            Table(
                title=f"At a prevalence of {100 * config.prevalence:.3g} % faulty parts",
                columns=("quantity", "value"),
                rows=rows,
                caption="From the test parts' rates; the reviewer is assumed to be right.",
            ),
            plots.lines(
                "Expected cost per part",
                "Lower is better; where the lines cross, another policy becomes cheaper. The area "
                "is the 95 % interval of the operating point.",
                series,
                x_label="share of faulty parts in production [-]",
                y_label="cost / worst cost [-]",
                log_x=True,
                log_y=True,
                band=None if curve.low is None or curve.high is None else (curve.low, curve.high),
            ),
            _break_even(curve),
        ),
    )


def per_million_text(estimate: Estimate) -> str:
    """Return the interval of a number per million, its upper end first where none was seen."""
    if estimate.low is None or estimate.high is None:
        return estimate.reason
    named = estimate.method.split(", ", 1)[1]
    if not estimate.value:
        return f"at most {estimate.high:,.0f} ({named}; none was seen)"
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f}, {named})"


def _break_even(curve: CostCurve) -> str:
    """Return the share of faulty parts above which reviewing everything is cheaper."""
    crossing = curve.break_even_prevalence
    if crossing is None:
        cheaper = "cheaper" if curve.cost[0] < curve.review_all[0] else "more expensive"
        return f"At every prevalence the operating point is {cheaper} than reviewing all parts."
    return (
        f"The operating point and a review of every part cost the same where "
        f"{100 * crossing:.3g} % of the parts are faulty."
    )


def _point(study: Study) -> OperatingPoint:
    point: OperatingPoint = study.best.model.operating.point
    return point


def _test_groups(study: Study) -> UnitScores:
    return unit_scores(study.best.outcomes["test"], _point(study).rule)
