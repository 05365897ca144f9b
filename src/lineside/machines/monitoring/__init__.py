"""Judging one machine over time: operating states, sensors, prognosis, the session."""
