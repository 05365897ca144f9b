"""Simulated machines with known faults: for the demo, the tests and what no data set can show."""

from lineside.machines.simulation.demo import FLEET, make_demo, save_history
from lineside.machines.simulation.rig import Condition, Rig, Sensor, measure, simulate_vibration
from lineside.machines.simulation.scenarios import (
    History,
    Scenario,
    SensorEpisode,
    severity_on,
    simulate_history,
)

__all__ = [
    "FLEET", "Condition", "History", "Rig", "Scenario", "Sensor", "SensorEpisode", "make_demo",
    "measure", "save_history", "severity_on", "simulate_history", "simulate_vibration",
]  # fmt: skip
