"""The chapters of a `parts` report that are about decisions: guarantee, rates, kinds, costs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lineside.core.contract import Check, Estimate, Figure, Section, Table
from lineside.core.report import plots
from lineside.core.report.chapters import verdict
from lineside.core.report.render import Block
from lineside.core.statistics.costs import CostCurve, at_prevalence, cost_curve
from lineside.core.statistics.decisions import decision_rates, rate_estimates
from lineside.core.statistics.estimates import by_slice
from lineside.core.statistics.guarantees import KindCertificate, certify_kinds, fresh_recall
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import proportion
from lineside.core.statistics.ranking import pr_curve
from lineside.core.statistics.units import UnitScores, unit_scores
from lineside.core.study import Study
from lineside.parts.models.anogan.training import against_chance
from lineside.parts.report import cases, label_gain
from lineside.parts.report.robustness import robustness

REVIEW_COST = 0.2
"""Cost of a manual review, in units of one good part rejected."""
MOST_VALUES = 10
OVERKILL = 0.3
"""Share of good parts held back from which on a guarantee costs too much to be of use."""
RATES = {
    "recall": "faulty parts held back (rejected or reviewed)",
    "miss": "faulty parts that escape",
    "false_alarm": "good parts rejected without a person",
    "review_negative": "good parts that a person reviews",
    "accepted_negative": "good parts accepted at once",
}


def summary(study: Study) -> list[str]:
    """Return plain-language paragraphs: fresh evidence, the guarantee, the baseline, the audit."""
    point = _point(study)
    groups = _test_groups(study)
    lines = [*_fresh_evidence(point, groups), point.message]
    lines.append(verdict(study))
    lines += [line for line in (label_gain.verdict(study),) if line]
    serious = [check for check in study.checks if check.status == "fail"]
    if serious:
        names = ", ".join(check.name for check in serious)
        lines.append(f"The data audit found serious problems first: {names}.")
    lines.append(f"What to do next: {_next_step(study, point, groups)}")
    return lines


def _next_step(study: Study, point: OperatingPoint, groups: UnitScores) -> str:
    """Return the one thing that helps most, in plain words."""
    run = study.run.folder
    if any(check.status == "fail" for check in study.checks):
        return "fix what the data audit names, then train again."
    if not point.certified:
        more = point.needed - point.n_positive
        if more <= 0:
            return f"recalibrate on fresh parts: lineside parts recalibrate DATA --model {run}"
        return (
            f"collect and label about {more} more faulty parts that the model was not trained on, "
            f"then run: lineside parts recalibrate DATA --model {run}. Until then treat the "
            "threshold as a suggestion and have rejected parts reviewed."
        )
    held_back = decision_rates(groups, point).held_negative if len(groups.negative) else 0.0
    if held_back > OVERKILL:
        return (
            f"look at the faulty parts with the lowest scores in the chapter on cases: they force "
            f"{held_back:.0%} of the good parts back. Label more parts like them, or allow more "
            "escapes (--max-escape)."
        )
    return (
        f"let it judge new parts beside your present inspection for a while: lineside parts "
        f"predict NEW --model {run}. Hold back what it rejects, and check some of what it accepts."
    )


def _fresh_evidence(point: OperatingPoint, groups: UnitScores) -> list[str]:
    """Return what the test parts show; nothing was set on them."""
    if not len(groups.positive):
        return ["There are no faulty test parts, so nothing is known about missed defects."]
    fresh = fresh_recall(groups.positive, point.threshold, point.confidence, point.words)
    missed = fresh.n - round(fresh.value * fresh.n)
    text = (
        f"On parts it has never seen it missed {missed} of {fresh.n} faulty ones: it misses at "
        f"most {1 - (fresh.low or 0.0):.1%} ({point.confidence:.0%} confidence)."
    )
    if len(groups.negative):
        rates = decision_rates(groups, point)
        text += (
            f" Of {len(groups.negative)} good ones it held back {rates.held_negative:.1%} "
            f"({rates.review_negative:.1%} for review, the rest rejected)."
        )
    return [text]


def sections(study: Study) -> list[Section]:
    """Return the chapters in reading order."""
    chapters = [
        weak_methods(study), label_gain.label_gain(study), operating(study), kinds(study),
        slices(study), costs(study), cases.cases(study),
    ]  # fmt: skip
    if study.config.robustness:
        chapters.append(robustness(study))
    chapters += [cases.guide(study), cases.audit_cases(study)]
    return [chapter for chapter in chapters if chapter.blocks]


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
    table = Table(
        title="Decisions on test parts",
        columns=("share", "estimate [interval]"),
        rows=tuple((text, rates[name].text()) for name, text in RATES.items()),
        caption=(
            f"Counted by part, decided by '{point.rule} view'; intervals are "
            f"Clopper-Pearson, {point.confidence:.0%}. The thresholds were set on other parts. "
            "Pictures of unusual quality go to review as well; they are not counted here."
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
    held = groups.scores >= point.threshold
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
    for name in names:
        scores = test.scores[np.array([k == name for k in test.kinds]) & (test.labels == 1)]
        found[name] = proportion(int((scores >= point.threshold).sum()), len(scores))
    provable = certify_kinds(
        calibration, recall=1 - study.config.max_escape, confidence=point.confidence
    )
    rows = tuple(
        (
            name,
            found[name].text(),
            str(provable[name].n) if name in provable else "0",
            _certificate(provable.get(name), point),
        )
        for name in names
    )
    table = Table(
        title="Recall by kind",
        columns=("kind", "recall on test parts", "calibration parts", "certificate of this kind"),
        rows=rows,
        caption="An average hides kinds that are missed. Few parts of a kind prove little.",
    )
    shown = {name: estimate for name, estimate in found.items() if estimate.n}
    blocks: list[Block] = [table]
    if shown:
        caption = "Share of faulty test parts held back at the operating point, 95 % intervals."
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
        "parts are the independent units of the intervals.",
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
        review_cost=REVIEW_COST,
        rng=study.run.rng("cost curve"),
    )
    x = np.asarray(curve.prevalence)
    series: Mapping[str, tuple[plots.Array, plots.Array]] = {
        "operating point": (x, curve.cost),
        "review everything": (x, curve.review_all),
        "ship everything": (x, curve.accept_all),
        "reject everything": (x, curve.reject_all),
    }
    rates = at_prevalence(decision_rates(groups, point), config.prevalence)
    rows = (
        ("escapes per million shipped", f"{rates.misses_per_million:.0f}"),
        ("faulty among those held back", f"{rates.precision:.3f}"),
        ("first-pass yield", f"{rates.first_pass_yield:.3f}"),
        ("share that a person reviews", f"{rates.review_share:.3f}"),
    )
    return Section(
        title="Costs in production",
        lead=(
            f"One escaped faulty part costs as much as {config.cost_ratio:g} good parts rejected, "
            f"a manual review as much as {REVIEW_COST:g} (cost_ratio is a setting)."
        ),
        blocks=(
            Table(
                title=f"At a prevalence of {config.prevalence:.2%} faulty parts",
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


def _break_even(curve: CostCurve) -> str:
    """Return the share of faulty parts above which reviewing everything is cheaper."""
    crossing = curve.break_even_prevalence
    if crossing is None:
        cheaper = "cheaper" if curve.cost[0] < curve.review_all[0] else "more expensive"
        return f"At every prevalence the operating point is {cheaper} than reviewing all parts."
    return (
        f"The operating point and a review of every part cost the same where {crossing:.2%} of the "
        "parts are faulty."
    )


def _point(study: Study) -> OperatingPoint:
    point: OperatingPoint = study.best.model.operating.point
    return point


def _test_groups(study: Study) -> UnitScores:
    return unit_scores(study.best.outcomes["test"], _point(study).rule)
