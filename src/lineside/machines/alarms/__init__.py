"""From scores to alarms: calibration on held-out rows, the state machine, the baseline's guard."""

from lineside.machines.alarms.baseline import (
    Learned,
    drift_along,
    robust_spread,
    run_in_rows,
    spread_within,
    steady_drift,
)
from lineside.machines.alarms.calibration import Calibration, calibrate, limit_for_budget
from lineside.machines.alarms.logic import Alarm, Rules

__all__ = [
    "Alarm",
    "Calibration",
    "Learned",
    "Rules",
    "calibrate",
    "drift_along",
    "limit_for_budget",
    "robust_spread",
    "run_in_rows",
    "spread_within",
    "steady_drift",
]  # fmt: skip
