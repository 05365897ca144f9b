"""Statistics with the group (part, person, song, machine) as the independent unit.

Measures: rankings, rates, agreement, bootstrap over groups. Risk: operating points that guarantee a
recall, decisions, costs. Positive is what is to be detected; the application gives the words.
"""

from __future__ import annotations

from lineside.core.statistics.bootstrap import (
    RankMetric,
    Units,
    by_slice,
    estimate,
    paired_difference,
    worst_cases,
)
from lineside.core.statistics.costs import CostCurve, ProductionRates, at_prevalence, cost_curve
from lineside.core.statistics.decisions import DecisionRates, decision_rates, rate_estimates
from lineside.core.statistics.guarantees import (
    KindCertificate,
    certify_kinds,
    check_guarantee,
    fresh_recall,
)
from lineside.core.statistics.operating_points import (
    Decision,
    OperatingPoint,
    operating_point,
    reject_threshold,
)
from lineside.core.statistics.proportions import (
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    cohen_kappa,
    proportion,
    wilson,
)
from lineside.core.statistics.ranking import (
    Ranking,
    auroc,
    average_precision,
    pr_curve,
    rank,
    roc_curve,
)
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    conformal_risk_threshold,
    false_alarm_threshold,
    order_statistic,
    order_statistic_threshold,
    units_needed,
)
from lineside.core.statistics.units import (
    NEUTRAL,
    Rule,
    UnitScores,
    Words,
    per_unit,
    unit_scores,
)

__all__ = [
    "NEUTRAL",
    "CostCurve",
    "Decision",
    "DecisionRates",
    "KindCertificate",
    "OperatingPoint",
    "ProductionRates",
    "RankMetric",
    "Ranking",
    "Rule",
    "UnitScores",
    "Units",
    "Words",
    "at_prevalence",
    "auroc",
    "average_precision",
    "best_provable_recall",
    "by_slice",
    "certify_kinds",
    "check_guarantee",
    "clopper_pearson",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "cohen_kappa",
    "conformal_risk_threshold",
    "cost_curve",
    "decision_rates",
    "estimate",
    "false_alarm_threshold",
    "fresh_recall",
    "operating_point",
    "order_statistic",
    "order_statistic_threshold",
    "paired_difference",
    "per_unit",
    "pr_curve",
    "proportion",
    "rank",
    "rate_estimates",
    "reject_threshold",
    "roc_curve",
    "unit_scores",
    "units_needed",
    "wilson",
    "worst_cases",
]
