"""From scores to alarms: calibration, alarm logic, operator actions, verdict."""
