"""From scores to alarms: calibration, alarm logic, operator actions, verdict."""

from lineside.machines.alarms.calibration import Calibration, calibrate, limit_for_budget
from lineside.machines.alarms.logic import Alarm, Rules

__all__ = ["Alarm", "Calibration", "Rules", "calibrate", "limit_for_budget"]
