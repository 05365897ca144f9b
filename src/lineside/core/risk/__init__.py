"""Operating points for a stated risk, with the group (never the single item) as the unit."""

from __future__ import annotations

from lineside.core.risk.costs import CostCurve, ProductionRates, at_prevalence, cost_curve
from lineside.core.risk.decisions import DecisionRates, decision_rates, rate_estimates
from lineside.core.risk.evidence import check_promise, recall_statement
from lineside.core.risk.groups import GroupScores, Rule, by_group, group_scores
from lineside.core.risk.kinds import KindCertificate, certify_kinds
from lineside.core.risk.point import OperatingPoint, operating_point, reject_threshold
from lineside.core.risk.simulation import Simulation, simulate_certificates
from lineside.core.risk.thresholds import (
    best_provable_recall,
    conformal_p_values,
    conformal_risk_threshold,
    expected_violation,
    false_reject_threshold,
    order_statistic,
    order_statistic_threshold,
    parts_needed,
)

__all__ = [
    "CostCurve",
    "DecisionRates",
    "GroupScores",
    "KindCertificate",
    "OperatingPoint",
    "ProductionRates",
    "Rule",
    "Simulation",
    "at_prevalence",
    "best_provable_recall",
    "by_group",
    "certify_kinds",
    "check_promise",
    "conformal_p_values",
    "conformal_risk_threshold",
    "cost_curve",
    "decision_rates",
    "expected_violation",
    "false_reject_threshold",
    "group_scores",
    "operating_point",
    "order_statistic",
    "order_statistic_threshold",
    "parts_needed",
    "rate_estimates",
    "recall_statement",
    "reject_threshold",
    "simulate_certificates",
]
