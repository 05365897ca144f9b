"""The statistics of the house: rankings, rates, calibration, agreement, bootstrap over groups."""

from __future__ import annotations

from lineside.core.measures.bootstrap import (
    RankMetric,
    Units,
    by_slice,
    estimate,
    paired_difference,
    worst_cases,
)
from lineside.core.measures.calibration import CalibrationCurve, brier, calibration_curve
from lineside.core.measures.proportions import (
    clopper_pearson,
    clopper_pearson_lower,
    clopper_pearson_upper,
    cohen_kappa,
    proportion,
    wilson,
)
from lineside.core.measures.ranking import (
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

__all__ = [
    "CalibrationCurve",
    "RankMetric",
    "Ranking",
    "Units",
    "auroc",
    "average_precision",
    "brier",
    "by_slice",
    "calibration_curve",
    "clopper_pearson",
    "clopper_pearson_lower",
    "clopper_pearson_upper",
    "cohen_kappa",
    "estimate",
    "fpr_at_recall",
    "oracle_f1_max",
    "paired_difference",
    "pr_curve",
    "proportion",
    "rank",
    "recall_at_fpr",
    "roc_curve",
    "wilson",
    "worst_cases",
]
