"""From scores to alarms: calibration on held-out rows, the state machine, the baseline's guard."""

from lineside.machines.alarms.baseline import (
    Learned,
    Learning,
    LearningGuard,
    drift_along,
    start_of_normal,
)
from lineside.machines.alarms.calibration import Calibration, calibrate, limit_for_budget
from lineside.machines.alarms.logic import Alarm, Rules

__all__ = [
    "Alarm",
    "Calibration",
    "Learned",
    "Learning",
    "LearningGuard",
    "Rules",
    "calibrate",
    "drift_along",
    "limit_for_budget",
    "start_of_normal",
]  # fmt: skip
