"""The decision that a report is for: use the model or not, by the user's own costs, and what next.

Everything is counted on test units, as prediction decides them, and set against what no model
costs: to accept all units unseen, or to have a person look at each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lineside.core.contract import Estimate, Fact, Section, Status, Table
from lineside.core.statistics.costs import Policy, Prices, policies
from lineside.core.statistics.decisions import TradeOff, decisions, trade_off
from lineside.core.statistics.operating_points import OperatingPoint
from lineside.core.statistics.proportions import count_text
from lineside.core.statistics.units import UnitScores

WITH_MODEL = ("as decided", "review what is held back")
WITHOUT = ("review all", "accept all")
MOST_TIMES = 20
"""As many times the present test units are tried to find how many would tell."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a model pays, and the numbers behind it.

    Attributes:
        status: ``ok`` to use it, ``warn`` where the units are too few to tell, ``fail`` otherwise.
        sentence: Begins with "Use it" or "Do not use it", and says why.
        test: The test units.
        point: The operating point.
        prices: The user's costs.
        policies: Expected costs by policy; empty where a class has no test unit.
        rows: Misses and false alarms by threshold.
        row_costs: Expected cost of each row, the cheaper one of both ways to use the model.
    """

    status: Status
    sentence: str
    test: UnitScores
    point: OperatingPoint
    prices: Prices
    policies: Mapping[str, Policy]
    rows: Sequence[TradeOff]
    row_costs: Sequence[float]

    def as_json(self) -> dict[str, Any]:
        """Return the numbers as plain JSON values."""
        rows = zip(self.rows, self.row_costs, strict=True)
        return {
            "status": self.status,
            "sentence": self.sentence,
            "prices": dataclasses.asdict(self.prices),
            "policies": {name: dataclasses.asdict(p) for name, p in self.policies.items()},
            "thresholds": [{**dataclasses.asdict(row), "cost": cost} for row, cost in rows],
        }


def decide(
    calibration: UnitScores, test: UnitScores, point: OperatingPoint, prices: Prices
) -> Decision:
    """Return whether to use the model at its operating point.

    It is used if the upper bound of its cost lies below what the cheaper policy without a model
    costs; that one is known exactly.

    Args:
        calibration: Units that the operating point was set on.
        test: Units that were used for nothing yet.
        point: The operating point.
        prices: The user's costs.
    """
    rows = trade_off(calibration, test, point)
    known = len(test.positive) > 0 and len(test.negative) > 0
    costs = policies(test, point, prices, point.confidence) if known else {}
    row_costs = [_cheapest(test, _moved(point, row), prices) if known else np.nan for row in rows]
    status, sentence = _verdict(test, point, costs)
    return Decision(
        status=status, sentence=sentence, test=test, point=point, prices=prices, policies=costs,
        rows=rows, row_costs=row_costs,
    )  # fmt: skip


def _moved(point: OperatingPoint, row: TradeOff) -> OperatingPoint:
    if row.in_use:
        return point
    return dataclasses.replace(point, threshold=row.threshold, reject_threshold=row.threshold)


def _cheapest(test: UnitScores, point: OperatingPoint, prices: Prices) -> float:
    found = policies(test, point, prices, point.confidence)
    return min(found[name].cost for name in WITH_MODEL)


def _verdict(
    test: UnitScores, point: OperatingPoint, costs: Mapping[str, Policy]
) -> tuple[Status, str]:
    words, named = point.words, f"one-sided {100 * point.confidence:.3g} %"
    for label, adjective, what in (
        (1, words.positive, "missed"),
        (0, words.negative, "held back"),
    ):
        if not (test.labels == label).any():
            return "fail", (
                f"Do not use it yet, because nothing is known about {adjective} {words.units} that "
                f"are {what}: no {adjective} {words.unit} was labelled for the test."
            )
    alone = min(costs[name].cost for name in WITHOUT)
    without = (
        f"{costs['review all'].cost:.3f} for looking at all {words.units} and "
        f"{costs['accept all'].cost:.3f} for shipping all unseen"
    )
    own = sorted((costs[name] for name in WITH_MODEL), key=lambda policy: policy.cost)
    alike = f"(one rejected {words.negative} {words.unit} = 1)"
    if point.suspended:
        return "warn", (
            f"Do not use it yet, because its guarantee is suspended ({point.suspended}), and the "
            f"bounds of its cost with it: it costs about {own[0].cost:.3f} a {words.unit}, against "
            f"{without} {alike}."
        )
    for policy in own:
        if policy.high < alone:
            person = "" if policy.name == "as decided" else f" with {_person(point)}"
            bound = f"{policy.cost:.3f} a {words.unit}, at most {policy.high:.3f} ({named})"
            return "ok", f"Use it{person}, because it costs {bound}, against {without} {alike}."
    how = {"as decided": "as it decides", "review what is held back": f"with {_person(point)}"}
    best = own[0]
    if best.cost < alone:
        counts = (
            f"{len(test.positive)} {words.positive} and {len(test.negative)} {words.negative} "
            f"test {words.units}"
        )
        return "warn", (
            f"Do not use it yet, because {counts} are too few to tell: {how[best.name]} it costs "
            f"{best.cost:.3f} a {words.unit}, perhaps up to {best.high:.3f} ({named}), against "
            f"{without} {alike}."
        )
    return "fail", (
        f"Do not use it, because it costs no less than no model: {costs['as decided'].cost:.3f} a "
        f"{words.unit} as it decides, {costs['review what is held back'].cost:.3f} "
        f"{how['review what is held back']}, against {without} {alike}."
    )


def _person(point: OperatingPoint) -> str:
    return f"a person who looks at each {point.words.unit} that it holds back"


def next_steps(decision: Decision) -> list[str]:
    """Return what helps most: units to label, or another threshold to accept."""
    point, words = decision.point, decision.point.words
    steps = []
    more = point.needed - point.n_positive
    if not point.certified and more > 0:
        steps.append(
            f"label about {more} more {words.positive} {words.units} that it was not trained on, "
            f"to calibrate on {point.needed}: only then a promise about escapes can be proven"
        )
    undecided = decision.status == "warn" and not point.suspended
    if undecided and (times := _times_to_tell(decision)):
        n = (times - 1) * len(decision.test.positive)
        steps.append(
            f"label about {n} more {words.positive} and "
            f"{(times - 1) * len(decision.test.negative)} more {words.negative} {words.units} to "
            "test on, and train again with them: at the present rates they would tell"
        )
    if (other := _better_row(decision)) is not None:
        steps.append(other)
    return steps


def _times_to_tell(decision: Decision) -> int:
    """Return how many times the test units would prove the present cost to be lower; 0: none."""
    test, alone = decision.test, min(decision.policies[name].cost for name in WITHOUT)
    for times in range(2, MOST_TIMES + 1):
        many = dataclasses.replace(
            test, scores=np.tile(test.scores, times), labels=np.tile(test.labels, times),
            usual=np.tile(test.usual, times),
        )  # fmt: skip
        found = policies(many, decision.point, decision.prices, decision.point.confidence)
        if min(found[name].high for name in WITH_MODEL) < alone:
            return times
    return 0


def _better_row(decision: Decision) -> str | None:
    """Return the cheapest threshold of the table in words, unless it is the one in use."""
    if not decision.policies:
        return None
    words = decision.point.words
    best = int(np.argmin(decision.row_costs))
    row, cost = decision.rows[best], decision.row_costs[best]
    now = next(
        c for r, c in zip(decision.rows, decision.row_costs, strict=True) if r.in_use
    )  # the threshold in use is always a row
    if row.in_use or row.proven_miss is None or cost >= now:
        return None
    missed, held = row.miss, row.held_negative
    return (
        f"accept that {_share(missed.value)} of {missed.n} {words.positive} {words.units} escape "
        f"(at most {_share(row.proven_miss)} by the calibration) for {_share(held.value)} of "
        f"{held.n} {words.negative} ones held back: the threshold {row.threshold:.3f} "
        f"costs {cost:.3f} a {words.unit} instead of {now:.3f} "
        f"(--max-escape {row.proven_miss:.3f})"
    )


def decision_facts(decision: Decision) -> list[Fact]:
    """Return the verdict, misses and false alarms at a glance."""
    point, words = decision.point, decision.point.words
    note = "the test lacks a class"
    if decision.policies:
        costs = {name: f"{policy.cost:.3f}" for name, policy in decision.policies.items()}
        best = min(decision.policies[name].cost for name in WITH_MODEL)
        note = (
            f"{best:.3f} a {words.unit}; looking at all {costs['review all']}, shipping all "
            f"{costs['accept all']}"
        )
    value = {"ok": "use it", "warn": "not yet", "fail": "do not use it"}[decision.status]
    facts = [
        Fact(
            label="by your costs", value=value, note=note, anchor="decision", status=decision.status
        )
    ]
    accepted, _ = decisions(decision.test, point)
    for label, event, text in (
        (1, accepted, f"{words.positive} {words.units} that escape"),
        (0, ~accepted, f"{words.negative} {words.units} held back"),
    ):
        of_label = decision.test.labels == label
        n, hits = int(of_label.sum()), int((event & of_label).sum())
        value, _, note = count_text(hits, n, point.confidence).partition(" (")
        facts.append(
            Fact(
                label=text, value=value if n else "unknown", anchor="decision",
                note=note.removesuffix(")") if n else "none in the test",
            )
        )  # fmt: skip
    return facts


def decision_section(decision: Decision) -> Section:
    """Return the tables behind the decision: cost by policy, and rates by threshold."""
    return Section(
        title="Decision",
        lead=f"Counted on {decision.point.words.units} that nothing was set on, as predict decides "
        "them.",
        blocks=(*_costs_table(decision), _thresholds_table(decision)),
        anchor="decision",
    )


def _costs_table(decision: Decision) -> list[Table]:
    if not decision.policies:
        return []
    words, prices = decision.point.words, decision.prices
    titles = {
        "as decided": "the model decides alone (a person sees its reviews)",
        "review what is held back": f"a person looks at each {words.unit} that it holds back",
        "review all": f"no model: a person looks at all {words.units}",
        "accept all": f"no model: ship all {words.units} unseen",
    }
    rows = tuple(
        (
            titles[name],
            f"{policy.cost:.3f}",
            f"{policy.high:.3f}" if name in WITH_MODEL else "exact",
        )
        for name, policy in decision.policies.items()
    )
    return [
        Table(
            title=f"Expected cost a {words.unit}",
            columns=("who decides", "cost", f"at most (one-sided {_percent(decision)})"),
            rows=rows,
            caption=f"One rejected {words.negative} {words.unit} costs 1, an escaped "
            f"{words.positive} one {prices.miss:g}, a look by a person {prices.review:g}; "
            f"{100 * prices.prevalence:.3g} % of all {words.units} are {words.positive} (settings "
            "cost_ratio, review_cost, prevalence). A person is taken to be right.",
        )
    ]


def _thresholds_table(decision: Decision) -> Table:
    words, test = decision.point.words, decision.test
    rows = []
    for row, cost in zip(decision.rows, decision.row_costs, strict=True):
        cells = [f"{row.threshold:.3f}{' in use' if row.in_use else ''}"]
        cells += [
            _short(estimate, decision.point.confidence)
            for estimate in (row.miss, row.held_negative)
        ]
        cells.append("unknown" if row.proven_miss is None else _share(row.proven_miss))
        cells.append("unknown" if np.isnan(cost) else f"{cost:.3f}")
        rows.append(tuple(cells))
    return Table(
        title="Another threshold: what escapes, and what is held back",
        columns=(
            "threshold",
            f"{words.positive} {words.units} that escape",
            f"{words.negative} {words.units} held back",
            "escape at most, by calibration",
            f"cost a {words.unit}",
        ),
        rows=tuple(rows),
        marked=tuple(i for i, row in enumerate(decision.rows) if row.in_use),
        caption=f"{len(test.positive)} {words.positive} and {len(test.negative)} {words.negative} "
        f"test {words.units}; held back: rejected, or looked at by a person. Intervals are "
        f"two-sided ({_percent(decision)}), one-sided where none or all were counted (at most, at "
        f"least). The thresholds come from the calibration {words.units}; their own bound is "
        "one-sided and holds for each row alone.",
    )


def _short(estimate: Estimate, confidence: float) -> str:
    """Return e.g. ``4 of 28 (5.0 % to 29.8 %)``; the caption names the sides and the confidence."""
    if not estimate.n:
        return "unknown: none in the test"
    text = count_text(round(estimate.value * estimate.n), estimate.n, confidence)
    counts, _, interval = text.removesuffix(")").partition(" (")
    return f"{counts} ({interval.split('; ')[-1].split(', ')[0]})"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _percent(decision: Decision) -> str:
    return f"{100 * decision.point.confidence:.3g} %"
