"""Statistics with the group (part, person, song, machine) as the independent unit.

Measures: rankings, rates, calibration, agreement, bootstrap over groups. Risk: operating points
that keep a stated guarantee, decisions, costs.
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
from lineside.core.statistics.calibration import CalibrationCurve, brier, calibration_curve
from lineside.core.statistics.certificate_simulation import Simulation, simulate_certificates
from lineside.core.statistics.costs import CostCurve, ProductionRates, at_prevalence, cost_curve
from lineside.core.statistics.decisions import DecisionRates, decision_rates, rate_estimates
from lineside.core.statistics.fresh_evidence import check_promise, recall_statement
from lineside.core.statistics.guarantee_by_kind import KindCertificate, certify_kinds
from lineside.core.statistics.operating_points import (
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
    fpr_at_recall,
    oracle_f1_max,
    pr_curve,
    rank,
    recall_at_fpr,
    roc_curve,
)
from lineside.core.statistics.thresholds import (
    best_provable_recall,
    conformal_p_values,
    conformal_risk_threshold,
    expected_violation,
    false_reject_threshold,
    order_statistic,
    order_statistic_threshold,
    parts_needed,
)
from lineside.core.statistics.unit_scores import GroupScores, Rule, by_group, group_scores

__all__ = [
    "CalibrationCurve",
    "CostCurve",
    "DecisionRates",
    "GroupScores",
    "KindCertificate",
    "OperatingPoint",
    "ProductionRates",
    "RankMetric",
    "Ranking",
    "Rule",
    "Simulation",
    "Units",
    "at_prevalence",
    "auroc",
    "average_precision",
    "best_provable_recall",
    "brier",
    "by_group",
    "by_slice",
    "calibration_curve",
    "certify_kinds",
    "check_promise",
    "clopper_pearson",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "cohen_kappa",
    "conformal_p_values",
    "conformal_risk_threshold",
    "cost_curve",
    "decision_rates",
    "estimate",
    "expected_violation",
    "false_reject_threshold",
    "fpr_at_recall",
    "group_scores",
    "operating_point",
    "oracle_f1_max",
    "order_statistic",
    "order_statistic_threshold",
    "paired_difference",
    "parts_needed",
    "pr_curve",
    "proportion",
    "rank",
    "rate_estimates",
    "recall_at_fpr",
    "recall_statement",
    "reject_threshold",
    "roc_curve",
    "simulate_certificates",
    "wilson",
    "worst_cases",
]
